"""How much of the prefix that the model wants does a question need?

In this process, with the product's own search: facts are asked in other words, and
with `--data` conversations too, with the prefix in front of the question, and without
it but moved by a part of what it adds on average.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import paraphrase
from ablation import HITS, asked
from common import (
    EXIT_USAGE,
    err,
    machine,
    out,
    positive,
    progress,
    run_blocking,
    write_json,
)
from formats import HINTS, LOADERS
from latency import model_files
from locomo import DataFault
from metrics import Quality, quality
from rich.table import Table
from talkindex import Indexed
from talks import Talk, spread
from vectorcache import VectorCache

from mcp_memory.models.embedding import Embedder, FastEmbedder
from mcp_memory.settings import load_settings

FRACS: Final = (None, 0.0, 0.25, 0.4, 0.5, 0.75)
"""None for the prefix itself."""

LANGUAGE: Final = "english"
NOTES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Row:
    """What is found with a part of the prefix: facts by half, and turns of conversations."""

    frac: float | None
    facts: list[paraphrase.Row]
    talks: Quality | None

    def as_dict(self) -> dict[str, Any]:
        """Return the row as it stands in the JSON."""
        return {
            "prefix_frac": self.frac,
            "facts": [row.as_dict() for row in self.facts],
            "talks": self.talks and self.talks.as_dict(),
        }


def load_asking(frac: float | None) -> Embedder:
    """Return the model that the server uses, asked of facts with a part of its prefix.

    Raises:
        BenchmarkFault: Its files are not there.
    """
    files = model_files()
    spec = replace(files.spec, facts_prefix_frac=frac)
    return FastEmbedder.load(replace(files, spec=spec), threads=load_settings().threads)


def found_in(indexes: Sequence[Indexed], embedder: Embedder) -> Quality:
    """Return what the questions of talks find if they are asked as facts are."""
    return quality(
        (
            indexed.search(
                indexed.ask(question)[0],
                embedder.embed_query(question.text, of_facts=True),
                HITS,
            ),
            question.gold,
        )
        for indexed in indexes
        for question in asked(indexed.talk)
    )


def measure(talks: Sequence[Talk], cache: Path | None, notes: int) -> list[Row]:
    """Return a row for each of `FRACS`.

    Args:
        talks: Conversations to ask as well; none for facts alone.
        cache: Where the vectors of the talks are kept; None to forget them.
        notes: Among how many notes the facts are looked for.
    """
    pairs = [pair for pair in paraphrase.load(paraphrase.PAIRS) if pair.language == LANGUAGE]
    vectors = VectorCache(load_asking(None), cache)
    indexes: list[Indexed] = []
    with progress() as bar:
        task = bar.add_task("indexing", total=len(talks))
        for talk in talks:
            indexes.append(Indexed.make(talk, vectors))
            bar.advance(task)
    vectors.save()
    rows = []
    for frac in FRACS:
        embedder = load_asking(frac)
        facts = paraphrase.measure(pairs, [notes], embedder)
        rows.append(Row(frac, facts, found_in(indexes, embedder) if indexes else None))
    return rows


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    table = Table(title="Percent found, by how much of the prefix a question has")
    table.add_column("prefix")
    table.add_column("facts: R@10, MRR", justify="right")
    table.add_column(paraphrase.HALVES[1], justify="right")
    table.add_column("turns: R@10, MRR", justify="right")
    for row in rows:
        pairs = [(_mean([half.in_ten for half in row.facts]), _mean([h.mrr for h in row.facts]))]
        pairs += [(half.in_ten, half.mrr) for half in row.facts[1:]]
        pairs += [(row.talks.recall_at_10, row.talks.mrr)] if row.talks else []
        name = "all of it" if row.frac is None else f"{row.frac:g} of it"
        table.add_row(name, *(f"{100 * in_ten:.1f}  {100 * mrr:.1f}" for in_ten, mrr in pairs))
    out.print(table)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, help="a data set of conversations to ask as well")
    parser.add_argument("--format", choices=LOADERS, default="locomo", help="default: locomo")
    parser.add_argument("--limit", type=positive, help="use N conversations, from all over it")
    parser.add_argument("--cache", type=Path, help="keep the vectors in this .npz file")
    parser.add_argument("--notes", type=positive, default=NOTES, help="default: 1000")
    parser.add_argument("--out", type=Path, help="write the report to this JSON file")
    return parser.parse_args(argv)


def _benchmark(talks: Sequence[Talk], options: argparse.Namespace) -> None:
    rows = measure(talks, options.cache, options.notes)
    show(rows)
    write_json(
        options.out,
        {
            "benchmark": "questionprefix",
            **machine(),
            "notes": options.notes,
            "talks": len(talks),
            "rows": [row.as_dict() for row in rows],
        },
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit status."""
    options = parse_arguments(sys.argv[1:] if argv is None else argv)
    talks: Sequence[Talk] = ()
    if options.data is not None:
        try:
            talks = spread(LOADERS[options.format](options.data), options.limit)
        except DataFault as error:
            hint = HINTS[options.format]
            err.print(f"error: {error}. {hint}", markup=False, soft_wrap=True)
            return EXIT_USAGE
    return run_blocking(partial(_benchmark, talks, options))


if __name__ == "__main__":
    sys.exit(main())
