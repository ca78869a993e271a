"""A growing matrix of unit vectors, compared exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class VectorIndex:
    """Rows count up from 0 and stay; who leaves is masked by the caller."""

    def __init__(self, dimension: int, capacity: int = 256) -> None:
        self._matrix: Vectors = np.empty((capacity, dimension), dtype=np.float32)
        self._used = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._used

    def add(self, vectors: Vectors) -> int:
        """Add rows (n, dim), unit length, and return the number of the first one."""
        first, needed = self._used, self._used + len(vectors)
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
        """Return the cosine of every row with a query (dim,) of unit length: (rows,) float32."""
        cosines: Vectors = self._matrix[: self._used] @ query
        return cosines
