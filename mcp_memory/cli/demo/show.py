"""The output of the demo: plain lines, on any terminal or in a file.

Only ASCII is used besides the texts of the conversation; where the terminal can't show those
either, accents are left out. No text is read as markup, and none acts on the terminal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.text import Text

from mcp_memory.cli.output import line

BAR_CELLS: Final = 20
_LEAST_COLUMNS: Final = 20
_FULL: Final = "red"
_WARNED: Final = "yellow"


def clip(text: str, chars: int) -> str:
    """Return the text on one line of at most `chars` characters, cut between words."""
    whole = " ".join(text.split())
    if len(whole) <= chars:
        return whole
    kept, _, _ = whole[: chars - 2].rpartition(" ")
    return f"{kept or whole[: chars - 4]} ..."


def around(text: str, words: str, chars: int = 150) -> str:
    """Return about `chars` characters of the text on one line, with `words` in them."""
    whole, wanted = " ".join(text.split()), " ".join(words.split())
    at = max(whole.find(wanted), 0)
    start = max(0, min(at - (chars - len(wanted)) // 2, len(whole) - chars))
    if not start:
        return clip(whole, chars)
    start = whole.rfind(" ", 0, start + 1) + 1
    return f"... {clip(whole[start:], max(chars, at + len(wanted) - start + 4))}"


def bar(pressure: float) -> str:
    """Return a bar of fixed width for how full the window is."""
    filled = max(0, min(BAR_CELLS, round(pressure * BAR_CELLS)))
    return f"[{'#' * filled}{'.' * (BAR_CELLS - filled)}]"


@dataclass(frozen=True, slots=True)
class Show:
    """Prints the demo for a reader.

    Attributes:
        console: Where to print.
        pause_seconds: How long to pause after a paragraph, so that a person can follow.
        ascii_only: Whether the terminal shows nothing else.
    """

    console: Console
    pause_seconds: float = 0.0
    ascii_only: bool = False

    def heading(self, text: str) -> None:
        """Begin a part."""
        self.console.print()
        self.console.print(self._text(text, "bold cyan"))

    def say(self, text: str = "", *, indent: int = 2, style: str = "") -> None:
        """Print a paragraph."""
        self._print(Text(" " * indent if text else ""), self._text(text, style))

    def told(self, who: str, text: str, style: str = "") -> None:
        """Print what somebody said or did, with the beginning of each line under the other."""
        self._print(self._text(f"  {who:<11}", "bold"), self._text(text, style))

    def filled(self, day: str, pressure: float, level: str) -> None:
        """Show how full the window is."""
        style = {"warning": _WARNED, "flush": _FULL}.get(level, "green")
        self.console.print(
            Text.assemble(f"  {day:<7}", (f"{bar(pressure)} {pressure:>4.0%} full", style))
        )

    def copied(self, text: str) -> None:
        """Print a line to copy: it is never broken."""
        self.console.print(
            Text("    ") + self._text(text, "bold green"), soft_wrap=True, crop=False
        )

    def can_show(self, text: str) -> bool:
        """Return whether the terminal shows the letters of a text."""
        return not self.ascii_only or bool(_folded(text).strip(" ?"))

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Say what the demo is waiting for while the body runs."""
        if not self.console.is_terminal or self.ascii_only:
            self.say(text)
            yield
            return
        with self.console.status(self._text(text)):
            yield

    def _print(self, before: Text, text: Text) -> None:
        room = max(self.console.width - len(before) - 1, _LEAST_COLUMNS)
        for part in text.wrap(self.console, room):
            part.rstrip()
            self.console.print(before + part, no_wrap=True, crop=False)
            before = Text(" " * len(before))

    def _text(self, text: str, style: str = "") -> Text:
        return line(_folded(text) if self.ascii_only else text, style)


def _folded(text: str) -> str:
    """Return a text in ASCII: without accents, and without letters of other alphabets."""
    plain = text.replace("’", "'").replace("“", '"').replace("”", '"').replace("ß", "ss")
    return unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
