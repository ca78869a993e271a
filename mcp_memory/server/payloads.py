"""Records as the JSON that replies and resources show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from zoneinfo import ZoneInfo

from mcp_memory.server.results import Fitter, Payload, Reply, compact
from mcp_memory.values.dates import show
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

_MAX_STORED: Final = 20
"""So many ranges are described one by one."""

VALUE_FRACTION: Final = 0.7
"""So much of a reply the value of a block or a summary may take."""


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
    value = fitter.clip(block.value, int(fitter.max_tokens * VALUE_FRACTION))
    return Reply({**payload, "value": value, "note": "cut; core_memory_view shows all"})


def message_hit_payload(hit: MessageHit, zone: ZoneInfo) -> Payload:
    """Return a message that was found."""
    message = hit.message
    found: Payload = {
        "id": message.id,
        "score": round(hit.score, 3),
        "text": hit.passage.text,
        "role": message.role,
        "conversation": message.conversation,
        "index": message.index,
        "at": show(message.created_at, zone),
    }
    if message.name:
        found["name"] = message.name
    return found | _shown(hit)


def memory_hit_payload(hit: MemoryHit, zone: ZoneInfo) -> Payload:
    """Return a memory that was found, by the passage that matched."""
    record = hit.memory
    found: Payload = {
        "id": record.id,
        "score": round(hit.score, 3),
        "text": hit.passage.text,
        "kind": record.kind.value,
        "tags": list(record.tags),
        "at": show(record.happened_at, zone),
    }
    return found | _shown(hit)


def _shown(hit: MessageHit | MemoryHit) -> Payload:
    """Return why a hit is there, and which characters of its text it shows, if not all."""
    found: Payload = {}
    if hit.why:
        found["why"] = list(hit.why)
    if len(hit.passage.text) < hit.passage.total:
        found["chars"] = [hit.passage.start, hit.passage.end, hit.passage.total]
    return found


def memory_payload(record: Memory) -> Payload:
    """Return the figures of a memory."""
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
    """Return what became of ranges that were stored, and how their kinds are meant.

    Every id is in it; the rest as far as it fits.
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
    """Return what became of an insert."""
    payload: Payload = {
        "id": done.memory.id,
        "created": done.created,
        "tokens": done.memory.tokens,
        "embedding": "stored" if done.embedded else "pending",
    }
    if not done.created:
        payload["note"] = "this very text was kept before: it is one memory"
    if done.near_duplicates:
        payload["near_duplicates"] = [
            {"id": near.id, "similarity": round(near.similarity, 3), "text": near.text}
            for near in done.near_duplicates
        ]
        payload["note"] = "if this replaces one of the near-duplicates, delete or update that one"
    return payload
