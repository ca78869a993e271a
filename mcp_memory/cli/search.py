"""`mcp-memory search`: what was said and kept, found by a person."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from mcp_memory.cli.output import lenient, printable
from mcp_memory.owner.client import ask
from mcp_memory.settings import Settings, load_settings
from mcp_memory.values.records import ROLES, Kind

if TYPE_CHECKING:
    from rich.text import Text

ANSWER_SECONDS: Final = 60.0
"""A search may wait until the model is loaded."""

NO_MODEL: Final = "`mcp-memory doctor` says what to do"

BOTH: Final = ("conversation", "archival")
_TITLES: Final = {"conversation": "said", "archival": "kept"}


@click.command()
@click.argument("query")
@click.option(
    "--tier",
    type=click.Choice([*BOTH, "all"]),
    default="all",
    show_default=True,
    help="Messages, memories or both; a filter that only one has leaves out the other.",
)
@click.option("--agent", help="Whose memory; the set agent without.")
@click.option(
    "--limit", type=click.IntRange(1, 50), default=10, show_default=True, help="Hits of each tier."
)
@click.option("--kind", "kinds", type=click.Choice([kind.value for kind in Kind]), multiple=True)
@click.option("--tag", "tags", multiple=True, help="Memories that have any of these tags.")
@click.option("--role", "roles", type=click.Choice(ROLES), multiple=True)
@click.option("--conversation", help="Messages of this conversation alone.")
@click.option("--from", "start", metavar="DATE", help="From this day or moment on.")
@click.option("--to", "end", metavar="DATE", help="Up to this day, included, or this moment.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead.")
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
    """Search all that was said and kept for QUERY, as the models do.

    It asks the owner of the database if one runs, and opens the database if not. While
    there is no embedding model, it goes by words alone and says so; none is fetched.
    """
    settings = load_settings()
    tiers = _tiers(tier, messages=bool(roles or conversation), memories=bool(kinds or tags))
    found = asked(
        settings,
        "search",
        agent,
        {
            "query": query,
            "tiers": tiers,
            "limit": limit,
            "kinds": list(kinds),
            "tags": list(tags),
            "roles": list(roles),
            "conversation": conversation,
            "from": start,
            "to": end,
        },
    )
    if as_json:
        click.echo(json.dumps({"query": query, **found}, ensure_ascii=False, indent=2))
        return
    _print(found, settings)


def asked(settings: Settings, op: str, agent: str | None, params: dict[str, Any]) -> dict[str, Any]:
    """Return the owner's answer; without an owner this process searches, and fetches no model.

    Raises:
        MemoryFault: It was refused, or the owner doesn't answer.
    """
    own = {"agent": agent or settings.agent, "timezone": settings.timezone}
    alone = settings.model_copy(update={"offline": True})
    engine = logging.getLogger("mcp_memory.tiers.engine")
    level = engine.level
    # That there is no model is said with the hits.
    engine.setLevel(logging.ERROR)
    try:
        return ask(alone, op, {**own, **params}, ANSWER_SECONDS)
    finally:
        engine.setLevel(level)


def _tiers(tier: str, *, messages: bool, memories: bool) -> list[str]:
    """Return which tiers are searched.

    Raises:
        click.UsageError: A filter is given that none of them has.
    """
    chosen = BOTH if tier == "all" else (tier,)
    kept = [name for name in chosen if not (memories if name == "conversation" else messages)]
    if not kept or (tier != "all" and list(chosen) != kept):
        raise click.UsageError(
            "--kind and --tag choose memories, --role and --conversation messages:"
            " one tier can't have both"
        )
    return kept


def _print(found: dict[str, Any], settings: Settings) -> None:
    from rich.console import Console
    from rich.text import Text

    lenient()
    console = Console(highlight=False, soft_wrap=True)
    for note in dict.fromkeys(part["note"] for part in found.values() if part["note"]):
        console.print(Text(f"{printable(note)}; {NO_MODEL}", style="yellow"))
    for tier, part in found.items():
        results = part["results"]
        shown = f", the best {len(results)} shown" if len(results) < part["total"] else ""
        console.print(Text(f"{_TITLES[tier]}: {part['total']} found{shown}", style="bold"))
        for hit in results:
            console.print(_heading(hit, settings))
            console.print(highlighted(hit))


def _heading(hit: dict[str, Any], settings: Settings) -> Text:
    """Return score, date, who or what, id, and why it was found."""
    from rich.text import Text

    at = datetime.fromisoformat(hit["at"]).astimezone(settings.zone)
    if "role" in hit:
        who = f"{hit['role']} {hit['name']}" if hit["name"] else hit["role"]
        what = f"{who} in {hit['conversation']} {hit['index']}"
    else:
        what = " ".join([hit["kind"], *(f"#{tag}" for tag in hit["tags"])])
    return Text.assemble(
        (f"{hit['score']:.3f}", "bold green"),
        (f"  {at:%Y-%m-%d %H:%M}  ", "dim"),
        (printable(what), "cyan"),
        (f"  {hit['id']}  {', '.join(hit['why'])}", "dim"),
    )


def highlighted(hit: dict[str, Any]) -> Text:
    """Return a hit's text in one indented line, what matched in bold."""
    from rich.text import Text

    # A letter in the place of each, so that the ranges still fit.
    text = "".join(letter if letter.isprintable() else " " for letter in hit["text"])
    shown = Text("    " + text)
    for start, end in hit["matches"]:
        shown.stylize("bold yellow", start + 4, end + 4)
    return shown
