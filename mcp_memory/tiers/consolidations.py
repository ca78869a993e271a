"""Consolidations: when core memory was thought over, by whom, why, and what has come since.

A consolidation begins with the first rewrite of a block after the last one was
finished. Its row is written in the transaction of that rewrite, and completed in
the one of its event, so that a crash leaves it begun or not, finished or not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from mcp_memory.store.duckdb import Database, Transaction
from mcp_memory.store.duckdb.database import Row
from mcp_memory.values.dates import EPOCH
from mcp_memory.values.errors import OverLimit
from mcp_memory.values.ids import new_id
from mcp_memory.values.records import Consolidation, Kind, Memory, Message, VersionRange
from mcp_memory.values.text import check_text

MAX_REASON_CHARS: Final = 500
TICK: Final = timedelta(microseconds=1)

_MAX_NEWS_CHARS: Final = 8_000
"""So much of each message and memory is read: its beginning tells whether it matters."""

_COLUMNS: Final = (
    "id, author, began_at, began_by, finished_at, finished_by, reason, changed, tokens"
)


@dataclass(frozen=True, slots=True)
class News:
    """What has come since a moment: the newest of it, oldest first, and how much there is."""

    messages: tuple[Message, ...]
    message_count: int
    memories: tuple[Memory, ...]
    memory_count: int


class Consolidations:
    """The consolidations of every agent; the last and the present one are kept in memory.

    Every method is called with the engine's lock held.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._present: dict[str, Consolidation | None] = {}
        self._last: dict[str, datetime | None] = {}
        self._meant: dict[str, datetime] = {}
        self._reminded: dict[str, datetime] = {}
        self._tried: dict[str, datetime] = {}
        self._generation = database.generation

    def present(self, agent: str) -> Consolidation | None:
        """Return the consolidation that has begun and is not finished."""
        self._check_generation()
        if agent not in self._present:
            rows = self._db.read(
                f"SELECT {_COLUMNS} FROM consolidations"
                " WHERE agent = $1 AND author = 'client' AND finished_at IS NULL"
                " ORDER BY began_at DESC LIMIT 1",
                agent,
            )
            self._present[agent] = _consolidation(rows[0]) if rows else None
        return self._present[agent]

    def last_at(self, agent: str) -> datetime | None:
        """Return when the last one was finished."""
        self._check_generation()
        if agent not in self._last:
            self._last[agent] = self._db.read(
                "SELECT max(finished_at) FROM consolidations WHERE agent = $1", agent
            )[0][0]
        return self._last[agent]

    def since(self, agent: str) -> datetime | None:
        """Return when the present one began; without one, when the last was finished."""
        present = self.present(agent)
        return self._meant.get(agent, self.last_at(agent)) if present is None else present.began_at

    def later(self, agent: str, moment: datetime) -> datetime:
        """Return `moment`, or what follows the last beginning and end if the clock was set back."""
        known = [at + TICK for at in (self.since(agent), self.last_at(agent)) if at]
        return max([moment, *known])

    def mean(self, agent: str, moment: datetime) -> None:
        """Note that one is about to begin: whatever is edited from now on is part of it."""
        if self.present(agent) is None:
            self._meant.setdefault(agent, self.later(agent, moment))

    def reminded(self, agent: str, newest: datetime) -> None:
        """Note that all news up to this moment has been told."""
        self._reminded[agent] = newest

    def reminded_of(self, agent: str) -> datetime | None:
        """Return up to which moment this process has told the news."""
        return self._reminded.get(agent)

    def try_now(self, agent: str, newest: datetime) -> None:
        """Note that the endpoint is asked about all news up to this moment."""
        self._tried[agent] = newest

    def tried_at(self, agent: str) -> datetime | None:
        """Return up to which moment this process has asked the endpoint about the news."""
        return self._tried.get(agent)

    def begin(
        self, tx: Transaction, agent: str, moment: datetime, by: str | None, *, rewritten: bool
    ) -> Consolidation | None:
        """Write the beginning of a consolidation if this edit is one; then call `begun`.

        Args:
            moment: That of the edit.
            by: The connection.
            rewritten: Whether a whole block is rewritten; another edit begins one only
                if it was meant to begin.
        """
        if self.present(agent) is not None or not (rewritten or agent in self._meant):
            return None
        began = Consolidation(new_id(), "client", self._meant.get(agent, moment - TICK), by)
        self._insert(tx, agent, began)
        return began

    def begun(self, agent: str, began: Consolidation | None) -> None:
        """Let a beginning that was committed be seen."""
        if began is not None:
            self._present[agent] = began
            self._meant.pop(agent, None)

    def finish(self, tx: Transaction, agent: str, finished: Consolidation) -> None:
        """Write a finished one, whether its beginning was written or not; then call `finished`."""
        present = self.present(agent)
        if present is None or present.id != finished.id:
            self._insert(tx, agent, finished)
            return
        tx.run(
            "UPDATE consolidations SET finished_at = $3, finished_by = $4, reason = $5,"
            " changed = $6, tokens = $7 WHERE agent = $1 AND id = $2",
            agent,
            finished.id,
            finished.finished_at,
            finished.finished_by,
            finished.reason,
            _dump(finished.changed),
            finished.tokens,
        )

    def refuse(self, tx: Transaction, agent: str, refused: Consolidation) -> None:
        """Write one of the endpoint's that could not be taken, for what it has cost."""
        self._insert(tx, agent, refused)

    def tokens(self, agent: str) -> int:
        """Return what the endpoint's consolidations of an agent have cost so far."""
        return int(
            self._db.read(
                "SELECT coalesce(sum(tokens), 0) FROM consolidations WHERE agent = $1", agent
            )[0][0]
        )

    def finished(self, agent: str, finished: Consolidation) -> None:
        """Let an end that was committed be seen."""
        self._last[agent] = max(self.last_at(agent) or EPOCH, finished.finished_at or EPOCH)
        if finished.author == "client":
            self._present[agent] = None
            self._meant.pop(agent, None)

    def of_block(self, agent: str, conversation: str, label: str) -> tuple[Consolidation, ...]:
        """Return the finished ones that changed a block, newest first.

        Args:
            agent: Whose; empty for those of every agent, which changed a shared block.
            conversation: The one that the block belongs to, empty if it belongs to none.
        """
        rows = self._db.read(
            f"SELECT {_COLUMNS} FROM consolidations WHERE ($1 = '' OR agent = $1)"
            " AND finished_at IS NOT NULL AND strpos(changed, $2) > 0 ORDER BY finished_at DESC",
            agent,
            json.dumps(label, ensure_ascii=False),
        )
        block = (label, conversation, not agent)
        return tuple(
            found
            for found in map(_consolidation, rows)
            if any((c.label, c.conversation, c.shared) == block for c in found.changed)
        )

    def news(self, agent: str, since: datetime | None, *, messages: int, memories: int) -> News:
        """Return what was recorded after a moment, or ever: of each the newest so many."""
        said = self._db.read(
            "SELECT id, conversation, position, role, substr(content, 1, $4), tokens, created_at,"
            " recorded_at, name FROM messages WHERE agent = $1 AND role IN ('user', 'assistant')"
            " AND (CAST($2 AS timestamptz) IS NULL OR recorded_at > $2)"
            " ORDER BY recorded_at DESC, conversation, position DESC LIMIT $3",
            agent,
            since,
            messages,
            _MAX_NEWS_CHARS,
        )
        kept = self._db.read(
            "SELECT id, version, substr(content, 1, $4), kind, tags, tokens, happened_at,"
            " recorded_at FROM memories WHERE agent = $1 AND retired_at IS NULL"
            " AND (CAST($2 AS timestamptz) IS NULL OR recorded_at > $2)"
            " ORDER BY recorded_at DESC, id LIMIT $3",
            agent,
            since,
            memories,
            _MAX_NEWS_CHARS,
        )
        said_count, kept_count = self.count_news(agent, since)
        return News(
            tuple(Message(*row) for row in reversed(said)),
            said_count,
            tuple(_memory(row) for row in reversed(kept)),
            kept_count,
        )

    def count_news(self, agent: str, since: datetime | None) -> tuple[int, int]:
        """Return how many messages of a dialogue and how many memories came after a moment."""
        said, kept = self._db.read(
            "SELECT (SELECT count(*) FROM messages WHERE agent = $1"
            "  AND role IN ('user', 'assistant')"
            "  AND (CAST($2 AS timestamptz) IS NULL OR recorded_at > $2)),"
            " (SELECT count(*) FROM memories WHERE agent = $1 AND retired_at IS NULL"
            "  AND (CAST($2 AS timestamptz) IS NULL OR recorded_at > $2))",
            agent,
            since,
        )[0]
        return int(said), int(kept)

    def _insert(self, tx: Transaction, agent: str, item: Consolidation) -> None:
        tx.insert(
            "INSERT INTO consolidations VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
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
            ),
        )

    def _check_generation(self) -> None:
        if self._generation != self._db.generation:
            self._generation = self._db.generation
            self._present.clear()
            self._last.clear()
            self._meant.clear()


