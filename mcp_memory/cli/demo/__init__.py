"""`mcp-memory demo`: a long conversation in a small context window, with a real server."""

from __future__ import annotations

import locale
import sys

import click

from mcp_memory.cli.output import echo, lenient

# Long enough to read a sentence, short enough for the demo to stay under a minute.
PAUSE_SECONDS = 1.0
# The width without a terminal, and the widest lines that are read with ease; by judgement.
PLAIN_COLUMNS = 88
MOST_COLUMNS = 100
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
@click.option("--fast", is_flag=True, help="Don't pause between the paragraphs.")
def demo(window_tokens: int, *, fast: bool) -> None:
    """Show in a minute why an assistant needs a memory, and what it does with one.

    Starts a server on a temporary database and tells it a conversation of half a year, far too
    long for the assistant's context window. Then it asks about what has left the window. The
    assistant is scripted; server, database and search are real. Your data is not touched.

    Exit status 1: a question was not answered by the first five results.
    """
    # Imported here, so that other commands and `--help` don't wait for the SDK.
    import anyio
    from rich.console import Console

    from mcp_memory.cli.demo.player import play
    from mcp_memory.cli.demo.show import Show

    lenient()
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, width=None if terminal else PLAIN_COLUMNS)
    console.width = min(console.width, MOST_COLUMNS)
    show = Show(
        console,
        pause_seconds=PAUSE_SECONDS if terminal and not fast else 0.0,
        ascii_only=_is_ascii(),
    )
    try:
        answered = anyio.run(play, show, window_tokens)
    except KeyboardInterrupt:
        echo("stopped; the temporary database was deleted", err=True)
        sys.exit(INTERRUPTED)
    if not answered:
        sys.exit(1)


def _is_ascii() -> bool:
    """Return whether the terminal shows ASCII alone; Python itself writes UTF-8 to such a one."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return encoding != "utf8" or locale.setlocale(locale.LC_CTYPE) in {"C", "POSIX"}
