"""`mcp-memory summarize`: the summary of a conversation, shown or rewritten from recall."""

from __future__ import annotations

from urllib.parse import quote

import click

from mcp_memory.cli.output import echo
from mcp_memory.cli.search import know_agent
from mcp_memory.owner.client import LONG_SECONDS, session
from mcp_memory.settings import DEFAULT_CONVERSATION, load_settings


@click.command()
@click.argument("conversation", default=DEFAULT_CONVERSATION)
@click.option("--agent", help="Whose conversation; default: MCP_MEMORY_AGENT.")
@click.option("--rebuild", is_flag=True, help="Rewrite it from every message it covers.")
@click.option(
    "--by-endpoint", is_flag=True, help="Let MCP_MEMORY_SUMMARIZER rewrite it; this may cost money."
)
def summarize(conversation: str, *, agent: str | None, rebuild: bool, by_endpoint: bool) -> None:
    """Show the summary of CONVERSATION (default: main), or rewrite it.

    A rewritten summary is extracted from recall memory and replaces the newest summary;
    earlier versions stay in the history.
    """
    settings = load_settings(**({} if agent is None else {"agent": agent}))
    uri = f"memory://conversations/{quote(conversation, safe='')}/summary"
    with session(settings, "summarize") as opened:
        know_agent(opened, settings)
        if rebuild:
            echo("rewriting the summary ...", err=True)
            asked = {
                "agent": settings.agent,
                "conversation": conversation,
                "window": settings.context_window,
                "by_endpoint": by_endpoint,
            }
            opened.operate("summary.rebuild", asked, LONG_SECONDS)
        text = opened.read(uri)
    echo(text or f"nothing has left the window of conversation {conversation!r} yet")
