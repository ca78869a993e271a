"""What does each signal of the search give, and are its weights fitted to the data?

In this process, on the product's own index and model. Every signal is left out
in turn; weights are chosen on half of the conversations and asked on the other;
and long messages are put among short ones, to see whether length is favoured.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, cast
from unittest.mock import patch

import numpy as np
from rich.progress import Progress
from rich.table import Table

from benchmarks import harness, loaders
from benchmarks.harness import out, progress
from benchmarks.loaders import Question, Talk, together
from benchmarks.metrics import Quality, plain, quality
from benchmarks.model import load_embedder
from mcp_memory.search import fusion
from mcp_memory.search import index as search_index
from mcp_memory.search.semantic import DocumentVectors
from research import boards, squad
from research.longtexts import Crowded, crowded
from research.talkindex import Indexed, pieces, texts_of
from research.vectorcache import VectorCache

HITS: Final = 20


@dataclass(frozen=True, slots=True)
class Variant:
    """The search with something left out."""

    name: str
    without: frozenset[str] = frozenset()
    by_words: bool = True
    by_meaning: bool = True
    crowding: bool = True
    apart: bool = True
    prefixed: bool = True


AS_SET: Final = Variant("as it is set")
VARIANTS: Final = (
    AS_SET,
    Variant("without words", by_words=False),
    Variant("without words within 3", frozenset({fusion.WORDS_NEAR})),
    Variant("without words within 5", frozenset({fusion.WORDS_AROUND})),
    Variant("without meaning", by_meaning=False),
    Variant("without meaning within 3", frozenset({fusion.MEANING_NEAR})),
    Variant("without meaning within 5", frozenset({fusion.MEANING_AROUND})),
    Variant("without surroundings", boards.NEAR),
    Variant("surroundings alone", frozenset({fusion.WORDS, fusion.MEANING})),
    Variant("without the speaker", frozenset({fusion.SPEAKER})),
    Variant("without the time", frozenset({fusion.TIME})),
    Variant("without crowding", crowding=False),
    Variant("without closeness of all texts", apart=False),
    Variant("without day and name in front", prefixed=False),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What a variant finds; `worse` of the talks have a lower R@10 than as it is set."""

    name: str
    quality: Quality
    worse: int

    def as_dict(self) -> dict[str, Any]:
        """Return the row for the JSON."""
        return {"variant": self.name, **plain(self.quality), "worse": self.worse}


