"""`mcp-memory summarize`: the summary of a conversation, shown or written anew from recall."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from mcp_memory.owner.client import ask
from mcp_memory.settings import DEFAULT_CONVERSATION, Settings, load_settings

_STEP_SECONDS = 60.0


@click.command()
@click.argument("conversation", default=DEFAULT_CONVERSATION)
@click.option("--agent", help="Whose conversation; the set agent without.")
@click.option("--rebuild", is_flag=True, help="Write it anew from every message that has left.")
@click.option("--by-endpoint", is_flag=True, help="Let the set endpoint write it; it may cost.")
def summarize(conversation: str, *, agent: str | None, rebuild: bool, by_endpoint: bool) -> None:
    """Show the summary of CONVERSATION, `main` without, or write it anew.

    Anew it is extracted from recall memory, in the steps in which messages have left
    the window, and put in the place of the newest summary; earlier versions are kept.
    """
    settings = load_settings()
    whose = {"agent": agent or settings.agent, "conversation": conversation}
    found = ask(settings, "summary.show", {**whose, "window": settings.context_window})
    if found["summary"] is None:
        click.echo(f"nothing has left the window of conversation {conversation!r} yet")
        return
    shown = found["summary"]
    if rebuild:
        shown = _rebuild(settings, whose, found, by_endpoint)
    at = datetime.fromisoformat(shown["created_at"]).astimezone(settings.zone)
    click.echo(
        f"messages {shown['first']} to {shown['last']} and all before; {shown['tokens']} tokens,"
        f" version {shown['version']}, {shown['author']}, {at:%Y-%m-%d %H:%M} {settings.timezone}\n"
    )
    click.echo(shown["content"])


def _rebuild(
    settings: Settings, whose: dict[str, str], found: dict[str, Any], by_endpoint: bool
) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    limit = found["limit"]
    seconds = _STEP_SECONDS + (4 * settings.summarizer_timeout_seconds if by_endpoint else 0)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    text: str | None = None
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for first, last in progress.track(found["ranges"], description="summarizing"):
            step = {**whose, "first": first, "last": last, "parent": text, "limit": limit}
            text = ask(settings, "summary.step", {**step, "by_endpoint": by_endpoint}, seconds)[
                "text"
            ]
    author = "endpoint" if by_endpoint else "extractive"
    new = {**whose, "of": found["summary"]["id"], "text": text, "author": author, "limit": limit}
    written: dict[str, Any] | None = ask(settings, "summary.put", new)["summary"]
    if written is None:
        raise click.ClickException("messages have left the window meanwhile: run it again")
    return written
