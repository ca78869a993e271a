"""One client's window: records messages, measures pressure, warns and flushes.

All connections share the queue of a conversation. So a flush is decided by the fullest
window, usually the smallest one, of the open connections that have used the conversation.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakSet

from mcp_memory.paging import alerts
from mcp_memory.paging import budget as arithmetic
from mcp_memory.settings import Settings
from mcp_memory.store.ports import Change, UnitOfWork
from mcp_memory.tiers import events
from mcp_memory.tiers.core import WORKING
from mcp_memory.tiers.engine import Engine
from mcp_memory.tiers.feed import ChangeFeed
from mcp_memory.tiers.queues import QueueItem, clip_message
from mcp_memory.values.errors import OverLimit, StorageFault
from mcp_memory.values.records import (
    Appended,
    Author,
    Budget,
    Flush,
    Message,
    Overflow,
    Parts,
    Summary,
    Surface,
    Thresholds,
    Window,
)
from mcp_memory.values.render import compile_blocks, counted_message
from mcp_memory.values.text import check_text

logger = logging.getLogger(__name__)

_OLD_HEAD: Final = re.compile(r"Messages 0 to \d+ \(until [^)]*\) have left the window;[^\n]*\n?")


MAX_NOTICES: Final = 64
"""Conversations whose newest notice is remembered; by judgement."""

MIN_SUMMARY_TOKENS: Final = 200
MAX_SUMMARY_TOKENS: Final = 2_000
"""A summary has a tenth of the window, within these bounds; by judgement."""


class Pager:
    """One client's window on an agent's conversations; called with the engine's lock held.

    Args:
        engine: The open store.
        agent: Whose conversations.
        settings: Those of the connection.
        surface: What the server itself adds to the window.
        state: The state that all windows of the agent share.
    """

    def __init__(
        self,
        engine: Engine,
        agent: str,
        settings: Settings,
        surface: Surface,
        state: PagingState,
    ) -> None:
        self._engine = engine
        self._queues = engine.recall.queues
        self._agent = agent
        self._shared_blocks = settings.shared_blocks
        self.window_tokens = settings.context_window
        self._surface = surface
        self._state = state
        self._surface_tokens: dict[Surface, tuple[int, int]] = {}
        self._thresholds = Thresholds(
            settings.warn_at, settings.flush_at, settings.keep_after_flush
        )
        self._unseen: dict[str, int] = {}
        """By conversation, how many tokens more (or less) the client reported than were counted."""
        self._heard: dict[str, int] = {}
        """By conversation that was used, the last notice that the client has received."""
        self._looked = 0
        self._born = state.last_notice
        self._rethink_every = settings.rethink_every
        self._offered: dict[str, int] = {}
        """By conversation, the last message that the overflow prompt has shown."""

    @property
    def summary_limit(self) -> int:
        """The most tokens that a summary may have: a tenth of the window, within bounds."""
        return max(MIN_SUMMARY_TOKENS, min(self.window_tokens // 10, MAX_SUMMARY_TOKENS))

    def shows(self, surface: Surface) -> None:
        """Set what the server itself adds to this window from now on; needs no lock."""
        self._surface = surface

    def budget(self, conversation: str, context_tokens: int | None = None) -> Budget:
        """Return how the window of a conversation is used now.

        Args:
            context_tokens: The tokens in the client's window now; None if it doesn't know.

        Raises:
            InvalidInput: The number of tokens is not valid.
        """
        self._join(conversation)
        if context_tokens is not None:
            arithmetic.check_report(context_tokens, self.window_tokens)
            self._report(conversation, context_tokens)
        return self._budget(conversation)

    def window(self, conversation: str) -> Window:
        """Return the texts of a conversation's window, with the tokens that the budget counts."""
        blocks = self._engine.core.blocks(self._agent, conversation, self._shared_blocks)
        summary = self._queues.summary(self._agent, conversation)
        return Window(
            instructions=self._surface.instructions,
            tools=self._surface.tools,
            core=compile_blocks([block for block in blocks if block.label != WORKING]),
            working=compile_blocks([block for block in blocks if block.label == WORKING]),
            summary="" if summary is None else summary.content,
            messages=tuple(map(counted_message, self.recent(conversation))),
        )

    def recent(self, conversation: str, count: int | None = None) -> tuple[Message, ...]:
        """Return the messages in the window as it shows them, oldest first."""
        self._join(conversation)
        queue = self._queues.queue(self._agent, conversation)
        first = queue.first if count is None else max(queue.first, queue.end - count)
        return self._messages(conversation, first, queue.end)

    def leave(self) -> None:
        """Close this window: it no longer affects its conversations."""
        for conversation in self._heard:
            self._state.users.get(conversation, WeakSet()).discard(self)
        self._heard.clear()

    def append(
        self,
        conversation: str,
        messages: Sequence[Message],
        context_tokens: int | None = None,
        *,
        coming: bool = False,
    ) -> Appended:
        """Record messages, and flush if the window overflows: one transaction each.

        Args:
            context_tokens: The tokens in the client's window now, these messages included.
            coming: Whether their vectors are being computed; else they are listed as pending.
        """
        engine, agent = self._engine, self._agent
        self._join(conversation)
        with engine.transaction() as unit:
            engine.recall.insert(unit, agent, messages, coming=coming)
        if context_tokens is not None:
            self._report(conversation, context_tokens)
        level, flush = self._budget(conversation).level, None
        try:
            flush = self._relieve(conversation)
            self._remind()
        except StorageFault as fault:
            # The messages are stored, as the caller asked; the next call tries the rest again.
            logger.warning("no flush, warning or reminder: %s", fault)
        return Appended(
            ids=tuple(message.id for message in messages),
            budget=self._budget(conversation),
            level="flush" if flush is not None else level,
            alert=self.alert(conversation),
            flush=flush,
        )

    def alert(self, conversation: str | None = None) -> str | None:
        """Return a notice that this client has not received yet, of a conversation that it uses.

        Args:
            conversation: The conversation whose notice comes first.
        """
        state = self._state
        if self._looked == state.last_notice:
            return None
        for name in sorted(state.notices, key=lambda name: name != conversation):
            notice = state.notices[name]
            if name not in self._heard or notice.number <= self._heard[name]:
                continue
            self._heard[name] = notice.number
            if notice.in_force or notice.number > self._born:
                return notice.text
        self._looked = state.last_notice
        return None

    def overflow(self, conversation: str) -> Overflow:
        """Return what a flush would evict now, and remember that it was shown."""
        self._join(conversation)
        evicted = self._split(conversation, asked=True).evicted
        if evicted:
            self._offered[conversation] = evicted[-1].index
        return Overflow(
            conversation,
            self._messages_of(conversation, evicted),
            self._queues.summary(self._agent, conversation),
            sum(entry.tokens for entry in evicted),
        )

    def flush(self, conversation: str, summary: str | None) -> Flush:
        """Evict the oldest messages into the summary, as the client asks.

        With the client's `summary`, exactly the messages that the overflow prompt
        showed last are evicted, if it showed any.

        Raises:
            InvalidInput, OverLimit: The summary is not valid; nothing is evicted.
        """
        self._join(conversation)
        if summary is not None:
            self._check_length(check_text(summary, "summary"))
        offered = self._offered.get(conversation) if summary is not None else None
        parent = self._queues.summary(self._agent, conversation)
        if summary is not None and offered is not None and parent and offered <= parent.last:
            return self._take_late(conversation, parent, summary, offered)
        split = self._split(conversation, asked=True)
        if offered is not None:
            both = (*split.evicted, *split.kept)
            cut = offered + 1 - both[0].index
            split = arithmetic.Eviction(both[:cut], both[cut:])
        flush = self._evict(conversation, split, summary)
        if flush.evicted:
            if summary is not None:
                self._offered.pop(conversation, None)
            self._heard[conversation] = self._state.last_notice
        return flush

    def rewrite(
        self,
        conversation: str,
        content: str,
        author: Author,
        of: str,
        limit: int | None = None,
    ) -> Summary | None:
        """Replace the text of the newest summary, with the same messages and parent.

        Args:
            of: The id of the summary that was the newest when the text was begun.
            limit: The most tokens it may have; None for `summary_limit`.

        Returns:
            The new version; None if `of` is no longer the newest, and nothing was written.

        Raises:
            InvalidInput, OverLimit: The text is not valid.
        """
        newest = self._queues.summary(self._agent, conversation)
        if newest is None or newest.id != of:
            return None
        self._check_length(check_text(content, "summary"), limit)
        return self._put_in_place(newest, content, author)

    def refresh(self, conversation: str) -> None:
        """Warn if the pressure has risen without a message, for example by a larger block.

        Nothing leaves the window before the next message.

        Raises:
            StorageFault: It can't be written.
        """
        self._tightest(conversation)._warn(conversation)

    def _tightest(self, conversation: str) -> Pager:
        """Return the window that the conversation fills most."""
        pagers = self._state.users.get(conversation, ())
        return max(pagers, key=lambda pager: pager._fullness(conversation), default=self)

    def _relieve(self, conversation: str) -> Flush | None:
        """Flush or warn if the pressure is high enough, the fullest window first."""
        done: Flush | None = None
        tightest = self._tightest(conversation)
        for pager in dict.fromkeys((tightest, self)):
            if pager._budget(conversation).level == "flush":
                flush = pager._evict(conversation, pager._split(conversation, asked=False), None)
                # The newest messages alone can fill a small window: then nothing can leave.
                if flush.evicted:
                    before = 0 if done is None else done.evicted
                    done = Flush(before + flush.evicted, flush.kept, flush.summary)
        if done is None:
            tightest._warn(conversation)
        return done

    def _warn(self, conversation: str) -> None:
        budget = self._budget(conversation)
        if budget.level == "ok" or self._was_warned(conversation):
            return
        leaving = self._split(conversation, asked=False).evicted
        first = self._messages_of(conversation, leaving[: alerts.MAX_LISTED])
        text = alerts.warning(self._engine.tokenizer, conversation, budget, first, len(leaving))
        data: dict[str, object] = {"pressure": budget.pressure}
        if leaving:
            data |= {"first": leaving[0].index, "last": leaving[-1].index}
        with self._engine.transaction() as unit:
            self._engine.events.add(
                unit, self._agent, events.WARNING, text, conversation=conversation, data=data
            )
        self._state.post(conversation, text, in_force=True)

    def _was_warned(self, conversation: str) -> bool:
        warned = self._state.warned.get(conversation)
        if warned is None:
            log = self._engine.events
            at = log.last_at(self._agent, (events.WARNING,), conversation)
            flushed = log.last_at(self._agent, (events.FLUSHED,), conversation)
            warned = at is not None and (flushed is None or at > flushed)
            self._state.warned[conversation] = warned
        return warned

    def _evict(
        self, conversation: str, split: arithmetic.Eviction[QueueItem], summary: str | None
    ) -> Flush:
        """Evict messages into a summary, in one transaction that waits for no model."""
        engine, agent = self._engine, self._agent
        parent = self._queues.summary(agent, conversation)
        if not split.evicted:
            return Flush(0, len(split.kept), parent)
        author: Author = "client"
        if summary is None:
            author = "extractive"
            evicted = self._messages_of(conversation, split.evicted)
            summary = self._extract("", None if parent is None else _body(parent), evicted)
        written = self._queues.draft(
            agent,
            conversation,
            first=split.evicted[0].index,
            last=split.evicted[-1].index,
            content=summary,
            author=author,
        )
        with engine.transaction() as unit:
            self._queues.insert(unit, agent, written)
            self._log_flush(unit, written, len(split.evicted))
        flush = Flush(len(split.evicted), len(split.kept), written)
        self._state.post(conversation, alerts.flushed(conversation, flush), in_force=False)
        self._tell_flushed(written)
        return flush

    def _extract(self, head: str, parent: str | None, evicted: Sequence[Message]) -> str:
        """Return `head` and the summarizer's text, together within the limit."""
        tokenizer, left = self._engine.tokenizer, self.summary_limit
        if head:
            left -= tokenizer.count(head) + 2
        if left <= 0:
            return head
        try:
            body = self._engine.summarizer.summarize(parent, evicted, max_tokens=left)
        except Exception:
            # The window must be flushed even if the summarizer fails.
            logger.exception("the summarizer has failed: the summary before it stays")
            body = parent or ""
        body = tokenizer.clip(body, left)
        return f"{head}\n{body}" if head and body else head or body

    def _take_late(self, conversation: str, parent: Summary, content: str, shown: int) -> Flush:
        """Replace the summary that was written meanwhile by a client's text.

        Extracts of the messages that were evicted after the prompt follow the text.
        """
        carried, unseen = None, tuple[Message, ...]()
        if shown < parent.first - 1:
            carried = _body(parent)  # There were several flushes: this covers them all.
        elif shown < parent.last:
            unseen = self._messages(conversation, shown + 1, parent.last + 1)
        text = self._extract(content, carried, unseen) if carried or unseen else content
        written = self._put_in_place(parent, text, "client")
        self._offered.pop(conversation, None)
        return Flush(0, self._queues.queue(self._agent, conversation).count, written)

    def _put_in_place(self, replaced: Summary, content: str, author: Author) -> Summary:
        written = self._queues.redraft(replaced, content, author)
        with self._engine.transaction() as unit:
            self._queues.insert(unit, self._agent, written)
        return written

    def _tell_flushed(self, summary: Summary) -> None:
        if self._engine.on_flushed is None:
            return
        try:
            self._engine.on_flushed(self._agent, summary.conversation, summary, self.summary_limit)
        except Exception:
            # The flush is committed: a listener's failure can't undo it.
            logger.exception("a listener has failed after a flush")

    def _remind(self) -> bool:
        """Ask for a consolidation after `rethink_every` turns of the user.

        Returns:
            Whether an event was written.

        Raises:
            StorageFault: It can't be written; the count of turns stays.
        """
        if not self._rethink_every:
            return False
        engine, agent = self._engine, self._agent
        if self._state.turns is None:
            since = engine.events.last_at(agent, (events.RETHOUGHT, events.REMINDER))
            self._state.turns = engine.recall.user_turns_since(agent, since)
        turns = self._state.turns
        if turns < self._rethink_every:
            return False
        with engine.transaction() as unit:
            text = alerts.reminder(turns)
            engine.events.add(unit, agent, events.REMINDER, text, data={"turns": turns})
        return True

    def _check_length(self, summary: str, limit: int | None = None) -> None:
        tokens, limit = self._engine.tokenizer.count(summary), limit or self.summary_limit
        if tokens > limit:
            raise OverLimit(
                "summary",
                used=tokens,
                limit=limit,
                field="summary",
                hint="Shorten it and call conversation_flush again; nothing was evicted",
            )

    def _log_flush(self, unit: UnitOfWork, summary: Summary, evicted: int) -> None:
        self._engine.events.add(
            unit,
            self._agent,
            events.FLUSHED,
            f"{evicted} messages ({summary.first} to {summary.last}) have left the window of"
            f" conversation {summary.conversation!r}.",
            conversation=summary.conversation,
            data={"evicted": evicted, "summary": summary.id, "author": summary.author},
        )

    def _join(self, conversation: str) -> None:
        if conversation not in self._heard:
            self._heard[conversation] = 0
            self._looked = 0
            self._state.users.setdefault(conversation, WeakSet()).add(self)

    def _report(self, conversation: str, context_tokens: int) -> None:
        self._unseen[conversation] = context_tokens - self._parts(conversation).counted

    def _parts(self, conversation: str) -> Parts:
        engine, agent = self._engine, self._agent
        core, working = engine.core.tokens(agent, conversation, self._shared_blocks)
        summary = self._queues.summary(agent, conversation)
        surface, count = self._surface, engine.tokenizer.count
        if surface not in self._surface_tokens:
            self._surface_tokens[surface] = (count(surface.instructions), count(surface.tools))
        instructions, tools = self._surface_tokens[surface]
        return Parts(
            instructions=instructions,
            tools=tools,
            core=core,
            working=working,
            summary=0 if summary is None else summary.tokens,
            queue=self._queues.tokens(agent, conversation, self.window_tokens),
            other=max(self._unseen.get(conversation, 0), 0),
        )

    def _fullness(self, conversation: str) -> float:
        return self._parts(conversation).total / (self.window_tokens * self._thresholds.flush_at)

    def _budget(self, conversation: str) -> Budget:
        engine, agent = self._engine, self._agent
        queue = self._queues.queue(agent, conversation)
        parts = self._parts(conversation)
        unseen = self._unseen.get(conversation)
        return arithmetic.measure(
            parts,
            window_tokens=self.window_tokens,
            thresholds=self._thresholds,
            counts={
                "queue_messages": queue.count,
                "conversation_messages": queue.end,
                "recall_messages": engine.recall.count(agent),
                "memories": engine.archival.count(agent),
            },
            reported_tokens=None if unseen is None else max(parts.counted + unseen, 0),
        )

    def _split(self, conversation: str, *, asked: bool) -> arithmetic.Eviction[QueueItem]:
        entries = self._queues.entries(self._agent, conversation, self.window_tokens)
        budget = self._budget(conversation)
        target = arithmetic.flush_target(
            budget.parts, window_tokens=self.window_tokens, thresholds=self._thresholds, asked=asked
        )
        # The next summary may use its whole limit.
        used = budget.used_tokens - budget.parts.summary + self.summary_limit
        if asked:
            used = min(used, budget.used_tokens)
        full = int(self.window_tokens * self._thresholds.flush_at)
        return arithmetic.evict(
            entries, used_tokens=used, target_tokens=target, limit_tokens=full - 1
        )

    def _messages(self, conversation: str, first: int, end: int) -> tuple[Message, ...]:
        tokenizer, window = self._engine.tokenizer, self.window_tokens
        return tuple(
            clip_message(message, window, tokenizer)
            for message in self._engine.recall.messages(self._agent, conversation, first, end)
        )

    def _messages_of(self, conversation: str, entries: Sequence[QueueItem]) -> tuple[Message, ...]:
        if not entries:
            return ()
        return self._messages(conversation, entries[0].index, entries[-1].index + 1)


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice that every window on a conversation receives once; numbers count up."""

    number: int
    text: str
    in_force: bool
    """Whether a window that is opened later receives it too."""


@dataclass(slots=True)
class PagingState:
    """The state that all windows on one agent's conversations share."""

    warned: dict[str, bool] = field(default_factory=dict)
    """By conversation, whether the present pressure was reported."""

    turns: int | None = None
    """The user's turns since core memory was last consolidated; None before they are counted."""

    users: dict[str, WeakSet[Pager]] = field(default_factory=dict)
    """By conversation, the open windows that have used it."""

    notices: OrderedDict[str, Notice] = field(default_factory=OrderedDict)
    """By conversation, the newest notice."""

    last_notice: int = 0

    def post(self, conversation: str, text: str, *, in_force: bool) -> Notice:
        """Set the notice of a conversation, in place of an earlier one."""
        self.last_notice += 1
        notice = Notice(self.last_notice, text, in_force)
        self.notices[conversation] = notice
        self.notices.move_to_end(conversation)
        if len(self.notices) > MAX_NOTICES:
            self.notices.popitem(last=False)
        return notice

    def apply(self, change: Change) -> None:
        """Update pressure and user turns from new messages and events."""
        if self.turns is not None:
            self.turns += sum(message.role == "user" for message in change.messages)
        for event in change.events:
            if event.kind in {events.WARNING, events.FLUSHED} and event.conversation is not None:
                self.warned[event.conversation] = event.kind == events.WARNING
            elif event.kind in {events.REMINDER, events.RETHOUGHT}:
                self.turns = 0

    def forget(self) -> None:
        """Drop what was read from the store."""
        self.warned.clear()
        self.turns = None


class PagingStates:
    """The states of all agents; follows the change feed."""

    def __init__(self, feed: ChangeFeed) -> None:
        self._states: dict[str, PagingState] = {}
        feed.follow(self)

    def of(self, agent: str) -> PagingState:
        """Return the state of an agent."""
        return self._states.setdefault(agent, PagingState())

    def apply(self, change: Change) -> None:
        """Apply the next change of an agent; see `feed.Follower`."""
        state = self._states.get(change.agent)
        if state is not None:
            state.apply(change)

    def forget(self) -> None:
        """Drop what was read from the store."""
        for state in self._states.values():
            state.forget()


def _body(summary: Summary) -> str:
    """Return the text of a summary, without the first line that earlier versions wrote."""
    head = _OLD_HEAD.match(summary.content)
    return summary.content[head.end() :] if head else summary.content
