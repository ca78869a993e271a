"""Output for a person: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper

import click


def show(rows: Sequence[tuple[str, str]], styles: Sequence[str] | None = None) -> None:
    """Print a subject and a text on each line; the subject is empty where the text goes on.

    Args:
        rows: The subject and the text of each line.
        styles: The rich style of each subject; default: bold.
    """
    lenient()
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        width = max((len(subject) for subject, _ in rows), default=0) + 1
        for subject, text in rows:
            colon = f"{subject}:" if subject else ""
            click.echo(f"{colon:<{width}} {printable(text)}")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for (subject, text), style in zip(rows, styles or ["bold"] * len(rows), strict=True):
        # As text: a path may have what rich reads as markup.
        table.add_row(Text(subject, style=style), Text(printable(text)))
    console.print(table)


def lenient() -> None:
    """Replace characters that the console can't print; a path or a text may have some."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def printable(text: str) -> str:
    """Return a text without characters that move the cursor or change the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
