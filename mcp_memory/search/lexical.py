"""An incremental BM25 index in memory: a text can be added and found at once.

A text is weighed by itself and together with its neighbours: a turn of a
conversation is often answered, or only named, in the turn beside it.

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25
and Beyond", 2009, equation 3.15, with the idf that is never negative.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.columns import Column
from mcp_memory.search.neighbours import Neighbours

Scores = NDArray[np.float32]
Rows = NDArray[np.int32]

K1: Final = 1.2
B: Final = 0.75
"""The usual values. A smaller `B` finds a little more among short turns of like
length, and loses much where some messages are long."""

_POSTING_BYTES: Final = 8
_TERM_BYTES: Final = 300


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
        self._rows: dict[str, array[int]] = {}
        self._counts: dict[str, array[float]] = {}
        self._lengths = Column(np.float32)
        self._total_length = 0.0
        self._postings = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._lengths)

    @property
    def nbytes(self) -> int:
        """Memory in use, about."""
        return self._postings * _POSTING_BYTES + len(self._rows) * _TERM_BYTES

    def add(self, terms: Sequence[str]) -> int:
        """Add a text by its terms and return its row."""
        counted = Counter(terms)
        row = self._lengths.append(len(terms))
        for term, count in counted.items():
            rows = self._rows.get(term)
            if rows is None:
                rows = self._rows[term] = array("i")
                self._counts[term] = array("f")
            rows.append(row)
            self._counts[term].append(count)
        self._total_length += len(terms)
        self._postings += len(counted)
        return row

    def idf(self, terms: Sequence[str]) -> dict[str, float]:
        """Return how telling each of the terms is that occurs; the rarer the more."""
        total = len(self._lengths)
        return {
            term: math.log1p((total - len(rows) + 0.5) / (len(rows) + 0.5))
            for term in terms
            if (rows := self._rows.get(term)) is not None
        }

    def scores(self, idf: dict[str, float]) -> Scores:
        """Return the BM25 score of every row by terms and their weights."""
        scores = np.zeros(len(self._lengths), dtype=np.float32)
        lengths = self._lengths.values
        average = self._average()
        for weight, rows, counts in self._matching(idf):
            scores[rows] += weight * _saturated(counts, lengths[rows], average)
        return scores

    def weigh(self, idf: dict[str, float], neighbours: Neighbours) -> Weighed:
        """Return the scores of every row alone and with its neighbours."""
        if not neighbours.any:
            return Weighed(self.scores(idf), None, None)
        total = len(self._lengths)
        alone, three, five = (np.zeros(total, dtype=np.float32) for _ in range(3))
        # By term: how often it occurs around a row. Only what was touched is cleared again.
        around = np.zeros(total, dtype=np.float32)
        lengths = self._lengths.values
        average = self._average()
        average_three, average_five = (average * size for size in neighbours.sizes)
        for weight, rows, counts in self._matching(idf):
            alone[rows] += weight * _saturated(counts, lengths[rows], average)
            near, near_counts = neighbours.spread(rows, counts, 1)
            np.add.at(around, near, near_counts)
            # Rows that stand there twice get the same value twice: it counts once.
            three[near] += weight * _saturated(
                around[near], neighbours.summed(lengths, near, 1), average_three
            )
            far, far_counts = neighbours.spread(rows, counts, 2)
            np.add.at(around, far, far_counts)
            both = np.concatenate([near, far])
            five[both] += weight * _saturated(
                around[both], neighbours.summed(lengths, both, 2), average_five
            )
            around[both] = 0.0
        return Weighed(alone, three, five)

    def _average(self) -> float:
        return max(self._total_length / max(len(self._lengths), 1), 1.0)

    def _matching(self, idf: dict[str, float]) -> Iterator[tuple[float, Rows, Scores]]:
        for term, weight in idf.items():
            postings = self._rows.get(term)
            if postings is not None:
                counts = np.frombuffer(self._counts[term], dtype=np.float32)
                yield weight, np.frombuffer(postings, dtype=np.int32), counts


def _saturated(counts: Scores, lengths: Scores, average: float) -> Scores:
    """Return what counts are worth: ever less each, and less in long texts."""
    worth = counts * (K1 + 1) / (counts + K1 * (1 - B + B * lengths / average))
    return worth.astype(np.float32, copy=False)
