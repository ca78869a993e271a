"""Output for a person: the only place where a command prints.

Whatever is printed, stored text included, is made visible first: a terminal never receives
what acts on it. A table on a terminal, plain lines elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

import click

from mcp_memory.values.visible import visible

if TYPE_CHECKING:
    from rich.text import Text


def echo(text: str = "", *, err: bool = False) -> None:
    """Print lines to stdout, or to stderr."""
    click.echo(visible(text, lines=True), err=err)


def echo_json(value: object, *, indent: int | None = 2) -> None:
    """Print a value as JSON; characters that are not seen or that act are `\\uXXXX`."""
    text = json.dumps(value, ensure_ascii=not _is_unicode(sys.stdout), indent=indent)
    if not text.isascii() or "\x7f" in text:
        text = "".join(
            letter if letter == "\n" or visible(letter) == letter else _escaped(letter)
            for letter in text
        )
    click.echo(text)


def show(rows: Sequence[tuple[str, str]], styles: Sequence[str] | None = None) -> None:
    """Print a subject and a text on each line; the subject is empty where the text goes on.

    Args:
        rows: The subject and the text of each line.
        styles: The rich style of each subject; default: bold.
    """
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        width = max((len(subject) for subject, _ in rows), default=0) + 1
        for subject, text in rows:
            colon = f"{subject}:" if subject else ""
            echo(f"{colon:<{width}} {visible(text)}")
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for (subject, text), style in zip(rows, styles or ["bold"] * len(rows), strict=True):
        table.add_row(line(subject, style), line(text))
    console.print(table)


def line(text: str, style: str = "") -> Text:
    """Return a text for rich: one line, visible, and never read as markup."""
    from rich.text import Text

    return Text(visible(re.sub(r"[\r\n\t]+", " ", text)), style=style)


def lenient() -> None:
    """Show characters that the console can't print as escapes; a path or a text may have some."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def end_quietly() -> None:
    """Let nothing be written at exit to a reader that has left, such as `head`."""
    for name in ("stdout", "stderr"):
        with contextlib.suppress(OSError, ValueError):
            getattr(sys, name).flush()
            continue
        setattr(sys, name, None)


def _is_unicode(stream: Any) -> bool:
    return str(getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"


def _escaped(letter: str) -> str:
    return json.dumps(letter)[1:-1] if letter != "\x7f" else "\\u007f"
