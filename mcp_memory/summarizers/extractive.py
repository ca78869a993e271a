"""The extractive summarizer: selects sentences, and needs no model.

It never writes a sentence: everything in a summary was said. The remaining room
takes words that a search will find the rest by.

The weights below are by judgement, checked together by `paging` in the benchmarks:
its summaries contain 1.4 to 1.5 times as many words of the evicted evidence as the
first words, or random sentences, of the same length.
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

from mcp_memory.search.language.analysis import terms
from mcp_memory.summarizers import layout, salience
from mcp_memory.summarizers.layout import Line
from mcp_memory.values.records import Message
from mcp_memory.values.render import short_speaker
from mcp_memory.values.text import sentences

SENTENCES_FRAC: Final = 0.5
"""The part of the room for sentences when little of the text fits; hints take the rest.
The more of the text fits, the less is left to search for, and the more room sentences get."""

MAX_MESSAGE_CHARS: Final = 20_000
_MIN_MESSAGE_CHARS: Final = 2_000
_MAX_EVICTED_CHARS: Final = 600_000
"""Longer messages are read at their beginning and end only, so that a flush stays fast."""

_ROLE_WEIGHT: Final = {"user": 1.2, "assistant": 1.0, "system": 0.8, "tool": 0.6}
_CLIENT_WEIGHT: Final = 1.5
"""A line of a summary that a model wrote is worth more than a sentence somebody said."""

_FREQUENCY_POWER: Final = 0.75
"""A term is worth its frequency to this power, so that one topic can't fill a summary."""

_COST_POWER: Final = 0.75
"""A sentence's worth is divided by its tokens to this power; 1 would favour fragments."""

_VAGUE_HINT: Final = 0.7
_SHORT_NUMBER: Final = 2
_SHORT_NUMBER_HINT: Final = 0.2
"""Factors of hints that find too much: a search for `2` finds everything."""

_MIN_NAMED: Final = 2
_MIN_CHARACTERS: Final = 7
"""A sentence with fewer says nothing alone, unless it has a number or an identifier."""

_MIN_HINT_ROOM: Final = 8
_MIN_TOKENS_WITH_HINTS: Final = 100
"""In less room a sentence is worth more than hints."""

_PARENT_LINE: Final = 1.0
_PARENT_HINT: Final = 0.5
_HINT_RANK: Final = 30
"""How much a term counts that the previous summary has in a line or as a hint."""

_WORD: Final = re.compile(r"[^\W_]+(?:[-_./@#:’'][^\W_]+)*")
_HAN: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]{2,}")
_NO_SPACES: Final = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_MIN_HAN_COHESION: Final = 0.5
"""Two characters are a word if they occur together this often when the rarer one occurs."""


@dataclass(slots=True)
class _Candidate:
    line: Line
    terms: frozenset[str]
    weight: float
    order: int
    cost: int
    chosen: bool = False


