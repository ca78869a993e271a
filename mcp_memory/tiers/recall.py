"""Recall memory: stores and finds every message of every conversation.

Nothing is ever deleted: messages that leave the queue stay searchable.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.search.caches import Indexes
from mcp_memory.search.index import SearchIndex
from mcp_memory.search.neighbours import SITTING_SECONDS
from mcp_memory.store.ports import Change, Pending, Store, UnitOfWork
from mcp_memory.tiers.feed import ChangeFeed
from mcp_memory.tiers.indexes import Document, TierIndexes
from mcp_memory.tiers.queues import Queues
from mcp_memory.tiers.rowcache import RowCache, Tallies
from mcp_memory.tiers.vectors import BatchedVectors
from mcp_memory.values.dates import Clock
from mcp_memory.values.errors import InvalidInput, NotFound
from mcp_memory.values.ids import new_id
from mcp_memory.values.records import ROLES, Message, MessageHit, NewMessage, Passage
from mcp_memory.values.render import counted_turn, is_searchable, speaker_prefix
from mcp_memory.values.requests import Tier, Where, labels_of
from mcp_memory.values.text import check_speaker, check_text

MAX_BATCH: Final = 1_000
"""Messages that one call may append; by judgement."""

WINDOW_MESSAGES: Final = 5
"""Messages that are embedded together, besides the last three of them
(docs/decisions: what surrounds a message)."""

READ_AHEAD: Final = 50_000
"""The rows of an agent with at most this many are cached in advance; by judgement."""

READ_AHEAD_ROWS: Final = 4_096
"""Rows that are read in advance at once, while other calls wait; by judgement."""

MAX_WITHOUT_WINDOW: Final = 100_000
"""Messages without window vectors that are remembered, by judgement; a restart finds the rest."""

_PLACES_CHARS: Final = 40_000_000
"""Room for the ids of about 100,000 messages by their places; by judgement."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A message that was checked and counted, but has no index in a conversation yet."""

    id: str
    message: NewMessage
    tokens: int


