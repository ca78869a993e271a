"""The events of every agent, and the consolidations of core memory that some of them report."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime
from typing import Final

from mcp_memory.store.duckdb.database import Database, Row
from mcp_memory.store.duckdb.transaction import transaction_of
from mcp_memory.store.ports import UnitOfWork
from mcp_memory.values.records import Consolidation, Event, VersionRange

_COLUMNS: Final = "id, kind, conversation, text, created_at, data"
_CONSOLIDATION_COLUMNS: Final = (
    "id, author, began_at, began_by, finished_at, finished_by, reason, changed, tokens"
)


class DuckDBEvents:
    """The table of events."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def insert(self, unit: UnitOfWork, agent: str, event: Event) -> None:
        """Write an event."""
        tx = transaction_of(unit)
        seq = tx.note(agent, "events", [event])
        data = json.dumps(event.data, ensure_ascii=False)
        tx.insert(
            "events",
            f"agent, {_COLUMNS}, seq",
            [
                (
                    agent,
                    event.id,
                    event.kind,
                    event.conversation,
                    event.text,
                    event.created_at,
                    data,
                    seq,
                )
            ],
        )

    def recent(self, agent: str, limit: int) -> list[Event]:
        """Return the newest events, newest first."""
        rows = self._db.read(
            f"SELECT {_COLUMNS} FROM events WHERE agent = $1 ORDER BY created_at DESC, id LIMIT $2",
            agent,
            limit,
        )
        return [_event(row) for row in rows]

    def last_at(
        self, agent: str, kinds: Collection[str], conversation: str | None
    ) -> datetime | None:
        """Return when an event of these kinds last happened, in one conversation or in any."""
        moment: datetime | None = self._db.read(
            "SELECT max(created_at) FROM events WHERE agent = $1"
            " AND kind = ANY (CAST($2 AS text[]))"
            " AND (CAST($3 AS text) IS NULL OR conversation = $3)",
            agent,
            list(kinds),
            conversation,
        )[0][0]
        return moment

    def prune(self, before: datetime, keep: int) -> int:
        """Delete old events, and return their number."""
        doomed = self._db.read(
            "SELECT agent, id FROM (SELECT agent, id, created_at,"
            " row_number() OVER (PARTITION BY agent ORDER BY created_at DESC, id) AS place,"
            " row_number() OVER (PARTITION BY agent, kind, conversation"
            " ORDER BY created_at DESC, id) AS of_kind FROM events) AS numbered"
            " WHERE created_at < $1 AND place > $2 AND of_kind > 1",
            before,
            keep,
        )
        if doomed:
            with self._db.transaction() as tx:
                # The change numbers of these rows are deleted too; see `agents` in migrations.py.
                tx.run(
                    "INSERT INTO agents (agent, seq) SELECT agent, max(seq) FROM events"
                    " GROUP BY agent ON CONFLICT (agent) DO UPDATE"
                    " SET seq = greatest(agents.seq, excluded.seq)"
                )
                for agent, event_id in doomed:
                    tx.run("DELETE FROM events WHERE agent = $1 AND id = $2", agent, event_id)
        return len(doomed)

    def changed(self, agent: str, after: int) -> list[tuple[int, Event]]:
        """Return the events above a change number, each with its own number."""
        rows = self._db.read(
            f"SELECT seq, {_COLUMNS} FROM events WHERE agent = $1 AND seq > $2 ORDER BY seq, id",
            agent,
            after,
        )
        return [(row[0], _event(row[1:])) for row in rows]


