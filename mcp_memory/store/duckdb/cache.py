"""What was read of the database and is kept: rows, up to a size, and how many there are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from datetime import datetime
from itertools import count
from typing import Any, Final, Generic, TypeVar

from mcp_memory.store.duckdb.database import Database, Row
from mcp_memory.values.dates import EPOCH

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

MAX_CHARS: Final = 32_000_000
"""About so many characters of text are kept for each tier."""

READ_AHEAD: Final = 50_000
"""The rows of an agent with no more of them are read before they are asked for."""
_BLOCK_ROWS: Final = 4_096
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

    def split(self, keys: Sequence[Key]) -> tuple[list[Value], list[Key]]:
        """Return the rows that are kept of some keys, and the keys of the others."""
        held = {key: self.get(key) for key in keys}
        found = [row for row in held.values() if row is not None]
        return found, [key for key, row in held.items() if row is None]

    def put(self, key: Key, row: Value, text_chars: int) -> None:
        """Keep a row in the place of the one that has the key."""
        self.drop(key)
        cost = text_chars + _ROW_CHARS
        self._rows[key] = (row, cost)
        self._chars += cost
        while self._chars > self._max_chars:
            _, (_, freed) = self._rows.popitem(last=False)
            self._chars -= freed

    @property
    def full(self) -> bool:
        """Whether there is hardly room for more."""
        return self._chars > 0.9 * self._max_chars

    def drop(self, key: Key) -> None:
        """Forget a row; nothing happens if it is not kept."""
        held = self._rows.pop(key, None)
        if held is not None:
            self._chars -= held[1]

    def clear(self) -> None:
        """Forget every row."""
        self._rows.clear()
        self._chars = 0


def read_ahead(
    database: Database,
    sql: str,
    agent: str,
    keep: Callable[[Row], object],
    cache: RowCache[Any, Any],
) -> Iterator[None]:
    """Read an agent's rows block by block, as long as there is room for them.

    Args:
        sql: Gives all its rows; $1 is the agent.
        keep: Puts a row into the cache.
        cache: Where they are kept.
    """
    sql = f"{sql} LIMIT {_BLOCK_ROWS} OFFSET $2"
    for first in count(0, _BLOCK_ROWS):
        rows = [] if cache.full else database.read(sql, agent, first)
        for row in rows:
            keep(row)
        if len(rows) < _BLOCK_ROWS:
            return
        yield


class Tallies:
    """How many rows each agent has in a table, and when the last of them was recorded.

    Args:
        database: Where they are.
        table: Its name; it has the columns `agent` and `recorded_at`.
        counted: The condition on the rows that count.
    """

    def __init__(self, database: Database, table: str, counted: str = "true") -> None:
        self._db = database
        self._sql = (
            f"SELECT count(*) FILTER ({counted}), max(recorded_at)"  # noqa: S608  constants
            f" FROM {table} WHERE agent = $1"
        )
        self._held: dict[str, tuple[int, datetime]] = {}

    def count(self, agent: str) -> int:
        """Return the number of rows."""
        return self._tally(agent)[0]

    def newest(self, agent: str) -> datetime:
        """Return when the last was recorded; that is to come if the clock was set back."""
        return self._tally(agent)[1]

    def add(self, agent: str, rows: int, recorded_at: datetime) -> None:
        """Count rows that were committed; a negative number for those that have gone."""
        if agent in self._held:
            count, newest = self._held[agent]
            self._held[agent] = (count + rows, max(newest, recorded_at))

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()

    def _tally(self, agent: str) -> tuple[int, datetime]:
        if agent not in self._held:
            count, newest = self._db.read(self._sql, agent)[0]
            self._held[agent] = (int(count), newest or EPOCH)
        return self._held[agent]
