"""The search index of one agent: filters first, then the ranking.

It holds no texts: a result is a key and a range of characters. It is a cache, filled
from the database and rebuilt from it at any time.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Generic

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search import fusion
from mcp_memory.search.arrays import (
    POSITIVE,
    Column,
    Mask,
    Range,
    Rows,
    Scores,
    Vectors,
    best,
)
from mcp_memory.search.kept import Copied, KeptIndex, KeptWords
from mcp_memory.search.language.analysis import query_weights
from mcp_memory.search.language.names import named_terms
from mcp_memory.search.lexical import (
    DocumentWords,
    LongWords,
    QueryWords,
    WordScores,
    stand_by_words,
)
from mcp_memory.search.queries import Filter, Found, Key, Query, Ranking
from mcp_memory.search.semantic import DocumentVectors, WindowVectors, standing_by_meaning

CANDIDATES: Final = 250
NEAREST: Final = 50
"""Documents that are ranked by each word signal, and by each vector, if there are too many to rank
all; by judgement. Those further behind follow by age."""

CROWD: Final = 40
"""Among as many of the best documents, copies make room for others; by judgement."""

SAME_AT: Final = 0.985
"""Cosine from which two documents are copies of each other; by judgement. It is nearer to 1 where
all documents are near to each other, as in a language that the model wasn't trained for."""

_CROWDING: Final = 0.8
"""The factor of a copy's score for each better one; by judgement. In the ablation on LoCoMo it
changes nothing (research/FINDINGS.md, "without crowding")."""

PINNED: Final = 1_000
"""Documents of a result that keep their order from page to page; by judgement, few read further."""

_ORDERS: Final = 64
"""Results whose order is kept for their next pages; by judgement."""

UNFADED_FLOOR: Final = 0.5
"""The floor of documents that don't fade, where it has no effect."""

_KEY_BYTES: Final = 200
"""Memory of a key with its entries in list and dictionary, about."""

_DAY_SECONDS: Final = 86_400.0

Ageing = Mapping[str, tuple[float | None, float]]
"""By label: the half-life in days, or None, and the part of a score that age leaves."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A search, up to where it needs the query's vector."""

    query: Query
    where: Filter
    mask: Mask
    words: QueryWords | None
    word_scores: WordScores | None


@dataclass(frozen=True, slots=True)
class Order:
    """The best documents of a result as they were on its first page, of `total` in all."""

    documents: Rows
    scores: Scores
    total: int


class Orders:
    """The orders of results that are being read page by page.

    New documents change what is usual, and so the order: without this, the next page would
    repeat some results of the first or leave some out.

    Args:
        most: How many; those used longest ago are dropped.
    """

    def __init__(self, most: int = _ORDERS) -> None:
        self._most = most
        self._orders: OrderedDict[Hashable, Order] = OrderedDict()

    def add(self, search: Hashable, order: Order) -> None:
        """Store the order of a search's first page."""
        self._orders[search] = order
        if len(self._orders) > self._most:
            self._orders.popitem(last=False)

    def get(self, search: Hashable) -> Order | None:
        """Return the order of a search, None if it was dropped."""
        order = self._orders.get(search)
        if order is not None:
            self._orders.move_to_end(search)
        return order


