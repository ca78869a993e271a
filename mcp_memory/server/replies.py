"""Replies: records as JSON, complete as text and as structured content, never over the limit.

What does not fit is counted and can be reached by a cursor. Long texts are cut
around the match before whole hits are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

from mcp_types import CallToolResult, TextContent

from mcp_memory.agent.excerpts import snippet
from mcp_memory.values.dates import show
from mcp_memory.values.errors import Conflict, InvalidInput, MemoryFault
from mcp_memory.values.kinds import Policies
from mcp_memory.values.records import (
    Block,
    Budget,
    Inserted,
    Memory,
    MemoryHit,
    MessageHit,
    StoreChunk,
)

Payload = dict[str, Any]

_COMPACT: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

CUT: Final = "cut; core_memory_view shows all of it"

_CURSOR_TOKENS: Final = 110
"""Reserved for `next_cursor` while a page is filled; the longest of 300 had 79 (measured)."""

_COST_TOKENS: Final = 5
"""What the field `tokens` itself adds to a reply (measured with o200k_base)."""

_MIN_SNIPPET_TOKENS: Final = 30
"""About a sentence: below it fewer hits are better than shorter snippets; by judgement."""

_TRIES: Final = 4
"""How often the snippets are cut shorter before hits are left out; by judgement."""

_MAX_STORED: Final = 20
"""This many stored ranges are described one by one; by judgement."""

PAGE_TOKENS: Final = 130
"""Reserved in a part of a long text or block: a cursor, and the fields around the text."""

ALERT_FRAC: Final = 0.5
"""The part of a reply that an alert may take; by judgement."""

VALUE_FRAC: Final = 0.7
"""The part of a reply that the value of a block or a summary may take; by judgement."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of a tool; `text` only where it reads better than the JSON."""

    payload: Payload
    text: str | None = None

    def result(self) -> CallToolResult:
        """Return it as the protocol's result."""
        text = compact(self.payload) if self.text is None else self.text
        return CallToolResult(
            content=[TextContent(type="text", text=text)], structured_content=self.payload
        )

    def noted(self, note: str, fitter: Fitter) -> Reply:
        """Return it with one more note; the fitter that made it left room for it."""
        payload = dict(self.payload)
        payload["note"] = f"{payload['note']}; {note}" if "note" in payload else note
        if "results" in payload:
            payload["tokens"] += fitter.cost(note)
        return Reply(payload, None if self.text is None else f"{self.text}\nNote: {note}")


