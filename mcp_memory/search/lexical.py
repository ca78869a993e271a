"""An incremental BM25 index in memory: a row can be added and found at once.

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25
and Beyond", 2009, equation 3.15, with the idf that is never negative.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

K1: Final = 1.2
B: Final = 0.75
"""The usual values. A smaller `B` finds a little more among short turns of like
length, and loses much where some messages are long."""


class LexicalIndex:
    """Postings by term. Rows count up from 0 and stay; who leaves is masked by the caller."""

    def __init__(self) -> None:
        self._rows: dict[str, array[int]] = {}
        self._counts: dict[str, array[float]] = {}
        self._lengths = array("f")
        self._total_length = 0.0

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._lengths)

    def add(self, terms: Sequence[str]) -> int:
        """Add a text by its terms and return its row."""
        row = len(self._lengths)
        for term, count in Counter(terms).items():
            rows = self._rows.get(term)
            if rows is None:
                rows = self._rows[term] = array("i")
                self._counts[term] = array("f")
            rows.append(row)
            self._counts[term].append(count)
        self._lengths.append(len(terms))
        self._total_length += len(terms)
        return row

    def scores(self, terms: Sequence[str]) -> NDArray[np.float32]:
        """Return the BM25 score of every row: (rows,) float32, 0 where no term occurs."""
        total = len(self._lengths)
        scores = np.zeros(total, dtype=np.float32)
        if not total:
            return scores
        lengths = np.frombuffer(self._lengths, dtype=np.float32)
        average = max(self._total_length / total, 1.0)
        for term in terms:
            postings = self._rows.get(term)
            if postings is None:
                continue
            rows = np.frombuffer(postings, dtype=np.int32)
            counts = np.frombuffer(self._counts[term], dtype=np.float32)
            idf = math.log1p((total - len(rows) + 0.5) / (len(rows) + 0.5))
            norm = K1 * (1 - B + B * lengths[rows] / average)
            scores[rows] += idf * counts * (K1 + 1) / (counts + norm)
        return scores
