"""The queue of every conversation and its summaries: which messages the window holds.

What a window holds is known without asking the database: the queue of a
conversation is read once, and then kept in step with what is committed. Its
messages are counted whole; a reader whose window is smaller than a message
is shown that message clipped, and counts it as it is shown.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.store.duckdb import Database, Transaction
from mcp_memory.store.duckdb.database import Row
from mcp_memory.values.dates import now
from mcp_memory.values.ids import new_id
from mcp_memory.values.records import Author, Message, Role, Summary
from mcp_memory.values.render import render_message

MAX_HELD: Final = 512
"""So many conversations are kept in memory; of others the queue is read again."""

_NOTE_TOKENS: Final = 80
_TRIES: Final = 8

COLUMNS: Final = "id, conversation, position, role, name, content, tokens, created_at, recorded_at"
_SUMMARIES: Final = (
    "SELECT id, conversation, parent, first_position, last_position, content, tokens, author,"
    " created_at, row_number() OVER (PARTITION BY last_position ORDER BY created_at, id)"
    " FROM summaries WHERE agent = $1 AND conversation = $2"
    " ORDER BY last_position DESC, created_at DESC, id DESC LIMIT $3"
)

Key = tuple[str, str]
"""Agent and conversation."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Which messages of a conversation are in the window: `first` to `end` (excluded)."""

    first: int
    end: int

    @property
    def count(self) -> int:
        """How many messages are in the window."""
        return self.end - self.first


@dataclass(frozen=True, slots=True)
class Entry:
    """What paging has to know of a message in the queue; `tokens` as a window shows it."""

    index: int
    role: Role
    tokens: int


@dataclass(slots=True)
class _Held:
    """The queue of one conversation."""

    first: int
    sizes: deque[tuple[Role, int]]
    """Role and tokens of each message from `first`, whole."""

    sums: dict[int, int] = field(default_factory=dict)
    """By window, the tokens of all of them as that window shows them."""

    clipped: dict[tuple[int, int], int] = field(default_factory=dict)
    """By index and window, the tokens of a message that is shown clipped."""

    @property
    def end(self) -> int:
        return self.first + len(self.sizes)


