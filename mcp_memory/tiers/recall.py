"""Recall memory: every message of every conversation, numbered, kept and found again.

Nothing is ever deleted: what leaves the queue of its conversation stays searchable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.search.caches import Indexes
from mcp_memory.search.index import SearchIndex
from mcp_memory.search.neighbours import SITTING_SECONDS
from mcp_memory.search.queries import Filter
from mcp_memory.store.duckdb import Database, Transaction
from mcp_memory.store.duckdb.cache import READ_AHEAD, RowCache, Tallies, read_ahead
from mcp_memory.store.duckdb.vectors import Pending, Range, Vectors, VectorStore
from mcp_memory.tiers.findable import MESSAGES, of_message, read_message
from mcp_memory.tiers.keeping import Keeping
from mcp_memory.tiers.queues import COLUMNS, Queues, message_of
from mcp_memory.values.errors import InvalidInput, NotFound
from mcp_memory.values.ids import new_id
from mcp_memory.values.records import ROLES, Message, NewMessage, Role
from mcp_memory.values.render import is_searchable, render_message
from mcp_memory.values.text import check_name, check_text

MAX_BATCH: Final = 1_000
"""So many messages one call may append."""

WINDOW_MESSAGES: Final = 5
"""So many messages are embedded together, beside the nearest three of them."""

_PLACES_CHARS: Final = 40_000_000
"""Room for the ids of some 100,000 messages by their places."""

MAX_WITHOUT_WINDOW: Final = 100_000
"""So many messages are remembered; the others are found at the next start."""


def pending(agent: str, messages: Sequence[Message]) -> list[Pending | None]:
    """Return messages as texts that are to have vectors; None for what no search shows."""
    return [Pending(agent, "message", m.id, 1) if is_searchable(m) else None for m in messages]


class RecallMemory:
    """The messages of every agent, with the search index of each as a cache."""

    def __init__(
        self,
        database: Database,
        vectors: VectorStore,
        tokenizer: Tokenizer,
        indexes: Indexes,
        keeping: Keeping,
    ) -> None:
        self._db = database
        self._vectors = vectors
        self._tokenizer = tokenizer
        self.queues = Queues(database, tokenizer)
        self.without_window: deque[tuple[str, str, int]] = deque(maxlen=MAX_WITHOUT_WINDOW)
        """Agent, conversation and index of messages whose window is still to be embedded."""
        self._names: dict[str, dict[str, datetime]] = {}
        self._tallies = Tallies(database, "messages")
        self._rows_read: RowCache[tuple[str, str], Message] = RowCache()
        self._ids: RowCache[tuple[str, str, int], str] = RowCache(_PLACES_CHARS)
        """By agent, conversation and index, of messages that were read."""
        self._indexes = indexes
        self._keeping = keeping
        self._generation = database.generation

    def prepare(
        self,
        messages: Sequence[NewMessage],
        conversation: str,
        recorded_at: datetime,
    ) -> list[Message]:
        """Return the messages as they will be stored, counted and with ids; not yet numbered.

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
                    id=new_id(),
                    conversation=conversation,
                    index=-1,
                    role=message.role,
                    content=content,
                    tokens=0,
                    created_at=message.created_at or recorded_at,
                    recorded_at=recorded_at,
                    name=name,
                )
            )
        count = self._tokenizer.count
        return [replace(message, tokens=count(render_message(message))) for message in prepared]

    def number(self, agent: str, messages: Sequence[Message]) -> list[Message]:
        """Return the messages with the next indexes of their conversation."""
        end = self.queues.queue(agent, messages[0].conversation).end
        return [replace(message, index=end + at) for at, message in enumerate(messages)]

    def store(
        self,
        tx: Transaction,
        agent: str,
        messages: Sequence[Message],
        *,
        coming: bool = False,
    ) -> None:
        """Write numbered messages; call `stored` after the commit.

        Args:
            coming: Whether their vectors are being computed, or else are listed as pending.
        """
        rows = [
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
            )
            for message in messages
        ]
        tx.insert_many("messages", rows)
        if not coming:
            self._vectors.defer(tx, [item for item in pending(agent, messages) if item])

    def stored(self, agent: str, messages: Sequence[Message]) -> None:
        """Let what was committed be found."""
        if self.queues.added(agent, messages):
            self._tallies.add(agent, len(messages), messages[-1].recorded_at)
            if agent in self._names:
                self._names[agent][messages[0].conversation] = messages[-1].recorded_at
        for message in messages:
            self._keep(agent, message)
            if is_searchable(message):
                self.without_window.append((agent, message.conversation, message.index))
        index = self._held(agent)
        if index is None:
            return
        for message in messages:
            if is_searchable(message):
                index.add(message.id, message.content, **of_message(message))

    def messages(self, agent: str, conversation: str, first: int, end: int) -> tuple[Message, ...]:
        """Return messages `first` to `end` (excluded) of a conversation, oldest first."""
        self._check_generation()
        found: list[Message] = []
        for index in range(first, end):
            message_id = self._ids.get((agent, conversation, index))
            held = None if message_id is None else self._rows_read.get((agent, message_id))
            if held is None:
                break
            found.append(held)
        else:
            return tuple(found)
        rows = self._db.read(
            f"SELECT {COLUMNS} FROM messages WHERE agent = $1 AND conversation = $2"
            " AND position >= $3 AND position < $4 ORDER BY position",
            agent,
            conversation,
            first + len(found),
            end,
        )
        return (*found, *(self._keep(agent, message_of(row)) for row in rows))

    def check_range(self, agent: str, conversation: str, first: int, last: int) -> None:
        """Check that messages `first` to `last` (both included) are there.

        Raises:
            NotFound: The conversation has no such messages.
        """
        end = self.queues.queue(agent, conversation).end
        if not 0 <= first <= last < end:
            raise NotFound(
                f"messages {first} to {last} are not in conversation {conversation!r},"
                f" which has {f'0 to {end - 1}' if end else 'none'}",
                key=conversation,
                hint="Use the numbers that stand before the messages, the smaller one first",
            )

    def conversations(self, agent: str) -> list[str]:
        """Return the agent's conversations, the one with the newest message first."""
        self._check_generation()
        if agent not in self._names:
            self._names[agent] = dict(
                self._db.read(
                    "SELECT conversation, max(recorded_at) FROM messages WHERE agent = $1"
                    " GROUP BY conversation",
                    agent,
                )
            )
        names = self._names[agent]
        return sorted(names, key=lambda name: names[name], reverse=True)

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
                agent,
                moment,
            )[0][0]
        )

    def index(self, agent: str) -> SearchIndex[str]:
        """Return the search index of an agent, filled from the database if it isn't there."""
        self._check_generation()
        index: SearchIndex[str] = self._indexes.get(
            ("message", agent), lambda: self._load_index(agent)
        )
        return index

    def add_vectors(
        self, agent: str, message_id: str, ranges: Sequence[Range], vectors: Vectors
    ) -> None:
        """Let vectors that were computed later be used, if the agent's index is loaded."""
        index = self._held(agent)
        if index is not None:
            index.add_vectors(message_id, ranges, vectors)

    def forget_indexes(self) -> None:
        """Drop every cached index; each is loaded anew when it is needed."""
        self._indexes.clear()

    def _keep(self, agent: str, message: Message) -> Message:
        self._rows_read.put((agent, message.id), message, len(message.content))
        self._ids.put((agent, message.conversation, message.index), message.id, 0)
        return message

    def get_many(self, agent: str, message_ids: Sequence[str]) -> dict[str, Message]:
        """Return the messages of these ids that the agent has."""
        self._check_generation()
        found, missing = self._rows_read.split([(agent, key) for key in message_ids])
        if missing:
            rows = self._db.read(
                f"SELECT {COLUMNS} FROM messages JOIN"
                " (SELECT unnest(CAST($2 AS text[])) AS k) AS keys ON id = k WHERE agent = $1",
                agent,
                [key for _, key in missing],
            )
            found += [self._keep(agent, message_of(row)) for row in rows]
        return {message.id: message for message in found}

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
            f"SELECT {COLUMNS}{condition}"
            " ORDER BY created_at DESC, conversation, position DESC LIMIT $7 OFFSET $8",
            *values,
            limit,
            offset,
        )
        return tuple(message_of(row) for row in rows), total

    def window(self, agent: str, conversation: str, index: int) -> tuple[Message, ...]:
        """Return a message and those of its sitting before it, up to four, oldest first."""
        messages = [
            message
            for message in self.messages(agent, conversation, max(index - 8, 0), index + 1)
            if is_searchable(message)
        ][-WINDOW_MESSAGES:]
        for place in range(len(messages) - 1, 0, -1):
            apart = messages[place].created_at - messages[place - 1].created_at
            if abs(apart.total_seconds()) > SITTING_SECONDS:
                return tuple(messages[place:])
        return tuple(messages)

    def add_windows(self, agent: str, message: Message, vectors: Vectors) -> None:
        """Let the vectors (2, dim) of a message's windows be used, if the index is loaded."""
        index = self._held(agent)
        if index is not None:
            index.add_windows(message.id, vectors)

    def _held(self, agent: str) -> SearchIndex[str] | None:
        """Return an agent's index if it is loaded."""
        return self._indexes.peek(("message", agent))

    def _check_generation(self) -> None:
        if self._generation != self._db.generation:
            self._generation = self._db.generation
            self.queues.forget()
            self._names.clear()
            self._tallies.clear()
            self._rows_read.clear()
            self._ids.clear()
            self.forget_indexes()

    def _load_index(self, agent: str) -> SearchIndex[str]:
        index: SearchIndex[str] = SearchIndex(self._indexes.folder)
        self._keeping.fill(index, MESSAGES, agent, read_message, {})
        index.complete = False
        self._indexes.fill(("message", agent), index, self._fill(agent, index, index.end))
        return index

    def _fill(self, agent: str, index: SearchIndex[str], below: int) -> Iterator[None]:
        """Add the vectors of what was in the index before, block by block."""
        for block in self._vectors.blocks(agent, "message"):
            index.add_many_vectors(block.ids, block.starts, block.ends, block.vectors, below)
            yield
        for block in self._vectors.blocks(agent, "window"):
            index.add_many_windows(block.ids, block.numbers, block.vectors, below)
            yield
        index.complete = True
        if self.count(agent) <= READ_AHEAD:
            yield from read_ahead(
                self._db,
                f"SELECT {COLUMNS} FROM messages WHERE agent = $1",
                agent,
                lambda row: self._keep(agent, message_of(row)),
                self._rows_read,
            )
