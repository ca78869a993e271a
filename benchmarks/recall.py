"""How much of what is asked for does `conversation_search` find?

Every turn of every LoCoMo dialogue goes in through `conversation_append`, every
question through `conversation_search`, once per search mode, on the same stored
vectors. A dialogue has a server and a database of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from common import (
    EXIT_USAGE,
    BenchmarkFault,
    call,
    err,
    machine,
    out,
    progress,
    run,
    serve,
    wait_until_embedded,
    write_json,
)
from locomo import CATEGORIES, DataFault, DiaId, Dialogue, Question, load
from mcp import Client
from metrics import Latency, Quality, quality
from rich.progress import Progress
from rich.table import Table

MODES: Final = ("lexical", "dense", "hybrid")
HITS: Final = 20
EMBEDDING_TIMEOUT_SECONDS: Final = 900.0
NO_DATA_HINT: Final = (
    "Give the path of locomo10.json: the LoCoMo data set, ten long conversations with questions "
    "and their evidence (CC BY-NC 4.0), from the snap-research/locomo repository on GitHub."
)


@dataclass
class Measured:
    """What one run found, filled as it goes; times are in seconds."""

    answers: dict[str, list[tuple[Question, list[DiaId]]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    queries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    pages: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    appends: list[float] = field(default_factory=list)
    model: str | None = None


async def append_turns(
    client: Client, dialogue: Dialogue, measured: Measured, bar: Progress
) -> dict[str, DiaId]:
    """Append every turn by a call of its own; return which id each one got."""
    task = bar.add_task(f"{dialogue.name} append", total=len(dialogue.turns))
    placed: dict[str, DiaId] = {}
    for turn in dialogue.turns:
        message = {
            "role": turn.role,
            "name": turn.speaker,
            "content": turn.content,
            "created_at": turn.created_at.isoformat(),
        }
        began = time.perf_counter()
        reply = await call(client, "conversation_append", {"messages": [message]})
        measured.appends.append(time.perf_counter() - began)
        placed[reply["ids"][0]] = turn.dia_id
        bar.advance(task)
    return placed


async def search(client: Client, question: str, mode: str) -> tuple[list[str], int]:
    """Return the ids of the first 20 hits, best first, and how many pages they took.

    Raises:
        BenchmarkFault: The server searched otherwise than it was told to.
    """
    arguments: dict[str, Any] = {"query": question, "limit": HITS}
    ids: list[str] = []
    pages = 0
    while True:
        reply = await call(client, "conversation_search", arguments)
        pages += 1
        if mode != "lexical" and reply["search"] == "lexical":
            raise BenchmarkFault(f"asked for {mode} search, but the server searched lexically")
        ids += [hit["id"] for hit in reply["results"]]
        cursor = reply.get("next_cursor")
        if len(ids) >= HITS or cursor is None:
            return ids[:HITS], pages
        arguments["cursor"] = cursor


async def ask(
    client: Client,
    dialogue: Dialogue,
    mode: str,
    placed: dict[str, DiaId],
    measured: Measured,
    bar: Progress,
) -> None:
    """Ask every question of a dialogue in one mode."""
    task = bar.add_task(f"{dialogue.name} {mode}", total=len(dialogue.questions))
    for question in dialogue.questions:
        began = time.perf_counter()
        ids, pages = await search(client, question.text, mode)
        measured.queries[mode].append(time.perf_counter() - began)
        measured.pages[mode] += pages
        measured.answers[mode].append((question, [placed[found] for found in ids]))
        bar.advance(task)
    bar.remove_task(task)


async def measure(dialogues: Sequence[Dialogue], modes: Sequence[str]) -> Measured:
    """Store and ask all dialogues in all modes."""
    measured = Measured()
    with_vectors = set(modes) != {"lexical"}
    with progress() as bar, tempfile.TemporaryDirectory(prefix="mcp-memory-recall-") as folder:
        overall = bar.add_task("dialogues", total=len(dialogues))
        for dialogue in dialogues:
            db = Path(folder) / f"{dialogue.name}.duckdb"
            async with serve(db) as client:
                placed = await append_turns(client, dialogue, measured, bar)
                if with_vectors:
                    await _wait(client, measured, bar)
            # A restart on the same file, not a second import: only the query differs.
            for mode in modes:
                async with serve(db, search_mode=mode) as client:
                    if mode != "lexical":
                        await _wait(client, measured, bar)
                    await ask(client, dialogue, mode, placed, measured, bar)
            bar.advance(overall)
    return measured


async def _wait(client: Client, measured: Measured, bar: Progress) -> None:
    task = bar.add_task("embedding", total=None)
    measured.model = await wait_until_embedded(
        client,
        timeout_seconds=EMBEDDING_TIMEOUT_SECONDS,
        on_wait=lambda state: bar.update(task, description=f"embedding: {state}"),
    )
    bar.remove_task(task)


def grade(answers: Sequence[tuple[Question, list[DiaId]]]) -> dict[str, Quality]:
    """Return the quality over all questions, and by category in the data set's order."""
    groups = {"all": answers} | {
        name: chosen
        for category, name in CATEGORIES.items()
        if (chosen := [answer for answer in answers if answer[0].category == category])
    }
    return {
        name: quality((ranking, question.gold) for question, ranking in group)
        for name, group in groups.items()
    }


