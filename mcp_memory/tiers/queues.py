"""The queue of every conversation and its summaries: which messages are in the window.

The queue of a conversation is read once, and then follows the change feed. Messages are
counted whole. A window smaller than a message shows it clipped, and counts the clipped text.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.store.ports import Change, Store, UnitOfWork
from mcp_memory.tiers.feed import ChangeFeed
from mcp_memory.values.dates import Clock
from mcp_memory.values.ids import new_id
from mcp_memory.values.records import Author, Message, Role, Summary
from mcp_memory.values.render import counted_message

MAX_LOADED: Final = 512
"""Conversations whose queues are cached; other queues are read again. By judgement."""

_NOTE_TOKENS: Final = 80
"""Room for the note under a clipped message: measured with o200k_base, with a margin."""

_TRIES: Final = 8
"""Attempts to clip a message to a window, by judgement: two were enough for every text tried."""

Key = tuple[str, str]
"""Agent and conversation."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The messages of a conversation that are in the window: `first` to `end` (excluded)."""

    first: int
    end: int

    @property
    def count(self) -> int:
        """The number of messages in the window."""
        return self.end - self.first


@dataclass(frozen=True, slots=True)
class QueueItem:
    """What paging needs of a message in the queue; `tokens` are those that a window shows."""

    index: int
    role: Role
    tokens: int


@dataclass(slots=True)
class _Loaded:
    """The queue of one conversation."""

    first: int
    sizes: deque[tuple[Role, int]]
    """Role and tokens of each message from `first`, whole."""

    sums: dict[int, int] = field(default_factory=dict)
    """By window size, the tokens of all messages as that window shows them."""

    clipped: dict[tuple[int, int], int] = field(default_factory=dict)
    """By index and window size, the tokens of a message that is shown clipped."""

    @property
    def end(self) -> int:
        return self.first + len(self.sizes)


