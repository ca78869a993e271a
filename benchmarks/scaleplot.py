"""What growing costs, drawn from a report of `scale.py`: one picture for light pages, one for dark.

It can be run on a report that was written before.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SIZE_INCHES: Final = (9.0, 3.6)
DPI: Final = 160
THEMES: Final = {
    "light": {
        "ground": "#ffffff",
        "ink": "#24292f",
        "grid": "#d0d7de",
        "one": "#0969da",
        "many": "#bc4c00",
    },
    "dark": {
        "ground": "#0d1117",
        "ink": "#e6edf3",
        "grid": "#30363d",
        "one": "#58a6ff",
        "many": "#f0883e",
    },
}


def plot(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `scale-light.png` and `scale-dark.png` and return their paths."""
    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    done = []
    for theme, colors in THEMES.items():
        figure = Figure(figsize=SIZE_INCHES, dpi=DPI, facecolor=colors["ground"])
        left, right = figure.subplots(1, 2)
        for axes, title, unit in ((left, "A search", "ms"), (right, "Memory and disk", "MB")):
            _dress(axes, title, unit, colors)
        for spread, color in (("one", colors["one"]), ("many", colors["many"])):
            rows = [row for row in report["sizes"] if (row["agents"] == 1) == (spread == "one")]
            if rows:
                _draw(left, right, rows, color)
        for axes in (left, right):
            axes.legend(frameon=False, labelcolor=colors["ink"], fontsize=8)
        figure.tight_layout()
        path = folder / f"scale-{theme}.png"
        figure.savefig(path, facecolor=colors["ground"])
        done.append(path)
    return done


def _draw(left: Axes, right: Axes, rows: Sequence[Mapping[str, Any]], color: str) -> None:
    sizes = [row["size"] for row in rows]
    name = "one agent" if rows[0]["agents"] == 1 else f"{rows[0]['agents']} agents"
    for part, style in (("p50_ms", "-o"), ("p95_ms", ":o")):
        values = [row["search"][part] for row in rows]
        left.plot(sizes, values, style, color=color, label=f"{name}, {part[:3]}", markersize=4)
    for part, label, style in (("rss_mb", "memory", "-o"), ("disk_mb", "disk", ":o")):
        values = [row[part] for row in rows]
        if None not in values:
            right.plot(sizes, values, style, color=color, label=f"{name}, {label}", markersize=4)


def _dress(axes: Axes, title: str, unit: str, colors: Mapping[str, str]) -> None:
    axes.set_title(title, color=colors["ink"], fontsize=11)
    axes.set_xlabel("memories", color=colors["ink"])
    axes.set_ylabel(unit, color=colors["ink"])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_facecolor(colors["ground"])
    axes.grid(visible=True, color=colors["grid"], linewidth=0.6)
    axes.tick_params(colors=colors["ink"], which="both", labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(colors["grid"])


def main(argv: Sequence[str]) -> int:
    """Draw a report that was written before."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks scaleplot", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("report", type=Path, help="what `scale.py --out` has written")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    options = parser.parse_args(argv)
    for path in plot(json.loads(options.report.read_text(encoding="utf-8")), options.folder):
        print(path)
    return 0
