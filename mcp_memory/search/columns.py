"""Arrays that grow at the end: what is known of each document, one column a fact."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Column:
    """A growing array of numbers; its rows count up from 0."""

    def __init__(self, dtype: DTypeLike, capacity: int = 64) -> None:
        self._values: NDArray[Any] = np.empty(capacity, dtype=dtype)
        self._used = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._used

    @property
    def values(self) -> NDArray[Any]:
        """The rows there are: a view, good until the next one is added."""
        return self._values[: self._used]

    @property
    def nbytes(self) -> int:
        """Memory in use."""
        return self._values.nbytes

    @classmethod
    def of(cls, values: NDArray[Any]) -> Column:
        """Return a column of these rows; the array itself is never written to."""
        column = cls(values.dtype, 0)
        column._values = values.copy()
        column._used = len(values)
        return column

    def append(self, value: float) -> int:
        """Add a row, and return its number."""
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
        grown = np.empty(max(least, 2 * self._used, 64), dtype=self._values.dtype)
        grown[: self._used] = self._values[: self._used]
        self._values = grown
