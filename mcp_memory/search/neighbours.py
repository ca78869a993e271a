"""Which documents follow each other, such as the turns of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.arrays import NONE, Column, Rows, Scores

_Near = tuple[NDArray[np.intp], Scores]
"""Rows, and a value of each."""

SITTING_SECONDS: Final = 6 * 3_600.0
"""After a longer pause a message starts a new sitting: it doesn't answer the one before. By
judgement."""


class Neighbours:
    """The document before and after each document, or `NONE`."""

    def __init__(self) -> None:
        self._before = Column(np.int32)
        self._after = Column(np.int32)
        self._thread = Column(np.int32)
        self._threads: dict[str, int] = {}
        self._last: dict[str, tuple[int, float]] = {}
        self._links = 0
        self._chains = 0

    def restore(self, names: Sequence[str], threads: Rows, when: NDArray[np.float64]) -> None:
        """Fill an empty one, as if the documents were added in order.

        Args:
            names: The names of the threads.
            threads: By document: the place of its thread in `names`, or `NONE` (n,).
            when: By document: its time, in seconds (n,).
        """
        self._thread = Column.of(threads)
        self._threads = {name: number for number, name in enumerate(names)}
        order = np.argsort(threads, kind="stable")[np.count_nonzero(threads == NONE) :]
        earlier, later = order[:-1], order[1:]
        same = threads[earlier] == threads[later]
        beside = same & (np.abs(when[later] - when[earlier]) <= SITTING_SECONDS)
        before, after = (np.full(len(threads), NONE, dtype=np.int32) for _ in range(2))
        before[later[beside]] = earlier[beside]
        after[earlier[beside]] = later[beside]
        self._before, self._after = Column.of(before), Column.of(after)
        linked = before[before != NONE]
        self._links = len(linked)
        self._chains = int(np.count_nonzero(before[linked] != NONE))
        last = order[np.append(~same, True)] if len(order) else order
        self._last = {names[threads[at]]: (int(at), float(when[at])) for at in last}

    @property
    def threads(self) -> tuple[list[str], Rows]:
        """The names of the threads, and by document the place of its own, or `NONE`."""
        return list(self._threads), self._thread.values.copy()

    @property
    def any(self) -> bool:
        """Whether any document has a neighbour."""
        return self._links > 0

    @property
    def nbytes(self) -> int:
        """Memory in use."""
        return self._before.nbytes + self._after.nbytes + self._thread.nbytes

    @property
    def sizes(self) -> tuple[float, float]:
        """How many documents windows of three and of five have on average."""
        total = max(len(self._before), 1)
        three = 1 + 2 * self._links / total
        return three, three + 2 * self._chains / total

    def add(self, thread: str | None, when: float) -> None:
        """Add the next document.

        Args:
            thread: The conversation it belongs to; it follows the last one added to it.
            when: Its time, in seconds.
        """
        number = self._after.append(NONE)
        last, last_when = self._last.get(thread or "", (NONE, 0.0)) if thread else (NONE, 0.0)
        self._thread.append(
            self._threads.setdefault(thread, len(self._threads)) if thread else NONE
        )
        if thread:
            self._last[thread] = (number, when)
        if last == NONE or abs(when - last_when) > SITTING_SECONDS:
            self._before.append(NONE)
            return
        self._before.append(last)
        self._after.values[last] = number
        self._links += 1
        self._chains += self._before.values[last] != NONE

    @property
    def links_before(self) -> Rows:
        """The document before each: a view."""
        return self._before.values

    @property
    def links_after(self) -> Rows:
        """The document after each: a view."""
        return self._after.values

    def before(self, rows: NDArray[Any], steps: int = 1) -> Rows:
        """Return the document `steps` places before each, or `NONE`."""
        return _follow(self._before.values, rows, steps)

    def after(self, rows: NDArray[Any], steps: int = 1) -> Rows:
        """Return the document `steps` places after each, or `NONE`."""
        return _follow(self._after.values, rows, steps)

    def summed(self, values: Scores, rows: NDArray[np.integer], steps: int) -> Scores:
        """Return the sum of each row's value and those of up to `steps` rows on each side."""
        total: Scores = values[rows].copy()
        for step in range(1, steps + 1):
            for places in (self.before(rows, step), self.after(rows, step)):
                total += np.where(places == NONE, np.float32(0), values[places])
        return total


class Around:
    """Sums the counts of a term over each row and its neighbours, one term at a time."""

    def __init__(self, neighbours: Neighbours, total: int) -> None:
        self._links = (neighbours.links_before, neighbours.links_after)
        # The last place belongs to missing neighbours: `NONE` is -1.
        self._counts = np.zeros(total + 1, dtype=np.float32)

    def nearby(self, rows: NDArray[np.intp], counts: Scores) -> tuple[_Near, _Near]:
        """Return the sums with one row on each side and with two, for rows near the term.

        Some rows occur twice.

        Args:
            rows: The rows that have the term.
            counts: How often they have it.
        """
        sums = self._counts
        sums[rows] = counts
        touched, ends = [rows], [(rows, counts), (rows, counts)]
        found: list[_Near] = []
        for _ in range(2):
            for side, links in enumerate(self._links):
                at, own = ends[side]
                beside = links[at]
                there = np.flatnonzero(beside != NONE)
                # No two rows share a neighbour on one side, so each is added to once.
                ends[side] = places, there_counts = beside[there].astype(np.intp), own[there]
                sums[places] += there_counts
                touched.append(places)
            every = np.concatenate(touched)
            found.append((every, sums[every]))
        sums[every] = 0.0
        return found[0], found[1]

    def everywhere(self, rows: NDArray[np.intp], counts: Scores) -> tuple[Scores, Scores]:
        """Return the sums with one row on each side and with two, for all rows."""
        sums = self._counts
        sums[rows] = counts
        sides = []
        three = sums[:-1].copy()
        for links in self._links:
            beside = np.zeros(len(sums), dtype=np.float32)
            beside[:-1] = sums[links]
            three += beside[:-1]
            sides.append(beside)
        five = three.copy()
        for links, beside in zip(self._links, sides, strict=True):
            five += beside[links]
        sums[rows] = 0.0
        return three, five


def _follow(links: Rows, rows: NDArray[Any], steps: int) -> Rows:
    at: Rows = links[rows]
    for _ in range(steps - 1):
        at = np.where(at == NONE, np.int32(NONE), links[at])
    return at
