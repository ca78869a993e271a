"""How much of a document's score its age leaves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.columns import Column
from mcp_memory.search.signals import Scores

UNFADED_FLOOR: Final = 0.5
"""The floor of what never fades, where it does not matter."""

_DAY_SECONDS: Final = 86_400.0


class Fading:
    """By document: after how long what it can lose is half lost, and what it keeps at least."""

    def __init__(self) -> None:
        self._half_life = Column(np.float32)
        self._floor = Column(np.float32)
        self._any = False

    @property
    def nbytes(self) -> int:
        """Memory in use."""
        return self._half_life.nbytes + self._floor.nbytes

    def add(self, half_life_days: float | None, floor: float) -> None:
        """Add the next document; None for one that doesn't fade."""
        self._half_life.append(np.inf if half_life_days is None else half_life_days)
        self._floor.append(floor)
        self._any = self._any or half_life_days is not None

    def restore(
        self, documents: int, groups: Iterable[tuple[NDArray[np.int32], float | None, float]]
    ) -> None:
        """Do what adding so many documents does, to an empty one.

        Args:
            documents: How many they are.
            groups: Some of them, with half-life and floor; the others don't fade.
        """
        half_life = np.full(documents, np.inf, dtype=np.float32)
        floor = np.full(documents, UNFADED_FLOOR, dtype=np.float32)
        for numbers, half_life_days, group_floor in groups:
            half_life[numbers] = np.inf if half_life_days is None else half_life_days
            floor[numbers] = group_floor
            self._any = self._any or half_life_days is not None
        self._half_life, self._floor = Column.of(half_life), Column.of(floor)

    def left(self, documents: NDArray[np.int32], ages_seconds: NDArray[np.float64]) -> Scores:
        """Return what is left of the scores of documents of these ages (n,), 0 to 1."""
        if not self._any:
            return np.ones(len(documents), dtype=np.float32)
        floor = self._floor.values[documents]
        ages = np.maximum(ages_seconds, 0) / _DAY_SECONDS
        left = 0.5 ** (ages / self._half_life.values[documents])
        return np.asarray(floor + (1 - floor) * left, dtype=np.float32)
