"""Writing a summary anew from recall memory, where every message still is, in steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mcp_memory.summarizers.request import checked_answer, write_request
from mcp_memory.values.records import Message, Summary

if TYPE_CHECKING:
    from mcp_memory.agent.rewriter import Rewriter
    from mcp_memory.tiers.engine import Engine

MAX_STEP_MESSAGES: Final = 500


def ranges(engine: Engine, agent: str, conversation: str) -> list[tuple[int, int]]:
    """Return the ranges of messages, both ends included, that the summaries were made from."""
    with engine.lock:
        chain = engine.recall.queues.summaries(agent, conversation)
    found: list[tuple[int, int]] = []
    start = 0
    for last in sorted({summary.last for summary in chain}):
        while start <= last:
            end = min(last, start + MAX_STEP_MESSAGES - 1)
            found.append((start, end))
            start = end + 1
    return found


def newest(engine: Engine, agent: str, conversation: str) -> Summary | None:
    """Return the summary that stands now."""
    with engine.lock:
        return engine.recall.queues.summary(agent, conversation)


def step(
    engine: Engine,
    agent: str,
    conversation: str,
    span: tuple[int, int],
    parent: str | None,
    *,
    limit_tokens: int,
    rewriter: Rewriter | None = None,
) -> str:
    """Return the next summary, of `parent` and a range of messages; nothing is stored.

    Args:
        rewriter: Has the endpoint write it; without, it is extracted.

    Raises:
        EndpointFault: The endpoint has not written one.
    """
    with engine.lock:
        messages: tuple[Message, ...] = engine.recall.messages(
            agent, conversation, span[0], span[1] + 1
        )
    if rewriter is None:
        return engine.summarizer.summarize(parent, messages, max_tokens=limit_tokens)
    window = engine.settings.summarizer_window
    request = write_request(
        parent, messages, engine.tokenizer, limit_tokens=limit_tokens, window_tokens=window
    )
    text = rewriter.complete(agent, request.system, request.user, request.max_tokens)
    return checked_answer(text, engine.tokenizer.count, limit_tokens=limit_tokens)