class RecallMemory:
    """The messages of every agent; follows the change feed.

    Args:
        store: Where the rows are.
        feed: Reports their changes.
        vectors: Stores the vectors of messages.
        tokenizer: Counts the tokens of messages.
        cache: The search indexes in memory, of all tiers.
        clock: Gives the time of summaries.
    """

    tier: Final[Tier] = "message"
    of_facts: Final = False

    def __init__(
        self,
        store: Store,
        feed: ChangeFeed,
        vectors: BatchedVectors,
        tokenizer: Tokenizer,
        cache: Indexes,
        clock: Clock,
    ) -> None:
        self._messages = store.messages
        self._feed = feed
        self._vectors = vectors
        self._tokenizer = tokenizer
        self.queues = Queues(store, feed, tokenizer, clock)
        self.without_window: deque[tuple[str, str, int]] = deque(maxlen=MAX_WITHOUT_WINDOW)
        """Agent, conversation and index of messages whose window is still to be embedded."""
        self._conversations: dict[str, dict[str, datetime]] = {}
        self._tallies = Tallies(lambda agent: self._messages.tally(agent, feed.seq(agent)))
        self._rows: RowCache[tuple[str, str], Message] = RowCache()
        self._ids: RowCache[tuple[str, str, int], str] = RowCache(_PLACES_CHARS)
        """Ids of messages that were read, by agent, conversation and index."""
        self.indexes = TierIndexes(
            "message",
            store,
            vectors,
            feed,
            cache,
            searchable=store.messages.searchable,
            retired=lambda agent, after, upto: (),
            document=_document,
            ageing={},
            sources=("message", "window"),
            read_ahead=self._read_ahead,
        )
        feed.follow(self)

    def draft(self, messages: Sequence[NewMessage]) -> list[Draft]:
        """Return messages checked, counted and with ids.

        Raises:
            InvalidInput: A message is not valid, or there are none or too many.
        """
        if not 1 <= len(messages) <= MAX_BATCH:
            raise InvalidInput(
                f"messages has {len(messages)} entries; 1 to {MAX_BATCH} can be appended at once",
                field="messages",
                hint="Append them in several calls",
            )
        return [self._draft(message, f"messages[{at}]") for at, message in enumerate(messages)]

    def reading(
        self, agent: str, drafts: Sequence[Draft], recorded_at: datetime
    ) -> contextlib.AbstractContextManager[None]:
        """Read the words of long messages that are about to be inserted, without the lock."""
        return self.indexes.reading(
            agent,
            [(draft.id, draft.message.content, prefix_of(draft, recorded_at)) for draft in drafts],
        )

    def build(
        self, agent: str, conversation: str, drafts: Sequence[Draft], recorded_at: datetime
    ) -> list[Message]:
        """Return the messages as the next ones of their conversation."""
        end = self.queues.queue(agent, conversation).end
        return [
            Message(
                id=draft.id,
                conversation=conversation,
                index=index,
                role=draft.message.role,
                content=draft.message.content,
                tokens=draft.tokens,
                created_at=draft.message.created_at or recorded_at,
                recorded_at=recorded_at,
                name=draft.message.name,
            )
            for index, draft in enumerate(drafts, end)
        ]

    def insert(
        self, unit: UnitOfWork, agent: str, messages: Sequence[Message], *, coming: bool = False
    ) -> None:
        """Write messages.

        Args:
            coming: Whether their vectors are being computed; else they are listed as pending.
        """
        self._messages.insert(unit, agent, messages)
        if not coming:
            self._vectors.defer(unit, [item for item in pending(agent, messages) if item])

    def apply(self, change: Change) -> None:
        """Apply the next change of an agent; see `feed.Follower`."""
        agent, messages = change.agent, change.messages
        if messages:
            for message in messages:
                self._cache(agent, message)
                if is_searchable(message):
                    self.without_window.append((agent, message.conversation, message.index))
            recorded = [message.recorded_at for message in messages]
            self._tallies.add(agent, len(messages), recorded)
            if agent in self._conversations:
                newest_of = self._conversations[agent]
                for message in messages:
                    before = newest_of.get(message.conversation, message.recorded_at)
                    newest_of[message.conversation] = max(before, message.recorded_at)
            self.indexes.add(agent, [message for message in messages if is_searchable(message)])
        self.queues.apply(change)
        self.indexes.apply_vectors(change)

    def forget(self) -> None:
        """Drop everything in memory."""
        self.queues.forget()
        self._conversations.clear()
        self._tallies.clear()
        self._rows.clear()
        self._ids.clear()
        self.indexes.forget()

    def messages(self, agent: str, conversation: str, first: int, end: int) -> tuple[Message, ...]:
        """Return messages `first` to `end` (excluded) of a conversation, oldest first."""
        found: list[Message] = []
        for index in range(first, end):
            message_id = self._ids.get((agent, conversation, index))
            cached = None if message_id is None else self._rows.get((agent, message_id))
            if cached is None:
                break
            found.append(cached)
        else:
            return tuple(found)
        rows = self._messages.slice(agent, conversation, first + len(found), end)
        return (*found, *(self._cache(agent, message) for message in rows))

    def check_range(self, agent: str, conversation: str, first: int, last: int) -> None:
        """Check that messages `first` to `last` (both included) exist.

        Raises:
            NotFound: The conversation has no such messages.
        """
        end = self.queues.queue(agent, conversation).end
        if not 0 <= first <= last < end:
            raise NotFound(
                f"messages {first} to {last} are not in conversation {conversation!r},"
                f" which has {f'0 to {end - 1}' if end else 'none'}",
                key=conversation,
                hint="Use the indexes shown before the messages, the smaller one first",
            )

    def conversations(self, agent: str) -> list[str]:
        """Return the agent's conversations, the one with the newest message first."""
        if agent not in self._conversations:
            upto = self._feed.seq(agent)
            self._conversations[agent] = self._messages.conversations(agent, upto)
        names = self._conversations[agent]
        return sorted(names, key=lambda name: names[name], reverse=True)

    def count(self, agent: str) -> int:
        """Return the number of messages of all conversations of an agent."""
        return self._tallies.of(agent)[0]

    def newest(self, agent: str) -> datetime:
        """Return when the newest message was recorded.

        May lie in the future if the clock was set back.
        """
        return self._tallies.of(agent)[1]

    def user_turns_since(self, agent: str, moment: datetime | None) -> int:
        """Return the number of messages from the user since a moment; None for all."""
        return self._messages.user_turns_since(agent, moment)

    def index(self, agent: str) -> SearchIndex[str]:
        """Return the search index of an agent, loaded if it isn't in memory."""
        return self.indexes.get(agent)

    def get_many(self, agent: str, ids: Sequence[str]) -> dict[str, Message]:
        """Return the messages with these ids."""
        found, missing = self._rows.split([(agent, key) for key in ids])
        if missing:
            rows = self._messages.get(agent, [key for _, key in missing])
            found += [self._cache(agent, message) for message in rows]
        return {message.id: message for message in found}

    def listing(
        self, agent: str, where: Where, *, offset: int, limit: int
    ) -> tuple[list[Message | None], int]:
        """Return a page of messages by date, newest first, and how many match in all."""
        return self._messages.page(agent, where, offset=offset, limit=limit)

    def hit(
        self, record: Message, passage: Passage, score: float, why: tuple[str, ...]
    ) -> MessageHit:
        """Return a message as a search result."""
        return MessageHit(record, passage, score, why)

    def window(self, agent: str, conversation: str, index: int) -> tuple[Message, ...]:
        """Return a message and up to four before it, without a long pause, oldest first."""
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

    def _read_ahead(self, agent: str) -> Iterator[None]:
        """Cache the rows of an agent, block by block, until the cache is full."""
        if self.count(agent) > READ_AHEAD:
            return
        for first in range(0, self.count(agent), READ_AHEAD_ROWS):
            if self._rows.full:
                return
            for message in self._messages.everything(agent, first, READ_AHEAD_ROWS):
                self._cache(agent, message)
            yield

    def _draft(self, message: NewMessage, field: str) -> Draft:
        if message.role not in ROLES:
            raise InvalidInput(
                f"{field}.role {message.role!r} is unknown",
                field=field,
                hint=f"Use one of {', '.join(ROLES)}",
            )
        content = check_text(message.content, f"{field}.content")
        name = None if message.name is None else check_speaker(message.name, f"{field}.name")
        message = replace(message, content=content, name=name)
        text = counted_turn(message.role, message.name, message.content)
        return Draft(new_id(), message, self._tokenizer.count(text))

    def _cache(self, agent: str, message: Message) -> Message:
        self._rows.put((agent, message.id), message, len(message.content))
        self._ids.put((agent, message.conversation, message.index), message.id, 0)
        return message


def pending(agent: str, messages: Sequence[Message]) -> list[Pending | None]:
    """Return messages as texts to embed; None for messages that no search shows."""
    return [Pending(agent, "message", m.id, 1) if is_searchable(m) else None for m in messages]


def prefix_of(draft: Draft, recorded_at: datetime) -> str:
    """Return the prefix with which a drafted message is embedded."""
    message = draft.message
    return speaker_prefix(message.created_at or recorded_at, message.name)


def _document(message: Message) -> Document:
    about = {
        "when": message.created_at,
        "recorded": message.recorded_at,
        "labels": labels_of("message", message),
        "prefix": speaker_prefix(message.created_at, message.name),
        "thread": message.conversation,
        "speaker": message.name,
    }
    return message.id, message.content, about
