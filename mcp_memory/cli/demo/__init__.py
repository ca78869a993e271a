"""`mcp-memory demo`: a long conversation in a small window, played against a real server."""

from __future__ import annotations

import sys
from io import TextIOWrapper

import click

# Long enough to read a line, short enough for the whole to stay under a minute.
PAUSE_SECONDS = 0.25
PLAIN_COLUMNS = 110
INTERRUPTED = 130


@click.command()
@click.option(
    "--window",
    "window_tokens",
    type=click.IntRange(min=3000),
    default=6000,
    show_default=True,
    metavar="TOKENS",
    help="Size of the context window to play with. A small one overflows more often.",
)
@click.option("--fast", is_flag=True, help="Don't pause between the lines.")
def demo(window_tokens: int, *, fast: bool) -> None:
    """Show in a minute what paging is.

    Starts a server on a temporary database, feeds it a conversation of half a year that is
    larger than its window, lets a scripted agent save what matters when the server warns, and
    then asks about details that left the window long ago. Nothing of yours is read or changed.

    Exit status 1: a question was not answered by the first five hits.
    """
    # Other commands must not wait for the SDK, nor the SDK for a `--help`.
    import anyio
    from rich.console import Console

    from mcp_memory.cli.demo.player import play
    from mcp_memory.cli.demo.show import Show

    for stream in (sys.stdout, sys.stderr):
        # The conversation has Chinese in it, and not every console has.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, width=None if terminal else PLAIN_COLUMNS)
    show = Show(console, pause_seconds=PAUSE_SECONDS if terminal and not fast else 0.0)
    try:
        answered = anyio.run(play, show, window_tokens)
    except KeyboardInterrupt:
        click.echo("stopped; the temporary database is removed", err=True)
        sys.exit(INTERRUPTED)
    if not answered:
        sys.exit(1)
