"""`mcp-memory search`: recall and archival memory, searched by a person."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from mcp_memory.cli.output import echo_json, line
from mcp_memory.owner.admin import EXCERPT_CHARS
from mcp_memory.owner.client import session
from mcp_memory.settings import Settings, load_settings
from mcp_memory.values.errors import NotFound
from mcp_memory.values.records import ROLES, Kind

if TYPE_CHECKING:
    from rich.text import Text

    from mcp_memory.owner.client import CommandSession

NO_MODEL: Final = "`mcp-memory doctor` says what to do"

MESSAGES: Final = "conversation"
MEMORIES: Final = "archival"
BOTH: Final = (MESSAGES, MEMORIES)
_TITLES: Final = {MESSAGES: "messages", MEMORIES: "memories"}

_REPLY_TOKENS: Final = 100_000
"""The largest that the setting allows, so that a reply has as many hits as are asked for."""

_LOADING_SECONDS: Final = 30.0
"""By judgement: the default model loads in about a second."""

_POLL_SECONDS: Final = 0.05


@click.command()
@click.argument("query", default="")
@click.option(
    "--tier",
    type=click.Choice([*BOTH, "all"]),
    default="all",
    show_default=True,
    help="Search messages, memories or both; a filter of only one leaves out the other.",
)
@click.option("--agent", help="Whose memory; default: MCP_MEMORY_AGENT.")
@click.option(
    "--limit", type=click.IntRange(1, 50), default=10, show_default=True, help="Hits in each tier."
)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice([kind.value for kind in Kind]),
    multiple=True,
    help="Only memories of these kinds.",
)
@click.option("--tag", "tags", multiple=True, help="Only memories with any of these tags.")
@click.option(
    "--role", "roles", type=click.Choice(ROLES), multiple=True, help="Only messages by these."
)
@click.option("--conversation", help="Only messages of this conversation.")
@click.option("--from", "start", metavar="DATE", help="Not before this day or time.")
@click.option("--to", "end", metavar="DATE", help="Not after this day or time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def search(
    query: str,
    *,
    tier: str,
    agent: str | None,
    limit: int,
    kinds: Sequence[str],
    tags: Sequence[str],
    roles: Sequence[str],
    conversation: str | None,
    start: str | None,
    end: str | None,
    as_json: bool,
) -> None:
    """Search messages and memories for QUERY, as the models do; without it, list the newest.

    If the embedding model is not there, the search uses words alone and says so; the
    model is not fetched.
    """
    settings = search_settings(agent)
    tiers = _tiers(tier, messages=bool(roles or conversation), memories=bool(kinds or tags))
    given = {"query": query.strip() or None, "start_date": start, "end_date": end}
    found: dict[str, Any] = {}
    with session(settings, "search", background=True) as opened:
        know_agent(opened, settings)
        if given["query"]:
            wait_for_model(opened, settings.agent)
        if MESSAGES in tiers:
            only = {"roles": list(roles) or None, "conversation": conversation, "limit": limit}
            found[MESSAGES] = _hits(opened, "conversation_search", {**given, **only}, limit)
        if MEMORIES in tiers:
            only = {"kinds": list(kinds) or None, "tags": list(tags) or None, "top_k": limit}
            found[MEMORIES] = _hits(opened, "archival_memory_search", {**given, **only}, limit)
    if as_json:
        echo_json({"query": given["query"], **found})
        return
    _print(found, settings)


def search_settings(agent: str | None) -> Settings:
    """Return the settings of a search by a person, who reads more than a model does."""
    settings = load_settings(**({} if agent is None else {"agent": agent}))
    # Offline: a command that only looks doesn't fetch a model.
    return settings.model_copy(update={"offline": True, "max_reply_tokens": _REPLY_TOKENS})


def know_agent(opened: CommandSession, settings: Settings) -> None:
    """Refuse an agent that has nothing stored if others have: its name is likely misspelt.

    Raises:
        NotFound: It is such an agent.
    """
    agents = opened.operate("agents", {})["agents"]
    if agents and settings.agent not in agents:
        raise NotFound(
            f"agent {settings.agent!r} has stored nothing in {settings.db}",
            key=settings.agent,
            hint=f"Agents there: {', '.join(map(repr, agents))}",
        )


def wait_for_model(opened: CommandSession, agent: str) -> None:
    """Wait until the model is loaded, if it is being loaded."""
    deadline = time.monotonic() + _LOADING_SECONDS
    while opened.operate("model", {"agent": agent})["state"] == "loading":
        if time.monotonic() > deadline:
            return
        time.sleep(_POLL_SECONDS)


def _hits(opened: CommandSession, tool: str, given: dict[str, Any], limit: int) -> dict[str, Any]:
    """Return `{total, search, note, results}` of a search tool, over as many pages as it takes."""
    from mcp_memory.agent.excerpts import excerpt

    found = opened.call(tool, **given)
    results: list[dict[str, Any]] = list(found["results"])
    page = found
    while len(results) < limit and "next_cursor" in page:
        page = opened.call(tool, **given, cursor=page["next_cursor"])
        results.extend(page["results"])
    for hit in results:
        hit["text"], hit["matches"] = excerpt(hit["text"], given["query"] or "", EXCERPT_CHARS)
    return {
        "total": found["total"],
        "search": found["search"],
        "note": found.get("note"),
        "results": results[:limit],
    }


def _tiers(tier: str, *, messages: bool, memories: bool) -> list[str]:
    """Return the tiers to search.

    Raises:
        click.UsageError: No tier has all the filters that are given.
    """
    chosen = BOTH if tier == "all" else (tier,)
    kept = [name for name in chosen if not (memories if name == "conversation" else messages)]
    if not kept or (tier != "all" and list(chosen) != kept):
        raise click.UsageError(
            "--kind and --tag are for memories, --role and --conversation for messages:"
            " they can't be used together"
        )
    return kept


def _print(found: dict[str, Any], settings: Settings) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for note in dict.fromkeys(part["note"] for part in found.values() if part["note"]):
        console.print(line(f"{note}; {NO_MODEL}", "yellow"))
    for tier, part in found.items():
        results = part["results"]
        listed = part["search"] == "listing"
        shown = ""
        if len(results) < part["total"]:
            shown = f", the {'newest' if listed else 'best'} {len(results)} shown"
        verb = "stored" if listed else "found"
        console.print(line(f"{_TITLES[tier]}: {part['total']} {verb}{shown}", "bold"))
        for hit in results:
            console.print(_heading(hit, settings))
            console.print(highlighted(hit))


def _heading(hit: dict[str, Any], settings: Settings) -> Text:
    """Return score, date, who or what, id, and why it was found."""
    from rich.text import Text

    at = datetime.fromisoformat(hit["at"]).astimezone(settings.zone)
    if "role" in hit:
        who = f"{hit['role']} {hit['name']}" if "name" in hit else hit["role"]
        what = f"{who} in {hit['conversation']} {hit['index']}"
    else:
        what = " ".join([hit["kind"], *(f"#{tag}" for tag in hit["tags"])])
    # A listing by date has no scores.
    return Text.assemble(
        line(f"{hit['score']:.3f}  " if hit.get("why") else "", "bold green"),
        line(f"{at:%Y-%m-%d %H:%M}  ", "dim"),
        line(what, "cyan"),
        line(f"  {hit['id']}  {', '.join(hit.get('why', ()))}".rstrip(), "dim"),
    )


def highlighted(hit: dict[str, Any]) -> Text:
    """Return a hit's text as one indented line with the matching words in bold."""
    from rich.text import Text

    text, shown, last = hit["text"], Text("    "), 0
    for start, end in hit["matches"]:
        first = max(start, last)
        shown.append_text(line(text[last:first]))
        shown.append_text(line(text[first:end], "bold yellow"))
        last = max(last, end)
    return shown.append_text(line(text[last:]))