class Fading:
    """How much of a document's score its age leaves."""

    def __init__(self) -> None:
        self._half_life = Column(np.float32)
        self._floor = Column(np.float32)
        self._any = False

    @property
    def nbytes(self) -> int:
        """Memory in use."""
        return self._half_life.nbytes + self._floor.nbytes

    def add(self, half_life_days: float | None, floor: float) -> None:
        """Add the next document; None for one that doesn't fade."""
        self._half_life.append(np.inf if half_life_days is None else half_life_days)
        self._floor.append(floor)
        self._any = self._any or half_life_days is not None

    def restore(self, documents: int, groups: Iterable[tuple[Rows, float | None, float]]) -> None:
        """Fill an empty one.

        Args:
            documents: How many there are.
            groups: Some of them, with half-life and floor; the others don't fade.
        """
        half_life = np.full(documents, np.inf, dtype=np.float32)
        floor = np.full(documents, UNFADED_FLOOR, dtype=np.float32)
        for numbers, half_life_days, group_floor in groups:
            half_life[numbers] = np.inf if half_life_days is None else half_life_days
            floor[numbers] = group_floor
            self._any = self._any or half_life_days is not None
        self._half_life, self._floor = Column.of(half_life), Column.of(floor)

    def left(self, documents: Rows, ages_seconds: NDArray[np.float64]) -> Scores:
        """Return what is left of the scores of documents of these ages (n,), 0 to 1."""
        if not self._any:
            return np.ones(len(documents), dtype=np.float32)
        floor = self._floor.values[documents]
        ages = np.maximum(ages_seconds, 0) / _DAY_SECONDS
        left = 0.5 ** (ages / self._half_life.values[documents])
        return np.asarray(floor + (1 - floor) * left, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Scored:
    """Documents, ascending, with their scores and what these are made of."""

    documents: Rows
    scores: Scores
    signals: dict[str, Scores]
    bonus: dict[str, Scores]
    unfaded: Scores
    faded: Scores


class SearchIndex(Generic[Key]):
    """Documents by key, with words, vectors, labels and times. Not thread-safe.

    Documents are numbered from 0 in the order they were added. Removed ones are marked and
    keep their number.

    Args:
        folder: Where large indexes put temporary files; None to use memory alone.
        pinned: How many documents of a result keep their order from page to page.
    """

    def __init__(self, folder: Path | None = None, *, pinned: int = PINNED) -> None:
        self.complete = True
        """Whether all vectors that were computed are in it."""
        self._pinned = pinned
        self._keys: list[Key] = []
        self._numbers: dict[Key, int] = {}
        self._alive = Column(np.bool_)
        self._when = Column(np.float64)
        self._recorded = Column(np.float64)
        self._newest = -np.inf
        self._fading = Fading()
        self._labels: dict[str, array[int]] = {}
        self._speakers: dict[str, array[int]] = {}
        self._words = DocumentWords()
        self._vectors = DocumentVectors(folder)
        self._windows = WindowVectors(self._words.neighbours, folder)
        self._orders = Orders()

    def __len__(self) -> int:
        """Return the number of documents that can be found."""
        return len(self._numbers)

    def __contains__(self, key: object) -> bool:
        """Return whether the document of a key can be found."""
        return key in self._numbers

    @property
    def end(self) -> int:
        """The number of the next document."""
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        """Memory in use, about."""
        columns = (self._alive, self._when, self._recorded, self._fading)
        labels = sum(len(numbers) for numbers in self._labels.values()) * 4
        own = sum(column.nbytes for column in columns) + len(self._keys) * _KEY_BYTES + labels
        return own + self._words.nbytes + self._vectors.nbytes + self._windows.nbytes

    @property
    def speakers(self) -> Iterable[str]:
        """Everyone who has said something."""
        return self._speakers.keys()

    @property
    def changes(self) -> int:
        """How many times a document was added or removed, ever."""
        return 2 * len(self._keys) - len(self._numbers)

    def add(
        self,
        key: Key,
        text: str,
        *,
        when: datetime,
        recorded: datetime,
        labels: Iterable[str] = (),
        prefix: str = "",
        thread: str | None = None,
        speaker: str | None = None,
        half_life_days: float | None = None,
        fade_floor: float = UNFADED_FLOOR,
        words: LongWords | None = None,
    ) -> None:
        """Add a document, which can be found by its words; it replaces one with the same key.

        Args:
            key: Identifies it.
            text: Its words.
            when: The time that it has.
            recorded: When it was stored.
            labels: What filters go by.
            prefix: Words that find it too but are not part of it, such as the speaker.
            thread: The conversation it belongs to; it follows the last one added to it.
            speaker: Who says it.
            half_life_days: The age at which half of what can fade has faded; None for never.
            fade_floor: The part of its score that doesn't fade.
            words: Its words with this prefix, if they have been read before.
        """
        self.remove(key)
        number = len(self._keys)
        self._keys.append(key)
        self._numbers[key] = number
        self._alive.append(True)
        self._when.append(when.timestamp())
        self._recorded.append(recorded.timestamp())
        self._newest = max(self._newest, recorded.timestamp())
        self._fading.add(half_life_days, fade_floor)
        for label in labels:
            self._labels.setdefault(label, array("i")).append(number)
        if speaker:
            self._speakers.setdefault(speaker, array("i")).append(number)
        self._words.add(text, prefix, thread, when.timestamp(), words)

    def add_all(self, documents: Iterable[tuple[Key, str, Mapping[str, Any]]]) -> None:
        """Add many documents faster: key, text, and the other arguments of `add`."""
        with self._words.bulk():
            for key, text, about in documents:
                self.add(key, text, **about)

    def remove(self, key: Key) -> None:
        """Remove a document; nothing happens if there is none with this key."""
        number = self._numbers.pop(key, None)
        if number is not None:
            self._alive.values[number] = False

    def add_vectors(self, key: Key, ranges: Sequence[Range], vectors: Vectors) -> None:
        """Make a document findable by meaning: one vector (n, dim) for each range."""
        number = self._numbers.get(key)
        if number is not None and len(vectors):
            self._vectors.add(number, ranges, vectors)

    def add_windows(self, key: Key, vectors: Vectors) -> None:
        """Make the texts around a document findable by meaning.

        Args:
            key: Of the document.
            vectors: Of it with the two before it, and with the four before it (2, dim).
        """
        number = self._numbers.get(key)
        if number is not None:
            self._windows.add(number, vectors)

    def add_many_vectors(
        self, keys: Sequence[Key], starts: Rows, ends: Rows, vectors: Vectors, below: int
    ) -> None:
        """Make many documents findable by meaning.

        Args:
            keys: Of the document of each vector.
            starts: The first character that it is of (n,).
            ends: The last character, excluded (n,).
            vectors: The vectors (n, dim).
            below: Skip documents with this number or a higher one: they replaced those
                that the vectors are of.
        """
        documents, there = self._numbered(keys, below)
        self._vectors.add_many(documents, starts[there], ends[there], vectors[there])

    def add_many_windows(
        self, keys: Sequence[Key], sizes: Rows, vectors: Vectors, below: int
    ) -> None:
        """Make the texts around many documents findable by meaning.

        Args:
            keys: Of the last document of each window.
            sizes: 0 for a window of three, 1 for one of five (n,).
            vectors: Of the windows (n, dim).
            below: See `add_many_vectors`.
        """
        documents, there = self._numbered(keys, below)
        self._windows.add_many(documents, sizes[there], vectors[there])

    def copy(self) -> Copied:
        """Return a copy of everything but the vectors, without the slow part of it."""
        return Copied(
            list(self._keys),
            self._alive.values.copy(),
            self._when.values.copy(),
            self._recorded.values.copy(),
            {label: numbers[:] for label, numbers in self._labels.items()},
            {speaker: numbers[:] for speaker, numbers in self._speakers.items()},
            self._words.copy(),
        )

    def adopt(self, words: KeptWords) -> None:
        """Use the folded words of a copy, which saves folding them here."""
        self._words.adopt(words)

    def restore(self: SearchIndex[str], kept: KeptIndex, ageing: Ageing) -> None:
        """Fill an empty index from a copy.

        Args:
            kept: Everything but the vectors.
            ageing: How the scores of documents with a label age, by today's settings.
        """
        self._keys = kept.keys
        self._numbers = {key: number for number, key in enumerate(kept.keys)}
        self._alive = Column.of(np.ones(len(kept.keys), dtype=np.bool_))
        self._when = Column.of(kept.when)
        self._recorded = Column.of(kept.recorded)
        self._newest = float(kept.recorded.max(initial=-np.inf))
        labels = kept.labels.parts()
        self._fading.restore(
            len(kept.keys), [(labels[label], *ageing[label]) for label in ageing if label in labels]
        )
        for groups, parts in ((self._labels, labels), (self._speakers, kept.speakers.parts())):
            for name, numbers in parts.items():
                groups[name] = array("i", numbers.tobytes())
        self._words.restore(kept.words, kept.when)

    def prepare(self, query: Query, where: Filter, *, lexical: bool = True) -> Prepared:
        """Do the part of a search that needs no vector; valid until the index changes.

        Args:
            query: What is searched for.
            where: What a document must be to be found.
            lexical: Whether words count.
        """
        mask = self._mask(where)
        words = scores = None
        if lexical:
            words = self._words.query(self._weights(query), named_terms(query.text))
            scores = self._words.scores(words)
        return Prepared(query, where, mask, words, scores)

    def search(
        self, prepared: Prepared, vector: Vectors | None, *, offset: int, limit: int
    ) -> Ranking[Key]:
        """Return a page of the ranking of the documents that pass the filter.

        Args:
            prepared: From `prepare`, of this index as it is.
            vector: The query's vector (dim,), or None to search by words alone.
            offset: How many results the pages before had.
            limit: How many this page has at most.
        """
        if vector is not None and not len(self._vectors):
            vector = None
        mask = self._matching(prepared, vector)
        search = (prepared.query.text, prepared.where)
        first_page = self._orders.get(search) if offset else None
        if first_page is not None:
            return self._later_page(prepared, vector, mask, first_page, offset=offset, limit=limit)
        total = int(np.count_nonzero(mask))
        if not total:
            return Ranking()
        documents = self._candidates(prepared, vector, mask)
        scored = self._score(prepared, vector, documents)
        order = self._order(scored)
        if total > limit and prepared.where.as_of is not None:
            pinned = order[: self._pinned]
            self._orders.add(search, Order(scored.documents[pinned], scored.scores[pinned], total))
        chosen = order[offset : offset + limit]
        found = [
            self._found(prepared, vector, scored, int(at), offset + place)
            for place, at in enumerate(chosen)
        ]
        missing = min(limit, total - offset) - len(found)
        if missing > 0:
            behind = max(offset - len(documents), 0)
            found += self._tail(mask, documents, behind, missing, offset + len(found))
        return Ranking(tuple(found), total)

    def nearest(self, vector: Vectors, *, at_least: float, limit: int) -> list[Found[Key]]:
        """Return the documents with at least this cosine to a vector, nearest first."""
        found: dict[int, Found[Key]] = {}
        for number, cosine, span in self._vectors.within(vector, at_least, 4 * limit + 32):
            if self._alive.values[number] and number not in found:
                found[number] = Found(self._keys[number], cosine, *span)
        return list(found.values())[:limit]

    def _numbered(self, keys: Sequence[Key], below: int) -> tuple[Rows, Mask]:
        """Return the documents of keys that have a lower number, and which keys these are."""
        missing = len(self._keys)
        numbers = (self._numbers.get(key, missing) for key in keys)
        documents = np.fromiter(numbers, dtype=np.int32, count=len(keys))
        there = documents < below
        return documents[there], there

    def _later_page(
        self,
        prepared: Prepared,
        vector: Vectors | None,
        mask: Mask,
        first: Order,
        *,
        offset: int,
        limit: int,
    ) -> Ranking[Key]:
        """Return a later page in the order of the first, without removed documents."""
        there = np.flatnonzero(prepared.mask[first.documents[offset:]])[:limit] + offset
        scored = self._score(prepared, vector, first.documents[there])
        scored.scores[:] = first.scores[there]
        found = [
            self._found(prepared, vector, scored, at, int(place)) for at, place in enumerate(there)
        ]
        if len(found) == limit or len(first.documents) == first.total:
            return Ranking(tuple(found), first.total)
        rest = mask.copy()
        rest[first.documents] = False
        if not rest.any():
            return Ranking(tuple(found), first.total)
        documents = self._candidates(prepared, vector, rest)
        scored = self._score(prepared, vector, documents)
        order = self._order(scored)
        behind = max(offset - len(first.documents), 0)
        for place, at in enumerate(order[behind : behind + limit - len(found)], behind):
            after = len(first.documents) + place
            found.append(self._found(prepared, vector, scored, int(at), after))
        missing = limit - len(found)
        behind = max(behind - len(documents), 0)
        after = len(first.documents) + len(documents) + behind
        found += self._tail(rest, documents, behind, missing, after)
        return Ranking(tuple(found), first.total)

    def _weights(self, query: Query) -> dict[str, float]:
        """Return a query's terms with weights, without a name that only says who speaks."""
        weights = query_weights(query.text)
        if len(query.speakers) != 1:
            return weights
        names = query_weights(" ".join(query.speakers))
        return {term: weights[term] for term in weights if term not in names} or weights

    def _mask(self, where: Filter) -> Mask:
        mask: Mask = self._alive.values.copy()
        for group in where.labels:
            chosen = np.zeros(len(mask), dtype=np.bool_)
            for label in group:
                numbers = self._labels.get(label)
                if numbers is not None:
                    chosen[np.frombuffer(numbers, dtype=np.int32)] = True
            mask &= chosen
        if where.start is not None:
            mask &= self._when.values >= where.start.timestamp()
        if where.end is not None:
            mask &= self._when.values < where.end.timestamp()
        if where.as_of is not None and where.as_of.timestamp() < self._newest:
            mask &= self._recorded.values <= where.as_of.timestamp()
        return mask

    def _matching(self, prepared: Prepared, vector: Vectors | None) -> Mask:
        """Return which documents pass the filter and have a word of the query, or vectors."""
        matching = np.zeros(len(self._keys), dtype=np.bool_)
        if prepared.word_scores is not None:
            matching |= prepared.word_scores.alone > 0
        if vector is not None:
            matching |= self._vectors.known(len(self._keys))
        return prepared.mask & matching

    def _candidates(self, prepared: Prepared, vector: Vectors | None, mask: Mask) -> Rows:
        """Return the documents to rank, ascending: all, or the best by each signal."""
        if vector is None or not self._vectors.compressed:
            return np.flatnonzero(mask).astype(np.int32)
        allowed = None if mask.all() else mask
        chosen = [self._vectors.nearest(self._vectors.centred(vector), allowed, NEAREST)]
        chosen += self._windows.nearest(vector, NEAREST)
        words = prepared.word_scores
        if words is not None:
            for scores in (words.alone, words.three, words.five):
                if scores is not None:
                    those = scores if allowed is None else scores * mask
                    chosen.append(best(those, CANDIDATES, least=POSITIVE).astype(np.int32))
        every = np.unique(np.concatenate(chosen))
        return every[mask[every]]

    def _score(self, prepared: Prepared, vector: Vectors | None, documents: Rows) -> _Scored:
        signals: dict[str, Scores] = {}
        if prepared.words is not None and prepared.word_scores is not None:
            signals |= stand_by_words(prepared.word_scores, prepared.words, documents)
        if vector is not None:
            total = len(self._keys)
            own = standing_by_meaning(self._vectors, vector, total)
            signals[fusion.MEANING] = own(documents)
            signals |= self._windows.stand(vector, documents, total, own)
        share = np.minimum(fusion.WHOLE_CHARS / np.maximum(self._words.chars(documents), 1), 1)
        for name in fusion.SURROUNDINGS:
            if name in signals:
                signals[name] = (signals[name] * share).astype(np.float32)
        if prepared.query.only_times:
            signals = {name: fusion.BESIDE_TIMES * values for name, values in signals.items()}
        bonus = self._bonus(prepared.query, documents)
        scores = fusion.fuse(signals, bonus, documents=len(self._numbers))
        ages = prepared.query.now.timestamp() - self._when.values[documents]
        faded = self._fading.left(documents, ages)
        return _Scored(documents, scores * faded, signals, bonus, scores, faded)

    def _bonus(self, query: Query, documents: Rows) -> dict[str, Scores]:
        bonus: dict[str, Scores] = {}
        if len(query.speakers) == 1:
            said = np.zeros(len(self._keys), dtype=np.float32)
            for speaker in query.speakers:
                said[np.frombuffer(self._speakers[speaker], dtype=np.int32)] = 1
            bonus[fusion.SPEAKER] = said[documents]
        if query.closeness is not None:
            bonus[fusion.TIME] = query.closeness(self._when.values[documents])
        return bonus

    def _order(self, scored: _Scored) -> NDArray[np.intp]:
        """Return the places of the documents, best first, of equal ones the newer first.

        Lowers the scores of copies of better documents.
        """
        scores = scored.scores
        crowd = best(scores, CROWD)
        alone, vectors = self._vectors.vectors_of(scored.documents[crowd])
        if len(alone) > 1:
            # Not `@`: the threads of a matrix product cost more than they save here.
            alike = np.vecdot(vectors[:, np.newaxis], vectors[np.newaxis])
            same = np.triu(alike >= SAME_AT, 1)
            if same.any():
                same &= alike >= 1 - (1 - SAME_AT) * self._vectors.apartness(vectors)
            scores[crowd[alone]] *= np.float32(_CROWDING) ** same.sum(axis=0)
        order: NDArray[np.intp] = np.argsort(-scores[::-1], kind="stable")
        return len(scores) - 1 - order

    def _found(
        self, prepared: Prepared, vector: Vectors | None, scored: _Scored, at: int, place: int
    ) -> Found[Key]:
        number = int(scored.documents[at])
        signals = {
            name: float(values[at])
            for name, values in (*scored.signals.items(), *scored.bonus.items())
        }
        score, faded = float(scored.scores[at]), float(scored.faded[at])
        crowded = score / max(float(scored.unfaded[at]) * faded, 1e-9)
        span = self._span(prepared, vector, number)
        worded = prepared.word_scores is not None and bool(prepared.word_scores.alone[number] > 0)
        return Found(self._keys[number], score, *span, signals, place, faded, crowded, worded)

    def _span(self, prepared: Prepared, vector: Vectors | None, number: int) -> Range:
        """Return the characters of a document that match best."""
        # A passage that shares words with the query shows best why it was found.
        if prepared.word_scores is None or not prepared.word_scores.alone[number]:
            nearest = None if vector is None else self._vectors.best_range(number, vector)
            if nearest is not None:
                return nearest[0]
        return self._words.best_range(number, prepared.words or self._words.query({}))

    def _tail(
        self, mask: Mask, documents: Rows, behind: int, limit: int, place: int
    ) -> list[Found[Key]]:
        """Return documents that were not ranked, the newest first."""
        rest = mask.copy()
        rest[documents] = False
        numbers = np.flatnonzero(rest)[::-1][behind : behind + limit]
        no_words = self._words.query({})
        return [
            Found(self._keys[number], 0.0, *self._words.best_range(int(number), no_words), place=at)
            for at, number in enumerate(numbers, place)
        ]
