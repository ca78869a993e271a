"""A growing set of unit vectors: compared exactly while few, compressed when they are many."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.arrays import Mask, Vectors, best
from mcp_memory.search.compressed import CompressedVectors, faiss

EXACT_ROWS: Final = 8_192
"""Up to so many rows are kept and compared exactly."""

_BLOCK_ROWS: Final = 4_096


class VectorIndex:
    """Rows count up from 0 and stay; who leaves is masked by the caller. Not thread-safe.

    Args:
        capacity: For how many rows there is room at first.
        folder: Where temporary files of large indexes are made; None to use memory alone.
        exact_rows: From how many rows on they are compressed.
    """

    def __init__(
        self,
        dimension: int,
        capacity: int = 256,
        *,
        folder: Path | None = None,
        exact_rows: int = EXACT_ROWS,
    ) -> None:
        self._matrix: Vectors = np.empty((capacity, dimension), dtype=np.float32)
        self._used = 0
        self._sum = np.zeros(dimension, dtype=np.float64)
        self._folder = folder
        self._exact_rows = exact_rows
        self._compressed: CompressedVectors | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._used if self._compressed is None else len(self._compressed)

    @property
    def compressed(self) -> bool:
        """Whether there are so many rows that `top` goes by a first pass."""
        return self._compressed is not None

    @property
    def nbytes(self) -> int:
        """Memory in use; without what is mapped from files."""
        return self._matrix.nbytes if self._compressed is None else self._compressed.nbytes

    @property
    def mean(self) -> Vectors:
        """The mean of all rows (dim,); zeros without any."""
        mean: Vectors = (self._sum / max(len(self), 1)).astype(np.float32)
        return mean

    @property
    def mapped_bytes(self) -> int:
        """What stands in temporary files."""
        return 0 if self._compressed is None else self._compressed.mapped_bytes

    def add(self, vectors: Vectors) -> int:
        """Add rows (n, dim), unit length, and return the number of the first one."""
        first = len(self)
        if vectors.shape[1:] != self._matrix.shape[1:]:
            raise ValueError(f"vectors of {vectors.shape} don't fit {self._matrix.shape[1]}")
        self._sum += vectors.sum(axis=0, dtype=np.float64)
        if self._compressed is None and first + len(vectors) > self._exact_rows:
            self._compress(vectors)
        if self._compressed is not None:
            self._compressed.add(vectors)
            return first
        needed = first + len(vectors)
        if needed > len(self._matrix):
            grown = np.empty(
                (max(needed, 2 * len(self._matrix)), self._matrix.shape[1]), dtype=np.float32
            )
            grown[:first] = self._matrix[:first]
            self._matrix = grown
        self._matrix[first:needed] = vectors
        self._used = needed
        return first

    def scores(self, query: Vectors) -> Vectors:
        """Return the cosine of every row with a query (dim,) of unit length: (rows,) float32.

        It goes over all rows: `top` is for indexes that are `compressed`.
        """
        if self._compressed is not None:
            return self._compressed.scores(query)
        cosines: Vectors = np.vecdot(self._matrix[: self._used], query)
        return cosines

    def top(
        self,
        query: Vectors,
        limit: int,
        allowed: Mask | None = None,
        *,
        compared: int | None = None,
    ) -> tuple[NDArray[np.intp], Vectors]:
        """Return the rows nearest to a query (dim,) of unit length, nearest first; and cosines.

        Args:
            query: The vector that is looked for.
            limit: How many at most.
            allowed: Which rows count (rows,); None for all. It is applied before the limit.
            compared: How many rows the first pass of a compressed index keeps; None for as
                many as have nearly all of the nearest.
        """
        if self._compressed is not None:
            return self._compressed.top(query, limit, allowed, compared)
        scores = self.scores(query)
        if allowed is not None:
            scores[~allowed] = -np.inf
        chosen = best(scores, limit)
        return chosen, scores[chosen]

    def compare(self, query: Vectors, rows: NDArray[np.integer]) -> Vectors:
        """Return the cosines of some rows, in their order, with a query of unit length: (n,)."""
        if self._compressed is not None and bool(np.all(rows[1:] > rows[:-1])):
            return self._compressed.compare(query, rows.astype(np.intp))
        cosines: Vectors = np.vecdot(self.vectors(rows), query)
        return cosines

    def vectors(self, rows: NDArray[np.integer]) -> Vectors:
        """Return some rows in their order: (n, dim) float32, to four places if compressed."""
        if self._compressed is None:
            chosen: Vectors = self._matrix[rows]
            return chosen
        order = np.argsort(rows, kind="stable")
        taken = np.empty((len(rows), self._matrix.shape[1]), dtype=np.float32)
        taken[order] = self._compressed.take(rows[order].astype(np.intp))
        return taken

    def kept(self, mask: Mask) -> VectorIndex:
        """Return an index of the rows that the mask (rows,) has, numbered anew in their order."""
        index = VectorIndex(self._matrix.shape[1], folder=self._folder, exact_rows=self._exact_rows)
        for first in range(0, len(self), _BLOCK_ROWS):
            end = min(first + _BLOCK_ROWS, len(self))
            block = (
                self._matrix[first:end]
                if self._compressed is None
                else self._compressed.take(np.arange(first, end))
            )
            index.add(block[mask[first:end]])
        return index

    def _compress(self, coming: Vectors) -> None:
        if faiss() is None:
            return
        held = self._matrix[: self._used]
        sample = np.concatenate([held, coming[: self._exact_rows]])
        self._compressed = CompressedVectors(sample, self._folder)
        self._compressed.add(held)
        self._matrix = np.empty((0, sample.shape[1]), dtype=np.float32)
        self._used = 0
