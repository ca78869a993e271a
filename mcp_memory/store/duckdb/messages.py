"""The messages of every agent, and the summaries that remove them from their queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from mcp_memory.store.duckdb.database import Database, Row
from mcp_memory.store.duckdb.rows import conditions, from_microseconds, read_in_order
from mcp_memory.store.duckdb.transaction import transaction_of
from mcp_memory.store.ports import UnitOfWork
from mcp_memory.values.dates import EPOCH
from mcp_memory.values.records import Message, Role, Summary
from mcp_memory.values.render import is_searchable
from mcp_memory.values.requests import Where

COLUMNS: Final = "id, conversation, position, role, content, tokens, created_at, recorded_at, name"
_LIKE_DIALOGUE: Final = "role IN ('user', 'assistant')"
_SEARCHABLE: Final = "messages WHERE agent = $1 AND searchable AND seq > $3 AND seq <= $2"
_SUMMARY_COLUMNS: Final = (
    "id, conversation, parent, first_position, last_position, content, tokens, author, created_at"
)


def message_of(row: Row) -> Message:
    """Return the message of a row of `COLUMNS`."""
    key, conversation, index, role, content, tokens, created_at, recorded_at, name = row
    return Message(
        id=key,
        conversation=conversation,
        index=index,
        role=role,
        content=content,
        tokens=tokens,
        created_at=created_at,
        recorded_at=recorded_at,
        name=name,
    )


class DuckDBMessages:
    """The table of messages."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def insert(self, unit: UnitOfWork, agent: str, messages: Sequence[Message]) -> None:
        """Write messages."""
        tx = transaction_of(unit)
        seq = tx.note(agent, "messages", messages)
        tx.insert(
            "messages",
            "agent, conversation, position, id, role, name, content, tokens, searchable,"
            " created_at, recorded_at, seq",
            [
                (
                    agent,
                    message.conversation,
                    message.index,
                    message.id,
                    message.role,
                    message.name,
                    message.content,
                    message.tokens,
                    is_searchable(message),
                    message.created_at,
                    message.recorded_at,
                    seq,
                )
                for message in messages
            ],
        )

    def get(self, agent: str, ids: Sequence[str]) -> list[Message]:
        """Return the messages with these ids, in any order."""
        rows = self._db.read(
            f"SELECT {COLUMNS} FROM messages JOIN"
            " (SELECT unnest(CAST($2 AS text[])) AS k) AS keys ON id = k WHERE agent = $1",
            agent,
            list(ids),
        )
        return [message_of(row) for row in rows]

    def slice(self, agent: str, conversation: str, first: int, end: int) -> list[Message]:
        """Return messages `first` to `end` (excluded) of a conversation, oldest first."""
        rows = self._db.read(
            f"SELECT {COLUMNS} FROM messages WHERE agent = $1 AND conversation = $2"
            " AND position >= $3 AND position < $4 ORDER BY position",
            agent,
            conversation,
            first,
            end,
        )
        return [message_of(row) for row in rows]

    def page(
        self, agent: str, where: Where, *, offset: int, limit: int
    ) -> tuple[list[Message | None], int]:
        """Return a page of messages by date, newest first, and how many match in all."""
        values: list[object] = [agent]
        condition = " FROM messages WHERE agent = $1" + conditions(where, "created_at", values)
        total = int(self._db.read("SELECT count(*)" + condition, *values)[0][0])
        rows = self._db.read(
            f"SELECT {COLUMNS}{condition}"
            " ORDER BY created_at DESC, conversation, position DESC"
            f" LIMIT ${len(values) + 1} OFFSET ${len(values) + 2}",
            *values,
            limit,
            offset,
        )
        return [message_of(row) for row in rows], total

    def sizes(self, agent: str, conversation: str, first: int, upto: int) -> list[tuple[Role, int]]:
        """Return role and tokens of each message from `first` on, oldest first."""
        rows = self._db.read(
            "SELECT role, tokens FROM messages WHERE agent = $1 AND conversation = $2"
            " AND position >= $3 AND seq <= $4 ORDER BY position",
            agent,
            conversation,
            first,
            upto,
        )
        return [(row[0], row[1]) for row in rows]

    def conversations(self, agent: str, upto: int) -> dict[str, datetime]:
        """Return the conversations, each with when its newest message was recorded."""
        return dict(
            self._db.read(
                "SELECT conversation, max(recorded_at) FROM messages"
                " WHERE agent = $1 AND seq <= $2 GROUP BY conversation",
                agent,
                upto,
            )
        )

    def tally(self, agent: str, upto: int) -> tuple[int, datetime]:
        """Return the number of messages, and when the newest was recorded."""
        count, newest = self._db.read(
            "SELECT count(*), max(recorded_at) FROM messages WHERE agent = $1 AND seq <= $2",
            agent,
            upto,
        )[0]
        return int(count), newest or EPOCH

    def user_turns_since(self, agent: str, moment: datetime | None) -> int:
        """Return the number of messages from the user since a moment; None for all."""
        return self._count("role = 'user'", agent, moment)

    def dialogue_since(
        self, agent: str, moment: datetime | None, *, limit: int, max_chars: int
    ) -> list[Message]:
        """Return the newest messages of user and assistant since a moment, newest first."""
        rows = self._db.read(
            f"SELECT {COLUMNS.replace('content', 'substr(content, 1, $4)')} FROM messages"
            f" WHERE agent = $1 AND {_LIKE_DIALOGUE}"
            " AND (CAST($2 AS timestamptz) IS NULL OR recorded_at > $2)"
            " ORDER BY recorded_at DESC, conversation, position DESC LIMIT $3",
            agent,
            moment,
            limit,
            max_chars,
        )
        return [message_of(row) for row in rows]

    def count_dialogue_since(self, agent: str, moment: datetime | None) -> int:
        """Return the number of messages of user and assistant after a moment; None for all."""
        return self._count(_LIKE_DIALOGUE, agent, moment)

    def searchable(self, agent: str, after: int, upto: int) -> Iterator[Message]:
        """Yield the messages of change numbers `after` (excluded) to `upto` that searches find."""
        rows = read_in_order(
            self._db,
            "id, content, conversation, position, role, coalesce(name, '') AS name,"
            " epoch_us(created_at) AS created, epoch_us(recorded_at) AS recorded",
            _SEARCHABLE,
            (agent, upto, after),
            order="conversation, position",
        )
        for key, content, conversation, index, role, name, created_at, recorded_at in rows:
            yield Message(
                id=key,
                conversation=conversation,
                index=index,
                role=role,
                content=content,
                tokens=0,
                created_at=from_microseconds(created_at),
                recorded_at=from_microseconds(recorded_at),
                name=name or None,
            )

    def everything(self, agent: str, first: int, limit: int) -> list[Message]:
        """Return messages `first` and up in any fixed order, to fill a cache."""
        rows = self._db.read(
            f"SELECT {COLUMNS} FROM messages WHERE agent = $1 LIMIT $3 OFFSET $2",
            agent,
            first,
            limit,
        )
        return [message_of(row) for row in rows]

    def changed(self, agent: str, after: int) -> list[tuple[int, Message]]:
        """Return the messages above a change number, each with its own number."""
        rows = self._db.read(
            f"SELECT seq, {COLUMNS} FROM messages WHERE agent = $1 AND seq > $2"
            " ORDER BY seq, conversation, position",
            agent,
            after,
        )
        return [(row[0], message_of(row[1:])) for row in rows]

    def _count(self, condition: str, agent: str, moment: datetime | None) -> int:
        rows = self._db.read(
            f"SELECT count(*) FROM messages WHERE agent = $1 AND {condition}"
            " AND (CAST($2 AS timestamptz) IS NULL OR recorded_at > $2)",
            agent,
            moment,
        )
        return int(rows[0][0])


