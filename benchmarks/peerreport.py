"""What `peers.py` has measured: the table, and where ours leads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.table import Table

from benchmarks.harness import out
from benchmarks.metrics import Latency
from benchmarks.servers import OURS

NOTHING: Final = "–"


@dataclass(frozen=True, slots=True)
class Loss:
    """Of `sent` stores so many were acknowledged, and so many of those found again."""

    sent: int
    acknowledged: int
    kept: int

    def __str__(self) -> str:
        """Return it as it stands in the table."""
        return f"{self.sent} / {self.acknowledged} / {self.kept}"


@dataclass
class Result:
    """What one server did, filled as it goes; characters are those of a reply's text.

    `trouble` says why something is missing.
    """

    name: str
    start_seconds: float | None = None
    tools_bytes: int | None = None
    store: dict[int, Latency] = field(default_factory=dict)
    search: dict[int, Latency] = field(default_factory=dict)
    refused: int = 0
    longest: int = 0
    everything: int | None = None
    paraphrases: int | None = None
    two_clients: Loss | None = None
    parallel: Loss | None = None
    trouble: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as it stands in the JSON."""
        return {
            "name": self.name,
            "start_seconds": self.start_seconds,
            "tools_bytes": self.tools_bytes,
            "store": {str(size): one.as_dict() for size, one in self.store.items()},
            "search": {str(size): one.as_dict() for size, one in self.search.items()},
            "refused": self.refused,
            "longest_reply_chars": self.longest or None,
            "everything_chars": self.everything,
            "paraphrases": self.paraphrases,
            "two_clients": None if self.two_clients is None else str(self.two_clients),
            "parallel": None if self.parallel is None else str(self.parallel),
            "trouble": self.trouble,
        }


def show(results: Mapping[str, Result], absent: Mapping[str, str], sizes: Sequence[int]) -> None:
    """Print the table; what could not be installed says so."""
    table = Table(title="Beside others; milliseconds are p50 / p95")
    table.add_column("")
    for result in results.values():
        table.add_column(result.name, justify="right")
    for name in absent:
        table.add_column(name, justify="right")
    rows: list[tuple[str, Callable[[Result], str]]] = [
        ("start to initialize, s", lambda one: _number(one.start_seconds, ".2f")),
        ("tools/list, bytes", lambda one: _number(one.tools_bytes, ",")),
    ]
    for size in sizes:
        rows.append((f"store at {size:,}", lambda one, at=size: _pair(one.store.get(at))))  # type: ignore[misc]  # a default
        rows.append((f"search at {size:,}", lambda one, at=size: _pair(one.search.get(at))))  # type: ignore[misc]  # a default
    rows += [
        ("stores refused", lambda one: str(one.refused)),
        ("longest search reply, characters", lambda one: _number(one.longest or None, ",")),
        ("asked for everything, characters", lambda one: _number(one.everything, ",")),
        ("in other words, of 10", lambda one: _number(one.paraphrases, "")),
        ("two clients: sent / acknowledged / kept", lambda one: _loss(one.two_clients)),
        ("parallel calls: the same", lambda one: _loss(one.parallel)),
    ]
    for label, cell in rows:
        missing = ["not installed" for _ in absent]
        table.add_row(label, *map(cell, results.values()), *missing)
    out.print(table)
    for name, reason in absent.items():
        out.print(f"{name} is not in it: {reason}", markup=False, highlight=False)
    for name, result in results.items():
        for line in result.trouble:
            out.print(f"{name}: {line}", markup=False, highlight=False)


def verdicts(results: Mapping[str, Result], sizes: Sequence[int]) -> list[str]:
    """Return a line for each row in which ours has to lead; nothing without others."""
    ours = results.get(OURS)
    others = {name: result for name, result in results.items() if name != OURS}
    if ours is None or not others:
        return ["no verdict: there is nothing to compare"]
    lines: list[str] = []
    for size in sizes:
        for kind in ("store", "search"):
            values = {
                name: getattr(result, kind)[size].p50_ms
                for name, result in results.items()
                if size in getattr(result, kind)
            }
            lines.append(_leads(f"{kind} at {size:,}, p50 ms", values, less=True))
    values = {name: one.paraphrases for name, one in results.items() if one.paraphrases is not None}
    lines.append(_leads("in other words", values))
    for kind in ("two_clients", "parallel"):
        values = {
            name: loss.kept
            for name, result in results.items()
            if (loss := getattr(result, kind)) is not None
        }
        lines.append(_leads(f"kept, {kind.replace('_', ' ')}", values))
    return lines


def _leads(label: str, values: Mapping[str, float], *, less: bool = False) -> str:
    if OURS not in values or len(values) < 2:
        return f"{label}: no verdict"
    best = (min if less else max)(value for name, value in values.items() if name != OURS)
    first = values[OURS] <= best if less else values[OURS] >= best
    shown = (f"{value:.1f}" if less else f"{value}" for value in (values[OURS], best))
    return f"{label}: ours {next(shown)}, the best other {next(shown)}: {_met(first)}"


def _met(reached: bool) -> str:
    return "met" if reached else "MISSED"


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def _pair(latency: Latency | None) -> str:
    return NOTHING if latency is None else f"{latency.p50_ms:.1f} / {latency.p95_ms:.1f}"


def _loss(loss: Loss | None) -> str:
    return NOTHING if loss is None else str(loss)