class DuckDBConsolidations:
    """The table of consolidations."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def insert(self, unit: UnitOfWork, agent: str, item: Consolidation) -> None:
        """Write a consolidation, begun or finished."""
        tx = transaction_of(unit)
        seq = tx.note(agent, "consolidations", [item])
        tx.insert(
            "consolidations",
            f"agent, {_CONSOLIDATION_COLUMNS}, seq",
            [
                (
                    agent,
                    item.id,
                    item.author,
                    item.began_at,
                    item.began_by,
                    item.finished_at,
                    item.finished_by,
                    item.reason,
                    _dump(item.changed),
                    item.tokens,
                    seq,
                )
            ],
        )

    def finish(self, unit: UnitOfWork, agent: str, item: Consolidation) -> None:
        """Complete a consolidation that was inserted as begun."""
        tx = transaction_of(unit)
        seq = tx.note(agent, "consolidations", [item])
        tx.run(
            "UPDATE consolidations SET finished_at = $3, finished_by = $4, reason = $5,"
            " changed = $6, tokens = $7, seq = $8 WHERE agent = $1 AND id = $2",
            agent,
            item.id,
            item.finished_at,
            item.finished_by,
            item.reason,
            _dump(item.changed),
            item.tokens,
            seq,
        )

    def present(self, agent: str, upto: int) -> Consolidation | None:
        """Return the client's unfinished consolidation, None without one."""
        rows = self._db.read(
            f"SELECT {_CONSOLIDATION_COLUMNS} FROM consolidations"
            " WHERE agent = $1 AND author = 'client' AND finished_at IS NULL AND seq <= $2"
            " ORDER BY began_at DESC LIMIT 1",
            agent,
            upto,
        )
        return _consolidation(rows[0]) if rows else None

    def last_at(self, agent: str, upto: int) -> datetime | None:
        """Return when the last consolidation was finished."""
        moment: datetime | None = self._db.read(
            "SELECT max(finished_at) FROM consolidations WHERE agent = $1 AND seq <= $2",
            agent,
            upto,
        )[0][0]
        return moment

    def tokens(self, agent: str) -> int:
        """Return the tokens that the endpoint's consolidations have cost."""
        rows = self._db.read(
            "SELECT coalesce(sum(tokens), 0) FROM consolidations WHERE agent = $1", agent
        )
        return int(rows[0][0])

    def naming(self, agent: str | None, label: str) -> list[Consolidation]:
        """Return the finished consolidations that name a block's label, newest first."""
        rows = self._db.read(
            f"SELECT {_CONSOLIDATION_COLUMNS} FROM consolidations"
            " WHERE (CAST($1 AS text) IS NULL OR agent = $1)"
            " AND finished_at IS NOT NULL AND strpos(changed, $2) > 0 ORDER BY finished_at DESC",
            agent,
            json.dumps(label, ensure_ascii=False),
        )
        return [_consolidation(row) for row in rows]

    def changed(self, agent: str, after: int) -> list[tuple[int, Consolidation]]:
        """Return the consolidations above a change number, each with its own number."""
        rows = self._db.read(
            f"SELECT seq, {_CONSOLIDATION_COLUMNS} FROM consolidations"
            " WHERE agent = $1 AND seq > $2 ORDER BY seq, id",
            agent,
            after,
        )
        return [(row[0], _consolidation(row[1:])) for row in rows]


def _event(row: Row) -> Event:
    key, kind, conversation, text, created_at, data = row
    return Event(
        id=key,
        kind=kind,
        conversation=conversation,
        text=text,
        created_at=created_at,
        data=json.loads(data),
    )


def _consolidation(row: Row) -> Consolidation:
    key, author, began_at, began_by, finished_at, finished_by, reason, changed, tokens = row
    return Consolidation(
        id=key,
        author=author,
        began_at=began_at,
        began_by=began_by,
        finished_at=finished_at,
        finished_by=finished_by,
        reason=reason,
        changed=tuple(VersionRange(*item) for item in json.loads(changed)),
        tokens=tokens,
    )


def _dump(changed: tuple[VersionRange, ...]) -> str:
    return json.dumps(
        [[c.label, c.conversation, c.from_version, c.to_version, c.shared] for c in changed],
        ensure_ascii=False,
    )
