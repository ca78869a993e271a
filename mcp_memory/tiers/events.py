"""What a client may want to know of: warnings, flushes, consolidations; newest first."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Final

from mcp_memory.store.duckdb import Database, Transaction
from mcp_memory.values.dates import now
from mcp_memory.values.ids import new_id
from mcp_memory.values.records import Event

WARNING: Final = "pressure_warning"
FLUSHED: Final = "flushed"
REMINDER: Final = "rethink_reminder"
RETHOUGHT: Final = "rethought"
REFUSED: Final = "rethink_refused"

KEPT: Final = 1_000
"""So many of an agent's newest events stay for ever."""


class EventLog:
    """The events of every agent."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(
        self,
        tx: Transaction,
        agent: str,
        kind: str,
        text: str,
        *,
        conversation: str | None = None,
        data: dict[str, object] | None = None,
    ) -> Event:
        """Write an event; `data` must be fit for JSON."""
        event = Event(new_id(), kind, conversation, text, now(), data or {})
        tx.insert(
            "INSERT INTO events VALUES ($1, $2, $3, $4, $5, $6, $7)",
            (
                agent,
                event.id,
                kind,
                conversation,
                text,
                json.dumps(event.data, ensure_ascii=False),
                event.created_at,
            ),
        )
        return event

    def recent(self, agent: str, limit: int) -> tuple[Event, ...]:
        """Return the newest events, newest first."""
        return tuple(
            Event(key, kind, conversation, text, created_at, json.loads(data))
            for key, kind, conversation, text, data, created_at in self._db.read(
                "SELECT id, kind, conversation, text, data, created_at FROM events"
                " WHERE agent = $1 ORDER BY created_at DESC, id LIMIT $2",
                agent,
                limit,
            )
        )

    def prune(self, before: datetime) -> int:
        """Delete what happened before a moment, and return how many events that were.

        The newest `KEPT` of each agent stay, and of each kind the last one in each
        conversation: `last_at` gives what it gave before.
        """
        doomed = self._db.read(
            "SELECT agent, id FROM (SELECT agent, id, created_at,"
            " row_number() OVER (PARTITION BY agent ORDER BY created_at DESC, id) AS place,"
            " row_number() OVER (PARTITION BY agent, kind, conversation"
            " ORDER BY created_at DESC, id) AS of_kind FROM events) AS numbered"
            " WHERE created_at < $1 AND place > $2 AND of_kind > 1",
            before,
            KEPT,
        )
        if doomed:
            with self._db.transaction() as tx:
                tx.insert("DELETE FROM events WHERE agent = $1 AND id = $2", *doomed)
        return len(doomed)

    def last_at(
        self, agent: str, kinds: tuple[str, ...], conversation: str | None = None
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
