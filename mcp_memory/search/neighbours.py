"""Which documents stand side by side, such as the turns of one sitting of a conversation."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.columns import Column

Rows = NDArray[np.int32]
Values = NDArray[np.float32]

NONE: Final = -1

SITTING_SECONDS: Final = 6 * 3_600.0
"""What comes so long after the last message begins a conversation anew: it answers nothing."""


class Neighbours:
    """The one before and the one after each document, `NONE` where there is none."""

    def __init__(self) -> None:
        self._before = Column(np.int32)
        self._after = Column(np.int32)
        self._last: dict[str, tuple[int, float]] = {}
        self._links = 0
        self._chains = 0

    @property
    def any(self) -> bool:
        """Whether any document has a neighbour."""
        return self._links > 0

    @property
    def nbytes(self) -> int:
        """Memory in use."""
        return self._before.nbytes + self._after.nbytes

    @property
    def sizes(self) -> tuple[float, float]:
        """How many documents a window of three, and one of five, has on average."""
        total = max(len(self._before), 1)
        three = 1 + 2 * self._links / total
        return three, three + 2 * self._chains / total

    def add(self, thread: str | None, when: float) -> None:
        """Add the next document.

        Args:
            thread: What it is a part of, after the one that was added to it last.
            when: Its time, in seconds.
        """
        number = self._after.append(NONE)
        last, last_when = self._last.get(thread or "", (NONE, 0.0)) if thread else (NONE, 0.0)
        if thread:
            self._last[thread] = (number, when)
        if last == NONE or abs(when - last_when) > SITTING_SECONDS:
            self._before.append(NONE)
            return
        self._before.append(last)
        self._after.values[last] = number
        self._links += 1
        self._chains += self._before.values[last] != NONE

    def before(self, rows: NDArray[Any], steps: int = 1) -> Rows:
        """Return what stands so many places before each, `NONE` where nothing does."""
        return _follow(self._before.values, rows, steps)

    def after(self, rows: NDArray[Any], steps: int = 1) -> Rows:
        """Return what stands so many places after each, `NONE` where nothing does."""
        return _follow(self._after.values, rows, steps)

    def spread(self, rows: Rows, values: Values, steps: int) -> tuple[Rows, Values]:
        """Return the neighbours of rows with the rows' values; of the first, the rows as well.

        Args:
            steps: 1 for the rows and those beside them, 2 for those behind these.
        """
        places = [self.before(rows, steps), self.after(rows, steps)]
        if steps == 1:
            places.append(rows)
        every = np.concatenate(places)
        there = every != NONE
        spread: Values = np.tile(values, len(places))[there]
        return every[there], spread

    def summed(self, values: Values, rows: Rows, steps: int) -> Values:
        """Return for each row the sum of its value and those of up to so many on each side."""
        total = values[rows].copy()
        for step in range(1, steps + 1):
            for places in (self.before(rows, step), self.after(rows, step)):
                total += np.where(places == NONE, np.float32(0), values[places])
        return total


def _follow(links: Rows, rows: NDArray[Any], steps: int) -> Rows:
    at: Rows = links[rows]
    for _ in range(steps - 1):
        at = np.where(at == NONE, np.int32(NONE), links[at])
    return at
