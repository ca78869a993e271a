"""Better summaries afterwards: a model rewrites what a flush extracted without one.

A flush does not wait for a model: the extractive summary is stored, and this asks a
model in its own thread. If the model fails, the extractive summary stays.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mcp_memory.settings import EXTRACTIVE, Settings
from mcp_memory.store.ports import Spent
from mcp_memory.summarizers.request import SummaryRequest, checked_answer, write_request
from mcp_memory.values.errors import EndpointFault, MemoryFault
from mcp_memory.values.records import SHARED, Message, Summary

if TYPE_CHECKING:
    from mcp_memory.agent import Memories
    from mcp_memory.summarizers.endpoint import Endpoint
    from mcp_memory.values.records import Author

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 64
"""Conversations that can wait, by judgement; of more, the oldest keeps its summary."""

_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Flushed:
    """A summary that was written without a model, and the most tokens of a better one."""

    agent: str
    summary: Summary
    limit_tokens: int


_noted: ContextVar[list[Flushed] | None] = ContextVar("flushed", default=None)


@contextmanager
def noting_flushes() -> Iterator[list[Flushed]]:
    """Collect the flushes of this thread that no endpoint will rewrite."""
    flushed: list[Flushed] = []
    token = _noted.set(flushed)
    try:
        yield flushed
    finally:
        _noted.reset(token)


class Rewriter:
    """Asks the configured endpoint, if there is one, to rewrite each extractive summary.

    Args:
        memories: Whose summaries; every flush from now on is rewritten.
        endpoint: The model; None if none is configured.
    """

    def __init__(self, memories: Memories, endpoint: Endpoint | None) -> None:
        self.endpoint = endpoint
        self._memories = memories
        self._engine = memories.engine
        self._settings = memories.engine.settings
        self._usage = self._engine.store.usage
        self._waiting: OrderedDict[tuple[str, str], Flushed] = OrderedDict()
        self._news = threading.Condition()
        self._stopped = False
        self._busy = False
        self._told: set[str] = set()
        self._thread: threading.Thread | None = None
        self._engine.on_flushed = self._on_flushed
        self._engine.summarizer_status = self.status

    @classmethod
    def of(cls, memories: Memories) -> Rewriter:
        """Return the rewriter of an open database, with the endpoint of its settings."""
        if memories.engine.settings.summarizer == EXTRACTIVE:
            return cls(memories, None)
        from mcp_memory.summarizers.endpoint import Endpoint

        rewriter = cls(memories, Endpoint(memories.engine.settings))
        # No agent asks for a consolidation, so its cost is recorded for none of them.
        memories.schedule.complete = lambda prompt, tokens: rewriter.complete(
            SHARED, "", prompt, tokens
        )
        return rewriter

    def close(self) -> None:
        """Stop; summaries that wait stay as they are."""
        with self._news:
            self._stopped = True
            self._waiting.clear()
            self._news.notify_all()
        if self.endpoint is not None:
            self.endpoint.close()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until no summary waits to be rewritten; return False after the timeout."""
        with self._news:
            return self._news.wait_for(
                lambda: not self._waiting and not self._busy, timeout_seconds
            )

    def complete(self, agent: str, system: str, user: str, max_tokens: int) -> str:
        """Ask the endpoint within the day's cap, and note what it cost.

        Raises:
            EndpointFault: There is no endpoint, the cap is reached, or it gave no answer.
            StorageFault: The cost can't be stored; the endpoint was not asked, or its
                answer is lost.
        """
        if self.endpoint is None:
            raise EndpointFault("none is set")
        count = self._engine.tokenizer.count
        expected = count(system) + count(user)
        # Stored before the request: it costs something even if its answer never comes.
        with self._engine.lock:
            cap = self._settings.summarizer_tokens_per_day
            day = self._engine.clock().date()
            if self._usage.on(day).tokens + expected + max_tokens > cap:
                raise EndpointFault(
                    f"the cap of {cap} tokens a day is reached",
                    hint="Raise MCP_MEMORY_SUMMARIZER_TOKENS_PER_DAY, or wait until tomorrow",
                )
            with self._engine.transaction() as unit:
                self._usage.add(unit, agent, day, Spent(1, expected, 0))
        answer = self.endpoint.complete(system, user, max_tokens)
        more = answer.input_tokens - expected if answer.input_tokens else 0
        beyond = Spent(0, more, answer.output_tokens or count(answer.text))
        with self._engine.transaction() as unit:
            self._usage.add(unit, agent, day, beyond)
        return answer.text

    def status(self) -> dict[str, object]:
        """Return what writes the summaries and its cost today, as JSON."""
        if self.endpoint is None:
            return {"kind": EXTRACTIVE}
        with self._engine.lock:
            spent = self._usage.on(self._engine.clock().date())
        return {
            "kind": "endpoint",
            "host": self.endpoint.host,
            "model": self.endpoint.model,
            "circuit": self.endpoint.state,
            "requests_today": spent.requests,
            "tokens_today": spent.tokens,
            "tokens_per_day": self._settings.summarizer_tokens_per_day,
            "dollars_today": dollars(spent, self._settings),
        }

    def request(self, flushed: Flushed, window_tokens: int) -> SummaryRequest:
        """Return the prompt for a model with such a window; reads the messages from recall."""
        parent, messages = self._sources(flushed)
        return write_request(
            parent,
            messages,
            self._engine.tokenizer,
            limit_tokens=flushed.limit_tokens,
            window_tokens=window_tokens,
        )

    def take(self, flushed: Flushed, text: object, author: Author) -> Summary | None:
        """Replace the text of the summary with a model's, if it is still the newest.

        Raises:
            EndpointFault, InvalidInput: The text is not a valid summary.
            StorageFault: It can't be stored.
        """
        limit = flushed.limit_tokens
        content = checked_answer(text, self._engine.tokenizer.count, limit_tokens=limit)
        memory = self._memories.open(flushed.agent)
        try:
            return memory.conversations.rewrite_summary(
                flushed.summary.conversation, content, author, flushed.summary.id, limit
            )
        finally:
            memory.close()

    def tell(self, fault: Exception) -> None:
        """Log why the summaries stay as they are, each reason once."""
        reason = getattr(fault, "reason", str(fault))
        level = logging.DEBUG if reason in self._told else logging.WARNING
        self._told.add(reason)
        logger.log(level, "a summary stays as it was extracted: %s", fault)

    def _on_flushed(self, agent: str, conversation: str, summary: Summary, limit: int) -> None:
        if summary.author != EXTRACTIVE:
            return
        flushed = Flushed(agent, summary, limit)
        if self.endpoint is None:
            noted = _noted.get()
            if noted is not None:
                noted.append(flushed)
            return
        with self._news:
            if self._stopped:
                return
            self._waiting.pop((agent, conversation), None)
            self._waiting[agent, conversation] = flushed
            if len(self._waiting) > MAX_WAITING:
                self._waiting.popitem(last=False)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="mcp-memory-summaries", daemon=True
                )
                self._thread.start()
            self._news.notify_all()

    def _work(self) -> None:
        while True:
            with self._news:
                self._busy = False
                self._news.notify_all()
                self._news.wait_for(lambda: self._stopped or self._waiting)
                if self._stopped:
                    return
                _, flushed = self._waiting.popitem(last=False)
                self._busy = True
            try:
                request = self.request(flushed, self._settings.summarizer_window)
                text = self.complete(
                    flushed.agent, request.system, request.user, request.max_tokens
                )
                self.take(flushed, text, "endpoint")
            except MemoryFault as fault:
                if not self._stopped:
                    self.tell(fault)
            except Exception:
                if not self._stopped:
                    logger.exception("a summary was not written")

    def _sources(self, flushed: Flushed) -> tuple[str | None, tuple[Message, ...]]:
        summary, engine = flushed.summary, self._engine
        with engine.view(flushed.agent):
            messages = engine.recall.messages(
                flushed.agent, summary.conversation, summary.first, summary.last + 1
            )
            chain = engine.recall.queues.summaries(flushed.agent, summary.conversation)
        parent = next((one.content for one in chain if one.id == summary.parent), None)
        return parent, messages


def dollars(spent: Spent, settings: Settings) -> float | None:
    """Return what was spent in dollars, None if no price is set."""
    prices = settings.summarizer_input_price, settings.summarizer_output_price
    if prices == (None, None):
        return None
    tokens = spent.input_tokens * (prices[0] or 0.0) + spent.output_tokens * (prices[1] or 0.0)
    return round(tokens / _MILLION, 4)


__all__ = ["Flushed", "Rewriter", "noting_flushes"]
