"""How full the context window is, and which messages leave when it overflows.

Pure arithmetic: no clock, no database, no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from mcp_memory.values.errors import InvalidInput
from mcp_memory.values.records import Budget, Level, Parts, Role, Thresholds

KEEP_LAST: Final = 3
"""The newest messages that a flush never evicts, whatever their size. By judgement: a
question, its answer and what follows it."""

MAX_REPORT: Final = 10
"""Largest reported figure that is accepted, in windows. By judgement: a client may have
overrun its window, but not tenfold."""


class Weighed(Protocol):
    """What eviction needs to know about a message."""

    @property
    def role(self) -> Role:
        """Role of the speaker."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens it takes up in the window."""
        ...


W = TypeVar("W", bound=Weighed)


@dataclass(frozen=True, slots=True)
class Eviction(Generic[W]):
    """`evicted` followed by `kept` is the queue it was made from."""

    evicted: tuple[W, ...]
    kept: tuple[W, ...]


def evict(
    queue: Sequence[W],
    *,
    used_tokens: int,
    target_tokens: int,
    keep_last: int = KEEP_LAST,
    limit_tokens: int | None = None,
) -> Eviction[W]:
    """Split the queue into messages to summarize and messages to keep.

    The oldest leave first, until the tokens in use fit the target or only
    `keep_last` messages remain. Tool results leave together with their call,
    even if they are among those. Running it again on `kept` evicts nothing more.

    Args:
        queue: Messages, oldest first.
        used_tokens: Tokens in use in the whole window, the queue included.
        target_tokens: Tokens that may be in use afterwards.
        keep_last: How many of the newest messages stay.
        limit_tokens: If a call would take results among the last `keep_last` with it,
            the call stays too, as long as no more than this is then in use. None: the
            results leave.

    Source: MemGPT, arXiv:2310.08560, section 2.2, "Queue Manager".
    """
    cut, used = 0, used_tokens
    while used > target_tokens and cut < len(queue) - keep_last:
        used -= queue[cut].tokens
        cut += 1

    # A tool result without its call means nothing to a model.
    call, end = cut, cut
    while 0 < end < len(queue) and queue[end].role == "tool":
        end += 1
    if limit_tokens is not None and end > max(cut, len(queue) - keep_last):
        while call > 0 and queue[call].role == "tool":
            call -= 1
        if used + sum(message.tokens for message in queue[call:cut]) <= limit_tokens:
            end = call
    return Eviction(evicted=tuple(queue[:end]), kept=tuple(queue[end:]))


def check_report(context_tokens: int, window_tokens: int) -> None:
    """Check the number of tokens that a client reports for its window.

    Raises:
        InvalidInput: The number is negative, or more than `MAX_REPORT` windows.
    """
    if not 0 <= context_tokens <= MAX_REPORT * window_tokens:
        raise InvalidInput(
            f"context_tokens is {context_tokens}; the window has {window_tokens} tokens",
            field="context_tokens",
            hint="Give the tokens that are in your context window now, or leave it out;"
            " MCP_MEMORY_CONTEXT_WINDOW sets the window",
        )


def measure(
    parts: Parts,
    *,
    window_tokens: int,
    thresholds: Thresholds,
    counts: dict[str, int],
    reported_tokens: int | None = None,
) -> Budget:
    """Return the budget for the tokens in use: pressure, level and advice.

    Args:
        counts: Numbers of messages and memories, passed on; only `queue_messages` is read.
        reported_tokens: The client's own figure, passed on; `parts` reflects it already.
    """
    pressure = min(parts.total / window_tokens, 1.0)
    level = level_of(parts.total / window_tokens, thresholds)
    return Budget(
        window_tokens=window_tokens,
        parts=parts,
        pressure=round(pressure, 4),
        level=level,
        thresholds=thresholds,
        counts=counts,
        advice=_advice(level, parts, window_tokens, counts.get("queue_messages")),
        reported_tokens=reported_tokens,
    )


def level_of(pressure: float, thresholds: Thresholds) -> Level:
    """Return the highest threshold that the pressure has reached."""
    if pressure >= thresholds.flush_at:
        return "flush"
    return "warning" if pressure >= thresholds.warn_at else "ok"


def flush_target(
    parts: Parts, *, window_tokens: int, thresholds: Thresholds, asked: bool = False
) -> int:
    """Return how many tokens may be in use after a flush.

    Args:
        asked: Whether a client asked for the flush. It then always makes room: if the
            target is met already, `keep_after_flush` applies to the queue alone.
    """
    target = int(window_tokens * thresholds.keep_after_flush)
    if asked and parts.total <= target:
        queue_target = int(parts.queue * thresholds.keep_after_flush)
        target = parts.total - parts.queue + queue_target
    return target


def _advice(level: Level, parts: Parts, window_tokens: int, queued: int | None) -> str:
    fixed = parts.counted - parts.queue - parts.summary
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
    if queued is not None and queued <= KEEP_LAST:
        return (
            "The newest messages and the client's own text alone fill the window: the messages"
            " leave it as new ones come. Continue, or start a new window."
        )
    return (
        "The window is full. Save what matters, then call conversation_flush;"
        " your own summary (prompt summarize_overflow) is better than an extract."
    )
