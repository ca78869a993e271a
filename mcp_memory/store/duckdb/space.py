"""How much of a database file is in use, and how much of it is dead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mcp_memory.store.duckdb.transaction import Row

MIN_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_DEAD_FRAC: Final = 1 / 3
"""From this size and with this part dead, a file is worth compacting; by judgement."""

_FEW_FRAC: Final = 0.05
"""If a smaller part of a table is deleted, its blocks are not counted, which is slow; by
judgement."""


@dataclass(frozen=True, slots=True)
class Space:
    """The size of a database file; a compacted copy would lack `dead_bytes` of `file_bytes`."""

    file_bytes: int
    dead_bytes: int

    @property
    def dead_frac(self) -> float:
        """The part that is dead, 0 to 1."""
        return self.dead_bytes / self.file_bytes if self.file_bytes else 0.0

    @property
    def is_wasteful(self) -> bool:
        """Whether the file is large enough, and enough of it dead, to compact it."""
        return self.file_bytes >= MIN_FILE_BYTES and self.dead_frac >= MAX_DEAD_FRAC


def space(read: Callable[..., list[Row]]) -> Space:
    """Return the space of a database: free blocks, and the space of deleted rows.

    The driver leaves deleted rows in their blocks until all rows of a block are
    deleted. Their space is estimated from their number.

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
    """Return the number of blocks that a table uses in the file."""
    return int(
        read(
            "SELECT count(DISTINCT block_id) + coalesce(sum(len(additional_block_ids)), 0)"
            " FROM pragma_storage_info($1) WHERE persistent AND block_id >= 0",
            table,
        )[0][0]
    )
