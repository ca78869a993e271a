"""`mcp-memory demo`: a long conversation in a small context window, with a real server."""

from __future__ import annotations

import sys
from io import TextIOWrapper

import click

from mcp_memory.cli.output import echo

# Long enough to read a line, short enough for the demo to stay under a minute.
PAUSE_SECONDS = 0.25
# The width without a terminal: most lines fit; by judgement.
PLAIN_COLUMNS = 110
# What a shell reports for a process that SIGINT ended: 128 + 2.
INTERRUPTED = 130


@click.command()
@click.option(
    "--window",
    "window_tokens",
    type=click.IntRange(min=3000),
    default=6000,
    show_default=True,
    metavar="TOKENS",
    help="Size of the context window. A smaller one overflows more often.",
)
@click.option("--fast", is_flag=True, help="Don't pause between the lines.")
def demo(window_tokens: int, *, fast: bool) -> None:
    """Show in a minute what memory and paging do.

    Starts a server on a temporary database and feeds it a conversation of half a year that is
    larger than its context window. A scripted agent saves what matters when the server warns.
    Then it asks about details that left the window long ago. Your data is not touched.

    Exit status 1: a question was not answered by the first five hits.
    """
    # Imported here, so that other commands and `--help` don't wait for the SDK.
    import anyio
    from rich.console import Console

    from mcp_memory.cli.demo.player import play
    from mcp_memory.cli.demo.show import Show

    for stream in (sys.stdout, sys.stderr):
        # The conversation contains Chinese, which not every console can show.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, width=None if terminal else PLAIN_COLUMNS)
    show = Show(console, pause_seconds=PAUSE_SECONDS if terminal and not fast else 0.0)
    try:
        answered = anyio.run(play, show, window_tokens)
    except KeyboardInterrupt:
        echo("stopped; the temporary database was deleted", err=True)
        sys.exit(INTERRUPTED)
    if not answered:
        sys.exit(1)
