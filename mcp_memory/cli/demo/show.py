"""The output of the demo: bars, calls and tables, on a terminal or in a plain file.

Texts of the server and the conversation are printed as they are, never as markup.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.status import Status
from rich.table import Table
from rich.text import Text

BAR_CELLS = 24
STYLES = {"ok": "green", "warning": "yellow", "flush": "red"}


def clip(text: str, chars: int) -> str:
    """Return the text on one line of at most `chars` characters."""
    line = " ".join(text.split())
    return line if len(line) <= chars else line[: chars - 1].rstrip() + "…"


def around(text: str, words: str, chars: int = 150) -> str:
    """Return one line of the text, clipped to `chars` characters so that `words` stay in it."""
    line, wanted = " ".join(text.split()), " ".join(words.split())
    at = max(line.find(wanted), 0)
    start = max(0, min(at - (chars - len(wanted)) // 2, len(line) - chars))
    return ("…" if start else "") + clip(line[start:], chars)


def bar(pressure: float, warn_at: float) -> str:
    """Return a bar of fixed width; `|` marks the warning threshold."""
    filled = min(BAR_CELLS, round(pressure * BAR_CELLS))
    cells = ["█"] * filled + ["·"] * (BAR_CELLS - filled)
    if filled <= (mark := min(BAR_CELLS - 1, round(warn_at * BAR_CELLS))):
        cells[mark] = "|"
    return "".join(cells)


def call_line(tool: str, arguments: Mapping[str, Any], chars: int = 96) -> str:
    """Return a tool call as one line, each argument clipped."""
    parts = (
        f"{name}={clip(json.dumps(value, ensure_ascii=False), chars)}"
        for name, value in arguments.items()
    )
    return f"{tool}({', '.join(parts)})"


@dataclass(frozen=True, slots=True)
class Show:
    """Prints the demo for a reader.

    Attributes:
        console: Where to print.
        pause_seconds: How long to pause after a line, so that a person can follow.
    """

    console: Console
    pause_seconds: float = 0.0

    def heading(self, text: str) -> None:
        """Begin a part."""
        self.console.print()
        self.console.print(Rule(Text(text, style="bold"), align="left"))

    def say(self, text: str) -> None:
        """Print a comment of the demo itself."""
        self.console.print(Text(text))

    def append(self, reply: Mapping[str, Any], span: str, dates: str, warn_at: float) -> None:
        """Show a batch of messages, and how full the window is after it."""
        level = reply["level"]
        line = Text(f"{span:<10} {dates:<14} ")
        line.append(bar(reply["pressure"], warn_at), style=STYLES.get(level, ""))
        line.append(f" {reply['pressure']:>4.0%}  ")
        line.append(f"{reply['used_tokens']:>6,} tokens  ", style="dim")
        line.append(level, style=STYLES.get(level, ""))
        self.console.print(line)

    def call(self, tool: str, arguments: Mapping[str, Any]) -> None:
        """Show a tool call, before its reply."""
        line = Text("  → ", style="cyan")
        line.append(clip(call_line(tool, arguments), self.console.width - 4), style="bold")
        self.console.print(line)

    def reply(self, text: str) -> None:
        """Show a reply in one line."""
        self.line(f"  ← {text}", style="cyan")

    def line(self, text: str, *, style: str = "dim") -> None:
        """Show one indented line, cut at the width of the console."""
        self.console.print(Text("  " + text, style=style), no_wrap=True, overflow="ellipsis")

    def quote(self, title: str, text: str) -> None:
        """Show a text exactly as the server sent it."""
        panel = Panel(Text(text.strip()), title=Text(title), title_align="left", padding=(0, 1))
        self.console.print(Padding(panel, (0, 0, 0, 2)))

    def found(self, rank: int | None, where: str, text: str) -> None:
        """Show the hit that answers a question; without a rank, that it wasn't found."""
        line = Text("    ")
        if rank is None:
            line.append("not found", style="bold red")
        else:
            line.append(f"found at rank {rank}", style="bold green")
        self.console.print(line.append(f": {where}"))
        self.line(f"    {text}", style="bold")

    def wait(self, text: str) -> Status:
        """Return a context manager that shows what the demo is waiting for."""
        if not self.console.is_terminal:
            self.say(text)
        return self.console.status(Text(text))

    def table(self, title: str, rows: Iterable[Sequence[str]], columns: Sequence[str] = ()) -> None:
        """Show a table, with a header if there are columns."""
        table = Table(
            *columns,
            title=Text(title, style="bold"),
            title_justify="left",
            show_header=bool(columns),
        )
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.console.print()
        self.console.print(table)
