"""The layout of an extractive summary, written and read.

```
Text that a client wrote comes first, unchanged.
[2026-03-01]
Ana: We moved the launch to Thursday.
- The ticket is INC-2041.
Also mentioned: pottery Falkenstein camping
```

A day is written once for all its lines, and a speaker once for the lines that follow:
written on every line, they took a quarter of the room.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from mcp_memory.values.text import sentences

HINTS: Final = "Also mentioned: "
MAX_LINE_CHARS: Final = 400
"""Longer sentences become several lines, so that one can't fill a summary; by judgement."""

_DAY: Final = re.compile(r"\[(\d{4}-\d{2}-\d{2})\]")


@dataclass(frozen=True, slots=True)
class Line:
    """One sentence; `day` and `who` are None in text that a client wrote."""

    day: str | None
    who: str | None
    text: str

    def cost(self, count: Callable[[str], int]) -> int:
        """Return the tokens of this line without its day."""
        return count(f"{self.who}: {self.text}\n" if self.who is not None else f"{self.text}\n")


def day_cost(day: str | None, count: Callable[[str], int]) -> int:
    """Return the tokens of the line that names a day."""
    return 0 if day is None else count(f"[{day}]\n")


def lay_out(lines: Iterable[Line], hints: Sequence[str]) -> str:
    """Return the text of a summary; `lines` are in the order they were said."""
    shown: list[str] = []
    day: str | None = None
    who: str | None = None
    for line in lines:
        if line.day is not None and line.day != day:
            shown.append(f"[{line.day}]")
            day, who = line.day, None
        if line.who is None:
            shown.append(line.text)
        else:
            shown.append(f"- {line.text}" if line.who == who else f"{line.who}: {line.text}")
        who = line.who
    if hints:
        shown.append(HINTS + " ".join(hints))
    return "\n".join(shown)


def read(summary: str) -> tuple[list[Line], list[str]]:
    """Return the lines and hints of a summary by any author."""
    lines: list[Line] = []
    hints: list[str] = []
    day: str | None = None
    who: str | None = None
    texts = [raw.strip() for raw in summary.splitlines()]
    if texts and texts[-1].startswith(HINTS):
        hints = texts.pop().removeprefix(HINTS).split()
    for text in texts:
        match = _DAY.fullmatch(text)
        if match:
            day, who = match[1], None
        elif text and day is None:
            lines.extend(Line(None, None, part) for part in pieces(text))
        elif text:
            if not (who is not None and text.startswith("- ")):
                named, found, rest = text.partition(": ")
                who, text = (named, rest) if found else (None, text)
            else:
                text = text.removeprefix("- ")
            lines.append(Line(day, who, text))
    return lines, hints


def pieces(text: str) -> list[str]:
    """Return a text as it is if it fits a line, else as several lines."""
    if len(text) <= MAX_LINE_CHARS:
        return [text]
    found: list[str] = []
    for sentence in sentences(text):
        found.extend(_cut(" ".join(sentence.split())))
    return found


def _cut(sentence: str) -> list[str]:
    """Return a sentence in pieces of at most `MAX_LINE_CHARS`, with `…` where it was cut."""
    room = MAX_LINE_CHARS - 2
    found: list[str] = []
    start = 0
    while len(sentence) - start > room:
        end = max(sentence.rfind(mark, start + room // 2, start + room) for mark in " ,;，；、")
        end = end + 1 if end > 0 else start + room
        found.append(sentence[start:end].strip())
        start = end
    found.append(sentence[start:].strip())
    last = len(found) - 1
    return [
        f"{'…' if at else ''}{part}{'…' if at < last else ''}"
        for at, part in enumerate(found)
        if part
    ]
