"""A cache of rows, limited in size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from datetime import datetime
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

MAX_CHARS: Final = 32_000_000
"""Characters of text that are cached for each tier; by judgement: about 64 MB."""

_ROW_CHARS: Final = 400
"""The memory of a row besides its text, in characters; measured with small messages."""


class RowCache(Generic[Key, Value]):
    """Rows by key; the least recently used are evicted first. Not thread-safe."""

    def __init__(self, max_chars: int = MAX_CHARS) -> None:
        self._max_chars = max_chars
        self._rows: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._chars = 0

    def get(self, key: Key) -> Value | None:
        """Return a row, None if it is not cached."""
        cached = self._rows.get(key)
        if cached is None:
            return None
        self._rows.move_to_end(key)
        return cached[0]

    def split(self, keys: Sequence[Key]) -> tuple[list[Value], list[Key]]:
        """Return the cached rows of some keys, and the keys of the others."""
        cached = {key: self.get(key) for key in keys}
        found = [row for row in cached.values() if row is not None]
        return found, [key for key, row in cached.items() if row is None]

    def put(self, key: Key, row: Value, text_chars: int) -> None:
        """Cache a row, in place of an earlier one with the key."""
        self.drop(key)
        cost = text_chars + _ROW_CHARS
        self._rows[key] = (row, cost)
        self._chars += cost
        while self._chars > self._max_chars:
            _, (_, freed) = self._rows.popitem(last=False)
            self._chars -= freed

    @property
    def full(self) -> bool:
        """Whether the cache is nearly full."""
        return self._chars > 0.9 * self._max_chars

    def drop(self, key: Key) -> None:
        """Drop a row; nothing happens if it is not cached."""
        cached = self._rows.pop(key, None)
        if cached is not None:
            self._chars -= cached[1]

    def clear(self) -> None:
        """Drop every row."""
        self._rows.clear()
        self._chars = 0


class Tallies:
    """How many records each agent has, and when the newest was recorded. Not thread-safe.

    Args:
        load: Returns both for an agent; called when they are first asked for.
    """

    def __init__(self, load: Callable[[str], tuple[int, datetime]]) -> None:
        self._load = load
        self._loaded: dict[str, tuple[int, datetime]] = {}

    def of(self, agent: str) -> tuple[int, datetime]:
        """Return the number of records, and when the newest was recorded."""
        if agent not in self._loaded:
            self._loaded[agent] = self._load(agent)
        return self._loaded[agent]

    def add(self, agent: str, records: int, recorded: Sequence[datetime]) -> None:
        """Add records, or subtract those that have gone; an agent that isn't loaded stays so.

        Args:
            recorded: When the new ones were recorded.
        """
        if agent in self._loaded:
            count, newest = self._loaded[agent]
            self._loaded[agent] = (count + records, max([newest, *recorded]))

    def clear(self) -> None:
        """Drop everything."""
        self._loaded.clear()
