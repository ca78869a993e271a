"""A cache of search indexes within a memory budget: the least recently used leave first."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

MEASURED_EVERY: Final = 32
"""Uses of an index after which its size is measured again; by judgement."""

_FILLED_AT_ONCE: Final = 3
"""Steps of filling an index that are done at once; by judgement."""

_DONE: Final = object()


class Sized(Protocol):
    """What can be cached: it knows its size, which may change."""

    @property
    def nbytes(self) -> int:
        """Memory in use."""


Key = TypeVar("Key", bound=Hashable)
Index = TypeVar("Index", bound=Sized)


@dataclass(frozen=True, slots=True)
class CacheState:
    """The size and history of a cache, for status."""

    indexes: int
    used_bytes: int
    max_bytes: int
    loaded: int
    evicted: int


class IndexCache(Generic[Key, Index]):
    """Indexes by key. Not thread-safe: the caller holds the engine's lock.

    The last used index stays even if it alone is over the budget. Sizes are measured only
    now and then, because measuring takes longer than a lookup.

    Args:
        max_bytes: The size of all indexes together.
        folder: Where indexes put temporary files; None to use memory alone.
    """

    def __init__(self, max_bytes: int, folder: Path | None = None) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._indexes: OrderedDict[Key, Index] = OrderedDict()
        self._sizes: dict[Key, int] = {}
        self._used_bytes = 0
        self.on_unfilled: Callable[[], None] | None = None
        """Called when an index is not filled completely; then `fill_more` must be called soon,
        until it returns False."""
        self._unfilled: deque[tuple[Key, Index, Iterator[None]]] = deque()
        self._asked = 0
        self._loaded = 0
        self._evicted = 0

    def __contains__(self, key: object) -> bool:
        """Return whether the index of a key is in memory."""
        return key in self._indexes

    def get(self, key: Key, load: Callable[[], Index]) -> Index:
        """Return an index, loaded if necessary; others are evicted if memory is short."""
        index = self._indexes.get(key)
        if index is None:
            index = load()
            self._indexes[key] = index
            self._loaded += 1
            self._asked = 0
        self._indexes.move_to_end(key)
        if self._asked % MEASURED_EVERY == 0:
            self._measure(key)
            self._evict(key)
        self._asked += 1
        return index

    def fill(self, key: Key, index: Index, steps: Iterator[None]) -> None:
        """Do the first steps of filling a new index; `fill_more` does the others.

        Without `on_unfilled` all are done at once.
        """
        for done, _ in enumerate(steps, 1):
            if done == _FILLED_AT_ONCE and self.on_unfilled is not None:
                self._unfilled.append((key, index, steps))
                self.on_unfilled()
                return

    def fill_more(self) -> bool:
        """Do one more step of filling; return whether there are others.

        If it raises, the index is dropped, and loaded again at its next use.
        """
        while self._unfilled:
            key, index, steps = self._unfilled[0]
            try:
                # A dropped index needs no more steps.
                if self._indexes.get(key) is index and next(steps, _DONE) is not _DONE:
                    return True
            except BaseException:
                self.drop(key)
                self._unfilled.popleft()
                raise
            self._unfilled.popleft()
        return False

    def peek(self, key: Key) -> Index | None:
        """Return an index if it is in memory, to update it; this doesn't count as a use."""
        return self._indexes.get(key)

    def drop(self, key: Key) -> None:
        """Drop an index; nothing happens if it isn't there."""
        if self._indexes.pop(key, None) is not None:
            self._used_bytes -= self._sizes.pop(key)

    def clear(self) -> None:
        """Drop every index."""
        self._indexes.clear()
        self._unfilled.clear()
        self._sizes.clear()
        self._used_bytes = 0

    def state(self) -> CacheState:
        """Return the state of the cache, with sizes measured now."""
        for key in self._indexes:
            self._measure(key)
        return CacheState(
            len(self._indexes), self._used_bytes, self._max_bytes, self._loaded, self._evicted
        )

    def _measure(self, key: Key) -> None:
        size = self._indexes[key].nbytes
        self._used_bytes += size - self._sizes.get(key, 0)
        self._sizes[key] = size

    def _evict(self, asked: Key) -> None:
        if self._used_bytes <= self._max_bytes:
            return
        for key in list(self._indexes):
            if key != asked:
                self.drop(key)
                self._evicted += 1
                if self._used_bytes <= self._max_bytes:
                    return


Indexes = IndexCache[tuple[str, str], Any]
"""The search indexes of all tiers, by tier and agent."""
