"""Is a short fact found by a question in other words? `python benchmarks/paraphrase.py`.

In this process, through the memory's own interface with default settings: facts of
`paraphrases.json` are kept among many notes of `notes.py`, and asked for.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress
from rich.table import Table

from benchmarks import texts
from benchmarks.harness import EXIT_USAGE, err, machine, out, progress, run_blocking, write_json
from benchmarks.latency import load_embedder
from benchmarks.locomo import DataFault
from benchmarks.metrics import recall_at, reciprocal_rank
from mcp_memory.agent import AgentMemory, Memories
from mcp_memory.models.embedding import Embedder
from mcp_memory.settings import load_settings
from mcp_memory.tiers.engine import Engine
from research import notes

PAIRS: Final = Path(__file__).with_name("paraphrases.json")
SIZES: Final = (100, 1_000, 10_000)
HALVES: Final = ("chosen on", "judged by")
HITS: Final = 10
SEED: Final = 20_231_012
_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class Pair:
    """A fact, and a question for it in other words."""

    language: str
    fact: str
    question: str


@dataclass(frozen=True, slots=True)
class Row:
    """What half of the questions of a language find among so many notes; shares are 0 to 1."""

    language: str
    notes: int
    half: str
    questions: int
    first: float
    in_ten: float
    mrr: float

    def as_dict(self) -> dict[str, Any]:
        """Return the row as it stands in the JSON."""
        return {
            "language": self.language,
            "notes": self.notes,
            "half": self.half,
            "questions": self.questions,
            "recall_at_1": round(self.first, 4),
            "recall_at_10": round(self.in_ten, 4),
            "mrr": round(self.mrr, 4),
        }


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


def measure(pairs: Sequence[Pair], sizes: Sequence[int], embedder: Embedder) -> list[Row]:
    """Return the rows of each language at each size, in that order."""
    rows = []
    with progress() as bar, tempfile.TemporaryDirectory(prefix="mcp-memory-") as folder:
        for language in dict.fromkeys(pair.language for pair in pairs):
            of_language = [pair for pair in pairs if pair.language == language]
            settings = load_settings(db=Path(folder) / f"{language}.duckdb")
            engine = Engine(settings, embedder=embedder)
            memories = Memories(engine)
            try:
                memory = memories.open("default")
                rows += _of_language(memory, engine, of_language, sorted(sizes), bar)
            finally:
                memories.close()
    return rows


def _of_language(
    memory: AgentMemory, engine: Engine, pairs: list[Pair], sizes: Sequence[int], bar: Progress
) -> list[Row]:
    language = pairs[0].language
    rng = random.Random(SEED)
    made = texts.distinct(partial(notes.NOTES[language], rng), sizes[-1])
    task = bar.add_task(f"{language} notes", total=sizes[-1])
    rows: list[Row] = []
    kept = 0
    for size in sizes:
        coming = made[kept:size]
        if not rows:
            coming = rng.sample([*coming, *(pair.fact for pair in pairs)], len(coming) + len(pairs))
        for first in range(0, len(coming), _AT_ONCE):
            batch = coming[first : first + _AT_ONCE]
            memory.loader.memories([{"content": text} for text in batch])
            engine.fill_pending()
            bar.advance(task, min(len(batch), size - kept))
        kept = size
        rankings = [
            [hit.memory.content for hit in memory.archive.search(pair.question, limit=HITS).items]
            for pair in pairs
        ]
        rows += grade(language, size, rankings, pairs)
    return rows


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    table = Table(title="Facts found by a question in other words, percent")
    for heading in ("", "among", "half", "questions", "R@1", "R@10", "MRR"):
        table.add_column(heading, justify="left" if heading in ("", "half") else "right")
    for row in rows:
        shares = (f"{100 * share:.1f}" for share in (row.first, row.in_ten, row.mrr))
        table.add_row(row.language, f"{row.notes:,}", row.half, str(row.questions), *shares)
    out.print(table)


def _sizes(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers from 1")
    return [int(part) for part in parts]


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, default=PAIRS, help="pairs in the form of ours")
    parser.add_argument(
        "--sizes",
        type=_sizes,
        default=list(SIZES),
        help="numbers of notes, default: 100,1000,10000",
    )
    parser.add_argument("--out", type=Path, help="write the report to this JSON file")
    return parser.parse_args(argv)


def _benchmark(pairs: Sequence[Pair], options: argparse.Namespace) -> None:
    embedder = load_embedder()
    rows = measure(pairs, options.sizes, embedder)
    show(rows)
    write_json(
        options.out,
        {
            "benchmark": "paraphrase",
            **machine(),
            "model": embedder.name,
            "rows": [row.as_dict() for row in rows],
        },
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit status."""
    options = parse_arguments(sys.argv[1:] if argv is None else argv)
    try:
        pairs = load(options.data)
    except DataFault as error:
        err.print(f"error: {error}", markup=False, soft_wrap=True)
        return EXIT_USAGE
    return run_blocking(partial(_benchmark, pairs, options))


if __name__ == "__main__":
    sys.exit(main())
