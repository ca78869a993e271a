"""Indexes of agents in memory, within a budget: those used longest ago leave first."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

MEASURED_EVERY: Final = 32
_FILLED_AT_ONCE: Final = 3
_DONE: Final = object()


class Sized(Protocol):
    """What can be kept: it knows the memory it takes, which may change."""

    @property
    def nbytes(self) -> int:
        """Memory in use."""


Key = TypeVar("Key", bound=Hashable)
Index = TypeVar("Index", bound=Sized)


@dataclass(frozen=True, slots=True)
class CacheState:
    """What the cache holds and has done, for status."""

    indexes: int
    used_bytes: int
    max_bytes: int
    loaded: int
    evicted: int


class IndexCache(Generic[Key, Index]):
    """Indexes by key. Not thread-safe: whoever calls holds the engine's lock.

    What was asked for last stays even if it alone is over the budget. How much an index
    takes is measured again only now and then: it costs more than to look it up.

    Args:
        max_bytes: What all of them together may take.
        folder: Where the indexes put what need not be in memory; None for nowhere.
    """

    def __init__(self, max_bytes: int, folder: Path | None = None) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._held: OrderedDict[Key, Index] = OrderedDict()
        self._sizes: dict[Key, int] = {}
        self._used_bytes = 0
        self.on_unfilled: Callable[[], None] | None = None
        """Called when an index has more to be filled with: whoever sets it has to call
        `fill_more` soon, as long as there is some."""
        self._unfilled: deque[tuple[Key, Index, Iterator[None]]] = deque()
        self._asked = 0
        self._loaded = 0
        self._evicted = 0

    def __contains__(self, key: object) -> bool:
        """Return whether the index of a key is in memory."""
        return key in self._held

    def get(self, key: Key, load: Callable[[], Index]) -> Index:
        """Return an index, loaded if it isn't there; others leave if there is too little room."""
        index = self._held.get(key)
        if index is None:
            index = load()
            self._held[key] = index
            self._loaded += 1
            self._asked = 0
        self._held.move_to_end(key)
        if self._asked % MEASURED_EVERY == 0:
            self._measure(key)
            self._evict(key)
        self._asked += 1
        return index

    def fill(self, key: Key, index: Index, steps: Iterator[None]) -> None:
        """Do the first steps of filling an index that is being loaded, and put the others off.

        Without `on_unfilled` all are done at once.
        """
        for done, _ in enumerate(steps, 1):
            if done == _FILLED_AT_ONCE and self.on_unfilled is not None:
                self._unfilled.append((key, index, steps))
                self.on_unfilled()
                return

    def fill_more(self) -> bool:
        """Do a step that was put off; return whether there are more.

        What it raises makes the index leave: it is loaded anew when it is asked for.
        """
        while self._unfilled:
            key, index, steps = self._unfilled[0]
            try:
                # One that has left the cache needs no more.
                if self._held.get(key) is index and next(steps, _DONE) is not _DONE:
                    return True
            except BaseException:
                self.drop(key)
                self._unfilled.popleft()
                raise
            self._unfilled.popleft()
        return False

    def peek(self, key: Key) -> Index | None:
        """Return an index only if it is in memory, to bring it up to date; this is no use of it."""
        return self._held.get(key)

    def drop(self, key: Key) -> None:
        """Forget an index; nothing happens if it isn't there."""
        if self._held.pop(key, None) is not None:
            self._used_bytes -= self._sizes.pop(key)

    def clear(self) -> None:
        """Forget every index."""
        self._held.clear()
        self._unfilled.clear()
        self._sizes.clear()
        self._used_bytes = 0

    def state(self) -> CacheState:
        """Return what the cache holds, measured anew."""
        for key in self._held:
            self._measure(key)
        return CacheState(
            len(self._held), self._used_bytes, self._max_bytes, self._loaded, self._evicted
        )

    def _measure(self, key: Key) -> None:
        size = self._held[key].nbytes
        self._used_bytes += size - self._sizes.get(key, 0)
        self._sizes[key] = size

    def _evict(self, asked: Key) -> None:
        if self._used_bytes <= self._max_bytes:
            return
        for key in list(self._held):
            if key != asked:
                self.drop(key)
                self._evicted += 1
                if self._used_bytes <= self._max_bytes:
                    return


Indexes = IndexCache[tuple[str, str], Any]
"""The search indexes of all tiers, by tier and agent."""
