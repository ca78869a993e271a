"""Array types and helpers that the parts of the search share."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

Range = tuple[int, int]
"""Characters of a text: from the first up to the second."""

Rows = NDArray[np.int32]
"""Numbers of documents, or of rows of an index."""

Mask = NDArray[np.bool_]
"""Which documents or rows count."""

Scores = NDArray[np.float32]
"""One number for each document or row."""

Vectors = NDArray[np.float32]
"""Vectors of unit length: one (dim,) or several (n, dim)."""

NONE: Final = -1
"""Stands for no document."""

LOWEST: Final = float(np.finfo(np.float32).min)
POSITIVE: Final = float(np.finfo(np.float32).tiny)

_FIRST_ROWS: Final = 64
"""Room in a new column; by judgement."""

_BLOCK: Final = 64
_FEW: Final = 16_384
"""In an array of 16,384 scores or more, `best` looks at the maxima of blocks of 64 first. By
judgement: they change the speed alone."""


class Column:
    """A growing array of numbers; its rows count up from 0."""

    def __init__(self, dtype: DTypeLike, capacity: int = _FIRST_ROWS) -> None:
        self._values: NDArray[Any] = np.empty(capacity, dtype=dtype)
        self._used = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._used

    @property
    def values(self) -> NDArray[Any]:
        """The rows: a view, valid until the next one is added."""
        return self._values[: self._used]

    @property
    def nbytes(self) -> int:
        """Memory in use."""
        return self._values.nbytes

    @classmethod
    def of(cls, values: NDArray[Any]) -> Column:
        """Return a column with a copy of these rows."""
        column = cls(values.dtype, 0)
        column._values = values.copy()
        column._used = len(values)
        return column

    def append(self, value: float) -> int:
        """Add a row and return its number."""
        row = self._used
        if row == len(self._values):
            self._grow(row + 1)
        self._values[row] = value
        self._used = row + 1
        return row

    def extend(self, values: NDArray[Any]) -> None:
        """Add many rows."""
        end = self._used + len(values)
        if end > len(self._values):
            self._grow(end)
        self._values[self._used : end] = values
        self._used = end

    def _grow(self, least: int) -> None:
        grown = np.empty(max(least, 2 * self._used, _FIRST_ROWS), dtype=self._values.dtype)
        grown[: self._used] = self._values[: self._used]
        self._values = grown


def best(scores: Scores, limit: int, *, least: float = LOWEST) -> NDArray[np.intp]:
    """Return the places of the highest scores, best first; of equal ones the later first.

    Args:
        scores: One for each place; -inf excludes it.
        limit: How many at most.
        least: The lowest score that counts.
    """
    if limit < 1 or not len(scores):
        return np.empty(0, dtype=np.intp)
    candidates = np.flatnonzero(scores >= _lower_bound(scores, limit, least))
    values = scores[candidates]
    if len(candidates) > limit:
        least = np.partition(values, len(values) - limit)[len(values) - limit]
        better = candidates[values > least]
        equal = candidates[values == least]
        missing = limit - len(better)
        candidates = np.concatenate([better, equal[len(equal) - missing :]])
        candidates.sort()
        values = scores[candidates]
    # A stable sort of the reversed order puts the later of equal scores first.
    return candidates[::-1][np.argsort(-values[::-1], kind="stable")]


def _lower_bound(scores: Scores, limit: int, least: float) -> float:
    """Return a score that at least `limit` of the candidates reach, if there are that many."""
    blocks = len(scores) // _BLOCK
    if len(scores) < _FEW or blocks <= limit:
        return least
    # As many blocks have a maximum that high, each with at least one such score.
    highest = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    return max(float(np.partition(highest, blocks - limit)[blocks - limit]), least)
