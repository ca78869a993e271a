"""What can be searched of one agent's texts: both halves, filters first, then the ranking.

It holds no text: a hit names a key and the characters that matched. It is a
cache, filled from the database and at any time rebuilt from it.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.analysis import query_terms, terms
from mcp_memory.search.fusion import reciprocal_rank_fusion
from mcp_memory.search.lexical import LexicalIndex
from mcp_memory.search.vectors import VectorIndex, Vectors

Key = TypeVar("Key", bound=Hashable)
Range = tuple[int, int]

DEPTH: Final = 200
"""How many of each half are fused; what lies deeper follows by similarity alone."""

PASSAGE_CHARS: Final = 1_600
PASSAGE_OVERLAP_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Filter:
    """What a text must be to be a candidate at all.

    Every group of `labels` needs one of its labels; times are a half-open range.
    """

    labels: tuple[tuple[str, ...], ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Found(Generic[Key]):
    """One candidate: `start` to `end` are the characters that answer best."""

    key: Key
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Ranking(Generic[Key]):
    """A part of the ranking; `total` counts all candidates that it orders."""

    found: tuple[Found[Key], ...] = ()
    total: int = 0


@dataclass(slots=True)
class _Rows:
    """Which document and which characters each row of a half stands for."""

    documents: array[int] = field(default_factory=lambda: array("i"))
    starts: array[int] = field(default_factory=lambda: array("i"))
    ends: array[int] = field(default_factory=lambda: array("i"))

    def add(self, document: int, start: int, end: int) -> None:
        self.documents.append(document)
        self.starts.append(start)
        self.ends.append(end)

    def best(self, scores: NDArray[np.float32], documents: int) -> NDArray[np.float32]:
        """Return each document's best score, -inf if it has no row."""
        best = np.full(documents, -np.inf, dtype=np.float32)
        np.maximum.at(best, np.frombuffer(self.documents, dtype=np.int32), scores)
        return best

    def range_of(self, document: int, scores: NDArray[np.float32]) -> Range:
        """Return the characters of a document's best row."""
        rows = np.flatnonzero(np.frombuffer(self.documents, dtype=np.int32) == document)
        row = int(rows[np.argmax(scores[rows])])
        return self.starts[row], self.ends[row]


class SearchIndex(Generic[Key]):
    """Documents by key, each with passages, vectors, labels and times. Not thread-safe."""

    def __init__(self) -> None:
        self._keys: list[Key] = []
        self._numbers: dict[Key, int] = {}
        self._alive = array("b")
        self._when = array("d")
        self._recorded = array("d")
        self._labels: dict[str, array[int]] = {}
        self._lexical = LexicalIndex()
        self._lexical_rows = _Rows()
        self._vectors: VectorIndex | None = None
        self._vector_rows = _Rows()
        self._revision = 0

    def __len__(self) -> int:
        """Return the number of documents that can be found."""
        return len(self._numbers)

    def __contains__(self, key: object) -> bool:
        """Return whether `key` can be found."""
        return key in self._numbers

    def add(
        self,
        key: Key,
        text: str,
        *,
        when: datetime,
        recorded: datetime,
        labels: Iterable[str] = (),
        prefix: str = "",
    ) -> None:
        """Make a document findable by its words; one that has the key is replaced.

        Args:
            prefix: Words that find it too but are no part of it, such as the speaker.
        """
        self.remove(key)
        self._revision += 1
        number = len(self._keys)
        self._keys.append(key)
        self._numbers[key] = number
        self._alive.append(1)
        self._when.append(when.timestamp())
        self._recorded.append(recorded.timestamp())
        for label in labels:
            self._labels.setdefault(label, array("i")).append(number)
        extra = terms(prefix)
        for start, end in passages(text):
            self._lexical.add([*extra, *terms(text[start:end])])
            self._lexical_rows.add(number, start, end)

    def add_vectors(self, key: Key, ranges: Sequence[Range], vectors: Vectors) -> None:
        """Make a document findable by meaning: one vector (dim,) for each range of characters."""
        number = self._numbers.get(key)
        if number is None or not len(vectors):
            return
        if self._vectors is None:
            self._vectors = VectorIndex(vectors.shape[1])
        self._vectors.add(vectors)
        for start, end in ranges:
            self._vector_rows.add(number, start, end)

    def remove(self, key: Key) -> None:
        """Let no search find the document; nothing happens if it isn't there."""
        number = self._numbers.pop(key, None)
        if number is not None:
            self._revision += 1
            self._alive[number] = 0

    def prepare(self, query: str, where: Filter, *, lexical: bool = True) -> Prepared:
        """Do what a search needs no vector for, so that this can be done beside the embedding.

        Args:
            query: The words; ignored without `lexical`.
        """
        mask = self._mask(where)
        words = self._words(query, mask) if lexical else None
        return Prepared(query, where, lexical, self._revision, mask, words)

    def search(
        self, prepared: Prepared, vector: Vectors | None, *, offset: int, limit: int
    ) -> Ranking[Key]:
        """Rank the documents that pass the filter.

        Args:
            prepared: What `prepare` gave; done again if documents came or went since.
            vector: The query's vector (dim,), or None to go by words alone.
        """
        if prepared.revision != self._revision:
            prepared = self.prepare(prepared.query, prepared.where, lexical=prepared.lexical)
        words = prepared.words
        dense = self._dense(vector, prepared.mask)
        halves = [half for half in (words, dense) if half is not None]
        if not halves:
            return Ranking()
        matching = np.logical_or.reduce([half.scores > -np.inf for half in halves])
        total = int(matching.sum())
        items, scores = reciprocal_rank_fusion([half.top(DEPTH) for half in halves])
        if words is not None and dense is not None:
            items, scores = _without_vectors(items, scores, dense)
        if offset + limit > len(items) and total > len(items):
            items, scores = _with_tail(items, scores, halves[-1], matching)
        chosen = slice(offset, offset + limit)
        return Ranking(
            tuple(
                self._found(int(item), float(score), words, dense)
                for item, score in zip(items[chosen], scores[chosen], strict=True)
            ),
            total,
        )

    def nearest(self, vector: Vectors, *, at_least: float, limit: int) -> list[Found[Key]]:
        """Return the documents whose cosine with `vector` is `at_least` that, nearest first."""
        if self._vectors is None:
            return []
        scores = self._vectors.scores(vector)
        close = np.flatnonzero(scores >= at_least)
        rows = self._vector_rows
        found: dict[int, Found[Key]] = {}
        for row in close[np.argsort(-scores[close], kind="stable")]:
            number = rows.documents[row]
            if self._alive[number] and number not in found:
                score = float(scores[row])
                span = rows.starts[row], rows.ends[row]
                found[number] = Found(self._keys[number], score, *span)
        return list(found.values())[:limit]

    def _mask(self, where: Filter) -> NDArray[np.bool_]:
        mask = np.frombuffer(self._alive, dtype=np.int8).astype(np.bool_)
        for group in where.labels:
            chosen = np.zeros(len(mask), dtype=np.bool_)
            for label in group:
                numbers = self._labels.get(label)
                if numbers is not None:
                    chosen[np.frombuffer(numbers, dtype=np.int32)] = True
            mask &= chosen
        when = np.frombuffer(self._when, dtype=np.float64)
        if where.start is not None:
            mask &= when >= where.start.timestamp()
        if where.end is not None:
            mask &= when < where.end.timestamp()
        if where.as_of is not None:
            mask &= np.frombuffer(self._recorded, dtype=np.float64) <= where.as_of.timestamp()
        return mask

    def _words(self, query: str, mask: NDArray[np.bool_]) -> _Half:
        scores = self._lexical.scores(query_terms(query))
        best = self._lexical_rows.best(scores, len(mask))
        return _Half(np.where(mask & (best > 0), best, -np.inf), scores, self._lexical_rows)

    def _dense(self, vector: Vectors | None, mask: NDArray[np.bool_]) -> _Half | None:
        if vector is None or self._vectors is None:
            return None
        scores = self._vectors.scores(vector)
        best = self._vector_rows.best(scores, len(mask))
        return _Half(np.where(mask, best, -np.inf), scores, self._vector_rows)

    def _found(
        self, item: int, score: float, words: _Half | None, dense: _Half | None
    ) -> Found[Key]:
        # The passage that shares words with the question shows best why it was found.
        half = words if words is not None and words.scores[item] > -np.inf else dense
        if half is None:
            raise ValueError("no half of the search has ranked this item")
        return Found(self._keys[item], score, *half.rows.range_of(item, half.row_scores))


