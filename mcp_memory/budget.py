"""How full the context window is, and which messages leave when it overflows.

Pure arithmetic: no clock, no database, no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mcp_memory.records import Budget, Level, Message, Parts, Thresholds

KEEP_LAST: Final = 3
"""So many of the newest messages stay whatever their size."""


@dataclass(frozen=True, slots=True)
class Eviction:
    """`evicted` followed by `kept` is the queue it was made from."""

    evicted: tuple[Message, ...]
    kept: tuple[Message, ...]


def evict(
    queue: Sequence[Message], *, used_tokens: int, target_tokens: int, keep_last: int = KEEP_LAST
) -> Eviction:
    """Split the queue into messages to summarize and messages to keep.

    The oldest leave first, until what is used fits the target or only
    `keep_last` remain; tool results whose call has left go with it, even
    then. Running it again on `kept` evicts nothing more.

    Args:
        queue: Messages, oldest first.
        used_tokens: All of the window that is in use, the queue included.
        target_tokens: What may be in use afterwards.

    Source: MemGPT, arXiv:2310.08560, section 2.2, "Queue Manager".
    """
    cut = 0
    while used_tokens > target_tokens and cut < len(queue) - keep_last:
        used_tokens -= queue[cut].tokens
        cut += 1

    # A tool result whose call has left means nothing to a model.
    while 0 < cut < len(queue) and queue[cut].role == "tool":
        cut += 1
    return Eviction(evicted=tuple(queue[:cut]), kept=tuple(queue[cut:]))


def measure(
    parts: Parts, *, window_tokens: int, thresholds: Thresholds, counts: dict[str, int]
) -> Budget:
    """Return the budget that follows from what is in use."""
    pressure = min(parts.total / window_tokens, 1.0)
    level = level_of(parts.total / window_tokens, thresholds)
    return Budget(
        window_tokens=window_tokens,
        parts=parts,
        pressure=round(pressure, 4),
        level=level,
        thresholds=thresholds,
        counts=counts,
        advice=_advice(level, parts, window_tokens),
    )


def level_of(pressure: float, thresholds: Thresholds) -> Level:
    """Return which threshold a pressure has reached."""
    if pressure >= thresholds.flush_at:
        return "flush"
    return "warning" if pressure >= thresholds.warn_at else "ok"


def flush_target(
    parts: Parts, *, window_tokens: int, thresholds: Thresholds, asked: bool = False
) -> int:
    """Return how many tokens may be in use after a flush.

    A flush that was `asked` for always makes room: below the usual target it
    keeps the same fraction of the queue instead.
    """
    target = int(window_tokens * thresholds.keep_after_flush)
    if asked and parts.total <= target:
        kept = int(parts.queue * thresholds.keep_after_flush)
        target = parts.total - parts.queue + kept
    return target


def _advice(level: Level, parts: Parts, window_tokens: int) -> str:
    fixed = parts.total - parts.queue - parts.summary
    if fixed > window_tokens // 2:
        return (
            "Core memory and tools alone fill more than half of the window:"
            " shorten blocks with rethink_memory, or set a larger MCP_MEMORY_CONTEXT_WINDOW."
        )
    if level == "ok":
        return "Nothing to do."
    if level == "warning":
        return (
            "The oldest messages will soon leave the window. Save what matters now:"
            " core_memory_append for what must stay in view, store_memories or"
            " archival_memory_insert for the rest."
        )
    return (
        "The window is full. Save what matters, then call conversation_flush;"
        " with your own summary (prompt summarize_overflow) it is better."
    )