@dataclass
class Report:
    """What was measured, filled as it goes."""

    rows: list[Row] = field(default_factory=list)
    groups: dict[str, dict[float, float]] = field(default_factory=dict)
    halves: boards.Halves | None = None
    crowded: list[Crowded] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return it for the JSON."""
        return {
            "variants": [row.as_dict() for row in self.rows],
            "recall_at_10_by_factor": {
                name: {str(factor): round(value, 4) for factor, value in by_factor.items()}
                for name, by_factor in self.groups.items()
            },
            "halves": self.halves and self.halves.as_dict(),
            "long_messages": self.crowded,
        }


@contextmanager
def varied(variant: Variant) -> Iterator[None]:
    """Let the search in this process be as a variant has it."""
    same_at = search_index.SAME_AT if variant.crowding else 2.0
    with (
        _weighing(fusion.WEIGHTS, variant.without),
        _weighing(fusion.BONUS, variant.without),
        patch.object(search_index, "SAME_AT", same_at),
        nullcontext() if variant.apart else patch.object(DocumentVectors, "apart", 1.0),
    ):
        yield


@contextmanager
def _weighing(weights: Mapping[str, float], without: frozenset[str]) -> Iterator[None]:
    changed = {name: 0.0 for name in without if name in weights}
    with patch.dict(cast("dict[str, float]", weights), changed):
        yield


def asked(talk: Talk) -> list[Question]:
    """Return the questions of a talk that name the turns which answer them."""
    return [question for question in talk.questions if question.gold]


def answers(indexed: Indexed, variant: Variant) -> Iterator[tuple[list[str], frozenset[str]]]:
    """Yield the first hits of each question, and its gold."""
    for question in asked(indexed.talk):
        terms, vector = indexed.ask(question)
        hits = indexed.search(
            terms, vector if variant.by_meaning else None, HITS, lexical=variant.by_words
        )
        yield hits, question.gold


def variants(indexes: Sequence[Indexed], bare: Sequence[Indexed], bar: Progress) -> list[Row]:
    """Return a row for each variant.

    Args:
        indexes: The talks as the server indexes them.
        bare: The same without day and name in front of each message.
        bar: Where the progress is shown.
    """
    task = bar.add_task("variants", total=len(VARIANTS))
    rows: list[Row] = []
    usual: list[float] = []
    for variant in VARIANTS:
        with varied(variant):
            chosen = indexes if variant.prefixed else bare
            found = [list(answers(indexed, variant)) for indexed in chosen]
        by_talk = [quality(part).recall_at_10 for part in found if part]
        usual = usual or by_talk
        worse = sum(now < before for now, before in zip(by_talk, usual, strict=True))
        rows.append(Row(variant.name, quality(one for part in found for one in part), worse))
        bar.advance(task)
    return rows


def weigh(
    indexes: Sequence[Indexed], bar: Progress
) -> tuple[dict[str, dict[float, float]], boards.Halves | None]:
    """Return R@10 by group and factor of its weights, and what weights of one half give the other.

    With less than two talks there are no halves.
    """
    weights = boards.grid()
    questions = [(at, one) for at, part in enumerate(indexes) for one in asked(part.talk)]
    task = bar.add_task("weights", total=len(questions))
    shares: list[boards.Shares] = []
    for at, question in questions:
        shares.append(boards.board(at, indexes[at], question).graded(weights))
        bar.advance(task)
    every = np.stack(shares)
    by_weights = every.mean(axis=0)[:, boards.CHOSEN_BY]
    groups = {
        name: {factor: float(by_weights[at]) for factor, at in boards.one_group(name).items()}
        for name in boards.GROUPS
    }
    talks = np.array([at for at, _ in questions])
    if len(indexes) < 2:
        return groups, None
    return groups, boards.halves(talks, every, boards.as_set())


def measure(talks: Sequence[Talk], vectors: VectorCache) -> Report:
    """Measure all; what has no vector yet is embedded first."""
    report = Report()
    with progress() as bar:
        _embed(talks, vectors, bar)
        indexes = [Indexed.make(talk, vectors) for talk in talks]
        bare = [Indexed.make(talk, vectors, prefixed=False) for talk in talks]
        report.rows = variants(indexes, bare, bar)
        report.groups, report.halves = weigh(indexes, bar)
        if len(talks) > 1:
            report.crowded = crowded(talks, vectors, bar)
    vectors.save()
    return report


def _embed(talks: Sequence[Talk], vectors: VectorCache, bar: Progress) -> None:
    made = [
        piece
        for talk in talks
        for prefixed in (True, False)
        for piece in pieces(talk.turns, vectors.embedder, prefixed=prefixed)
    ]
    texts = dict.fromkeys(texts_of(made))
    task = bar.add_task("embedding", total=len(texts))
    vectors.fill(texts, partial(bar.advance, task))
    bar.remove_task(task)
    for talk in talks:
        for question in asked(talk):
            vectors.query(question.text)
    vectors.save()


def show(report: Report) -> None:
    """Print the tables."""
    table = Table(title="Recall of the gold turns, percent, with something left out")
    for heading in ("", "R@5", "R@10", "R@20", "MRR", "talks where R@10 is less"):
        table.add_column(heading, justify="right" if heading else "left")
    for row in report.rows:
        table.add_row(row.name, *_shares(row.quality), str(row.worse))
    out.print(table)

    table = Table(title="R@10, percent, with a group of weights at so much of what it is set to")
    table.add_column("")
    for factor in boards.FACTORS:
        table.add_column(f"{factor:g}", justify="right")
    for name, by_factor in report.groups.items():
        table.add_row(name, *(f"{100 * value:.1f}" for value in by_factor.values()))
    out.print(table)

    if report.halves is not None:
        _show_halves(report.halves)
    if report.crowded:
        table = Table(title="With another conversation among it, percent")
        for heading in ("", "R@5", "R@10", "R@20", "MRR", "of all turns", "of the first ten"):
            table.add_column(heading, justify="right" if heading else "left")
        for one in report.crowded:
            parts = (one.added_frac, one.hits_frac)
            table.add_row(one.name, *_shares(one.quality), *(f"{100 * part:.1f}" for part in parts))
        out.print(table)


def _show_halves(halves: boards.Halves) -> None:
    table = Table(title=f"Questions of one half of the talks, means of {halves.splits} splits")
    table.add_column("weights")
    for name in boards.METRICS:
        table.add_column(name, justify="right")
    for name, row in (
        ("as they are set", halves.as_set),
        ("best on the other half", halves.chosen),
        ("best on the half itself", halves.best),
    ):
        table.add_row(name, *(f"{100 * value:.1f}" for value in row))
    out.print(table)
    out.print(
        f"weights as set find less in ten than those of the other half in {halves.worse} of "
        f"{halves.splits} splits, by {-100 * halves.least:.1f} points at most",
        highlight=False,
    )


def _shares(row: Quality) -> Iterator[str]:
    for share in (row.recall_at_5, row.recall_at_10, row.recall_at_20, row.mrr):
        yield f"{100 * share:.1f}"


def _benchmark(talks: Sequence[Talk], options: argparse.Namespace) -> None:
    began = time.perf_counter()
    embedder = load_embedder()
    report = measure(talks, VectorCache(embedder, options.cache))
    show(report)
    found = {
        "model": embedder.name,
        "data": options.format,
        "together": options.together,
        "talks": len(talks),
        "questions": sum(len(asked(talk)) for talk in talks),
        "duration_seconds": round(time.perf_counter() - began, 1),
        "weights": {**fusion.WEIGHTS, **fusion.BONUS},
        **report.as_dict(),
    }
    harness.finish("ablation", options, found, [])


def main() -> int:
    """Run the research; return its exit status."""
    parser = harness.parser("ablation", __doc__, "python -m research.ablation")
    formats = {**loaders.LOADERS, "squad": squad.load}
    loaders.add_options(parser, formats)
    parser.add_argument(
        "--together", action="store_true", help="put all conversations into one memory"
    )
    parser.add_argument("--cache", type=Path, help="keep the vectors in this .npz file")
    options = parser.parse_args()
    talks = loaders.chosen(parser, options, formats)
    if options.together:
        talks = [together(talks)]
    return harness.run(partial(_benchmark, talks, options))


if __name__ == "__main__":
    sys.exit(main())
