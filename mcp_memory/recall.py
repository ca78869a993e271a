"""Recall memory: every message of every conversation, the queue, and the summaries.

The queue of a conversation is its messages after the last one that a summary
covers. Nothing is ever deleted: what leaves the queue stays searchable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from mcp_memory.dates import now
from mcp_memory.errors import InvalidInput, NotFound
from mcp_memory.ids import new_id
from mcp_memory.records import ROLES, Author, Message, NewMessage, Role, Summary
from mcp_memory.render import is_searchable, render_message
from mcp_memory.search.index import Filter, SearchIndex
from mcp_memory.storage import Database, Transaction
from mcp_memory.storage.cache import RowCache, Tallies
from mcp_memory.storage.database import Row
from mcp_memory.storage.vectors import Pending, Range, Vectors, VectorStore
from mcp_memory.text import check_name, check_text
from mcp_memory.tokens import Tokenizer

MAX_BATCH: Final = 1_000
"""So many messages one call may append."""

Place = tuple[str, int]
"""Conversation and index of a message."""

Embedded = tuple[list[Range], Vectors]

_COLUMNS: Final = "id, conversation, position, role, name, content, tokens, created_at, recorded_at"


@dataclass(frozen=True, slots=True)
class Queue:
    """The state of a conversation: messages `first` to `end` (excluded) are in the window."""

    first: int
    end: int
    tokens: int

    @property
    def count(self) -> int:
        """How many messages are in the window."""
        return self.end - self.first


class RecallMemory:
    """The messages of every agent, with the search index of each as a cache."""

    def __init__(self, database: Database, vectors: VectorStore, tokenizer: Tokenizer) -> None:
        self._db = database
        self._vectors = vectors
        self._tokenizer = tokenizer
        self._queues: dict[tuple[str, str], Queue] = {}
        self._summaries: dict[tuple[str, str], Summary | None] = {}
        self._tallies = Tallies(database, "messages")
        self._rows_read: RowCache[tuple[str, Place], Message] = RowCache()
        self._indexes: dict[str, SearchIndex[Place]] = {}
        self._places: dict[str, dict[str, Place]] = {}
        self._generation = database.generation

    def prepare(
        self,
        messages: Sequence[NewMessage],
        conversation: str,
        recorded_at: datetime,
        window_tokens: int,
    ) -> list[Message]:
        """Return the messages as they will be stored, counted and with ids; not yet numbered.

        One that is larger than the window counts as the window: it is clipped in the
        queue and kept whole.

        Raises:
            InvalidInput: One can't be taken, or there are none or too many.
        """
        if not 1 <= len(messages) <= MAX_BATCH:
            raise InvalidInput(
                f"messages has {len(messages)} entries; 1 to {MAX_BATCH} can be appended at once",
                field="messages",
                hint="Append them in several calls",
            )
        prepared: list[Message] = []
        for number, message in enumerate(messages):
            field = f"messages[{number}]"
            if message.role not in ROLES:
                raise InvalidInput(
                    f"{field}.role {message.role!r} is unknown",
                    field=field,
                    hint=f"Use one of {', '.join(ROLES)}",
                )
            content = check_text(message.content, f"{field}.content")
            name = None if message.name is None else check_name(message.name, f"{field}.name")
            prepared.append(
                Message(
                    id=new_id(), conversation=conversation, index=-1, role=message.role,
                    content=content, tokens=0, created_at=message.created_at or recorded_at,
                    recorded_at=recorded_at, name=name,
                )
            )  # fmt: skip
        count = self._tokenizer.count
        return [
            replace(message, tokens=min(count(render_message(message)), window_tokens))
            for message in prepared
        ]

    def number(self, agent: str, messages: Sequence[Message]) -> list[Message]:
        """Return the messages with the next indexes of their conversation."""
        end = self.queue(agent, messages[0].conversation).end
        return [replace(message, index=end + at) for at, message in enumerate(messages)]

    def store(
        self,
        tx: Transaction,
        agent: str,
        messages: Sequence[Message],
        embedded: Sequence[Embedded | None],
    ) -> None:
        """Write numbered messages; call `stored` after the commit."""
        for message, vectors in zip(messages, embedded, strict=True):
            searchable = is_searchable(message)
            tx.insert(
                "INSERT INTO messages VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
                (agent, message.conversation, message.index, message.id, message.role,
                 message.name, message.content, message.tokens, searchable,
                 message.created_at, message.recorded_at),
            )  # fmt: skip
            if searchable and vectors is not None:
                self._vectors.save(tx, agent, "message", message.id, 1, *vectors)
            elif searchable:
                self._vectors.defer(tx, [Pending(agent, "message", message.id, 1)])

    def stored(
        self, agent: str, messages: Sequence[Message], embedded: Sequence[Embedded | None]
    ) -> None:
        """Let what was committed be found."""
        queue = self.queue(agent, messages[0].conversation)
        if messages[-1].index >= queue.end:
            self._queues[agent, messages[0].conversation] = Queue(
                queue.first,
                messages[-1].index + 1,
                queue.tokens + sum(message.tokens for message in messages),
            )
            self._tallies.add(agent, len(messages), messages[-1].recorded_at)
        index = self._indexes.get(agent)
        if index is None:
            return
        for message, vectors in zip(messages, embedded, strict=True):
            if is_searchable(message):
                self._index_message(agent, index, self._keep(agent, message))
                if vectors is not None:
                    index.add_vectors((message.conversation, message.index), *vectors)

    def queue(self, agent: str, conversation: str) -> Queue:
        """Return which messages are in the window and what they cost, in tokens."""
        self._check_generation()
        held = self._queues.get((agent, conversation))
        if held is None:
            evicted = self._db.read(
                "SELECT coalesce(max(last_position), -1) + 1 FROM summaries"
                " WHERE agent = $1 AND conversation = $2",
                agent, conversation,
            )[0][0]  # fmt: skip
            end, tokens = self._db.read(
                "SELECT coalesce(max(position), -1) + 1,"
                " coalesce(sum(CASE WHEN position >= $3 THEN tokens END), 0)"
                " FROM messages WHERE agent = $1 AND conversation = $2",
                agent, conversation, evicted,
            )[0]  # fmt: skip
            held = self._queues[agent, conversation] = Queue(int(evicted), int(end), int(tokens))
        return held

    def messages(self, agent: str, conversation: str, first: int, end: int) -> tuple[Message, ...]:
        """Return messages `first` to `end` (excluded) of a conversation, oldest first."""
        rows = self._db.read(
            f"SELECT {_COLUMNS} FROM messages WHERE agent = $1 AND conversation = $2"
            " AND position >= $3 AND position < $4 ORDER BY position",
            agent, conversation, first, end,
        )  # fmt: skip
        return tuple(_message(row) for row in rows)

    def check_range(self, agent: str, conversation: str, first: int, last: int) -> None:
        """Check that messages `first` to `last` (both included) are there.

        Raises:
            NotFound: The conversation has no such messages.
        """
        end = self.queue(agent, conversation).end
        if not 0 <= first <= last < end:
            raise NotFound(
                f"messages {first} to {last} are not in conversation {conversation!r},"
                f" which has {f'0 to {end - 1}' if end else 'none'}",
                key=conversation,
                hint="Use the numbers that stand before the messages, the smaller one first",
            )

    def conversations(self, agent: str) -> list[str]:
        """Return the agent's conversations, the one with the newest message first."""
        return [
            row[0]
            for row in self._db.read(
                "SELECT conversation FROM messages WHERE agent = $1"
                " GROUP BY conversation ORDER BY max(recorded_at) DESC",
                agent,
            )
        ]

    def count(self, agent: str) -> int:
        """Return the number of messages of all conversations of an agent."""
        self._check_generation()
        return self._tallies.count(agent)

    def newest(self, agent: str) -> datetime:
        """Return when the last message was recorded; that is to come if the clock was set back."""
        self._check_generation()
        return self._tallies.newest(agent)

    def user_turns_since(self, agent: str, moment: datetime | None) -> int:
        """Return how many messages the user has sent since `moment`."""
        return int(
            self._db.read(
                "SELECT count(*) FROM messages WHERE agent = $1 AND role = 'user'"
                " AND (CAST($2 AS timestamptz) IS NULL OR recorded_at > $2)",
                agent, moment,
            )[0][0]
        )  # fmt: skip

    def summary(self, agent: str, conversation: str) -> Summary | None:
        """Return the newest summary of a conversation, None if nothing was ever evicted."""
        self._check_generation()
        if (agent, conversation) not in self._summaries:
            rows = self._db.read(
                "SELECT id, conversation, parent, first_position, last_position, content, tokens,"
                " author, created_at FROM summaries WHERE agent = $1 AND conversation = $2"
                " ORDER BY last_position DESC, created_at DESC LIMIT 1",
                agent, conversation,
            )  # fmt: skip
            self._summaries[agent, conversation] = Summary(*rows[0]) if rows else None
        return self._summaries[agent, conversation]

    def draft_summary(
        self,
        conversation: str,
        parent: Summary | None,
        *,
        first: int,
        last: int,
        content: str,
        author: Author,
    ) -> Summary:
        """Return a summary of messages `first` to `last`, counted, not yet stored."""
        return Summary(
            new_id(), conversation, None if parent is None else parent.id, first, last, content,
            self._tokenizer.count(content), author, now(),
        )  # fmt: skip

    def store_summary(self, tx: Transaction, agent: str, summary: Summary) -> None:
        """Write a summary, which takes its messages off the queue; call `summarized` after it."""
        tx.insert(
            "INSERT INTO summaries VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            (agent, summary.conversation, summary.id, summary.parent, summary.first, summary.last,
             summary.content, summary.tokens, summary.author, summary.created_at),
        )  # fmt: skip

    def summarized(self, agent: str, conversation: str) -> None:
        """Let a committed summary be seen."""
        self._queues.pop((agent, conversation), None)
        self._summaries.pop((agent, conversation), None)

    def index(self, agent: str) -> SearchIndex[Place]:
        """Return the search index of an agent, filled from the database if it isn't there."""
        self._check_generation()
        index = self._indexes.get(agent)
        if index is None:
            index = self._indexes[agent] = self._load_index(agent)
        return index

    def add_vectors(
        self, agent: str, message_id: str, ranges: Sequence[Range], vectors: Vectors
    ) -> None:
        """Let vectors that were computed later be used, if the agent's index is loaded."""
        index, places = self._indexes.get(agent), self._places.get(agent, {})
        if index is not None and message_id in places:
            index.add_vectors(places[message_id], ranges, vectors)

    def forget_indexes(self) -> None:
        """Drop every cached index; each is loaded anew when it is needed."""
        self._indexes.clear()
        self._places.clear()

    def get(self, agent: str, places: Sequence[Place]) -> dict[Place, Message]:
        """Return the messages at these places."""
        self._check_generation()
        found: dict[Place, Message] = {}
        missing: list[Place] = []
        for place in places:
            held = self._rows_read.get((agent, place))
            if held is None:
                missing.append(place)
            else:
                found[place] = held
        for row in self._rows(agent, missing) if missing else ():
            found[row[1], row[2]] = self._keep(agent, _message(row))
        return found

    def _rows(self, agent: str, places: Sequence[Place]) -> list[Row]:
        return self._db.read(
            f"SELECT {_COLUMNS} FROM messages JOIN"
            " (SELECT unnest(CAST($2 AS text[])) AS c, unnest(CAST($3 AS integer[])) AS p) AS k"
            " ON conversation = k.c AND position = k.p WHERE agent = $1",
            agent, [place[0] for place in places], [place[1] for place in places],
        )  # fmt: skip

    def _keep(self, agent: str, message: Message) -> Message:
        place = (message.conversation, message.index)
        self._rows_read.put((agent, place), message, len(message.content))
        return message

    def find(self, agent: str, message_id: str) -> Message | None:
        """Return the message of an id, None if the agent has none of it."""
        rows = self._db.read(
            f"SELECT {_COLUMNS} FROM messages WHERE agent = $1 AND id = $2", agent, message_id
        )
        return _message(rows[0]) if rows else None

    def listing(
        self,
        agent: str,
        *,
        roles: Sequence[Role],
        conversation: str | None,
        where: Filter,
        offset: int,
        limit: int,
    ) -> tuple[tuple[Message, ...], int]:
        """Return messages by date, newest first, and how many there are in all."""
        condition = (
            " FROM messages WHERE agent = $1"
            " AND (CAST($2 AS text[]) IS NULL OR role = ANY (CAST($2 AS text[])))"
            " AND (CAST($3 AS text) IS NULL OR conversation = $3)"
            " AND (CAST($4 AS timestamptz) IS NULL OR created_at >= $4)"
            " AND (CAST($5 AS timestamptz) IS NULL OR created_at < $5)"
            " AND (CAST($6 AS timestamptz) IS NULL OR recorded_at <= $6)"
        )
        values = (agent, list(roles) or None, conversation, where.start, where.end, where.as_of)
        total = int(self._db.read("SELECT count(*)" + condition, *values)[0][0])
        rows = self._db.read(
            f"SELECT {_COLUMNS}{condition}"
            " ORDER BY created_at DESC, conversation, position DESC LIMIT $7 OFFSET $8",
            *values, limit, offset,
        )  # fmt: skip
        return tuple(_message(row) for row in rows), total

    def _check_generation(self) -> None:
        if self._generation != self._db.generation:
            self._generation = self._db.generation
            self._queues.clear()
            self._summaries.clear()
            self._tallies.clear()
            self._rows_read.clear()
            self.forget_indexes()

    def _load_index(self, agent: str) -> SearchIndex[Place]:
        index: SearchIndex[Place] = SearchIndex()
        for row in self._db.read(
            f"SELECT {_COLUMNS} FROM messages WHERE agent = $1 AND searchable"
            " ORDER BY recorded_at, conversation, position",
            agent,
        ):
            self._index_message(agent, index, self._keep(agent, _message(row)))
        stored = self._vectors.load(agent, "message")
        if stored is not None:
            places = self._places.get(agent, {})
            for message_id, ranges, vectors in stored.by_id():
                if message_id in places:
                    index.add_vectors(places[message_id], ranges, vectors)
        return index

    def _index_message(self, agent: str, index: SearchIndex[Place], message: Message) -> None:
        place = (message.conversation, message.index)
        self._places.setdefault(agent, {})[message.id] = place
        index.add(
            place,
            message.content,
            when=message.created_at,
            recorded=message.recorded_at,
            labels=(f"conversation:{message.conversation}", f"role:{message.role}"),
            prefix=message.name or "",
        )


def _message(row: Row) -> Message:
    key, conversation, index, role, name, content, tokens, created_at, recorded_at = row
    return Message(key, conversation, index, role, content, tokens, created_at, recorded_at, name)