def show(grades: dict[str, dict[str, Quality]], measured: Measured) -> None:
    """Print a table of quality and one of times."""
    table = Table(title="Recall of the gold turns, percent")
    for heading in ("questions", "mode", "n", "R@5", "R@10", "R@20", "MRR"):
        table.add_column(heading, justify="left" if heading in {"questions", "mode"} else "right")
    for group in next(iter(grades.values())):
        for mode, by_group in grades.items():
            row = by_group[group]
            shares = (row.recall_at_5, row.recall_at_10, row.recall_at_20, row.mrr)
            table.add_row(
                group, mode, str(row.questions), *(f"{100 * share:.1f}" for share in shares)
            )
        table.add_section()
    out.print(table)

    times = Table(title="Times, milliseconds (for information)")
    for heading in ("call", "calls", "p50", "p95"):
        times.add_column(heading, justify="left" if heading == "call" else "right")
    for name, latency in _latencies(measured).items():
        times.add_row(name, str(latency.calls), f"{latency.p50_ms:.1f}", f"{latency.p95_ms:.1f}")
    out.print(times)


def _latencies(measured: Measured) -> dict[str, Latency]:
    named = {"append a turn": measured.appends} | {
        f"ask, {mode}, all {HITS} hits": seconds for mode, seconds in measured.queries.items()
    }
    return {name: Latency.of(seconds) for name, seconds in named.items()}


def _modes(text: str) -> tuple[str, ...]:
    modes = tuple(text.split(","))
    if not set(modes) <= set(MODES) or len(set(modes)) != len(modes):
        raise argparse.ArgumentTypeError(f"{text!r}: choose from {','.join(MODES)}")
    return modes


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, help="path of locomo10.json")
    parser.add_argument("--limit", type=_positive, help="use only the first N dialogues")
    parser.add_argument("--modes", type=_modes, default=MODES, help="default: all three")
    parser.add_argument("--out", type=Path, help="write the report to this JSON file")
    return parser.parse_args(argv)


async def _benchmark(
    dialogues: Sequence[Dialogue], modes: Sequence[str], out_path: Path | None
) -> None:
    began = time.perf_counter()
    measured = await measure(dialogues, modes)
    grades = {mode: grade(answers) for mode, answers in measured.answers.items()}
    show(grades, measured)
    write_json(
        out_path,
        {
            "benchmark": "recall",
            **machine(),
            "model": measured.model,
            "dialogues": len(dialogues),
            "turns": len(measured.appends),
            "duration_seconds": round(time.perf_counter() - began, 1),
            "quality": {
                mode: {group: row.as_dict() for group, row in by_group.items()}
                for mode, by_group in grades.items()
            },
            "pages_per_question": {
                mode: round(pages / len(measured.queries[mode]), 2)
                for mode, pages in measured.pages.items()
            },
            "latency": {name: latency.as_dict() for name, latency in _latencies(measured).items()},
        },
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit status."""
    options = parse_arguments(sys.argv[1:] if argv is None else argv)
    if options.data is None:
        err.print(f"error: --data is missing. {NO_DATA_HINT}", markup=False, soft_wrap=True)
        return EXIT_USAGE
    try:
        dialogues = load(options.data)
    except DataFault as error:
        err.print(f"error: {error}. {NO_DATA_HINT}", markup=False, soft_wrap=True)
        return EXIT_USAGE
    return run(partial(_benchmark, dialogues[: options.limit], options.modes, options.out))


if __name__ == "__main__":
    sys.exit(main())
