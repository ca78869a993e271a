"""Explains a search: how the question was read, and why each hit has its rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from mcp_memory.agent.base import Part, check_limit
from mcp_memory.search.arrays import Vectors
from mcp_memory.search.fusion import counted, weight_of
from mcp_memory.search.index import Prepared, SearchIndex
from mcp_memory.search.language.analysis import query_weights
from mcp_memory.search.queries import Filter, Found, Key, parse_query
from mcp_memory.search.times.spans import spans
from mcp_memory.values.errors import InvalidInput
from mcp_memory.values.records import Passage, SearchKind
from mcp_memory.values.text import check_query

Tier = Literal["conversation", "archival"]

DEEP: Final = 1_000
"""Down to this rank a hit is looked for by words alone and by meaning alone; by judgement."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One part of a hit's score; it adds `standing` times `weight`.

    If the hit has no vector for it yet, `own` is False and another part is used instead.
    """

    name: str
    standing: float
    weight: float
    own: bool


@dataclass(frozen=True, slots=True)
class NamedTime:
    """A time that the question names in the words `text`: from `start` up to `end`."""

    text: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class ExplainedHit:
    """One hit and the parts of its score.

    `by_words` and `by_meaning` are its ranks, from 1, by words alone and by meaning alone;
    None if it is not among the first `DEEP`. `faded` and `crowded` are the parts, 0 to 1,
    of its score that are left after its age, and after hits that say the same.
    """

    id: str
    passage: Passage
    score: float
    why: tuple[str, ...]
    signals: tuple[Signal, ...]
    by_words: int | None
    by_meaning: int | None
    faded: float
    crowded: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a question was read, and its first hits of `total`.

    `terms` are the terms of the question with their idf; None for a term that no text
    has, or that is the name of a speaker.
    """

    terms: dict[str, float | None]
    speakers: tuple[str, ...]
    times: tuple[NamedTime, ...]
    total: int
    search: SearchKind
    hits: tuple[ExplainedHit, ...]


class Explanations(Part):
    """Explains the searches of one agent's memory."""

    def explain(self, query: str, tier: Tier, *, limit: int = 5) -> Explanation:
        """Explain the ranks of the first hits of a question; no filter applies.

        Raises:
            InvalidInput: The query is empty or too long, or the limit is not valid.
        """
        engine = self._engine
        engine.check()
        text = check_query(query)
        if text is None:
            raise InvalidInput("query is empty", field="query", hint="Say what to look for")
        limit = check_limit(limit, "limit")
        vector = engine.questions.vector(text, of_facts=tier == "archival")
        with self._view():
            if tier == "conversation":
                return self._explained(
                    engine.recall.index(self._agent), text, vector, limit, self._messages
                )
            return self._explained(
                engine.archival.index(self._agent), text, vector, limit, self._memories
            )

    def _explained(
        self,
        index: SearchIndex[Key],
        text: str,
        vector: Vectors | None,
        limit: int,
        read: Callable[[Sequence[Key]], dict[Key, tuple[str, str]]],
    ) -> Explanation:
        moment, zone = self._engine.clock(), self._settings.zone
        question = parse_query(text, index.speakers, moment, zone)
        words = index.prepare(question, Filter())
        meaning = index.prepare(question, Filter(), lexical=False)
        ranking = index.search(words, vector, offset=0, limit=limit)
        by_words = _ranks(index, words, None)
        by_meaning = {} if vector is None else _ranks(index, meaning, vector)
        texts = read([found.key for found in ranking.found])
        idf = words.words.idf if words.words is not None else {}
        return Explanation(
            terms={term: idf.get(term) for term in query_weights(text)},
            speakers=tuple(sorted(question.speakers)),
            times=tuple(
                NamedTime(span.text, span.start, span.end)
                for span in spans(text, now=moment, zone=zone)
            ),
            total=ranking.total,
            search="lexical" if vector is None else "hybrid",
            hits=tuple(
                ExplainedHit(
                    texts[found.key][0],
                    _passage(texts[found.key][1], found),
                    found.score,
                    found.why,
                    tuple(
                        Signal(
                            name,
                            standing,
                            weight_of(name, found.signals),
                            not math.isnan(found.signals[name]),
                        )
                        for name, standing in counted(found.signals).items()
                    ),
                    by_words.get(found.key),
                    by_meaning.get(found.key),
                    found.faded,
                    found.crowded,
                )
                for found in ranking.found
                if found.key in texts
            ),
        )

    def _messages(self, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        found = self._engine.recall.get_many(self._agent, ids)
        return {key: (key, message.content) for key, message in found.items()}

    def _memories(self, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        found = self._engine.archival.get_many(self._agent, ids)
        return {key: (key, memory.content) for key, memory in found.items()}


def _ranks(index: SearchIndex[Key], prepared: Prepared, vector: Vectors | None) -> dict[Key, int]:
    ranking = index.search(prepared, vector, offset=0, limit=DEEP)
    return {found.key: rank for rank, found in enumerate(ranking.found, 1)}


def _passage(content: str, found: Found[Key]) -> Passage:
    return Passage(content[found.start : found.end], found.start, found.end, len(content))
