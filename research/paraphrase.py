"""Is a fact found by a question in other words?

Facts of `paraphrases.json` are stored among many notes of `notes.py` by a client of the
server with its default settings, and asked for. Half of the questions may be used to choose
what search is set to; judge by the other half.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from rich.progress import Progress

from benchmarks import harness, texts
from benchmarks.client import Clients, RawClient
from benchmarks.harness import progress
from benchmarks.loaders import DataFault
from benchmarks.metrics import recall_at, reciprocal_rank
from research import notes

PAIRS: Final = Path(__file__).with_name("paraphrases.json")
SIZES: Final = (100, 1_000, 10_000)
HALVES: Final = ("chosen on", "judged by")
HITS: Final = 10
LIMIT_SECONDS: Final = 4 * 3_600.0


@dataclass(frozen=True, slots=True)
class Pair:
    """A fact, and a question for it in other words."""

    language: str
    fact: str
    question: str


@dataclass(frozen=True, slots=True)
class Row:
    """What half of the questions of a language find among notes; shares are 0 to 1."""

    language: str
    notes: int
    half: str
    questions: int
    first: float
    in_ten: float
    mrr: float


def load(path: Path) -> list[Pair]:
    """Return the pairs of a file.

    Raises:
        DataFault: It can't be read, or a pair lacks something or is of an unknown language.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        pairs = [Pair(row["language"], row["fact"], row["question"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataFault(f"{path} has no pairs of facts and questions: {error!r}") from error
    for pair in pairs:
        if pair.language not in notes.NOTES or not pair.fact or not pair.question:
            raise DataFault(f"{path} has a pair that can't be used: {pair}")
    return pairs


def grade(
    language: str, size: int, rankings: Sequence[Sequence[str]], pairs: list[Pair]
) -> list[Row]:
    """Return a row for each half of the pairs: every second one is of the same half.

    Args:
        language: Of the pairs.
        size: Among how many notes they were looked for.
        rankings: The texts that each question found, best first.
        pairs: What was asked.
    """
    rows = []
    for number, half in enumerate(HALVES):
        graded = [
            (
                recall_at(found, {pair.fact}, 1),
                recall_at(found, {pair.fact}, HITS),
                reciprocal_rank(found[:HITS], {pair.fact}),
            )
            for found, pair in zip(rankings[number::2], pairs[number::2], strict=True)
        ]
        if graded:
            shares = [sum(column) / len(graded) for column in zip(*graded, strict=True)]
            rows.append(Row(language, size, half, len(graded), *shares))
    return rows


def measure(pairs: Sequence[Pair], sizes: Sequence[int], python: str) -> list[Row]:
    """Return the rows of each language at each size, in that order."""
    rows = []
    with progress() as bar, Clients(LIMIT_SECONDS) as clients:
        for language in dict.fromkeys(pair.language for pair in pairs):
            of_language = [pair for pair in pairs if pair.language == language]
            with harness.temporary() as folder:
                client = clients.start(
                    harness.server(folder / "memory.duckdb", python, owner="off")
                )
                client.initialize()
                client.wait_until_embedded()
                rows += _of_language(client, of_language, sorted(sizes), bar)
                client.close()
    return rows


def _of_language(
    client: RawClient, pairs: list[Pair], sizes: Sequence[int], bar: Progress
) -> list[Row]:
    language = pairs[0].language
    rng = random.Random(harness.SEED)
    made = texts.distinct(partial(notes.NOTES[language], rng), sizes[-1])
    task = bar.add_task(f"{language} notes", total=sizes[-1] + len(pairs))
    rows: list[Row] = []
    stored = 0
    for size in sizes:
        coming = made[stored:size]
        if not rows:
            coming = rng.sample([*coming, *(pair.fact for pair in pairs)], len(coming) + len(pairs))
        for text in coming:
            client.tool("archival_memory_insert", {"content": text})
            bar.advance(task)
        stored = size
        rankings = [
            [
                hit["text"]
                for hit in client.tool(
                    "archival_memory_search", {"query": pair.question, "top_k": HITS}
                )["results"]
            ]
            for pair in pairs
        ]
        rows += grade(language, size, rankings, pairs)
    return rows


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    harness.table(
        "Facts found by a question in other words, percent",
        ("", "among", "half", "questions", "R@1", "R@10", "MRR"),
        [
            (
                row.language,
                f"{row.notes:,}",
                row.half,
                row.questions,
                *(f"{100 * share:.1f}" for share in (row.first, row.in_ten, row.mrr)),
            )
            for row in rows
        ],
    )


def _benchmark(pairs: Sequence[Pair], options: argparse.Namespace) -> None:
    rows = measure(pairs, options.sizes, options.python)
    show(rows)
    harness.finish("paraphrase", options, {"rows": rows}, [])


def main() -> int:
    """Run the research; return its exit status."""
    parser = harness.parser("paraphrase", __doc__, "python -m research.paraphrase")
    parser.add_argument("--data", type=Path, default=PAIRS, help="pairs in the form of ours")
    parser.add_argument(
        "--sizes",
        type=harness.numbers,
        default=SIZES,
        help="numbers of notes, default: 100,1000,10000",
    )
    parser.add_argument("--python", default=sys.executable, help=harness.PYTHON_HELP)
    options = parser.parse_args()
    try:
        pairs = load(options.data)
    except DataFault as error:
        parser.error(str(error))
    return harness.run(partial(_benchmark, pairs, options))


if __name__ == "__main__":
    sys.exit(main())
