"""Which documents stand side by side, such as the turns of one sitting of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.arrays import NONE, Column, Rows, Scores

_Near = tuple[NDArray[np.intp], Scores]
"""Rows, and a value of each."""

SITTING_SECONDS: Final = 6 * 3_600.0
"""What comes so long after the last message begins a conversation anew: it answers nothing."""


class Neighbours:
    """The one before and the one after each document, `NONE` where there is none."""

    def __init__(self) -> None:
        self._before = Column(np.int32)
        self._after = Column(np.int32)
        self._thread = Column(np.int32)
        self._threads: dict[str, int] = {}
        self._last: dict[str, tuple[int, float]] = {}
        self._links = 0
        self._chains = 0

    def restore(self, names: Sequence[str], threads: Rows, when: NDArray[np.float64]) -> None:
        """Do what adding these documents in their order does, to an empty one.

        Args:
            names: Of the threads.
            threads: By document the place of its thread in `names`, or `NONE` (n,).
            when: By document its time, in seconds (n,).
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
        """Names of threads, and by document the place of its own among them, or `NONE`."""
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
        """The one before each document: a view."""
        return self._before.values

    @property
    def links_after(self) -> Rows:
        """The one after each document: a view."""
        return self._after.values

    def before(self, rows: NDArray[Any], steps: int = 1) -> Rows:
        """Return what stands so many places before each, `NONE` where nothing does."""
        return _follow(self._before.values, rows, steps)

    def after(self, rows: NDArray[Any], steps: int = 1) -> Rows:
        """Return what stands so many places after each, `NONE` where nothing does."""
        return _follow(self._after.values, rows, steps)

    def summed(self, values: Scores, rows: NDArray[np.integer], steps: int) -> Scores:
        """Return for each row the sum of its value and those of up to so many on each side."""
        total: Scores = values[rows].copy()
        for step in range(1, steps + 1):
            for places in (self.before(rows, step), self.after(rows, step)):
                total += np.where(places == NONE, np.float32(0), values[places])
        return total


class Around:
    """Sums the counts of a term over the rows around each, term by term."""

    def __init__(self, neighbours: Neighbours, total: int) -> None:
        self._links = (neighbours.links_before, neighbours.links_after)
        # One more: the place of those that have no neighbour, which is found as -1.
        self._counts = np.zeros(total + 1, dtype=np.float32)

    def nearby(self, rows: NDArray[np.intp], counts: Scores) -> tuple[_Near, _Near]:
        """Return rows with their sums: with the ones beside each, and with two on each side.

        These are all rows that have the term among theirs; some stand there twice.

        Args:
            rows: Those that have the term.
            counts: How often.
        """
        held = self._counts
        held[rows] = counts
        touched, ends = [rows], [(rows, counts), (rows, counts)]
        found: list[_Near] = []
        for _ in range(2):
            for side, links in enumerate(self._links):
                at, own = ends[side]
                beside = links[at]
                there = np.flatnonzero(beside != NONE)
                # No two rows have the same one beside them: each is added to once.
                ends[side] = places, there_counts = beside[there].astype(np.intp), own[there]
                held[places] += there_counts
                touched.append(places)
            every = np.concatenate(touched)
            found.append((every, held[every]))
        held[every] = 0.0
        return found[0], found[1]

    def everywhere(self, rows: NDArray[np.intp], counts: Scores) -> tuple[Scores, Scores]:
        """Return the sums of all rows: with the ones beside each, with two on each side."""
        held = self._counts
        held[rows] = counts
        sides = []
        three = held[:-1].copy()
        for links in self._links:
            beside = np.zeros(len(held), dtype=np.float32)
            beside[:-1] = held[links]
            three += beside[:-1]
            sides.append(beside)
        five = three.copy()
        for links, beside in zip(self._links, sides, strict=True):
            five += beside[links]
        held[rows] = 0.0
        return three, five


def _follow(links: Rows, rows: NDArray[Any], steps: int) -> Rows:
    at: Rows = links[rows]
    for _ in range(steps - 1):
        at = np.where(at == NONE, np.int32(NONE), links[at])
    return at
