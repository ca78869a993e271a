"""Rows that were read lately, kept up to a size: a search shows ten of them, at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

MAX_CHARS: Final = 32_000_000
"""About so many characters of text are kept for each tier."""

_ROW_CHARS: Final = 400
"""What a row costs besides its text, in characters."""


class RowCache(Generic[Key, Value]):
    """The rows used last, by key; the longest unused leave first. Not thread-safe."""

    def __init__(self, max_chars: int = MAX_CHARS) -> None:
        self._max_chars = max_chars
        self._rows: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._chars = 0

    def get(self, key: Key) -> Value | None:
        """Return a row, None if it is not kept."""
        held = self._rows.get(key)
        if held is None:
            return None
        self._rows.move_to_end(key)
        return held[0]

    def put(self, key: Key, row: Value, text_chars: int) -> None:
        """Keep a row in the place of the one that has the key."""
        self.drop(key)
        cost = text_chars + _ROW_CHARS
        self._rows[key] = (row, cost)
        self._chars += cost
        while self._chars > self._max_chars:
            _, (_, freed) = self._rows.popitem(last=False)
            self._chars -= freed

    def drop(self, key: Key) -> None:
        """Forget a row; nothing happens if it is not kept."""
        held = self._rows.pop(key, None)
        if held is not None:
            self._chars -= held[1]

    def clear(self) -> None:
        """Forget every row."""
        self._rows.clear()
        self._chars = 0
