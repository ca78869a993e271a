"""What one client's window on a conversation holds: counted, and as it is rendered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from weakref import WeakSet

from mcp_memory.paging import budget as arithmetic
from mcp_memory.paging.state import PagingState
from mcp_memory.settings import Settings
from mcp_memory.tiers.core import WORKING
from mcp_memory.tiers.engine import Engine
from mcp_memory.tiers.queues import Entry, clip_message
from mcp_memory.values.records import Budget, Message, Parts, Surface, Thresholds, Window
from mcp_memory.values.render import compile_blocks, render_message

MIN_SUMMARY_TOKENS: Final = 200
MAX_SUMMARY_TOKENS: Final = 2_000


class View:
    """One client's window, to be looked at; called with the engine's lock held."""

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
        """By conversation, what the client reported more (or less) than was counted then."""
        self._heard: dict[str, int] = {}
        """By conversation that was used, the last notice that the client was told."""
        self._looked = 0
        self._born = state.last_notice

    @property
    def summary_limit(self) -> int:
        """The most tokens that a summary may have: a tenth of the window, within bounds."""
        return max(MIN_SUMMARY_TOKENS, min(self.window_tokens // 10, MAX_SUMMARY_TOKENS))

    def shows(self, surface: Surface) -> None:
        """Take what the server itself puts into this window from now on; needs no lock."""
        self._surface = surface

    def budget(self, conversation: str, context_tokens: int | None = None) -> Budget:
        """Return how the window of a conversation is used now.

        Args:
            context_tokens: What is in the client's window now, if it knows.

        Raises:
            InvalidInput: The figure can't be.
        """
        self._join(conversation)
        if context_tokens is not None:
            arithmetic.check_report(context_tokens, self.window_tokens)
            self._report(conversation, context_tokens)
        return self._budget(conversation)

    def window(self, conversation: str) -> Window:
        """Return the texts of a conversation's window, each as its budget counts it."""
        blocks = self._engine.core.blocks(self._agent, conversation, self._shared_blocks)
        summary = self._queues.summary(self._agent, conversation)
        return Window(
            instructions=self._surface.instructions,
            tools=self._surface.tools,
            core=compile_blocks([block for block in blocks if block.label != WORKING]),
            working=compile_blocks([block for block in blocks if block.label == WORKING]),
            summary="" if summary is None else summary.content,
            messages=tuple(map(render_message, self.recent(conversation))),
        )

    def recent(self, conversation: str, count: int | None = None) -> tuple[Message, ...]:
        """Return the messages in the window as it shows them, oldest first."""
        self._join(conversation)
        queue = self._queues.queue(self._agent, conversation)
        first = queue.first if count is None else max(queue.first, queue.end - count)
        return self._messages(conversation, first, queue.end)

    def leave(self) -> None:
        """End this window: it no longer counts among those of its conversations."""
        for conversation in self._heard:
            self._state.users.get(conversation, WeakSet()).discard(self)
        self._heard.clear()

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

    def _split(self, conversation: str, *, asked: bool) -> arithmetic.Eviction[Entry]:
        entries = self._queues.entries(self._agent, conversation, self.window_tokens)
        budget = self._budget(conversation)
        target = arithmetic.flush_target(
            budget.parts, window_tokens=self.window_tokens, thresholds=self._thresholds, asked=asked
        )
        # The next summary may be as long as it is allowed to be.
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

    def _messages_of(self, conversation: str, entries: Sequence[Entry]) -> tuple[Message, ...]:
        if not entries:
            return ()
        return self._messages(conversation, entries[0].index, entries[-1].index + 1)
