"""A growing set of unit vectors: compared exactly while few, compressed when they are many."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.arrays import Mask, Vectors, best
from mcp_memory.search.compressed import CompressedVectors, faiss

EXACT_ROWS: Final = 8_192
"""Up to as many rows are compared exactly; by judgement, 12 MB of vectors with 384 dimensions."""


class VectorIndex:
    """Vectors in rows that count up from 0. Not thread-safe.

    Rows stay: the caller masks removed ones.

    Args:
        dimension: The length of a vector.
        capacity: How many rows there is room for at first.
        folder: Where large indexes put temporary files; None to use memory alone.
        exact_rows: How many rows are compared exactly; with more, all are compressed.
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
        """Whether there are so many rows that `top` needs a first pass."""
        return self._compressed is not None

    @property
    def nbytes(self) -> int:
        """Memory in use, without mapped files."""
        return self._matrix.nbytes if self._compressed is None else self._compressed.nbytes

    @property
    def mean(self) -> Vectors:
        """The mean of all rows (dim,); zeros if there are none."""
        mean: Vectors = (self._sum / max(len(self), 1)).astype(np.float32)
        return mean

    @property
    def mapped_bytes(self) -> int:
        """The size of the temporary files."""
        return 0 if self._compressed is None else self._compressed.mapped_bytes

    def add(self, vectors: Vectors) -> int:
        """Add rows (n, dim) of unit length and return the number of the first one.

        Raises:
            ValueError: They have another dimension.
        """
        first = len(self)
        if vectors.shape[1:] != self._matrix.shape[1:]:
            raise ValueError(
                f"vectors have the shape {vectors.shape}, but the index has the dimension"
                f" {self._matrix.shape[1]}"
            )
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
        """Return the cosine of every row with a query (dim,): (rows,).

        Slow if the index is `compressed`; use `top` then.
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
        """Return the rows nearest to a query, nearest first, and their cosines.

        Args:
            query: A vector (dim,) of unit length.
            limit: How many at most.
            allowed: Which rows count (rows,), before the limit; None for all.
            compared: How many rows are compared after the first pass of a compressed index;
                None for enough to find nearly all of the nearest.
        """
        if self._compressed is not None:
            return self._compressed.top(query, limit, allowed, compared)
        scores = self.scores(query)
        if allowed is not None:
            scores[~allowed] = -np.inf
        chosen = best(scores, limit)
        return chosen, scores[chosen]

    def compare(self, query: Vectors, rows: NDArray[np.integer]) -> Vectors:
        """Return the cosines of some rows, in their order, with a query: (n,)."""
        if self._compressed is not None and bool(np.all(rows[1:] > rows[:-1])):
            return self._compressed.compare(query, rows.astype(np.intp))
        cosines: Vectors = np.vecdot(self.vectors(rows), query)
        return cosines

    def vectors(self, rows: NDArray[np.integer]) -> Vectors:
        """Return some rows in their order (n, dim), rounded to four digits if compressed."""
        if self._compressed is None:
            chosen: Vectors = self._matrix[rows]
            return chosen
        order = np.argsort(rows, kind="stable")
        chosen = np.empty((len(rows), self._matrix.shape[1]), dtype=np.float32)
        chosen[order] = self._compressed.take(rows[order].astype(np.intp))
        return chosen

    def _compress(self, coming: Vectors) -> None:
        if faiss() is None:
            return
        rows = self._matrix[: self._used]
        sample = np.concatenate([rows, coming[: self._exact_rows]])
        self._compressed = CompressedVectors(sample, self._folder)
        self._compressed.add(rows)
        self._matrix = np.empty((0, sample.shape[1]), dtype=np.float32)
        self._used = 0
