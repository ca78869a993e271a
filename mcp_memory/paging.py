"""Paging: messages come into the queue, pressure rises, the oldest leave into the summary.

Everything here is called with the engine's lock held.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from mcp_memory import budget as arithmetic
from mcp_memory import events
from mcp_memory.engine import Embedded, Engine
from mcp_memory.errors import OverLimit, StorageFault
from mcp_memory.records import (
    Author,
    Budget,
    Flush,
    Level,
    Message,
    Overflow,
    Parts,
    Summary,
    Surface,
    Thresholds,
)
from mcp_memory.settings import Settings
from mcp_memory.storage import Transaction
from mcp_memory.text import check_text

logger = logging.getLogger(__name__)

MIN_SUMMARY_TOKENS: Final = 200
MAX_SUMMARY_TOKENS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Arrival:
    """What came of appended messages: the budget afterwards, and what it led to."""

    budget: Budget
    level: Level
    alert: str | None
    flush: Flush | None


@dataclass(slots=True)
class PagingState:
    """What all windows on one agent's conversations remember together."""

    warned: dict[str, bool] = field(default_factory=dict)
    """By conversation, whether the pressure of this period was told."""

    turns: int | None = None
    """The user's turns since core memory was last thought over; None before they are counted."""


class Pager:
    """One client's window on an agent's conversations."""

    def __init__(
        self,
        engine: Engine,
        agent: str,
        settings: Settings,
        surface: Surface,
        state: PagingState,
    ) -> None:
        self._engine = engine
        self._agent = agent
        self._rethink_every = settings.rethink_every
        self._shared_blocks = settings.shared_blocks
        self.window_tokens = settings.context_window
        self._surface = surface
        self._state = state
        self._surface_tokens: tuple[int, int] | None = None
        self._thresholds = Thresholds(
            settings.warn_at, settings.flush_at, settings.keep_after_flush
        )
        self._offered: dict[str, int] = {}

    @property
    def summary_limit(self) -> int:
        """The most tokens that a summary may have: a tenth of the window, within bounds."""
        return max(MIN_SUMMARY_TOKENS, min(self.window_tokens // 10, MAX_SUMMARY_TOKENS))

    def budget(self, conversation: str) -> Budget:
        """Return how the window of a conversation is used now."""
        engine, agent = self._engine, self._agent
        queue = engine.recall.queue(agent, conversation)
        summary = engine.recall.summary(agent, conversation)
        core, working = engine.core.tokens(agent, conversation, self._shared_blocks)
        instructions, tools = self._counted_surface()
        parts = Parts(
            instructions=instructions,
            tools=tools,
            core=core,
            working=working,
            summary=0 if summary is None else summary.tokens,
            queue=queue.tokens,
        )
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
        )

    def append(
        self,
        conversation: str,
        messages: Sequence[Message],
        embedded: Sequence[Embedded | None],
    ) -> Arrival:
        """Record messages, and flush if they made the window overflow: one transaction each."""
        engine, agent = self._engine, self._agent
        with engine.database.transaction() as tx:
            engine.recall.store(tx, agent, messages, embedded)
        engine.recall.stored(agent, messages, embedded)
        before = self.budget(conversation)
        try:
            flush, alert = self._relieve(conversation, before)
            self._remind(messages)
        except StorageFault as fault:
            # The messages are kept, and that is what was asked for; the next call tries again.
            logger.warning("no flush, warning or reminder: %s", fault)
            flush, alert = None, None
        return Arrival(self.budget(conversation), before.level, alert, flush)

    def _relieve(self, conversation: str, budget: Budget) -> tuple[Flush | None, str | None]:
        """Flush or warn, if the pressure calls for it."""
        if budget.level == "flush":
            flush = self.flush(conversation, None, asked=False)
            # The newest messages alone can fill a small window: then nothing can leave.
            return (flush, _flushed_alert(conversation, flush)) if flush.evicted else (None, None)
        if budget.level == "warning" and not self._was_warned(conversation):
            return None, self._warn(conversation, budget)
        return None, None

    def overflow(self, conversation: str) -> Overflow:
        """Return what a flush would evict now, and remember that it was shown."""
        split = self._split(conversation, asked=True)
        if split.evicted:
            self._offered[conversation] = split.evicted[-1].index
        return Overflow(
            conversation,
            split.evicted,
            self._engine.recall.summary(self._agent, conversation),
            sum(message.tokens for message in split.evicted),
        )

    def flush(self, conversation: str, summary: str | None, *, asked: bool) -> Flush:
        """Evict the oldest messages into the summary.

        With a client's `summary`, exactly those messages leave that the overflow
        prompt showed last, if it showed any.

        Raises:
            InvalidInput, OverLimit: The summary can't be taken; nothing is evicted.
        """
        if summary is not None:
            self._check_length(check_text(summary, "summary"))
        offered = self._offered.get(conversation) if summary is not None else None
        parent = self._engine.recall.summary(self._agent, conversation)
        if summary is not None and offered is not None and parent and offered <= parent.last:
            written = self._rewrite(conversation, parent, summary, offered)
            queue = self._engine.recall.queue(self._agent, conversation)
            return Flush(0, queue.count, written)
        split = self._split(conversation, asked=asked)
        if offered is not None:
            both = (*split.evicted, *split.kept)
            cut = offered + 1 - both[0].index
            split = arithmetic.Eviction(both[:cut], both[cut:])
        if not split.evicted:
            return Flush(0, len(split.kept), parent)
        author: Author = "client" if summary is not None else "extractive"
        content = summary if summary is not None else self._digest(parent, split.evicted)
        written = self._engine.recall.draft_summary(
            conversation, parent, first=split.evicted[0].index, last=split.evicted[-1].index,
            content=content, author=author,
        )  # fmt: skip
        with self._engine.database.transaction() as tx:
            self._engine.recall.store_summary(tx, self._agent, written)
            self._log_flush(tx, written, len(split.evicted))
        self._engine.recall.summarized(self._agent, conversation)
        self._state.warned[conversation] = False
        if summary is not None:
            self._offered.pop(conversation, None)
        return Flush(len(split.evicted), len(split.kept), written)

    def rethought(self) -> None:
        """Begin to count the user's turns anew."""
        self._state.turns = 0

    def _split(self, conversation: str, *, asked: bool) -> arithmetic.Eviction:
        recall = self._engine.recall
        queue = recall.queue(self._agent, conversation)
        messages = recall.messages(self._agent, conversation, queue.first, queue.end)
        budget = self.budget(conversation)
        target = arithmetic.flush_target(
            budget.parts, window_tokens=self.window_tokens, thresholds=self._thresholds, asked=asked
        )
        # The next summary may be as long as it is allowed to be.
        used = budget.used_tokens - budget.parts.summary + self.summary_limit
        if asked:
            used = min(used, budget.used_tokens)
        return arithmetic.evict(messages, used_tokens=used, target_tokens=target)

    def _digest(self, parent: Summary | None, evicted: Sequence[Message]) -> str:
        last = evicted[-1]
        head = (
            f"Messages 0 to {last.index} (until {last.created_at.date()}) have left the window;"
            " what was said there, in extracts. conversation_search finds the rest word for word."
        )
        return self._extract(head, None if parent is None else _body(parent), evicted)

    def _extract(self, head: str, parent: str | None, evicted: Sequence[Message]) -> str:
        """Return `head` and what the summarizer chooses, together within the limit."""
        left = self.summary_limit - self._engine.tokenizer.count(head) - 2
        body = self._engine.summarizer.summarize(parent, evicted, max_tokens=left)
        return f"{head}\n{body}" if body else head

    def _rewrite(self, conversation: str, parent: Summary, content: str, shown: int) -> Summary:
        """Put a client's text in the place of the summary that was written meanwhile.

        What has left since it was shown to the client follows it in extracts.
        """
        unseen = self._engine.recall.messages(self._agent, conversation, shown + 1, parent.last + 1)
        text = self._extract(content, None, unseen) if unseen else content
        draft = self._engine.recall.draft_summary(
            conversation, None, first=parent.first, last=parent.last, content=text, author="client"
        )
        written = replace(draft, parent=parent.parent)
        with self._engine.database.transaction() as tx:
            self._engine.recall.store_summary(tx, self._agent, written)
        self._engine.recall.summarized(self._agent, conversation)
        self._offered.pop(conversation, None)
        return written

    def _check_length(self, summary: str) -> None:
        tokens = self._engine.tokenizer.count(summary)
        if tokens > self.summary_limit:
            raise OverLimit(
                "summary",
                used=tokens,
                limit=self.summary_limit,
                field="summary",
                hint="Shorten it and call conversation_flush again; nothing was evicted",
            )

    def _log_flush(self, tx: Transaction, summary: Summary, evicted: int) -> None:
        self._engine.events.add(
            tx,
            self._agent,
            events.FLUSHED,
            f"{evicted} messages ({summary.first} to {summary.last}) have left the window of"
            f" conversation {summary.conversation!r}.",
            conversation=summary.conversation,
            data={"evicted": evicted, "summary": summary.id, "author": summary.author},
        )

    def _was_warned(self, conversation: str) -> bool:
        warned = self._state.warned.get(conversation)
        if warned is None:
            log = self._engine.events
            at = log.last_at(self._agent, (events.WARNING,), conversation)
            flushed = log.last_at(self._agent, (events.FLUSHED,), conversation)
            warned = at is not None and (flushed is None or at > flushed)
            self._state.warned[conversation] = warned
        return warned

    def _warn(self, conversation: str, budget: Budget) -> str:
        leaving = self._split(conversation, asked=False).evicted
        which = (
            f" Messages {leaving[0].index} to {leaving[-1].index} will leave it first."
            if leaving
            else ""
        )
        text = (
            f"Memory pressure: {budget.pressure:.0%} of the context window is in use.{which}"
            " Save what matters now, without telling the user: core_memory_append for what must"
            " stay in view, store_memories or archival_memory_insert for the rest."
        )
        with self._engine.database.transaction() as tx:
            self._engine.events.add(
                tx, self._agent, events.WARNING, text, conversation=conversation,
                data={"pressure": budget.pressure},
            )  # fmt: skip
        self._state.warned[conversation] = True
        return text

    def _remind(self, messages: Sequence[Message]) -> None:
        every = self._rethink_every
        if not every:
            return
        engine, agent = self._engine, self._agent
        if self._state.turns is None:
            since = engine.events.last_at(agent, (events.RETHOUGHT, events.REMINDER))
            self._state.turns = engine.recall.user_turns_since(agent, since)
        else:
            self._state.turns += sum(message.role == "user" for message in messages)
        if self._state.turns < every:
            return
        text = (
            f"{self._state.turns} user turns since core memory was last thought over: if something"
            " lasting was said, rethink_memory, then finish_rethinking_memory."
        )
        with engine.database.transaction() as tx:
            engine.events.add(tx, agent, events.REMINDER, text, data={"turns": self._state.turns})
        self._state.turns = 0

    def _counted_surface(self) -> tuple[int, int]:
        if self._surface_tokens is None:
            count = self._engine.tokenizer.count
            self._surface_tokens = (count(self._surface.instructions), count(self._surface.tools))
        return self._surface_tokens


def _body(summary: Summary) -> str:
    """Return a summary without the line that says what it covers, if the server wrote it."""
    if summary.author == "client":
        return summary.content
    return summary.content.partition("\n")[2]


def _flushed_alert(conversation: str, flush: Flush) -> str:
    return (
        f"The window of conversation {conversation!r} was full: its {flush.evicted} oldest messages"
        " have left it into the summary. They stay in recall memory: conversation_search finds"
        " them."
    )