class Queues:
    """The queue and the newest summary of every conversation; kept in memory once read."""

    def __init__(self, database: Database, tokenizer: Tokenizer) -> None:
        self._db = database
        self._tokenizer = tokenizer
        self._held: OrderedDict[Key, _Held] = OrderedDict()
        self._summaries: OrderedDict[Key, Summary | None] = OrderedDict()
        self._generation = database.generation

    def queue(self, agent: str, conversation: str) -> Queue:
        """Return which messages are in the window."""
        held = self._of(agent, conversation)
        return Queue(held.first, held.end)

    def tokens(self, agent: str, conversation: str, window: int) -> int:
        """Return what the queue costs in a window of so many tokens."""
        held = self._of(agent, conversation)
        if window not in held.sums:
            held.sums[window] = sum(
                self._shown(agent, conversation, held, held.first + at, tokens, window)
                for at, (_, tokens) in enumerate(held.sizes)
            )
        return held.sums[window]

    def entries(self, agent: str, conversation: str, window: int) -> list[Entry]:
        """Return the queue as a window of so many tokens shows it, oldest first."""
        held = self._of(agent, conversation)
        return [
            Entry(index, role, self._shown(agent, conversation, held, index, tokens, window))
            for index, (role, tokens) in enumerate(held.sizes, start=held.first)
        ]

    def added(self, agent: str, messages: Sequence[Message]) -> bool:
        """Take committed messages into their queue; return whether they were not in it yet."""
        if not messages:
            return False
        conversation = messages[0].conversation
        held = self._of(agent, conversation)
        new = [message for message in messages if message.index >= held.end]
        for message in new:
            held.sizes.append((message.role, message.tokens))
            for window in held.sums:
                tokens = message.tokens
                if tokens > window:
                    tokens = clip_message(message, window, self._tokenizer).tokens
                    held.clipped[message.index, window] = tokens
                held.sums[window] += tokens
        return bool(new)

    def summary(self, agent: str, conversation: str) -> Summary | None:
        """Return the newest summary of a conversation, None if nothing was ever evicted."""
        self._check_generation()
        key = (agent, conversation)
        if key not in self._summaries:
            rows = self._db.read(_SUMMARIES, agent, conversation, 1)
            self._summaries[key] = Summary(*rows[0]) if rows else None
            if len(self._summaries) > MAX_HELD:
                self._summaries.popitem(last=False)
        self._summaries.move_to_end(key)
        return self._summaries[key]

    def summaries(self, agent: str, conversation: str) -> tuple[Summary, ...]:
        """Return all summaries of a conversation with their versions, oldest first."""
        rows = self._db.read(_SUMMARIES, agent, conversation, None)
        return tuple(Summary(*row) for row in reversed(rows))

    def draft(
        self,
        agent: str,
        conversation: str,
        *,
        first: int,
        last: int,
        content: str,
        author: Author,
    ) -> Summary:
        """Return the next summary, of messages `first` to `last`, counted, not yet stored."""
        parent = self.summary(agent, conversation)
        return Summary(
            new_id(),
            conversation,
            None if parent is None else parent.id,
            first,
            last,
            content,
            self._tokenizer.count(content),
            author,
            now(),
        )

    def redraft(self, replaced: Summary, content: str, author: Author) -> Summary:
        """Return the next version of a summary, counted, not yet stored."""
        return replace(
            replaced,
            id=new_id(),
            content=content,
            tokens=self._tokenizer.count(content),
            author=author,
            # The newest is known by its date, also after the clock was set back.
            created_at=max(now(), replaced.created_at + timedelta(microseconds=1)),
            version=replaced.version + 1,
        )

    def store(self, tx: Transaction, agent: str, summary: Summary) -> None:
        """Write a summary, which takes its messages off the queue; call `stored` after it."""
        tx.insert(
            "INSERT INTO summaries VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            (
                agent,
                summary.conversation,
                summary.id,
                summary.parent,
                summary.first,
                summary.last,
                summary.content,
                summary.tokens,
                summary.author,
                summary.created_at,
            ),
        )

    def stored(self, agent: str, summary: Summary) -> None:
        """Let a committed summary be seen, and its messages be out of the queue."""
        key = (agent, summary.conversation)
        self._summaries[key] = summary
        held = self._held.get(key)
        if held is None:
            return
        while held.sizes and held.first <= summary.last:
            _, tokens = held.sizes.popleft()
            for window in held.sums:
                held.sums[window] -= self._shown(*key, held, held.first, tokens, window)
            held.first += 1
        held.clipped = {at: n for at, n in held.clipped.items() if at[0] >= held.first}

    def forget(self) -> None:
        """Drop all that is kept in memory."""
        self._held.clear()
        self._summaries.clear()

    def _of(self, agent: str, conversation: str) -> _Held:
        self._check_generation()
        key = (agent, conversation)
        held = self._held.get(key)
        if held is None:
            first = self._db.read(
                "SELECT coalesce(max(last_position), -1) + 1 FROM summaries"
                " WHERE agent = $1 AND conversation = $2",
                agent,
                conversation,
            )[0][0]
            rows = self._db.read(
                "SELECT role, tokens FROM messages WHERE agent = $1 AND conversation = $2"
                " AND position >= $3 ORDER BY position",
                agent,
                conversation,
                first,
            )
            held = self._held[key] = _Held(int(first), deque((row[0], row[1]) for row in rows))
            if len(self._held) > MAX_HELD:
                self._held.popitem(last=False)
        else:
            self._held.move_to_end(key)
        return held

    def _shown(
        self, agent: str, conversation: str, held: _Held, index: int, tokens: int, window: int
    ) -> int:
        """Return what a message of the queue costs as a window shows it."""
        if tokens <= window:
            return tokens
        if (index, window) not in held.clipped:
            row = self._db.read(
                f"SELECT {COLUMNS} FROM messages"
                " WHERE agent = $1 AND conversation = $2 AND position = $3",
                agent,
                conversation,
                index,
            )[0]
            shown = clip_message(message_of(row), window, self._tokenizer)
            held.clipped[index, window] = shown.tokens
        return held.clipped[index, window]

    def _check_generation(self) -> None:
        if self._generation != self._db.generation:
            self._generation = self._db.generation
            self.forget()


def clip_message(message: Message, window: int, tokenizer: Tokenizer) -> Message:
    """Return a message as a window of so many tokens shows it: whole, or its beginning.

    The tokens of a clipped one are those of what `render_message` makes of it: never
    more than the window, if that has room for a speaker's name and the note.
    """
    if message.tokens <= window:
        return message
    note = (
        f"\n[cut: the whole message has {message.tokens} tokens;"
        f" it is in recall memory, id {message.id}: conversation_search finds every part of it]"
    )
    room = max(window - _NOTE_TOKENS, 0)
    for _ in range(_TRIES):
        # What is cut apart may count more than it did together.
        shown = replace(message, content=tokenizer.clip(message.content, room) + note)
        tokens = tokenizer.count(render_message(shown))
        if tokens <= window:
            break
        room = max(room - (tokens - window) - 1, 0)
    return replace(shown, tokens=tokens)


def message_of(row: Row) -> Message:
    """Return the message of a row of the columns `COLUMNS`."""
    key, conversation, index, role, name, content, tokens, created_at, recorded_at = row
    return Message(key, conversation, index, role, content, tokens, created_at, recorded_at, name)
