"""`mcp-memory explain`: how a search ranks its hits."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from mcp_memory.cli.output import echo_json, line
from mcp_memory.cli.search import (
    BOTH,
    NO_MODEL,
    highlighted,
    know_agent,
    search_settings,
    wait_for_model,
)
from mcp_memory.owner.client import session

if TYPE_CHECKING:
    from rich.console import Console

    from mcp_memory.settings import Settings

_FILE_COLUMNS: Final = 100


@click.command()
@click.argument("query")
@click.option("--tier", type=click.Choice([*BOTH, "all"]), default="all", show_default=True)
@click.option("--agent", help="Whose memory; default: MCP_MEMORY_AGENT.")
@click.option("--limit", type=click.IntRange(1, 50), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def explain(query: str, *, tier: str, agent: str | None, limit: int, as_json: bool) -> None:
    """Show why a search for QUERY finds its hits, and in this order.

    First how the question was understood: its terms with their idf, and the speakers
    and times it names. Then the first hits: each signal's strength, in standard
    deviations above the mean, times its weight; the ranks by words alone and by meaning
    alone; and how much age and similar hits reduce the score.
    """
    if not query.strip():
        raise click.UsageError("QUERY is empty: give the words of the search")
    settings = search_settings(agent)
    asked = {
        "agent": settings.agent,
        "settings": {"timezone": settings.timezone},
        "query": query,
        "tiers": list(BOTH) if tier == "all" else [tier],
        "limit": limit,
    }
    with session(settings, "explain", background=True) as opened:
        know_agent(opened, settings)
        wait_for_model(opened, settings.agent)
        found = opened.operate("explain", asked)
    if as_json:
        echo_json({"query": query, **found})
        return
    from rich.console import Console

    # A file has room for lines that a terminal would fold.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_COLUMNS)
    for name, part in found.items():
        _print(console, name, part, settings)


def _print(console: Console, tier: str, part: dict[str, Any], settings: Settings) -> None:
    from rich.table import Table
    from rich.text import Text

    by = "words and meaning"
    if part["search"] == "lexical":
        by = "words alone"
        if part["model"] != "ready":
            by += f": the embedding model is {part['model']}; {NO_MODEL}"
    console.print(line(f"{tier}: {part['total']} found, by {by}", "bold"), soft_wrap=True)
    for told in _question(part, settings):
        console.print(line(f"  {told}"), soft_wrap=True)
    table = Table("#", "score", "signal", "words", "meaning", "age", "alike", box=None)
    for rank, hit in enumerate(part["hits"], 1):
        table.add_row(
            str(rank),
            f"{hit['score']:.3f}",
            Text("\n".join(_signals(hit))),
            _rank(hit["by_words"]),
            _rank(hit["by_meaning"]),
            f"{hit['faded']:.2f}",
            f"{hit['crowded']:.2f}",
        )
    if part["hits"]:
        console.print(table)
        legend = "words, meaning: the rank by each alone; age, alike: factors that reduce the score"
        console.print(line(legend, "dim"), soft_wrap=True)
    for rank, hit in enumerate(part["hits"], 1):
        heading = f"{rank}. {hit['id']}  {', '.join(hit['why'])}"
        console.print(line(heading, "dim"), soft_wrap=True)
        console.print(highlighted(hit), soft_wrap=True)


def _question(part: dict[str, Any], settings: Settings) -> list[str]:
    """Return how the question was understood."""
    terms = (f"{term} {'-' if idf is None else idf}" for term, idf in part["terms"].items())
    shown = [f"terms and idf: {', '.join(terms) or 'none'}"]
    if part["speakers"]:
        shown.append(f"speakers: {', '.join(part['speakers'])}")
    for named in part["times"]:
        start, end = (
            datetime.fromisoformat(named[at]).astimezone(settings.zone) for at in ("from", "to")
        )
        shown.append(f"time: {named['text']!r} is {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}")
    return shown


def _signals(hit: dict[str, Any]) -> list[str]:
    return [
        f"{name}: {of['standing']:.2f} x {of['weight']:.2f} = {of['adds']:.2f}"
        + ("" if of["own"] else " *")
        for name, of in hit["signals"].items()
    ]


def _rank(rank: int | None) -> str:
    return "-" if rank is None else str(rank)