class Fitter:
    """Fits replies into a number of tokens.

    Args:
        count: Counts the tokens of a text.
        clip: Cuts a text to at most that many tokens.
        max_tokens: The limit of every reply.
    """

    def __init__(
        self, count: Callable[[str], int], clip: Callable[[str, int], str], max_tokens: int
    ) -> None:
        self.max_tokens = max_tokens
        self._count = count
        self._clip = clip

    def cost(self, note: str) -> int:
        """Return the tokens that a note adds to a reply."""
        return self._count(compact({"note": note})) + 1

    def beside(self, note: str) -> Fitter:
        """Return a fitter that leaves room for a note."""
        return Fitter(self._count, self._clip, self.max_tokens - self.cost(note))

    def fits(self, text: str, spare_tokens: int = 0) -> bool:
        """Return whether a text fits a reply with `spare_tokens` left."""
        limit = self.max_tokens - spare_tokens
        # No token is shorter than a byte, so most replies need no counting.
        return len(text.encode()) <= limit or self._count(text) <= limit

    def clip(self, text: str, max_tokens: int) -> str:
        """Return the beginning of a text that fits, ending in `…` if it was cut."""
        clipped = self._clip(text, max_tokens)
        return clipped if len(clipped) == len(text) else self._clip(text, max_tokens - 1) + "…"

    def page(
        self,
        payload: Payload,
        items: Sequence[Payload],
        *,
        query: str,
        cursor: Callable[[int], str | None],
    ) -> Payload:
        """Return `payload` with as many `results` as fit, and its size as `tokens`.

        If they don't all fit, long texts are cut first and whole items left out second.

        Args:
            items: What was found, each with its whole passage in `text`.
            query: What the cut passages are built around.
            cursor: Returns what continues after that many items, None at the end.
        """
        reply = self.priced({**payload, "results": list(items)}, cursor(len(items)))
        if reply["tokens"] <= self.max_tokens:
            return reply
        shown, cost = self._shorten(payload, items, query)
        return self._priced({**payload, "results": shown}, cost, cursor(len(shown)))

    def _shorten(
        self, payload: Payload, items: Sequence[Payload], query: str
    ) -> tuple[list[Payload], int]:
        """Return the items that fit, with cut texts, and the tokens of the reply with them."""
        limit = self.max_tokens - _CURSOR_TOKENS - _COST_TOKENS
        room = limit - self._count(compact(payload))
        bare = [self._count(compact({**item, "text": ""})) + 1 for item in items]
        texts = [self._count(json.dumps(item["text"], ensure_ascii=False)) for item in items]
        many = _how_many(bare, texts, room)
        share = _share(texts[:many], room - sum(bare[:many]))
        for _ in range(_TRIES):
            shown = [
                item
                if tokens <= share
                else {**item, "text": self._snippet(item["text"], query, share)}
                for item, tokens in zip(items[:many], texts[:many], strict=True)
            ]
            cost = self._count(compact({**payload, "results": shown}))
            if cost <= limit:
                return shown, cost
            share = share * 9 // 10  # Parts count a little less alone than together.
        while len(shown) > 1 and cost > limit:
            shown.pop()
            cost = self._count(compact({**payload, "results": shown}))
        return shown, cost

    def priced(self, payload: Payload, cursor: str | None = None) -> Payload:
        """Return a reply with its size as `tokens`, and with its cursor."""
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
    # Message and hint may name what the caller sent, which has any length.
    text = fitter.clip(str(fault), fitter.max_tokens // 2)
    payload["message"] = fitter.clip(fault.message, fitter.max_tokens // 3)
    if isinstance(fault, Conflict):
        text, payload = _with_value(text, payload, fault.value, fitter)
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=payload, is_error=True
    )


def _with_value(text: str, payload: Payload, value: str, fitter: Fitter) -> tuple[str, Payload]:
    """Add the current value of a block to a tool error, or as much of it as fits."""
    cut: Payload = {}
    shown, room = value, fitter.max_tokens * 3 // 4
    while True:
        full = {**payload, "value": shown, **cut}
        said = "\n".join([text, f"Its current value: {compact(shown)}", *cut.values()])
        if room < 1 or (fitter.fits(said) and fitter.fits(compact(full))):
            return said, full
        shown, room = fitter.clip(value, room), room * 3 // 4
        cut = {"note": CUT}


def compact(payload: object) -> str:
    """Return JSON without spaces; non-ASCII text stays readable."""
    return _COMPACT.encode(payload)


def _how_many(bare: Sequence[int], texts: Sequence[int], room: int) -> int:
    """Return how many items fit the room, each with at least a short snippet; at least one."""
    many = len(bare)
    while many > 1 and sum(bare[:many]) + min(sum(texts[:many]), many * _MIN_SNIPPET_TOKENS) > room:
        many -= 1
    return many


def _share(costs: Sequence[int], room: int) -> int:
    """Return the most tokens each may have so that all of them fit the room."""
    left, waiting = room, len(costs)
    for cost in sorted(costs):
        if cost * waiting > left:
            return max(left // waiting, 1)
        left -= cost
        waiting -= 1
    return max(costs, default=0)


def budget_payload(budget: Budget) -> Payload:
    """Return a budget as the resource and the tool show it."""
    parts, thresholds = budget.parts, budget.thresholds
    reported: Payload = {}
    if budget.reported_tokens is not None:
        reported = {
            "counted_tokens": parts.counted,
            "reported_tokens": budget.reported_tokens,
        }
    return {
        "window_tokens": budget.window_tokens,
        "used_tokens": budget.used_tokens,
        "free_tokens": budget.free_tokens,
        **reported,
        "pressure": budget.pressure,
        "level": budget.level,
        "parts": {
            "instructions": parts.instructions,
            "tools": parts.tools,
            "core": parts.core,
            "working": parts.working,
            "summary": parts.summary,
            "queue": parts.queue,
            **({"other": parts.other} if reported else {}),
        },
        "thresholds": {
            "warn_at": thresholds.warn_at,
            "flush_at": thresholds.flush_at,
            "keep_after_flush": thresholds.keep_after_flush,
        },
        "counts": dict(budget.counts),
        "source": budget.source,
        "advice": budget.advice,
    }


def block_payload(block: Block) -> Payload:
    """Return a block as replies show it."""
    return {
        "label": block.label,
        "value": block.value,
        "tokens": block.tokens,
        "limit": block.limit,
        "description": block.description,
        "read_only": block.read_only,
        "scope": block.scope,
    }


def edited(fitter: Fitter, block: Block, *, created: bool | None = None) -> Reply:
    """Return the reply to an edit: the block's new value with tokens used and limit."""
    payload: Payload = {
        "label": block.label,
        "tokens": block.tokens,
        "limit": block.limit,
        "version": block.version,
    }
    if created is not None:
        payload["created"] = created
    whole = {**payload, "value": block.value}
    if fitter.fits(compact(whole)):
        return Reply(whole)
    value = fitter.clip(block.value, int(fitter.max_tokens * VALUE_FRAC))
    return Reply({**payload, "value": value, "note": CUT})


def message_hit_payload(hit: MessageHit, zone: ZoneInfo) -> Payload:
    """Return a message as a search hit."""
    message = hit.message
    shown: Payload = {
        "id": message.id,
        "score": round(hit.score, 3),
        "text": hit.passage.text,
        "role": message.role,
        "conversation": message.conversation,
        "index": message.index,
        "at": show(message.created_at, zone),
    }
    if message.name:
        shown["name"] = message.name
    return shown | _why(hit)


def memory_hit_payload(hit: MemoryHit, zone: ZoneInfo) -> Payload:
    """Return a memory as a search hit: the passage that matched."""
    record = hit.memory
    shown: Payload = {
        "id": record.id,
        "score": round(hit.score, 3),
        "text": hit.passage.text,
        "kind": record.kind.value,
        "tags": list(record.tags),
        "at": show(record.happened_at, zone),
    }
    return shown | _why(hit)


def _why(hit: MessageHit | MemoryHit) -> Payload:
    """Return why a hit was found, and which characters of its text it shows if not all."""
    shown: Payload = {}
    if hit.why:
        shown["why"] = list(hit.why)
    if len(hit.passage.text) < hit.passage.total:
        shown["chars"] = [hit.passage.start, hit.passage.end, hit.passage.total]
    return shown


def memory_payload(record: Memory) -> Payload:
    """Return a memory without its text."""
    return {
        "id": record.id,
        "version": record.version,
        "tokens": record.tokens,
        "kind": record.kind.value,
        "tags": list(record.tags),
    }


def stored_payload(
    fitter: Fitter, done: Sequence[Inserted], chunks: Sequence[StoreChunk], kinds: Policies
) -> Payload:
    """Return the result of storing ranges, and the guidance of their kinds.

    It always has every id; the rest as far as it fits.
    """
    stored: list[Payload] = []
    for item, chunk in zip(done[:_MAX_STORED], chunks, strict=False):
        one: Payload = {
            "id": item.memory.id,
            "start_index": chunk.start,
            "end_index": chunk.end,
            "created": item.created,
        }
        if item.near_duplicates:
            one["near_duplicates"] = [near.id for near in item.near_duplicates]
        stored.append(one)
    used = {chunk.kind for chunk in chunks}
    payload: Payload = {"ids": [item.memory.id for item in done], "stored": stored}
    guidance = {kind.value: row.guidance for kind, row in kinds.items() if kind in used}
    if fitter.fits(compact({**payload, "kinds": guidance})):
        return {**payload, "kinds": guidance}
    while stored and not fitter.fits(compact(payload)):
        stored.pop()
    return payload


def inserted_payload(done: Inserted) -> Payload:
    """Return the result of an insert."""
    payload: Payload = {
        "id": done.memory.id,
        "created": done.created,
        "tokens": done.memory.tokens,
        "embedding": "stored" if done.embedded else "pending",
    }
    if not done.created:
        payload["note"] = "this exact text is already stored; no copy was made"
    if done.near_duplicates:
        payload["near_duplicates"] = [
            {"id": near.id, "similarity": round(near.similarity, 3), "text": near.text}
            for near in done.near_duplicates
        ]
        payload["note"] = "if this text replaces a near-duplicate, update or delete the old one"
    return payload