class DuckDBSummaries:
    """The table of summaries: versions of one cover the same last message."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def insert(self, unit: UnitOfWork, agent: str, summary: Summary) -> None:
        """Write a summary or another version of one."""
        tx = transaction_of(unit)
        seq = tx.note(agent, "summaries", [summary])
        tx.insert(
            "summaries",
            f"agent, {_SUMMARY_COLUMNS}, seq",
            [
                (
                    agent,
                    summary.id,
                    summary.conversation,
                    summary.parent,
                    summary.first,
                    summary.last,
                    summary.content,
                    summary.tokens,
                    summary.author,
                    summary.created_at,
                    seq,
                )
            ],
        )

    def newest(self, agent: str, conversation: str, upto: int) -> Summary | None:
        """Return the newest version of the newest summary."""
        found = self._read("conversation = $2 AND seq <= $3", agent, conversation, upto, limit=1)
        return found[0][1] if found else None

    def all(self, agent: str, conversation: str) -> list[Summary]:
        """Return all summaries with their versions, oldest first."""
        found = self._read("conversation = $2", agent, conversation, limit=None)
        return [summary for _, summary in reversed(found)]

    def queue_start(self, agent: str, conversation: str, upto: int) -> int:
        """Return the index of the first message that no summary covers."""
        return int(
            self._db.read(
                "SELECT coalesce(max(last_position), -1) + 1 FROM summaries"
                " WHERE agent = $1 AND conversation = $2 AND seq <= $3",
                agent,
                conversation,
                upto,
            )[0][0]
        )

    def changed(self, agent: str, after: int) -> list[tuple[int, Summary]]:
        """Return the summaries above a change number, each with its own number."""
        found = self._read("true", agent, limit=None)
        return sorted(
            (item for item in found if item[0] > after), key=lambda item: (item[0], item[1].last)
        )

    def _read(
        self, condition: str, agent: str, *values: object, limit: int | None
    ) -> list[tuple[int, Summary]]:
        """Return summaries with their change numbers, newest first."""
        rows = self._db.read(
            f"SELECT seq, {_SUMMARY_COLUMNS}, row_number() OVER"
            " (PARTITION BY conversation, last_position ORDER BY created_at, id)"
            f" FROM summaries WHERE agent = $1 AND {condition}"
            f" ORDER BY last_position DESC, created_at DESC, id DESC LIMIT ${len(values) + 2}",
            agent,
            *values,
            limit,
        )
        return [(row[0], _summary(row[1:])) for row in rows]


def _summary(row: Row) -> Summary:
    key, conversation, parent, first, last, content, tokens, author, created_at, version = row
    return Summary(
        id=key,
        conversation=conversation,
        parent=parent,
        first=first,
        last=last,
        content=content,
        tokens=tokens,
        author=author,
        created_at=created_at,
        version=version,
    )
