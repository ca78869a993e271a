"""How much of a database file is in use, and how much of it is dead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mcp_memory.store.duckdb.transaction import Row

MIN_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_DEAD_FRAC: Final = 1 / 3

_FEW_FRAC: Final = 0.05
"""With a smaller part of a table deleted its blocks are not looked at: that takes a while."""


@dataclass(frozen=True, slots=True)
class Space:
    """The blocks of a database file: `dead_bytes` of `file_bytes` would be gone from a copy."""

    file_bytes: int
    dead_bytes: int

    @property
    def dead_frac(self) -> float:
        """The part that is dead, 0 to 1."""
        return self.dead_bytes / self.file_bytes if self.file_bytes else 0.0

    @property
    def is_wasteful(self) -> bool:
        """Whether so much of a file of some size is dead that it is worth a copy."""
        return self.file_bytes >= MIN_FILE_BYTES and self.dead_frac >= MAX_DEAD_FRAC


def space(read: Callable[..., list[Row]]) -> Space:
    """Return the space of a database: free blocks, and the room of rows that were deleted.

    The driver leaves deleted rows in their blocks until all the rows around them
    are gone too. How much room they have there is reckoned by their number.

    Args:
        read: Runs a query, such as `Database.read`.
    """
    total, free, block_bytes = read(
        "SELECT total_blocks, free_blocks, block_size FROM pragma_database_size()"
        " WHERE database_name = current_database()"
    )[0]
    tables = read(
        "SELECT table_name, estimated_size FROM duckdb_tables()"
        " WHERE database_name = current_database() AND estimated_size > 0"
    )
    dead_blocks = float(free)
    for name, stored in tables:
        live = int(read(f'SELECT count(*) FROM "{name}"')[0][0])
        dead_frac = 1 - live / int(stored)
        if dead_frac > _FEW_FRAC:
            dead_blocks += _blocks(read, name) * dead_frac
    return Space(int(total) * int(block_bytes), int(min(dead_blocks, total) * int(block_bytes)))


def _blocks(read: Callable[..., list[Row]], table: str) -> int:
    """Return how many blocks of the file have something of a table."""
    return int(
        read(
            "SELECT count(DISTINCT block_id) + coalesce(sum(len(additional_block_ids)), 0)"
            " FROM pragma_storage_info($1) WHERE persistent AND block_id >= 0",
            table,
        )[0][0]
    )
