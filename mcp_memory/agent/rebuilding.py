"""Rewriting a summary from recall memory, which still has every message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mcp_memory.settings import EXTRACTIVE
from mcp_memory.summarizers.request import checked_answer, write_request
from mcp_memory.values.errors import EndpointFault, MemoryFault
from mcp_memory.values.records import Message, Summary

if TYPE_CHECKING:
    from mcp_memory.agent.memories import Memories
    from mcp_memory.values.records import Author

MAX_STEP_MESSAGES: Final = 500
"""Messages that one step reads at most, to bound the memory it uses; by judgement."""


def rebuild_summary(
    memories: Memories, agent: str, conversation: str, *, window_tokens: int, by_endpoint: bool
) -> Summary | None:
    """Rewrite the newest summary of a conversation from every message it covers.

    It repeats the flushes one by one, each from the text of the one before; earlier
    versions of the summary stay in the history.

    Args:
        memories: The memories of the database.
        agent: Whose conversation it is.
        conversation: Its name.
        window_tokens: The context window that the summary is for.
        by_endpoint: Whether the endpoint writes it, or else the extractive summarizer.

    Returns:
        The new version; None if nothing has left the window yet.

    Raises:
        EndpointFault: The endpoint has not written one.
        MemoryFault: Messages left the window meanwhile; nothing was changed.
    """
    engine, rewriter = memories.engine, memories.rewriter
    if by_endpoint and (rewriter is None or rewriter.endpoint is None):
        raise EndpointFault("none is set", hint="Set MCP_MEMORY_SUMMARIZER")
    settings = engine.settings.model_copy(update={"context_window": window_tokens})
    memory = memories.open(agent, settings)
    try:
        before = memory.conversations.summary(conversation)
        if before is None:
            return None
        limit = memory.conversations.summary_limit
        text: str | None = None
        for first, last in _ranges(memories, agent, conversation):
            with engine.view(agent):
                messages = engine.recall.messages(agent, conversation, first, last + 1)
            if by_endpoint:
                text = _ask(memories, agent, text, messages, limit)
            else:
                text = engine.summarizer.summarize(text, messages, max_tokens=limit)
        author: Author = "endpoint" if by_endpoint else EXTRACTIVE
        done = memory.conversations.rewrite_summary(
            conversation, text or "", author, before.id, limit
        )
    finally:
        memory.close()
    if done is None:
        raise MemoryFault("messages left the window meanwhile", hint="Run it again")
    return done


def _ranges(memories: Memories, agent: str, conversation: str) -> list[tuple[int, int]]:
    """Return the ranges of messages, both ends included, that the summaries were made from."""
    engine = memories.engine
    with engine.view(agent):
        chain = engine.recall.queues.summaries(agent, conversation)
    found: list[tuple[int, int]] = []
    start = 0
    for last in sorted({summary.last for summary in chain}):
        while start <= last:
            end = min(last, start + MAX_STEP_MESSAGES - 1)
            found.append((start, end))
            start = end + 1
    return found


def _ask(
    memories: Memories,
    agent: str,
    parent: str | None,
    messages: tuple[Message, ...],
    limit_tokens: int,
) -> str:
    """Return the endpoint's summary of `parent` and the messages after it."""
    engine, rewriter = memories.engine, memories.rewriter
    if rewriter is None:
        raise EndpointFault("none is set", hint="Set MCP_MEMORY_SUMMARIZER")
    request = write_request(
        parent,
        messages,
        engine.tokenizer,
        limit_tokens=limit_tokens,
        window_tokens=engine.settings.summarizer_window,
    )
    text = rewriter.complete(agent, request.system, request.user, request.max_tokens)
    return checked_answer(text, engine.tokenizer.count, limit_tokens=limit_tokens)
