"""An incremental BM25 index in memory: a text can be added and found at once.

A text is weighed by itself and together with its neighbours: a turn of a
conversation is often answered, or only named, in the turn beside it.

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25
and Beyond", 2009, equation 3.15, with the idf that is never negative.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.columns import Column
from mcp_memory.search.neighbours import NONE, Around, Neighbours
from mcp_memory.search.postings import Folded, Postings, Unfolded

Scores = NDArray[np.float32]

K1: Final = 1.2
B: Final = 0.75
"""The usual values. A smaller `B` finds a little more among short turns of like
length, and loses much where some messages are long."""

COMMON_PART: Final = 12
"""The surroundings of a term that one of so many rows has are summed for all rows at once."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """BM25 scores of all rows, 0 where no term occurs: (rows,) float32."""

    alone: Scores
    three: Scores | None
    """Of each row with the ones before and after it; None without neighbours."""
    five: Scores | None
    """The same with two on each side."""


class LexicalIndex:
    """Postings by term. Rows count up from 0 and stay; who leaves is masked by the caller."""

    def __init__(self) -> None:
        self._postings = Postings()
        self._lengths = Column(np.float32)
        self._total_length = 0.0
        self._three, self._five = Column(np.float32), Column(np.float32)
        """The lengths of windows, of so many rows as were there at the last search."""

    @classmethod
    def of(cls, folded: Folded, lengths: Scores) -> LexicalIndex:
        """Return an index of rows that are folded already, with how many terms each has."""
        index = cls()
        index._postings = Postings(folded, len(lengths))
        index._lengths = Column.of(lengths)
        index._total_length = float(lengths.sum(dtype=np.float64))
        return index

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._lengths)

    @property
    def nbytes(self) -> int:
        """Memory in use, about."""
        columns = (self._lengths, self._three, self._five)
        return self._postings.nbytes + sum(column.nbytes for column in columns)

    def add(self, terms: Sequence[str]) -> int:
        """Add a text by its terms and return its row."""
        row = self._lengths.append(len(terms))
        self._total_length += len(terms)
        self._postings.add(row, terms, self._lengths.values)
        return row

    @contextmanager
    def bulk(self) -> Iterator[None]:
        """Add many texts faster, in a `with`; nothing can be asked before its end."""
        with self._postings.bulk(self._lengths.values):
            yield
        self._postings.fold(self._lengths.values)

    def copy(self) -> tuple[Unfolded, Scores]:
        """Return the postings as they are now, and how many terms each row has."""
        return self._postings.copy(), self._lengths.values.copy()

    def adopt(self, folded: Folded, rows: int) -> None:
        """Take what was folded of a copy that had so many rows."""
        self._postings.adopt(folded, rows, self._lengths.values)

    def idf(self, terms: Iterable[str]) -> dict[str, float]:
        """Return how telling each of the terms is that occurs; the rarer the more."""
        total = len(self._lengths)
        return {
            term: math.log1p((total - count + 0.5) / (count + 0.5))
            for term in terms
            if (count := self._postings.count(term))
        }

    @property
    def rarest_idf(self) -> float:
        """How telling a term would be that occurs nowhere."""
        return math.log1p((len(self._lengths) + 0.5) / 0.5)

    def scores(self, idf: dict[str, float]) -> Scores:
        """Return the BM25 score of every row by terms and their weights."""
        scores = np.zeros(len(self._lengths), dtype=np.float32)
        lengths = self._lengths.values
        average = self._average()
        for term, weight in idf.items():
            for rows, counts in self._postings.find(term):
                # With places of this type an array is read and written in half the time.
                places = rows.astype(np.intp)
                scores[places] += _saturated(weight, counts, lengths[places], average)
        return scores

    def weigh(self, idf: dict[str, float], neighbours: Neighbours) -> Weighed:
        """Return the scores of every row alone and with its neighbours."""
        if not neighbours.any:
            return Weighed(self.scores(idf), None, None)
        total = len(self._lengths)
        alone, three, five = (np.zeros(total, dtype=np.float32) for _ in range(3))
        average = self._average()
        three_lengths, five_lengths = self._surrounding_lengths(neighbours)
        around = Around(neighbours, total)
        lengths = self._lengths.values
        averages = [average * size for size in neighbours.sizes]
        for weight, rows, counts in self._matching(idf):
            alone[rows] += _saturated(weight, counts, lengths[rows], average)
            if len(rows) * COMMON_PART > total:
                near, far = around.everywhere(rows, counts)
                three += _saturated(weight, near, three_lengths.copy(), averages[0])
                five += _saturated(weight, far, five_lengths.copy(), averages[1])
                continue
            # Rows that stand there twice get the same value twice: it counts once.
            for scores, own_lengths, own_average, (places, found) in zip(
                (three, five),
                (three_lengths, five_lengths),
                averages,
                around.nearby(rows, counts),
                strict=True,
            ):
                scores[places] += _saturated(weight, found, own_lengths[places], own_average)
        return Weighed(alone, three, five)

    def _surrounding_lengths(self, neighbours: Neighbours) -> tuple[Scores, Scores]:
        """Return how many terms each row has with the ones beside it, and with two on each side."""
        done, total = len(self._three), len(self._lengths)
        if done < total:
            new = np.arange(done, total)
            before = [neighbours.before(new, steps) for steps in (1, 2)]
            changed = np.unique(np.concatenate([new, *before]))
            changed = changed[changed != NONE]
            for column, steps in ((self._three, 1), (self._five, 2)):
                column.extend(np.zeros(len(new), dtype=np.float32))
                column.values[changed] = neighbours.summed(self._lengths.values, changed, steps)
        return self._three.values, self._five.values

    def _average(self) -> float:
        return max(self._total_length / max(len(self._lengths), 1), 1.0)

    def _matching(self, idf: dict[str, float]) -> Iterator[tuple[float, NDArray[np.intp], Scores]]:
        for term, weight in idf.items():
            parts = self._postings.find(term)
            if parts:
                rows = np.concatenate([rows for rows, _ in parts], dtype=np.intp)
                counts = parts[0][1] if len(parts) == 1 else np.concatenate([c for _, c in parts])
                yield weight, rows, counts


def _saturated(weight: float, counts: Scores, lengths: Scores, average: float) -> Scores:
    """Return what counts are worth: ever less each, and less in long texts.

    Args:
        lengths: Written over with it.
    """
    lengths *= np.float32(K1 * B / average)
    lengths += np.float32(K1 * (1 - B))
    lengths += counts
    np.divide(counts, lengths, out=lengths)
    lengths *= np.float32(weight * (K1 + 1))
    return lengths