def check_reason(reason: str | None) -> str | None:
    """Return why a consolidation was made, on one line, if that can be kept.

    Raises:
        InvalidInput: It has characters that can't be kept, or is empty.
        OverLimit: It is longer than `MAX_REASON_CHARS`.
    """
    if reason is None:
        return None
    if len(reason) > MAX_REASON_CHARS:
        raise OverLimit(
            "reason",
            used=len(reason),
            limit=MAX_REASON_CHARS,
            unit="characters",
            field="reason",
            hint="A sentence is enough",
        )
    return " ".join(check_text(reason, "reason").split())


def _consolidation(row: Row) -> Consolidation:
    key, author, began_at, began_by, finished_at, finished_by, reason, changed, tokens = row
    ranges = tuple(VersionRange(*item) for item in json.loads(changed))
    return Consolidation(
        key, author, began_at, began_by, finished_at, finished_by, reason, ranges, tokens
    )


def _dump(changed: tuple[VersionRange, ...]) -> str:
    return json.dumps(
        [[c.label, c.conversation, c.from_version, c.to_version, c.shared] for c in changed],
        ensure_ascii=False,
    )


def _memory(row: Row) -> Memory:
    key, version, content, kind, tags, tokens, happened_at, recorded_at = row
    return Memory(key, version, content, Kind(kind), tuple(tags), tokens, happened_at, recorded_at)