class Queues:
    """The queue and the newest summary of every conversation."""

    def __init__(self, store: Store, feed: ChangeFeed, tokenizer: Tokenizer, clock: Clock) -> None:
        self._messages = store.messages
        self._summaries = store.summaries
        self._feed = feed
        self._tokenizer = tokenizer
        self._clock = clock
        self._queues: OrderedDict[Key, _Loaded] = OrderedDict()
        self._newest: OrderedDict[Key, Summary | None] = OrderedDict()

    def queue(self, agent: str, conversation: str) -> Queue:
        """Return which messages are in the window."""
        queue = self._of(agent, conversation)
        return Queue(queue.first, queue.end)

    def tokens(self, agent: str, conversation: str, window: int) -> int:
        """Return the tokens of the queue in a window of this size."""
        queue = self._of(agent, conversation)
        if window not in queue.sums:
            queue.sums[window] = sum(
                self._shown(agent, conversation, queue, queue.first + at, tokens, window)
                for at, (_, tokens) in enumerate(queue.sizes)
            )
        return queue.sums[window]

    def entries(self, agent: str, conversation: str, window: int) -> list[QueueItem]:
        """Return the queue as a window of this size shows it, oldest first."""
        queue = self._of(agent, conversation)
        return [
            QueueItem(index, role, self._shown(agent, conversation, queue, index, tokens, window))
            for index, (role, tokens) in enumerate(queue.sizes, start=queue.first)
        ]

    def summary(self, agent: str, conversation: str) -> Summary | None:
        """Return the newest summary of a conversation, None if nothing was ever evicted."""
        key = (agent, conversation)
        if key not in self._newest:
            self._newest[key] = self._summaries.newest(*key, self._feed.seq(agent))
            if len(self._newest) > MAX_LOADED:
                self._newest.popitem(last=False)
        self._newest.move_to_end(key)
        return self._newest[key]

    def summaries(self, agent: str, conversation: str) -> tuple[Summary, ...]:
        """Return all summaries of a conversation with their versions, oldest first."""
        return tuple(self._summaries.all(agent, conversation))

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
            id=new_id(),
            conversation=conversation,
            parent=None if parent is None else parent.id,
            first=first,
            last=last,
            content=content,
            tokens=self._tokenizer.count(content),
            author=author,
            created_at=self._clock(),
        )

    def redraft(self, replaced: Summary, content: str, author: Author) -> Summary:
        """Return the next version of a summary, counted, not yet stored."""
        return replace(
            replaced,
            id=new_id(),
            content=content,
            tokens=self._tokenizer.count(content),
            author=author,
            # The newest version has the latest date, even after the clock was set back.
            created_at=max(self._clock(), replaced.created_at + timedelta(microseconds=1)),
            version=replaced.version + 1,
        )

    def insert(self, unit: UnitOfWork, agent: str, summary: Summary) -> None:
        """Write a summary, which removes its messages from the queue."""
        self._summaries.insert(unit, agent, summary)

    def apply(self, change: Change) -> None:
        """Apply new messages and summaries; see `feed.Follower`."""
        for message in change.messages:
            self._append(change.agent, message)
        for summary in change.summaries:
            key = (change.agent, summary.conversation)
            if key in self._newest:
                self._newest[key] = summary
            self._evict(key, summary.last)

    def forget(self) -> None:
        """Drop everything in memory."""
        self._queues.clear()
        self._newest.clear()

    def _append(self, agent: str, message: Message) -> None:
        queue = self._queues.get((agent, message.conversation))
        if queue is None:
            return
        queue.sizes.append((message.role, message.tokens))
        for window in queue.sums:
            tokens = message.tokens
            if tokens > window:
                tokens = clip_message(message, window, self._tokenizer).tokens
                queue.clipped[message.index, window] = tokens
            queue.sums[window] += tokens

    def _evict(self, key: Key, last: int) -> None:
        queue = self._queues.get(key)
        if queue is None:
            return
        while queue.sizes and queue.first <= last:
            _, tokens = queue.sizes.popleft()
            for window in queue.sums:
                queue.sums[window] -= self._shown(*key, queue, queue.first, tokens, window)
            queue.first += 1
        queue.clipped = {at: n for at, n in queue.clipped.items() if at[0] >= queue.first}

    def _of(self, agent: str, conversation: str) -> _Loaded:
        key = (agent, conversation)
        queue = self._queues.get(key)
        if queue is None:
            upto = self._feed.seq(agent)
            first = self._summaries.queue_start(agent, conversation, upto)
            sizes = self._messages.sizes(agent, conversation, first, upto)
            queue = self._queues[key] = _Loaded(first, deque(sizes))
            if len(self._queues) > MAX_LOADED:
                self._queues.popitem(last=False)
        else:
            self._queues.move_to_end(key)
        return queue

    def _shown(
        self, agent: str, conversation: str, queue: _Loaded, index: int, tokens: int, window: int
    ) -> int:
        """Return the tokens of a message of the queue as a window shows it."""
        if tokens <= window:
            return tokens
        if (index, window) not in queue.clipped:
            message = self._messages.slice(agent, conversation, index, index + 1)[0]
            shown = clip_message(message, window, self._tokenizer)
            queue.clipped[index, window] = shown.tokens
        return queue.clipped[index, window]


def clip_message(message: Message, window: int, tokenizer: Tokenizer) -> Message:
    """Return a message as a window of this size shows it: whole, or its beginning.

    A clipped message has the tokens of its text from `counted_message`: never more than the
    window, if that has room for a speaker's name and the note.
    """
    if message.tokens <= window:
        return message
    note = (
        f"\n[cut: the whole message has {message.tokens} tokens;"
        f" it is in recall memory, id {message.id}: conversation_search finds every part of it]"
    )
    room = max(window - _NOTE_TOKENS, 0)
    for _ in range(_TRIES):
        # A part may have more tokens than it had in the whole text.
        shown = replace(message, content=tokenizer.clip(message.content, room) + note)
        tokens = tokenizer.count(counted_message(shown))
        if tokens <= window:
            break
        room = max(room - (tokens - window) - 1, 0)
    return replace(shown, tokens=tokens)
