"""What `recall.py` has measured: its tables, and the verdicts on LoCoMo."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.table import Table

from benchmarks.harness import out
from benchmarks.metrics import Latency, Quality, quality
from benchmarks.talks import Question

ALL: Final = "all"
HYBRID: Final = "hybrid"
WINDOW: Final = "window"
MESSAGE: Final = "message"

GOALS: Final = (
    (ALL, "recall_at_5", "R@5", 0.71),
    (ALL, "recall_at_10", "R@10", 0.80),
    (ALL, "recall_at_20", "R@20", 0.86),
    (ALL, "mrr", "MRR", 0.58),
    ("multi-hop", "recall_at_10", "R@10", 0.53),
)
"""What hybrid search has to reach on all of LoCoMo: by kind of question and metric."""

Answers = dict[str, list[tuple[Question, list[str]]]]
"""By mode: each question with what was found for it, best first."""


@dataclass
class Measured:
    """What one run found, filled as it goes; times are in seconds."""

    turns: Answers = field(default_factory=lambda: defaultdict(list))
    sessions: Answers = field(default_factory=lambda: defaultdict(list))
    queries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    pages: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    appends: list[float] = field(default_factory=list)
    windows_left: int = 0
    background_seconds: float = 0.0
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    model: str | None = None

    def add_sizes(self, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Add the vectors of another database and their bytes."""
        for source, (count, size) in sizes.items():
            held = self.sizes.get(source, (0, 0))
            self.sizes[source] = (held[0] + count, held[1] + size)

    def insert_cost(self) -> dict[str, Any]:
        """Return what storing has cost, as it stands in the JSON."""
        messages = max(len(self.appends), 1)
        return {
            "append_seconds": round(sum(self.appends), 2),
            "background_seconds": round(self.background_seconds, 2),
            "windows_left_to_background": self.windows_left,
            "vectors_a_message": {
                source: round(count / messages, 3) for source, (count, _) in self.sizes.items()
            },
            "vector_bytes_a_message": {
                source: round(size / messages) for source, (_, size) in self.sizes.items()
            },
        }


def grade(answers: Sequence[tuple[Question, list[str]]], *, sessions: bool) -> dict[str, Quality]:
    """Return the quality over all questions that have gold, and by kind in order of appearance.

    Args:
        answers: Each question with what was found, best first.
        sessions: Whether it is sessions that were found, and not turns.
    """
    groups: dict[str, list[tuple[list[str], frozenset[str]]]] = {ALL: []}
    for question, ranking in answers:
        gold = question.sessions if sessions else question.gold
        if gold:
            groups[ALL].append((ranking, gold))
            groups.setdefault(question.kind, []).append((ranking, gold))
    return {name: quality(group) for name, group in groups.items() if group}


def by_kind(answers: Answers, *, sessions: bool = False) -> dict[str, dict[str, Any]]:
    """Return the quality by mode and kind of question, as it stands in the JSON."""
    return {
        mode: {name: row.as_dict() for name, row in grade(some, sessions=sessions).items()}
        for mode, some in answers.items()
    }


def latencies(measured: Measured) -> dict[str, Latency]:
    """Return the times of the calls by what they do."""
    named = {"append a turn": measured.appends} | {
        f"ask, {mode}, all hits": seconds for mode, seconds in measured.queries.items()
    }
    return {name: Latency.of(seconds) for name, seconds in named.items() if seconds}


def verdicts(measured: Measured) -> list[str]:
    """Return a line for each goal; none without hybrid search."""
    if HYBRID not in measured.turns:
        return ["no verdict: hybrid search was not among the modes"]
    found = grade(measured.turns[HYBRID], sessions=False)
    lines: list[str] = []
    for kind, metric, name, goal in GOALS:
        if kind not in found:
            lines.append(f"{name}, {kind}: no verdict, there is no such question")
            continue
        value = getattr(found[kind], metric)
        met = "met" if value >= goal else "MISSED"
        lines.append(f"{name}, {kind}: {100 * value:.1f} %, goal {100 * goal:.0f} %: {met}")
    return lines


def show(measured: Measured) -> None:
    """Print the tables."""
    _show_quality("Recall of the gold turns, percent", measured.turns, sessions=False)
    _show_quality(
        "Recall of the gold sessions by the first of their turns, percent",
        measured.sessions,
        sessions=True,
    )
    times = Table(title="Times, milliseconds (for information)")
    for heading in ("call", "calls", "p50", "p95"):
        times.add_column(heading, justify="left" if heading == "call" else "right")
    for name, latency in latencies(measured).items():
        times.add_row(name, str(latency.calls), f"{latency.p50_ms:.1f}", f"{latency.p95_ms:.1f}")
    out.print(times)
    if measured.sizes:
        _show_cost(measured)


def _show_quality(title: str, answers: Answers, *, sessions: bool) -> None:
    grades = {mode: grade(some, sessions=sessions) for mode, some in answers.items()}
    groups = dict.fromkeys(name for rows in grades.values() for name in rows)
    if not groups:
        return
    table = Table(title=title)
    for heading in ("questions", "mode", "n", "R@5", "R@10", "R@20", "MRR"):
        table.add_column(heading, justify="left" if heading in {"questions", "mode"} else "right")
    for group in groups:
        for mode, rows in grades.items():
            row = rows[group]
            shares = (row.recall_at_5, row.recall_at_10, row.recall_at_20, row.mrr)
            table.add_row(
                group, mode, str(row.questions), *(f"{100 * share:.1f}" for share in shares)
            )
        table.add_section()
    out.print(table)


def _show_cost(measured: Measured) -> None:
    cost = measured.insert_cost()
    table = Table(title="What is stored of a message, and when it is computed")
    for heading in ("", "vectors a message", "bytes a message"):
        table.add_column(heading, justify="right" if heading else "left")
    for source, label in ((MESSAGE, "its own"), (WINDOW, "its windows")):
        table.add_row(
            label,
            f"{cost['vectors_a_message'].get(source, 0):.2f}",
            f"{cost['vector_bytes_a_message'].get(source, 0):,}",
        )
    out.print(table)
    out.print(
        f"appending {len(measured.appends):,} messages: {cost['append_seconds']:.0f} s; after the "
        f"last of each conversation {cost['background_seconds']:.0f} s more for "
        f"{measured.windows_left:,} windows that were left to the background",
        highlight=False,
    )
