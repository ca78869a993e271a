"""Does paging do exactly what it says, at any window and after any number of messages?

LoCoMo's dialogues are appended turn by turn to a real server on stdio: each to a
conversation of its own, then all, with calls of tools among them, to a single one. The
server's figures are compared with tiktoken's, and its flushes with arithmetic of the
benchmark's own.

The server has no embedding model here: embedding costs the same for every message, and
would only hide how the rest grows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from rich.table import Table

from benchmarks.harness import (
    EXIT_USAGE,
    BenchmarkFault,
    err,
    machine,
    out,
    positive,
    run_blocking,
    write_json,
)
from benchmarks.locomo import DataFault, Dialogue, load
from benchmarks.pagingreplay import PROBLEMS_SHOWN, SAMPLE, Replay, replay, started
from benchmarks.pagingrules import turns_of, with_calls
from benchmarks.recall import NO_DATA_HINT

WINDOWS: Final = (4_096, 8_192, 32_768)
MAX_GROWTH: Final = 1.2
MIN_RATIO: Final = 1.3
AT_ONCE: Final = 2
"""So many servers at once, where nothing is timed."""


def apart(dialogues: Sequence[Dialogue], window_tokens: int) -> Replay:
    """Replay each dialogue as a conversation of its own, all on one server."""
    together = Replay("apart", window_tokens)
    with _folder() as folder, started(folder, window_tokens) as server:
        for dialogue in dialogues:
            err.print(f"{window_tokens}: {dialogue.name}, {len(dialogue.turns)} turns")
            together.add(replay(server, dialogue.name, turns_of(dialogue)))
    return together


def joined(dialogues: Sequence[Dialogue], window_tokens: int) -> Replay:
    """Replay all dialogues as one conversation, with calls of tools among the turns."""
    said = with_calls([turn for dialogue in dialogues for turn in turns_of(dialogue)])
    err.print(f"{window_tokens}: all as one, {len(said)} messages")
    with (
        _folder() as folder,
        _folder() as other,
        started(folder, window_tokens) as server,
        started(other, window_tokens) as young,
    ):
        return replay(server, "joined", said, young)


def measure(dialogues: Sequence[Dialogue], windows: Sequence[int]) -> list[Replay]:
    """Replay the dialogues at each window; only those whose time counts have the machine alone."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        replays = list(threads.map(partial(apart, dialogues), windows))
    return replays + [joined(dialogues, window_tokens) for window_tokens in windows]


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mcp-memory-paging-") as name:
        yield Path(name)


def verdicts(replays: Sequence[Replay]) -> dict[str, str]:
    """Return what was held to, each with how it came out."""
    given: dict[str, str] = {}
    for shown in replays:
        where = f"{shown.name}, {shown.window_tokens}"
        given[f"{where}: window, flushes, recall and tokens"] = (
            "exact" if not shown.problems else f"{len(shown.problems)} problems"
        )
        if (ratio := shown.growth) is not None:
            word = "met" if ratio <= MAX_GROWTH else "missed"
            given[f"{where}: last / first {SAMPLE} appends"] = (
                f"{ratio:.2f}, goal {MAX_GROWTH}: {word}"
            )
        if (left := shown.survival) is not None:
            word = "met" if left.ratio >= MIN_RATIO else "missed"
            given[f"{where}: evidence in the summary / the better baseline"] = (
                f"{left.ratio:.2f}, goal {MIN_RATIO}: {word}"
            )
    return given


def show(replays: Sequence[Replay], given: dict[str, str]) -> None:
    """Print tables of what was counted and timed and of evidence, the problems, the verdicts."""
    rows = [shown.as_dict() for shown in replays]
    counts = _table(
        "Paging, as counted",
        "replay",
        "window",
        "appended",
        "recalled",
        "flushes",
        "by the rules",
        "most used",
        "problems",
    )
    times = _table(
        f"Appends, the last {SAMPLE} by the first",
        "replay",
        "window",
        "p50, ms",
        "made in turn",
        "minutes apart",
        "processor",
    )
    scores = _table(
        "Words of evicted evidence that are left, percent",
        "replay",
        "window",
        "turns",
        "summary",
        "first words",
        "random sentences",
    )
    for shown, row in zip(replays, rows, strict=True):
        name = (shown.name, shown.window_tokens)
        counts.add_row(
            *_cells(
                *name,
                row["appended"],
                row["recalled"],
                row["flushes"],
                row["flushes_expected"],
                row["most_used_tokens"],
                len(shown.problems),
            )
        )
        if shown.young_seconds:
            times.add_row(
                *_cells(
                    *name,
                    row["append_p50_ms"],
                    row["growth"],
                    row["growth_in_time"],
                    row["growth_of_cpu"],
                )
            )
        if (left := shown.survival) is not None:
            shares = (left.summary, left.first_words, left.random_sentences)
            scores.add_row(*_cells(*name, left.turns, *(f"{100 * share:.1f}" for share in shares)))
    for table in (counts, times, scores):
        out.print(table)
    for shown in replays:
        for problem in shown.problems[:PROBLEMS_SHOWN]:
            out.print(f"{shown.name}, {shown.window_tokens}: {problem}", markup=False)
    for subject, verdict in given.items():
        out.print(f"{subject}: {verdict}", highlight=False, soft_wrap=True)


def _table(title: str, first: str, *headings: str) -> Table:
    table = Table(title=title)
    table.add_column(first)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _cells(*values: object) -> list[str]:
    return ["-" if value is None else str(value) for value in values]


def _windows(text: str) -> tuple[int, ...]:
    """Return sizes such as 4k (4,096) or 5000."""
    parts = text.lower().split(",")
    if not all(part.removesuffix("k").isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: give sizes such as 4k,8k,32k")
    return tuple(int(p.removesuffix("k")) * (1_024 if p.endswith("k") else 1) for p in parts)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks paging", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--data", type=Path, help="path of locomo10.json")
    parser.add_argument("--windows", type=_windows, default=WINDOWS, help="default: 4k,8k,32k")
    parser.add_argument("--conversations", type=positive, help="use only the first N dialogues")
    parser.add_argument("--out", type=Path, help="write the report to this JSON file")
    return parser.parse_args(argv)


def _benchmark(
    dialogues: Sequence[Dialogue], windows: Sequence[int], out_path: Path | None
) -> None:
    began = time.perf_counter()
    replays = measure(dialogues, windows)
    given = verdicts(replays)
    show(replays, given)
    write_json(
        out_path,
        {
            "benchmark": "paging",
            **machine(),
            "dialogues": len(dialogues),
            "duration_seconds": round(time.perf_counter() - began, 1),
            "replays": [shown.as_dict() for shown in replays],
            "verdicts": given,
        },
    )
    if any(shown.problems for shown in replays):
        raise BenchmarkFault("the server and the rules do not agree")


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return its exit status."""
    options = parse_arguments(argv)
    if options.data is None:
        err.print(f"error: --data is missing. {NO_DATA_HINT}", markup=False, soft_wrap=True)
        return EXIT_USAGE
    try:
        dialogues = load(options.data)
    except DataFault as error:
        err.print(f"error: {error}. {NO_DATA_HINT}", markup=False, soft_wrap=True)
        return EXIT_USAGE
    return run_blocking(
        partial(_benchmark, dialogues[: options.conversations], options.windows, options.out)
    )