class ExtractiveSummarizer:
    """Selects the most informative sentences and lays them out by day."""

    def __init__(self, count_tokens: Callable[[str], int]) -> None:
        self._count = count_tokens

    def summarize(self, parent: str | None, evicted: Sequence[Message], *, max_tokens: int) -> str:
        """Return the chosen sentences, oldest first, and words to search by; never fails.

        A sentence is worth the terms that no chosen sentence has, each by its frequency;
        more if it contains what a summary is for (see `salience`), less if it is long.
        Lines of the parent compete with new sentences; each of them stands for many
        messages. Without new messages the parent is the summary.
        """
        new = [*_from_messages(evicted)]
        if not new and parent is not None and self._count(parent) <= max_tokens:
            return parent
        lines, hints = layout.read(parent or "")
        words = _Words(lines, hints, new, _age(evicted))
        room = _Room(self._candidates(lines, new), words.worth, self._count, max_tokens)
        # The parent's hints stand for sentences that didn't fit.
        fits_frac = min(max_tokens / max(room.needed + self._cost(hints), 1), 1.0)
        frac = SENTENCES_FRAC + (1 - SENTENCES_FRAC) * fits_frac**2
        room.fill(int(max_tokens * frac) if max_tokens >= _MIN_TOKENS_WITH_HINTS else max_tokens)
        found = self._hints(words, room) if hints or fits_frac < 1 else {}
        room.fill(max_tokens - self._cost(found.values()))
        chosen = [word for term, word in found.items() if term not in room.covered]
        return self._fitting(room.chosen, chosen, max_tokens)

    def _candidates(
        self, lines: Sequence[Line], new: Sequence[tuple[Line, float]]
    ) -> list[_Candidate]:
        found: list[_Candidate] = []
        of_parent = [(line, _CLIENT_WEIGHT if line.day is None else 1.0) for line in lines]
        for line, worth in [*of_parent, *new]:
            content = salience.content_terms(line.text)
            if content:
                found.append(
                    _Candidate(
                        line,
                        content,
                        worth * salience.weight(line.text),
                        len(found),
                        line.cost(self._count),
                    )
                )
        return found

    def _hints(self, words: _Words, room: _Room) -> dict[str, str]:
        """Return the terms that no chosen sentence has, best first, each as a word."""
        left = room.max_tokens - room.used - self._cost(())
        hints: dict[str, str] = {}
        if left < _MIN_HINT_ROOM:
            return hints
        for term, word in words.ranked():
            if term in room.covered:
                continue
            left -= self._count(" " + word)
            if left < 0:
                break
            hints[term] = word
        return hints

    def _cost(self, hints: Iterable[str]) -> int:
        return self._count(f"\n{layout.HINTS}") + sum(self._count(" " + word) for word in hints)

    def _fitting(self, chosen: list[_Candidate], hints: list[str], max_tokens: int) -> str:
        """Return the laid out text; if it is too long, as token counts don't add up, drop parts."""
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
    """The sentences chosen so far, and the room they use."""

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
        """The tokens of all sentences together."""
        return sum(c.cost for c in self._candidates) + sum(self._day_cost.values())

    def fill(self, limit: int) -> None:
        """Choose sentences until `limit` tokens are used."""
        # A sentence can only lose worth when others are chosen, so an old estimate is an
        # upper bound, and only the top of the heap is computed again. It gains only when its
        # day is added; then the sentences of that day are pushed again.
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
    """The frequency of each term, in the parent and in new messages, and the word to show."""

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
        counted = Counter(term for line, _ in new for term in salience.content_terms(line.text))
        old: dict[str, float] = {}
        for line in lines:
            self._note(line.text)
            for term in salience.content_terms(line.text):
                old[term] = old.get(term, 0.0) + max(_PARENT_LINE * age, 1.0)
        # Hints are in the order of their frequency, which isn't stored but falls with the rank.
        for rank, word in enumerate(hints):
            # A pair of characters that was a word in the parent stays a word.
            self._forms.setdefault(_term(word), Counter())[word] += 2
            often = _PARENT_HINT * max(age, 1.0) * len(new) / (rank + _HINT_RANK)
            old[_term(word)] = old.get(_term(word), 0.0) + often
        self._counts = {
            term: counted[term] + old.get(term, 0.0) for term in sorted({*counted, *old})
        }
        self.worth = {term: often**_FREQUENCY_POWER for term, often in self._counts.items()}

    def ranked(self) -> Iterator[tuple[str, str]]:
        """Yield the terms that are good to search by and the word for each, best first."""
        found: list[tuple[float, bool, str, str]] = []
        for term, forms in self._forms.items():
            often = self._counts.get(term, 0.0)
            if not often or (len(term) == 2 and _HAN.match(term) and not self._is_word(term)):
                continue
            word = min(forms, key=lambda form: (-forms[form], form))
            if term in salience.VAGUE:
                often *= _VAGUE_HINT
            elif word.isdecimal() and len(word) <= _SHORT_NUMBER:
                often *= _SHORT_NUMBER_HINT
            found.append((-often, not salience.is_hard(word), term, word))
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
                whole = "-" not in word or salience.is_hard(word)
                for part in (word,) if whole else word.split("-"):
                    self._forms.setdefault(_term(part), Counter())[part] += 1

    def _is_word(self, pair: str) -> bool:
        """Return whether two characters occur together so often that they may be a word."""
        often = sum(self._forms[pair].values())
        alone = min(self._alone.get(char, 0) for char in pair)
        return often >= 2 and often >= _MIN_HAN_COHESION * alone


def _from_messages(evicted: Sequence[Message]) -> Iterator[tuple[Line, float]]:
    """Yield the informative sentences, each once, with the weight of the speaker's role."""
    limit = _MAX_EVICTED_CHARS // max(len(evicted), 1)
    limit = min(max(limit, _MIN_MESSAGE_CHARS), MAX_MESSAGE_CHARS)
    seen: set[frozenset[str]] = set()
    for message in evicted:
        who = short_speaker(message.role, message.name)
        day = message.created_at.date().isoformat()
        for sentence in sentences(_clipped(message.content, limit)):
            for piece in layout.pieces(" ".join(sentence.split())):
                text = salience.without_lead(piece)
                content = salience.content_terms(text)
                if content in seen or not _says_something(text, content):
                    continue
                seen.add(content)
                yield Line(day, who, text), _ROLE_WEIGHT[message.role]


def _says_something(text: str, content: frozenset[str]) -> bool:
    if not content or salience.is_code(text):
        return False
    if salience.is_hard(text):
        return True
    characters = len(_NO_SPACES.findall(text))
    if characters:
        return characters >= (
            _MIN_CHARACTERS * 2 if salience.is_small_talk(text) else _MIN_CHARACTERS
        )
    named = len(content - salience.VAGUE)
    return named >= (_MIN_NAMED * 2 if salience.is_small_talk(text) else _MIN_NAMED)


def _clipped(content: str, limit: int) -> str:
    if len(content) <= limit:
        return content
    return f"{content[: limit * 2 // 3]}\n{content[-(limit // 3) :]}"


def _age(evicted: Sequence[Message]) -> float:
    """Return how many new messages a line of the parent counts for.

    The square root of the ratio: the parent was chosen for variety, so a word of one of
    its lines wasn't in every message.
    """
    return math.sqrt(evicted[0].index / len(evicted)) if evicted else 1.0


@lru_cache(maxsize=32_768)
def _term(word: str) -> str:
    found = terms(word)
    return found[0] if found else word
