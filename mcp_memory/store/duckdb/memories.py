"""The memories of every agent, version by version."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from mcp_memory.store.duckdb.database import Database, Row
from mcp_memory.store.duckdb.rows import LIVE, conditions, from_microseconds, read_in_order
from mcp_memory.store.duckdb.transaction import transaction_of
from mcp_memory.store.ports import UnitOfWork
from mcp_memory.values.dates import EPOCH
from mcp_memory.values.records import Kind, Memory
from mcp_memory.values.requests import Where
from mcp_memory.values.text import content_hash

_COLUMNS: Final = "id, version, content, kind, tags, tokens, happened_at, recorded_at"
_SEARCHABLE: Final = f"memories WHERE agent = $1 AND {LIVE} AND seq > $3"


def _memory(row: Row) -> Memory:
    key, version, content, kind, tags, tokens, happened_at, recorded_at = row
    return Memory(
        id=key,
        version=version,
        content=content,
        kind=Kind(kind),
        tags=tuple(tags),
        tokens=tokens,
        happened_at=happened_at,
        recorded_at=recorded_at,
    )


class DuckDBMemories:
    """The table of memories."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def insert(self, unit: UnitOfWork, agent: str, memories: Sequence[Memory]) -> None:
        """Write new memories, or new versions whose predecessors were retired."""
        tx = transaction_of(unit)
        seq = tx.note(agent, "memories", memories)
        tx.insert(
            "memories",
            "agent, id, version, content, content_hash, kind, tags, tokens, happened_at,"
            " recorded_at, seq",
            [
                (
                    agent,
                    memory.id,
                    memory.version,
                    memory.content,
                    content_hash(memory.content),
                    memory.kind.value,
                    list(memory.tags),
                    memory.tokens,
                    memory.happened_at,
                    memory.recorded_at,
                    seq,
                )
                for memory in memories
            ],
        )

    def retire(
        self, unit: UnitOfWork, agent: str, memory_id: str, moment: datetime, *, superseded: bool
    ) -> None:
        """Retire the current version of a memory."""
        tx = transaction_of(unit)
        seq = tx.note(agent, "deleted", [] if superseded else [memory_id])
        tx.run(
            "UPDATE memories SET retired_at = $3, retired_seq = $4"
            " WHERE agent = $1 AND id = $2 AND retired_at IS NULL",
            agent,
            memory_id,
            moment,
            seq,
        )

    def get(self, agent: str, ids: Sequence[str]) -> list[Memory]:
        """Return the current versions of the memories with these ids, in any order."""
        rows = self._db.read(
            f"SELECT {_COLUMNS} FROM memories"
            " JOIN (SELECT unnest(CAST($2 AS text[])) AS k) AS keys ON id = k"
            " WHERE agent = $1 AND retired_at IS NULL",
            agent,
            list(ids),
        )
        return [_memory(row) for row in rows]

    def as_of(self, agent: str, memory_id: str, moment: datetime) -> Memory | None:
        """Return the version that was recorded last before a moment."""
        rows = self._db.read(
            f"SELECT {_COLUMNS} FROM memories WHERE agent = $1 AND id = $2 AND recorded_at <= $3"
            " ORDER BY version DESC LIMIT 1",
            agent,
            memory_id,
            moment,
        )
        return _memory(rows[0]) if rows else None

    def page(
        self, agent: str, where: Where, *, offset: int, limit: int
    ) -> tuple[list[Memory | None], int]:
        """Return a page of memories by date, newest first, and how many match in all."""
        values: list[object] = [agent]
        present = "retired_at IS NULL"
        if offset and where.as_of is not None:
            # If the clock was set back, a deletion before `as_of` may have a later time.
            values.append(where.as_of)
            present += " OR retired_at > $2"
        condition = f" FROM memories WHERE agent = $1 AND ({present})"
        condition += conditions(where, "happened_at", values)
        total = int(self._db.read("SELECT count(*)" + condition, *values)[0][0])
        rows = self._db.read(
            f"SELECT {_COLUMNS}, retired_at{condition}"
            " ORDER BY happened_at DESC, recorded_at DESC, id"
            f" LIMIT ${len(values) + 1} OFFSET ${len(values) + 2}",
            *values,
            limit,
            offset,
        )
        return [None if row[-1] else _memory(row[:-1]) for row in rows], total

    def hashes(self, agent: str, upto: int) -> dict[str, str]:
        """Return the ids of the current memories by the hash of their text."""
        return dict(
            self._db.read(
                f"SELECT content_hash, id FROM memories WHERE agent = $1 AND {LIVE}", agent, upto
            )
        )

    def tags(self, agent: str, limit: int, without_prefix: str) -> list[str]:
        """Return the tags in use, the most frequent first."""
        rows = self._db.read(
            "SELECT tag FROM (SELECT unnest(tags) AS tag FROM memories"
            " WHERE agent = $1 AND retired_at IS NULL) AS used"
            " WHERE NOT starts_with(tag, $3)"
            " GROUP BY tag ORDER BY count(*) DESC, tag LIMIT $2",
            agent,
            limit,
            without_prefix,
        )
        return [row[0] for row in rows]

    def recent_ids(self, agent: str, prefix: str, limit: int) -> list[str]:
        """Return the newest ids that begin with `prefix`."""
        rows = self._db.read(
            "SELECT id FROM memories WHERE agent = $1 AND retired_at IS NULL"
            " AND starts_with(id, $2) ORDER BY recorded_at DESC LIMIT $3",
            agent,
            prefix.lower(),
            limit,
        )
        return [row[0] for row in rows]

    def tally(self, agent: str, upto: int) -> tuple[int, datetime]:
        """Return the number of current memories, and when the newest was recorded."""
        count, newest = self._db.read(
            f"SELECT count(*) FILTER ({LIVE}), max(recorded_at) FILTER (seq <= $2) FROM memories"
            " WHERE agent = $1",
            agent,
            upto,
        )[0]
        return int(count), newest or EPOCH

    def since(
        self, agent: str, moment: datetime | None, *, limit: int, max_chars: int
    ) -> list[Memory]:
        """Return the newest memories recorded since a moment, newest first, cut to `max_chars`."""
        rows = self._db.read(
            f"SELECT {_COLUMNS.replace('content', 'substr(content, 1, $4)')} FROM memories"
            " WHERE agent = $1 AND retired_at IS NULL"
            " AND (CAST($2 AS timestamptz) IS NULL OR recorded_at > $2)"
            " ORDER BY recorded_at DESC, id LIMIT $3",
            agent,
            moment,
            limit,
            max_chars,
        )
        return [_memory(row) for row in rows]

    def count_since(self, agent: str, moment: datetime | None) -> int:
        """Return the number of current memories recorded after a moment; None for all."""
        rows = self._db.read(
            "SELECT count(*) FROM memories WHERE agent = $1 AND retired_at IS NULL"
            " AND (CAST($2 AS timestamptz) IS NULL OR recorded_at > $2)",
            agent,
            moment,
        )
        return int(rows[0][0])

    def searchable(self, agent: str, after: int, upto: int) -> Iterator[Memory]:
        """Yield the versions current at `upto` with a change number above `after`."""
        rows = read_in_order(
            self._db,
            "id, version, content, kind, tags, epoch_us(happened_at) AS happened,"
            " epoch_us(recorded_at) AS recorded",
            _SEARCHABLE,
            (agent, upto, after),
            order="id",
        )
        for key, version, content, kind, tags, happened_at, recorded_at in rows:
            yield Memory(
                id=key,
                version=version,
                content=content,
                kind=Kind(kind),
                tags=tuple(tags),
                tokens=0,
                happened_at=from_microseconds(happened_at),
                recorded_at=from_microseconds(recorded_at),
            )

    def retired(self, agent: str, after: int, upto: int) -> list[str]:
        """Return ids of memories with a version retired after one number and up to another."""
        rows = self._db.read(
            "SELECT DISTINCT id FROM memories"
            " WHERE agent = $1 AND retired_seq > $2 AND retired_seq <= $3",
            agent,
            after,
            upto,
        )
        return [row[0] for row in rows]

    def everything(self, agent: str, first: int, limit: int) -> list[Memory]:
        """Return current memories `first` and up in any fixed order, to fill a cache."""
        rows = self._db.read(
            f"SELECT {_COLUMNS} FROM memories WHERE agent = $1 AND retired_at IS NULL"
            " LIMIT $3 OFFSET $2",
            agent,
            first,
            limit,
        )
        return [_memory(row) for row in rows]

    def changed(self, agent: str, after: int) -> list[tuple[int, Memory]]:
        """Return the versions above a change number, each with its own number."""
        rows = self._db.read(
            f"SELECT seq, {_COLUMNS} FROM memories WHERE agent = $1 AND seq > $2"
            " ORDER BY seq, recorded_at, id",
            agent,
            after,
        )
        return [(row[0], _memory(row[1:])) for row in rows]

    def deleted(self, agent: str, after: int) -> list[tuple[int, str]]:
        """Return the ids of memories deleted above a change number, each with its number."""
        rows = self._db.read(
            "SELECT retired_seq, id FROM memories AS m WHERE agent = $1 AND retired_seq > $2"
            " AND NOT EXISTS (SELECT 1 FROM memories AS n WHERE n.agent = m.agent"
            "  AND n.id = m.id AND n.seq = m.retired_seq) ORDER BY retired_seq, id",
            agent,
            after,
        )
        return [(row[0], row[1]) for row in rows]
