"""`mcp-memory schemas`: what the server announces, as JSON files and reference pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import click

from mcp_memory.cli.output import echo
from mcp_memory.cli.reference import settings_page

_TOOLS_PAGE: Final = """\
# Tools, resources and prompts

<!-- Generated from mcp_memory/server/ by `mcp-memory schemas`. -->

What a client gets, in the words that the model reads. [schemas/](../schemas) has the complete JSON.
A `?` marks an argument that may be omitted.
"""

_READING: Final = """
## How arguments are read

The schemas are strict; what is accepted is wider, because hosts change calls on their way. Text
that is stored is kept to the letter: `{"a":1}`, `null` or `123` as `content` stay what they are.

- Arguments that a host adds are passed over. A near miss of a name (`tag`, `topK`, `limit` for
  `top_k`, `text` for `content`, `old_str`) is taken for it; the reply's `note` says so, except for
  spelling. A name that may mean one of ours, such as `exclude_tags` or `offset`, is refused with
  the name that may be meant: dropping it would change the call.
- A list or object may be JSON text, one item may stand for a list, and some hosts put all arguments
  into one object. `tags: "home, work"` is two tags.
- `null`, an empty text, `"null"`, `"None"` and `"undefined"` mean that an optional argument isn't
  given; in a list such items are dropped. In a required text they are text.
- Numbers may come as text and texts as numbers. Case and outer blanks of labels, kinds, roles and
  `tag_match_mode` don't matter.
- `limit` and `top_k` over the maximum are cut, and the `note` says so. `tag_match_mode` without
  `tags` is ignored.
- Messages may have the form of OpenAI (chat completions, responses), Anthropic, Gemini, Bedrock,
  LangChain or the Vercel AI SDK. Parts of text are joined, calls of tools and their results become
  text, other parts are named: `[image]`. Roles such as `developer`, `model`, `human`, `ai` and
  `function` are known. A message that can't be stored is `null` in `ids`, and `refused` has its
  `index` and the `reason`; the others are stored.
- Dates may be ISO 8601 in any spelling with the year first, RFC 2822, or seconds, milliseconds or
  microseconds since 1970. A day, `2026-03` or `2026` is the whole of it; as the date of a message
  or memory, its beginning. `start_date` and `end_date` may be words: `yesterday`, `last week`. A
  date with its year last, such as `03/04/2026`, is refused.
- `old_content` is looked for to the letter, then in what differs only as copies do: escapes
  (`&lt;`), kinds of quotes, dashes, blanks and line breaks. `new_content` is stored as it is.
"""

_CHANGES: Final = """
## Changes of resources

Every resource that can be read can be subscribed to, in both protocol eras, and a notification
follows each commit that changes it, by whichever client. One that doesn't exist is an error that
names those that do; a stream acknowledges the ones that exist. Nothing is read to notify, so that
`resume` costs no more than the others: it changes with core memory, its conversation, and any
archival memory.
"""


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if anything has drifted.")
@click.option(
    "--root",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default=".",
    help="The checkout with schemas/ and docs/.",
)
def schemas(check: bool, root: Path) -> None:
    """Write schemas/*.json, docs/tools.md and docs/settings.md, or check them."""
    wanted = {root / "schemas" / name: text for name, text in schema_files().items()}
    if (root / "docs").is_dir():
        wanted[root / "docs" / "tools.md"] = tools_page()
        wanted[root / "docs" / "settings.md"] = settings_page()
    drifted = [
        path
        for path, text in wanted.items()
        if not path.exists() or path.read_text("utf-8") != text
    ]
    if not check:
        for path in drifted:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted[path], "utf-8", newline="\n")
            echo(f"wrote {path}")
    elif drifted:
        names = ", ".join(str(path) for path in drifted)
        raise click.ClickException(f"{names} differ: run `mcp-memory schemas` and commit them")
    echo(f"{len(wanted)} files are what the server announces")


def schema_files() -> dict[str, str]:
    """Return the text of each file of schemas/ by name."""
    from mcp_memory.server.app import tool_list
    from mcp_memory.server.prompts import PROMPTS
    from mcp_memory.server.resources import RESOURCES, TEMPLATES

    return {
        "tools.json": _dump({"tools": [_wire(tool) for tool in tool_list().tools]}),
        "resources.json": _dump(
            {
                "resources": [_wire(resource) for resource in RESOURCES],
                "resourceTemplates": [_wire(template) for template in TEMPLATES],
            }
        ),
        "prompts.json": _dump({"prompts": [_wire(spec.prompt) for spec in PROMPTS.values()]}),
    }


def tools_page() -> str:
    """Return the page of all tools, resources and prompts."""
    files = {name: json.loads(text) for name, text in schema_files().items()}
    lines = [_TOOLS_PAGE, "## Tools", "", "| tool | arguments | what it does |", "|---|---|---|"]
    for tool in files["tools.json"]["tools"]:
        required = tool["inputSchema"].get("required", [])
        arguments = ", ".join(
            name if name in required else f"{name}?" for name in tool["inputSchema"]["properties"]
        )
        lines.append(f"| `{tool['name']}` | {arguments or '–'} | {tool['description']} |")
    lines += [_READING, "## Resources", "", "| resource | what it shows |", "|---|---|"]
    resources = files["resources.json"]
    lines += [f"| `{item['uri']}` | {item['description']} |" for item in resources["resources"]]
    lines += [
        f"| `{item['uriTemplate']}` | {item['description']} |"
        for item in resources["resourceTemplates"]
    ]
    lines += [_CHANGES, "## Prompts", "", "| prompt | what it is for |", "|---|---|"]
    lines += [
        f"| `{item['name']}` | {item['description']} |" for item in files["prompts.json"]["prompts"]
    ]
    return "\n".join([*lines, ""])


def _wire(model: Any) -> dict[str, Any]:
    wire: dict[str, Any] = model.model_dump(by_alias=True, mode="json", exclude_none=True)
    return wire


def _dump(payload: object) -> str:
    return json.dumps(payload, ensure_ascii=False, indent=2) + "\n"
