"""Draw the picture of the demo in the README: demo-dark.svg and demo-light.svg.

Plays `mcp-memory demo` against a real server and draws parts of what it printed. Run it with
`python docs/images/demo.py` after a change to the demo.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import anyio
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, SVG_EXPORT_THEME, TerminalTheme
from rich.text import Text

from mcp_memory.cli.demo.player import play
from mcp_memory.cli.demo.show import Show

COLUMNS: Final = 96
WINDOW_TOKENS: Final = 6_000
PARTS: Final = (
    ("1. Hanna talks", 1),
    ("20 Feb", 5),
    ("it ", 2),
    ("27 Mar", 4),
    ("2. Half a year", 3),
    ("3. Can it", 6),
    ("Hanna      外婆", 3),
    ("Hanna      What dose", 8),
)
"""How a part begins, and how many lines of it to show. `⋮` marks what is left out."""
THEMES: Final[dict[str, TerminalTheme]] = {
    "dark": SVG_EXPORT_THEME,
    "light": DEFAULT_TERMINAL_THEME,
}


def played() -> list[str]:
    """Return the lines of a whole run, with their styles as ANSI codes."""
    console = Console(
        record=True, width=COLUMNS, color_system="truecolor", highlight=False, file=io.StringIO()
    )
    if not anyio.run(play, Show(console), WINDOW_TOKENS):
        raise SystemExit("a question was not answered: nothing was drawn")
    return console.export_text(styles=True).splitlines()


def excerpt(lines: list[str]) -> list[Text]:
    """Return the parts of a run that the picture shows."""
    texts = [Text.from_ansi(line) for line in lines]
    shown: list[Text] = []
    end = 0
    for begins, count in PARTS:
        at = next(
            number
            for number, text in enumerate(texts)
            if number >= end and text.plain.strip().startswith(begins)
        )
        if shown and any(text.plain.strip() for text in texts[end:at]):
            shown.append(Text("  ⋮", style="dim"))
        elif shown:
            shown.append(Text(""))
        end = at + count
        shown += texts[at:end]
    return shown


def main() -> None:
    """Write both pictures beside this file."""
    shown = excerpt(played())
    for name, theme in THEMES.items():
        console = Console(record=True, width=COLUMNS, color_system="truecolor", file=io.StringIO())
        for text in shown:
            console.print(text, no_wrap=True, overflow="crop")
        path = Path(__file__).with_name(f"demo-{name}.svg")
        console.save_svg(str(path), title="mcp-memory demo", theme=theme)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
