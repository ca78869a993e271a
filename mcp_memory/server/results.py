"""Replies: complete as text alone and as structured content alone, never over the limit.

What does not fit is counted and reached by a cursor. Long texts are cut
around what matched before whole hits are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mcp_types import CallToolResult, TextContent

from mcp_memory.search.snippets import snippet
from mcp_memory.values.errors import Conflict, InvalidInput, MemoryFault

Payload = dict[str, Any]

_CURSOR_TOKENS: Final = 110
"""What a cursor may cost, kept free while a page is filled."""

_MIN_SNIPPET_TOKENS: Final = 30
"""Rather fewer hits than shorter snippets."""

_COST_TOKENS: Final = 5
"""What it costs to say what the reply costs."""

_TRIES: Final = 4


@dataclass(frozen=True, slots=True)
class Reply:
    """What a tool answers; `text` only where it reads better than the JSON."""

    payload: Payload
    text: str | None = None

    def result(self) -> CallToolResult:
        """Return it as the protocol wants it."""
        text = compact(self.payload) if self.text is None else self.text
        return CallToolResult(
            content=[TextContent(type="text", text=text)], structured_content=self.payload
        )


class Fitter:
    """Keeps replies under a number of tokens.

    Args:
        count: Counts the tokens of a text.
        clip: Cuts a text to at most so many tokens.
        max_tokens: No reply is longer.
    """

    def __init__(
        self, count: Callable[[str], int], clip: Callable[[str, int], str], max_tokens: int
    ) -> None:
        self.max_tokens = max_tokens
        self._count = count
        self._clip = clip

    def fits(self, text: str, spare_tokens: int = 0) -> bool:
        """Return whether a text is short enough for a reply, with so many tokens to spare."""
        most = self.max_tokens - spare_tokens
        # No token is shorter than a byte, so that most replies need no counting.
        return len(text.encode()) <= most or self._count(text) <= most

    def clip(self, text: str, max_tokens: int) -> str:
        """Return the beginning of a text that fits, with `…` if it was cut."""
        clipped = self._clip(text, max_tokens)
        return clipped if len(clipped) == len(text) else self._clip(text, max_tokens - 1) + "…"

    def page(
        self,
        payload: Payload,
        items: Sequence[Payload],
        *,
        query: str,
        more: Callable[[int], str],
        left: bool,
        key: str = "results",
        field: str = "text",
    ) -> Payload:
        """Return `payload` with as many items as fit under `key`, and what it costs as `tokens`.

        Args:
            items: What was found, each with its whole passage in `field`.
            query: What the passages are cut around.
            more: Gives the cursor that goes on after so many items.
            left: Whether there is more behind the last item.
        """
        full = {**payload, key: list(items)}
        after = {"next_cursor": more(len(items))} if left else {}
        cost = self._count(compact(full | after)) + _COST_TOKENS
        if cost <= self.max_tokens:
            return {**full, "tokens": cost, **after}
        most = self.max_tokens - _CURSOR_TOKENS - _COST_TOKENS
        room = most - self._count(compact(payload))
        bare = [self._count(compact({**item, field: ""})) + 1 for item in items]
        texts = [self._count(json.dumps(item[field], ensure_ascii=False)) for item in items]
        kept = len(items)
        while (
            kept > 1
            and sum(bare[:kept]) + min(sum(texts[:kept]), kept * _MIN_SNIPPET_TOKENS) > room
        ):
            kept -= 1
        share = _share(texts[:kept], room - sum(bare[:kept]))
        shown = list(items[:kept])
        for _ in range(_TRIES):
            shown = [
                item if cost <= share else {**item, field: self._snippet(item[field], query, share)}
                for item, cost in zip(items[:kept], texts[:kept], strict=True)
            ]
            cost = self._count(compact({**payload, key: shown}))
            if cost <= most:
                break
            share = share * 9 // 10  # Parts count a little less apart than together.
        while len(shown) > 1 and cost > most:
            shown.pop()
            cost = self._count(compact({**payload, key: shown}))
        cursor = more(len(shown)) if left or len(shown) < len(items) else None
        return self._priced({**payload, key: shown}, cost, cursor)

    def priced(self, payload: Payload, cursor: str | None = None) -> Payload:
        """Return a reply with what it costs as `tokens`, and with its cursor."""
        return self._priced(payload, self._count(compact(payload)), cursor)

    def _priced(self, payload: Payload, cost: int, cursor: str | None) -> Payload:
        if cursor is None:
            return {**payload, "tokens": cost + _COST_TOKENS}
        cost += self._count(compact({"next_cursor": cursor})) + _COST_TOKENS
        return {**payload, "tokens": cost, "next_cursor": cursor}

    def _snippet(self, text: str, query: str, max_tokens: int) -> str:
        def short(candidate: str) -> bool:
            return self._count(json.dumps(candidate, ensure_ascii=False)) <= max_tokens

        return snippet(text, query, short)


def failure(fault: MemoryFault, fitter: Fitter) -> CallToolResult:
    """Return a tool error: the message with its hint, and the same as data."""
    payload: Payload = {"error": type(fault).__name__, "message": fault.message}
    if fault.hint:
        payload["hint"] = fault.hint
    if isinstance(fault, InvalidInput) and fault.field:
        payload["field"] = fault.field
    text = fitter.clip(str(fault), fitter.max_tokens // 2)
    payload["message"] = fitter.clip(fault.message, fitter.max_tokens // 3)
    if isinstance(fault, Conflict):
        text, payload = _with_value(text, payload, fault.value, fitter)
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=payload, is_error=True
    )


def _with_value(text: str, payload: Payload, value: str, fitter: Fitter) -> tuple[str, Payload]:
    """Add a block's value to a tool error, or as much of it as fits."""
    cut: Payload = {}
    shown, room = value, fitter.max_tokens * 3 // 4
    while True:
        full = {**payload, "value": shown, **cut}
        told = "\n".join([text, f"Its present value: {compact(shown)}", *cut.values()])
        if room < 1 or (fitter.fits(told) and fitter.fits(compact(full))):
            return told, full
        shown, room = fitter.clip(value, room), room * 3 // 4
        cut = {"note": "cut; core_memory_view shows all"}


def compact(payload: object) -> str:
    """Return JSON with no byte too many; text in every script stays readable."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))


def _share(costs: Sequence[int], room: int) -> int:
    """Return how much each may cost at most so that all together fit the room."""
    left, waiting = room, len(costs)
    for cost in sorted(costs):
        if cost * waiting > left:
            return max(left // waiting, 1)
        left -= cost
        waiting -= 1
    return max(costs, default=0)
