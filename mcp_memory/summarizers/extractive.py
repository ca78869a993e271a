"""The digest of the messages that leave the window, written without any model.

It chooses sentences, it never writes any: what stands in a summary was said.
The room that is left takes words that a search will find the rest by.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mcp_memory.search.analysis import terms
from mcp_memory.summarizers import layout, signals
from mcp_memory.summarizers.layout import Line
from mcp_memory.values.records import Message
from mcp_memory.values.text import sentences

SENTENCES_FRAC: Final = 0.5
"""How much of the room sentences take where little of what was said fits; the hints have the rest.
The more of it fits, the less is left to search for, and the more are sentences."""

MAX_MESSAGE_CHARS: Final = 20_000
_MIN_MESSAGE_CHARS: Final = 2_000
_MAX_EVICTED_CHARS: Final = 600_000
"""More is not read: of longer messages the beginning and the end."""

_ROLE_WEIGHT: Final = {"user": 1.2, "assistant": 1.0, "system": 0.8, "tool": 0.6}
_CLIENT_WEIGHT: Final = 1.5
"""What a model has written in a summary is worth more than what was merely said."""

_FREQUENCY_POWER: Final = 0.75
_COST_POWER: Final = 0.75
_VAGUE_HINT: Final = 0.7
_SHORT_NUMBER: Final = 2
_SHORT_NUMBER_HINT: Final = 0.2
"""A search by `2` finds everything."""
_MIN_NAMED: Final = 2
_MIN_CHARACTERS: Final = 7
"""A sentence with less says nothing by itself, unless it has a number or an identifier."""

_MIN_HINT_ROOM: Final = 8
_MIN_TOKENS_WITH_HINTS: Final = 100
"""In less room every sentence counts more."""


_PARENT_LINE: Final = 1.0
_PARENT_HINT: Final = 0.5
_HINT_RANK: Final = 30

_WORD: Final = re.compile(r"[^\W_]+(?:[-_./@#:’'][^\W_]+)*")
_HAN: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]{2,}")
_NO_SPACES: Final = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_MIN_HAN_COHESION: Final = 0.5


@dataclass(slots=True)
class _Candidate:
    line: Line
    terms: frozenset[str]
    weight: float
    order: int
    cost: int
    chosen: bool = False


class ExtractiveSummarizer:
    """The sentences that tell most, in the order they were said, under their days."""

    def __init__(self, count_tokens: Callable[[str], int]) -> None:
        self._count = count_tokens

    def summarize(self, parent: str | None, evicted: Sequence[Message], *, max_tokens: int) -> str:
        """Return the chosen sentences, oldest first, and words to search by; can't fail.

        A sentence is worth the terms that no chosen one has, each by how often it
        comes up, more with what a summary is for (see `signals`), less if it is
        long. What the parent chose competes with what is new: each of its lines
        stands for many messages. With nothing new, the parent is the summary.
        """
        new = [*_from_messages(evicted)]
        if not new and parent is not None and self._count(parent) <= max_tokens:
            return parent
        lines, hints = layout.read(parent or "")
        words = _Words(lines, hints, new, _age(evicted))
        room = _Room(self._candidates(lines, new), words.worth, self._count, max_tokens)
        # The hints of before stand for sentences that did not fit.
        fits_frac = min(max_tokens / max(room.needed + self._cost(hints), 1), 1.0)
        frac = SENTENCES_FRAC + (1 - SENTENCES_FRAC) * fits_frac**2
        room.take(int(max_tokens * frac) if max_tokens >= _MIN_TOKENS_WITH_HINTS else max_tokens)
        found = self._hints(words, room) if hints or fits_frac < 1 else {}
        room.take(max_tokens - self._cost(found.values()))
        chosen = [word for term, word in found.items() if term not in room.covered]
        return self._fitting(room.chosen, chosen, max_tokens)

    def _candidates(
        self, lines: Sequence[Line], new: Sequence[tuple[Line, float]]
    ) -> list[_Candidate]:
        found: list[_Candidate] = []
        of_parent = [(line, _CLIENT_WEIGHT if line.day is None else 1.0) for line in lines]
        for line, worth in [*of_parent, *new]:
            telling = signals.telling(line.text)
            if telling:
                found.append(
                    _Candidate(
                        line,
                        telling,
                        worth * signals.weight(line.text),
                        len(found),
                        line.cost(self._count),
                    )
                )
        return found

    def _hints(self, words: _Words, room: _Room) -> dict[str, str]:
        """Return the terms that no chosen sentence has, the best first, each as a word."""
        left = room.max_tokens - room.used - self._cost(())
        kept: dict[str, str] = {}
        if left < _MIN_HINT_ROOM:
            return kept
        for term, word in words.ranked():
            if term in room.covered:
                continue
            left -= self._count(" " + word)
            if left < 0:
                break
            kept[term] = word
        return kept

    def _cost(self, hints: Iterable[str]) -> int:
        return self._count(f"\n{layout.HINTS}") + sum(self._count(" " + word) for word in hints)

    def _fitting(self, chosen: list[_Candidate], hints: list[str], max_tokens: int) -> str:
        """Return the layout; tokens of its parts need not add up, so what is too much leaves."""
        chosen = list(chosen)
        while True:
            ordered = sorted(chosen, key=lambda candidate: candidate.order)
            text = layout.lay_out([candidate.line for candidate in ordered], hints)
            if self._count(text) <= max_tokens:
                return text
            if hints:
                hints = hints[: -max(len(hints) // 20, 1)]
            elif chosen:
                chosen.pop()
            else:
                return ""


class _Room:
    """What has been chosen so far, and the room it takes."""

    def __init__(
        self,
        candidates: Sequence[_Candidate],
        worth: dict[str, float],
        count: Callable[[str], int],
        max_tokens: int,
    ) -> None:
        self._candidates = candidates
        self._worth = worth
        self._day_cost = {
            day: layout.day_cost(day, count)
            for day in {candidate.line.day for candidate in candidates}
        }
        self._of_day: dict[str | None, list[_Candidate]] = {}
        for candidate in candidates:
            self._of_day.setdefault(candidate.line.day, []).append(candidate)
        self._days: set[str | None] = {None}
        self.max_tokens = max_tokens
        self.used = 0
        self.chosen: list[_Candidate] = []
        self.covered: set[str] = set()

    @property
    def needed(self) -> int:
        """The tokens of all sentences."""
        return sum(c.cost for c in self._candidates) + sum(self._day_cost.values())

    def take(self, limit: int) -> None:
        """Choose sentences until `limit` tokens are used in all."""
        # What a sentence adds can only fall as others are chosen, so an old estimate is an
        # upper bound: only the top of the heap has to be weighed again. It rises only when
        # its day comes in; then the sentences of that day are put in anew.
        heap = [(-self._density(c), c.order) for c in self._candidates if not c.chosen]
        heapq.heapify(heap)
        while heap:
            _, order = heapq.heappop(heap)
            candidate = self._candidates[order]
            if candidate.chosen:
                continue
            density = self._density(candidate)
            cost = self._cost(candidate)
            if density <= 0 or self.used + cost > limit:
                continue
            if heap and -heap[0][0] > density:
                heapq.heappush(heap, (-density, order))
                continue
            self.used += cost
            candidate.chosen = True
            self.chosen.append(candidate)
            self.covered |= candidate.terms
            if candidate.line.day not in self._days:
                self._days.add(candidate.line.day)
                for other in self._of_day[candidate.line.day]:
                    if not other.chosen:
                        heapq.heappush(heap, (-self._density(other), other.order))

    def _cost(self, candidate: _Candidate) -> int:
        day = candidate.line.day
        return candidate.cost + (0 if day in self._days else self._day_cost[day])

    def _density(self, candidate: _Candidate) -> float:
        new = sum(self._worth[term] for term in candidate.terms if term not in self.covered)
        return float(candidate.weight * new / self._cost(candidate) ** _COST_POWER)


class _Words:
    """How often each term comes up, before and now, and the word it is shown as."""

    def __init__(
        self,
        lines: Sequence[Line],
        hints: Sequence[str],
        new: Sequence[tuple[Line, float]],
        age: float,
    ) -> None:
        self._forms: dict[str, Counter[str]] = {}
        self._alone: Counter[str] = Counter()
        for line, _ in new:
            self._note(line.text)
        counted = Counter(term for line, _ in new for term in signals.telling(line.text))
        old: dict[str, float] = {}
        for line in lines:
            self._note(line.text)
            for term in signals.telling(line.text):
                old[term] = old.get(term, 0.0) + max(_PARENT_LINE * age, 1.0)
        # The first hint came up most often; how often is not kept, but falls like any rank.
        for rank, word in enumerate(hints):
            # A pair of characters was a word before, so it is one still.
            self._forms.setdefault(_term(word), Counter())[word] += 2
            often = _PARENT_HINT * max(age, 1.0) * len(new) / (rank + _HINT_RANK)
            old[_term(word)] = old.get(_term(word), 0.0) + often
        self._counts = {
            term: counted[term] + old.get(term, 0.0) for term in sorted({*counted, *old})
        }
        self.worth = {term: often**_FREQUENCY_POWER for term, often in self._counts.items()}

    def ranked(self) -> Iterator[tuple[str, str]]:
        """Yield terms that are fit to search by with the word for each, the best first."""
        found: list[tuple[float, bool, str, str]] = []
        for term, forms in self._forms.items():
            often = self._counts.get(term, 0.0)
            if not often or (len(term) == 2 and _HAN.match(term) and not self._is_word(term)):
                continue
            word = min(forms, key=lambda form: (-forms[form], form))
            if term in signals.VAGUE:
                often *= _VAGUE_HINT
            elif word.isdecimal() and len(word) <= _SHORT_NUMBER:
                often *= _SHORT_NUMBER_HINT
            found.append((-often, not signals.is_hard(word), term, word))
        for _, _, term, word in sorted(found):
            yield term, word

    def _note(self, text: str) -> None:
        for word in _WORD.findall(text):
            if not word.isascii() and _NO_SPACES.search(word):
                for run in _HAN.findall(word):
                    self._alone.update(run)
                    for at in range(len(run) - 1):
                        pair = run[at : at + 2]
                        self._forms.setdefault(pair, Counter())[pair] += 1
            else:
                whole = "-" not in word or signals.is_hard(word)
                for part in (word,) if whole else word.split("-"):
                    self._forms.setdefault(_term(part), Counter())[part] += 1

    def _is_word(self, pair: str) -> bool:
        """Return whether two characters come up together so often that they may be a word."""
        often = sum(self._forms[pair].values())
        alone = min(self._alone.get(char, 0) for char in pair)
        return often >= 2 and often >= _MIN_HAN_COHESION * alone


def _from_messages(evicted: Sequence[Message]) -> Iterator[tuple[Line, float]]:
    """Yield the sentences that name something, each once, with the weight of who said it."""
    limit = _MAX_EVICTED_CHARS // max(len(evicted), 1)
    limit = min(max(limit, _MIN_MESSAGE_CHARS), MAX_MESSAGE_CHARS)
    seen: set[frozenset[str]] = set()
    for message in evicted:
        who = message.name or message.role
        day = message.created_at.date().isoformat()
        for sentence in sentences(_clipped(message.content, limit)):
            for piece in layout.pieces(" ".join(sentence.split())):
                text = signals.without_lead(piece)
                telling = signals.telling(text)
                if telling in seen or not _says_something(text, telling):
                    continue
                seen.add(telling)
                yield Line(day, who, text), _ROLE_WEIGHT[message.role]


def _says_something(text: str, telling: frozenset[str]) -> bool:
    if not telling or signals.is_code(text):
        return False
    if signals.is_hard(text):
        return True
    characters = len(_NO_SPACES.findall(text))
    if characters:
        return characters >= (
            _MIN_CHARACTERS * 2 if signals.is_small_talk(text) else _MIN_CHARACTERS
        )
    named = len(telling - signals.VAGUE)
    return named >= (_MIN_NAMED * 2 if signals.is_small_talk(text) else _MIN_NAMED)


def _clipped(content: str, limit: int) -> str:
    if len(content) <= limit:
        return content
    return f"{content[: limit * 2 // 3]}\n{content[-(limit // 3) :]}"


def _age(evicted: Sequence[Message]) -> float:
    """Return how much more often than in the new messages a word of the parent came up.

    The square root, as the parent was chosen for its variety: a word that stands
    in one of its lines was not in every message.
    """
    return math.sqrt(evicted[0].index / len(evicted)) if evicted else 1.0


@lru_cache(maxsize=32_768)
def _term(word: str) -> str:
    found = terms(word)
    return found[0] if found else word
