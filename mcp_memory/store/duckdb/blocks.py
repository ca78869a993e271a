"""The blocks of core memory, version by version."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

from mcp_memory.store.duckdb.database import Database, Row
from mcp_memory.store.duckdb.transaction import transaction_of
from mcp_memory.store.ports import BlockKey, UnitOfWork
from mcp_memory.values.records import SHARED, Block, Scope

_COLUMNS: Final = (
    "conversation, label, value, tokens, limit_tokens, description, read_only, version,"
    " changed_at, editor"
)


class DuckDBBlocks:
    """The table of blocks."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def insert(self, unit: UnitOfWork, agent: str, conversation: str, block: Block) -> None:
        """Write a version; `conversation` is '' unless the block belongs to one."""
        tx = transaction_of(unit)
        seq = tx.note(agent, "blocks", [(conversation, block)])
        tx.insert(
            "blocks",
            f"agent, {_COLUMNS}, seq",
            [
                (
                    agent,
                    conversation,
                    block.label,
                    block.value,
                    block.tokens,
                    block.limit,
                    block.description,
                    block.read_only,
                    block.version,
                    block.changed_at,
                    block.editor,
                    seq,
                )
            ],
        )

    def current(self, agent: str, upto: int) -> dict[BlockKey, Block]:
        """Return the newest version of each block up to a change number."""
        rows = self._db.read(
            f"SELECT DISTINCT ON (conversation, label) {_COLUMNS} FROM blocks"
            " WHERE agent = $1 AND seq <= $2 ORDER BY conversation, label, version DESC",
            agent,
            upto,
        )
        return {(row[0], row[1]): _block(agent, row) for row in rows}

    def values_at(
        self, agent: str, moment: datetime, labels: Collection[str]
    ) -> dict[BlockKey, tuple[int, str]]:
        """Return the version and value that blocks with these labels had at a moment."""
        rows = self._db.read(
            "SELECT DISTINCT ON (conversation, label) conversation, label, version, value"
            " FROM blocks WHERE agent = $1 AND changed_at <= $2"
            " AND label = ANY (CAST($3 AS text[])) ORDER BY conversation, label, version DESC",
            agent,
            moment,
            sorted(labels),
        )
        return {(row[0], row[1]): (row[2], row[3]) for row in rows}

    def history(self, agent: str, conversation: str, label: str, limit: int | None) -> list[Block]:
        """Return versions of a block, newest first."""
        rows = self._db.read(
            f"SELECT {_COLUMNS} FROM blocks WHERE agent = $1 AND conversation = $2"
            " AND label = $3 ORDER BY version DESC LIMIT $4",
            agent,
            conversation,
            label,
            limit,
        )
        return [_block(agent, row) for row in rows]

    def changed(self, agent: str, after: int) -> list[tuple[int, tuple[str, Block]]]:
        """Return the versions above a change number, each with its own number."""
        rows = self._db.read(
            f"SELECT {_COLUMNS}, seq FROM blocks WHERE agent = $1 AND seq > $2"
            " ORDER BY seq, version",
            agent,
            after,
        )
        return [(row[-1], (row[0], _block(agent, row[:-1]))) for row in rows]


def _block(agent: str, row: Row) -> Block:
    conversation, label, value, tokens, limit, description, read_only, version, at, editor = row
    scope: Scope = "conversation" if conversation else "agent"
    return Block(
        label=label,
        value=value,
        tokens=tokens,
        limit=limit,
        description=description,
        read_only=read_only,
        scope="shared" if agent == SHARED else scope,
        version=version,
        changed_at=at,
        editor=editor,
    )
