"""The vectors of an agent's texts, read block by block: a million don't fit at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.store.duckdb.database import Database

BLOCK_ROWS: Final = 16_384

_COLUMNS: Final = "id, number, first_char, last_char, embedding"


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """Row i of `vectors` (n, dim) is of characters `starts[i]` to `ends[i]` of a text.

    `numbers` (n,) count the vectors of each text from 0. The rows of one text are
    in order, but others may stand between them.
    """

    ids: list[str]
    numbers: NDArray[np.int32]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    vectors: NDArray[np.float32]

    @classmethod
    def of(cls, columns: Mapping[str, NDArray[Any]]) -> StoredVectors:
        """Return the rows that a query of `_COLUMNS` has given, at least one."""
        return cls(
            columns["id"].tolist(),
            columns["number"].astype(np.int32),
            columns["first_char"].astype(np.int32),
            columns["last_char"].astype(np.int32),
            np.stack(list(columns["embedding"])).astype(np.float32, copy=False),
        )


def read_blocks(database: Database, agent: str, source: str) -> Iterator[StoredVectors]:
    """Read all vectors of an agent's texts that are there as this begins.

    Others may write between two blocks: what they add is not of these. A row that
    is moved meanwhile is read at the end.

    Raises:
        StorageFault: The driver could not read them.
    """
    wanted = "WHERE agent = $1 AND source = $2"
    last = database.read("SELECT max(rowid) FROM vectors")[0][0]
    read: set[str] = set()
    for first in range(0, -1 if last is None else int(last) + 1, BLOCK_ROWS):
        columns = database.read_columns(
            f"SELECT {_COLUMNS} FROM vectors {wanted} AND rowid >= $3 AND rowid < $4",  # noqa: S608  ours
            agent,
            source,
            first,
            first + BLOCK_ROWS,
        )
        if len(columns["id"]):
            block = StoredVectors.of(columns)
            read.update(block.ids)
            yield block
    yield from _left_out(database, agent, source, read)


def _left_out(
    database: Database, agent: str, source: str, read: Collection[str]
) -> Iterator[StoredVectors]:
    """Read the vectors of texts that were not read: the driver moves rows when others are gone."""
    ids = database.read_columns(
        "SELECT DISTINCT id FROM vectors WHERE agent = $1 AND source = $2", agent, source
    )["id"].tolist()
    missing = [text_id for text_id in ids if text_id not in read]
    for first in range(0, len(missing), BLOCK_ROWS):
        columns = database.read_columns(
            f"SELECT {_COLUMNS} FROM vectors"  # noqa: S608  ours
            " JOIN (SELECT unnest(CAST($3 AS text[])) AS k) AS keys ON id = k"
            " WHERE agent = $1 AND source = $2 ORDER BY id, number",
            agent,
            source,
            missing[first : first + BLOCK_ROWS],
        )
        if len(columns["id"]):
            yield StoredVectors.of(columns)
