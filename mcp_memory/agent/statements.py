"""Statements that are compared with each other: their sources, and which are similar."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np

from mcp_memory.agent.claims import Clash, is_claim
from mcp_memory.tiers.jobs import Embedded
from mcp_memory.values.records import Block, Message
from mcp_memory.values.text import sentences, shorten

CLAIM_CHARS: Final = 400
"""Characters of a statement that are compared; by judgement."""

_CLAIMS: Final = 48
"""New statements that are compared at most; by judgement."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence, and where and when it was said or written."""

    text: str
    where: str
    at: datetime | None
    memory: str | None = None


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A new statement, an older one that it may contradict, and how they differ."""

    new: Statement
    old: Statement
    clash: Clash
    similarity: float


def claims(messages: Sequence[Message]) -> list[Statement]:
    """Return the newest sentences that state something, the user's before the assistant's."""
    found: dict[str, Statement] = {}
    for role in ("user", "assistant"):
        for message in reversed(messages):
            if message.role == role and len(found) < _CLAIMS:
                where = f"[{message.index}] of {shorten(message.conversation, 40)!r}"
                for sentence in sentences(message.content):
                    text = shorten(sentence, CLAIM_CHARS)
                    if is_claim(text):
                        found.setdefault(text, Statement(text, where, message.created_at))
    return list(found.values())[:_CLAIMS]


def block_lines(blocks: Sequence[Block]) -> Iterable[Statement]:
    """Yield every line of the blocks as a statement."""
    for block in blocks:
        for line in block.value.splitlines():
            if line.strip():
                text = line.strip(" -*\t")[:CLAIM_CHARS]
                yield Statement(text, f"block {block.label}", None)


def near_lines(
    embedded: Embedded | None,
    lines: Sequence[Statement],
    vectors: Sequence[Embedded | None],
    at_least: float,
) -> Iterable[tuple[Statement, float]]:
    """Yield the lines whose cosine with a text is `at_least` or more, with that cosine."""
    if embedded is None:
        return
    for line, known in zip(lines, vectors, strict=True):
        if known is not None:
            similarity = float(np.dot(known[1][0], embedded[1][0]))
            if similarity >= at_least:
                yield line, similarity


def one_each(order: Sequence[Contradiction]) -> Iterable[Contradiction]:
    """Yield the best candidate of each new statement and of each older one."""
    seen: set[str] = set()
    for candidate in order:
        if candidate.new.text not in seen and candidate.old.text not in seen:
            seen |= {candidate.new.text, candidate.old.text}
            yield candidate