@dataclass(frozen=True, slots=True)
class _Half:
    """The scores of one half by document, -inf for no candidate, and by row."""

    scores: NDArray[np.float32]
    row_scores: NDArray[np.float32]
    rows: _Rows

    def top(self, limit: int) -> NDArray[np.intp]:
        """Return the best documents, best first; of equals the newer one."""
        candidates = np.flatnonzero(self.scores > -np.inf)[::-1]
        if len(candidates) > limit:
            scores = self.scores[candidates]
            least = np.partition(scores, len(scores) - limit)[len(scores) - limit]
            better, equal = candidates[scores > least], candidates[scores == least]
            candidates = np.sort(np.concatenate([better, equal[: limit - len(better)]]))[::-1]
        return candidates[np.argsort(-self.scores[candidates], kind="stable")]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A search up to where it needs the question's vector."""

    query: str
    where: Filter
    lexical: bool
    revision: int
    mask: NDArray[np.bool_]
    words: _Half | None


def _without_vectors(
    items: NDArray[np.intp], scores: NDArray[np.float64], dense: _Half
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Let the words alone decide on what has no vectors yet: no half speaks against it."""
    unseen = dense.scores[items] == -np.inf
    if not unseen.any():
        return items, scores
    scores = np.where(unseen, 2 * scores, scores)
    # At a tie it comes first: what was said just now is what has no vectors yet.
    order = np.lexsort((~unseen, -scores))
    return items[order], scores[order]


def _with_tail(
    items: NDArray[np.intp],
    scores: NDArray[np.float64],
    half: _Half,
    matching: NDArray[np.bool_],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Append what was too deep to be fused, by the score of one half."""
    rest = matching.copy()
    rest[items] = False
    deep = np.flatnonzero(rest)
    deep = deep[np.argsort(-half.scores[deep], kind="stable")]
    return np.concatenate([items, deep]), np.concatenate([scores, np.zeros(len(deep))])


def passages(text: str) -> list[Range]:
    """Cut a text into overlapping ranges of characters, at spaces where there are any."""
    if len(text) <= PASSAGE_CHARS:
        return [(0, len(text))]
    ranges: list[Range] = []
    start = 0
    while start < len(text):
        end = min(start + PASSAGE_CHARS, len(text))
        if end < len(text):
            space = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
            if space > start + PASSAGE_CHARS // 2:
                end = space
        ranges.append((start, end))
        if end == len(text):
            break
        start = end - PASSAGE_OVERLAP_CHARS
    return ranges
