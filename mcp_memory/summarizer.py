"""The digest of the messages that leave the window, written without any model.

It chooses sentences, it never writes any: what stands in a summary was said.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from mcp_memory.records import Message
from mcp_memory.search.analysis import STOP_WORDS, terms
from mcp_memory.text import sentences, shorten

_LINE: Final = re.compile(r"- \[(?P<when>[^\]]*)\] (?P<text>.*)")
_NUMBER: Final = re.compile(r"\d")
_IDENTIFIER: Final = re.compile(r"\w+[-_./:@#]\w+|\b[A-Z]{2,}\b|`[^`]+`")
_NAME: Final = re.compile(r"(?<![.!?。]\s)(?<!^)\b[A-Z][a-z]+")
_DECISION: Final = re.compile(
    r"\b(decid|agree|plan|will|going to|must|should|prefer|favou?rite|allerg|always|never|"
    r"chang|moved?|instead|no longer|actually|now|deadline|because|remember|important|"
    r"my name|i am|i'm|i live|i work|works?|born|birthday)\w*"
    r"|决定|打算|喜欢|不要|必须|改|现在|以后|记住|住在|生日|因为",
    re.IGNORECASE,
)
_SMALL_TALK: Final = re.compile(
    r"^(ok(ay)?|thanks?|thank you|great|sure|sounds good|nice|cool|got it|hi|hello|good (morning|"
    r"night|evening)|you're welcome|haha|好的|谢谢)\b",
    re.IGNORECASE,
)
_MAX_SENTENCE_CHARS: Final = 400
_ROLE_WEIGHT: Final = {"user": 1.3, "assistant": 1.0, "system": 0.8, "tool": 0.5}
_PARENT_WEIGHT: Final = 1.1


class Summarizer(Protocol):
    """Writes the next summary from its parent and the messages that leave."""

    def summarize(self, parent: str | None, evicted: Sequence[Message], *, max_tokens: int) -> str:
        """Return the digest of all that went before, `max_tokens` at most."""
        ...


@dataclass(frozen=True, slots=True)
class _Candidate:
    line: str
    terms: frozenset[str]
    weight: float
    order: int = 0
    cost: int = 1


class ExtractiveSummarizer:
    """The sentences that tell most, in the order they were said, each with its date."""

    def __init__(self, count_tokens: Callable[[str], int]) -> None:
        self._count = count_tokens

    def summarize(self, parent: str | None, evicted: Sequence[Message], *, max_tokens: int) -> str:
        """Return the chosen sentences as dated lines, oldest first; can't fail.

        A sentence is worth the terms that no chosen one has, each by how rare it
        is here, more with numbers, identifiers, names and decisions. What the
        parent chose competes with what is new.
        """
        candidates = [
            replace(candidate, order=order, cost=self._count(candidate.line + "\n"))
            for order, candidate in enumerate([*_from_parent(parent), *_from_messages(evicted)])
        ]
        rarity = Counter(term for candidate in candidates for term in candidate.terms)
        left = max_tokens
        chosen: list[_Candidate] = []
        covered: set[str] = set()
        # What a sentence adds can only fall as others are chosen, so an old estimate
        # is an upper bound: only the top of the heap has to be weighed again.
        heap = [(-_worth(c, covered, rarity) / c.cost**0.5, c.order) for c in candidates]
        heapq.heapify(heap)
        while heap:
            _, order = heapq.heappop(heap)
            candidate = candidates[order]
            worth = _worth(candidate, covered, rarity) / candidate.cost**0.5
            if worth <= 0 or candidate.cost > left:
                continue
            if heap and -heap[0][0] > worth:
                heapq.heappush(heap, (-worth, order))
                continue
            left -= candidate.cost
            chosen.append(candidate)
            covered |= candidate.terms
        chosen.sort(key=lambda candidate: candidate.order)
        return "\n".join(candidate.line for candidate in chosen)


def _worth(candidate: _Candidate, covered: set[str], rarity: Counter[str]) -> float:
    return candidate.weight * sum(
        math.sqrt(1 / rarity[term]) for term in candidate.terms if term not in covered
    )


def _from_parent(parent: str | None) -> Iterator[_Candidate]:
    for line in (parent or "").splitlines():
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        text = match["text"] if match else line.strip()
        telling = _telling(text)
        if telling:
            kept = line.strip() if match else shorten(line, _MAX_SENTENCE_CHARS)
            yield _Candidate(kept, telling, _PARENT_WEIGHT * _weight(text))


def _from_messages(evicted: Sequence[Message]) -> Iterator[_Candidate]:
    seen: set[frozenset[str]] = set()
    for message in evicted:
        who = message.name or message.role
        when = message.created_at.date().isoformat()
        for sentence in sentences(message.content):
            telling = _telling(sentence)
            if not telling or telling in seen:
                continue
            seen.add(telling)
            line = f"- [{when} {who}] {shorten(sentence, _MAX_SENTENCE_CHARS)}"
            yield _Candidate(line, telling, _ROLE_WEIGHT[message.role] * _weight(sentence))


def _telling(text: str) -> frozenset[str]:
    return frozenset(term for term in terms(text) if term not in STOP_WORDS)


def _weight(sentence: str) -> float:
    weight = 1.0
    weight += 0.4 * bool(_NUMBER.search(sentence))
    weight += 0.4 * bool(_IDENTIFIER.search(sentence))
    weight += 0.3 * bool(_NAME.search(sentence))
    weight += 0.5 * bool(_DECISION.search(sentence))
    weight -= 0.2 * sentence.rstrip().endswith(("?", "？"))
    if _SMALL_TALK.match(sentence):
        weight *= 0.3
    return weight
