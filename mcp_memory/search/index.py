"""What can be searched of one agent's texts: filters first, then the ranking.

It holds no text: a hit names a key and the characters that matched. It is a
cache, filled from the database and at any time rebuilt from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search import signals
from mcp_memory.search.documents import Documents
from mcp_memory.search.embedded import EmbeddedDocuments
from mcp_memory.search.language.analysis import query_weights
from mcp_memory.search.language.names import named_terms
from mcp_memory.search.orders import PINNED, Order, Orders
from mcp_memory.search.queries import Filter, Found, Key, Prepared, Question, Ranking
from mcp_memory.search.select import POSITIVE, best
from mcp_memory.search.signals import Scores
from mcp_memory.search.standing import Windows, stand_by_words, standing_by_meaning
from mcp_memory.search.vectors import Mask, Vectors

Range = tuple[int, int]
Numbers = NDArray[np.int32]
Rows = NDArray[np.int32]

CANDIDATES: Final = 250
NEAREST: Final = 50
"""So many documents by each signal of words, and of meaning, are weighed where there are
too many to weigh all."""

CROWD: Final = 40
"""Among so many of the best those that say the same make room for others."""

SAME_AT: Final = 0.985
"""Cosine from which two documents say the same in the same words; the nearer to 1 the nearer
all of them are to each other, as texts of a language are that the model was not made for."""

_CROWDING: Final = 0.8


@dataclass(frozen=True, slots=True)
class _Scored:
    """Candidates, ascending, with the score of each and what it is made of."""

    documents: Numbers
    scores: Scores
    signals: dict[str, Scores]
    bonus: dict[str, Scores]
    unfaded: Scores
    faded: Scores


class SearchIndex(Documents[Key]):
    """Documents by key, each with words, vectors, labels and times. Not thread-safe.

    Args:
        folder: Where temporary files of large indexes are made; None to use memory alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self.complete = True
        """Whether all vectors are there that are not still to be computed."""
        self._vectors = EmbeddedDocuments(folder)
        self._windows = Windows(self._words.neighbours, folder)
        self._orders = Orders()

    @property
    def nbytes(self) -> int:
        """Memory in use, about."""
        return super().nbytes + self._vectors.nbytes + self._windows.nbytes

    def add_vectors(self, key: Key, ranges: Sequence[Range], vectors: Vectors) -> None:
        """Make a document findable by meaning: one vector (dim,) for each range of characters."""
        number = self._numbers.get(key)
        if number is not None and len(vectors):
            self._vectors.add(number, ranges, vectors)

    def add_windows(self, key: Key, vectors: Vectors) -> None:
        """Make what surrounds a document findable by meaning.

        Args:
            vectors: Of the document with the two before it, and with the four (2, dim).
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
            ends: The last, excluded (n,).
            vectors: Of these characters (n, dim).
            below: Documents with this number or a higher one came since: others are meant.
        """
        documents, there = self._numbered(keys, below)
        self._vectors.add_many(documents, starts[there], ends[there], vectors[there])

    def add_many_windows(
        self, keys: Sequence[Key], sizes: Rows, vectors: Vectors, below: int
    ) -> None:
        """Make what surrounds many documents findable by meaning.

        Args:
            keys: Of the last document of each window.
            sizes: 0 for a window of three, 1 for one of five (n,).
            vectors: Of the windows (n, dim).
            below: See `add_many_vectors`.
        """
        documents, there = self._numbered(keys, below)
        self._windows.add_many(documents, sizes[there], vectors[there])

    def _numbered(self, keys: Sequence[Key], below: int) -> tuple[Numbers, Mask]:
        """Return the documents of keys that have a lower number, and which keys these are."""
        missing = len(self._keys)
        numbers = (self._numbers.get(key, missing) for key in keys)
        documents = np.fromiter(numbers, dtype=np.int32, count=len(keys))
        there = documents < below
        return documents[there], there

    def prepare(self, question: Question, where: Filter, *, lexical: bool = True) -> Prepared:
        """Do what a search needs no vector for; it holds until the index changes.

        Args:
            lexical: Whether words count.
        """
        mask = self._mask(where)
        asked = weighed = None
        if lexical:
            asked = self._words.ask(self._telling(question), named_terms(question.text))
            weighed = self._words.weigh(asked)
        return Prepared(question, where, mask, asked, weighed)

    def search(
        self, prepared: Prepared, vector: Vectors | None, *, offset: int, limit: int
    ) -> Ranking[Key]:
        """Rank the documents that pass the filter.

        Args:
            prepared: What `prepare` gave, of this index as it is.
            vector: The query's vector (dim,), or None to go by words alone.
        """
        if vector is not None and not len(self._vectors):
            vector = None
        mask = self._matching(prepared, vector)
        asked = (prepared.question.text, prepared.where)
        held = self._orders.get(asked) if offset else None
        if held is not None:
            return self._go_on(prepared, vector, mask, held, offset=offset, limit=limit)
        total = int(np.count_nonzero(mask))
        if not total:
            return Ranking()
        documents = self._candidates(prepared, vector, mask)
        scored = self._score(prepared, vector, documents)
        order = self._order(scored)
        if total > limit and prepared.where.as_of is not None:
            first = order[:PINNED]
            kept = Order(scored.documents[first], scored.scores[first], total)
            self._orders.keep(asked, kept)
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

    def _go_on(
        self,
        prepared: Prepared,
        vector: Vectors | None,
        mask: Mask,
        held: Order,
        *,
        offset: int,
        limit: int,
    ) -> Ranking[Key]:
        """Return a later page in the order of the first, of what is still there."""
        there = np.flatnonzero(prepared.mask[held.documents[offset:]])[:limit] + offset
        scored = self._score(prepared, vector, held.documents[there])
        scored.scores[:] = held.scores[there]
        found = [
            self._found(prepared, vector, scored, at, int(place)) for at, place in enumerate(there)
        ]
        if len(found) == limit or len(held.documents) == held.total:
            return Ranking(tuple(found), held.total)
        rest = mask.copy()
        rest[held.documents] = False
        if not rest.any():
            return Ranking(tuple(found), held.total)
        documents = self._candidates(prepared, vector, rest)
        scored = self._score(prepared, vector, documents)
        order = self._order(scored)
        behind = max(offset - len(held.documents), 0)
        for place, at in enumerate(order[behind : behind + limit - len(found)], behind):
            after = len(held.documents) + place
            found.append(self._found(prepared, vector, scored, int(at), after))
        missing = limit - len(found)
        behind = max(behind - len(documents), 0)
        after = len(held.documents) + len(documents) + behind
        found += self._tail(rest, documents, behind, missing, after)
        return Ranking(tuple(found), held.total)

    def nearest(self, vector: Vectors, *, at_least: float, limit: int) -> list[Found[Key]]:
        """Return the documents whose cosine with `vector` is `at_least` that, nearest first."""
        found: dict[int, Found[Key]] = {}
        for number, cosine, span in self._vectors.within(vector, at_least, 4 * limit + 32):
            if self._alive.values[number] and number not in found:
                found[number] = Found(self._keys[number], cosine, *span)
        return list(found.values())[:limit]

    def _telling(self, question: Question) -> dict[str, float]:
        """Return a question's terms by weight, without a name that only says who speaks."""
        weights = query_weights(question.text)
        if len(question.speakers) != 1:
            return weights
        names = query_weights(" ".join(question.speakers))
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
        """Return which documents there is anything to say for: a word, or vectors."""
        matching = np.zeros(len(self._keys), dtype=np.bool_)
        if prepared.weighed is not None:
            matching |= prepared.weighed.alone > 0
        if vector is not None:
            matching |= self._vectors.known(len(self._keys))
        return prepared.mask & matching

    def _candidates(self, prepared: Prepared, vector: Vectors | None, mask: Mask) -> Numbers:
        """Return the documents that are weighed, ascending."""
        weighed = prepared.weighed
        if vector is None or not self._vectors.compressed:
            return np.flatnonzero(mask).astype(np.int32)
        allowed = None if mask.all() else mask
        chosen = [self._vectors.nearest(self._vectors.centred(vector), allowed, NEAREST)]
        chosen += self._windows.nearest(vector, NEAREST)
        if weighed is not None:
            for scores in (weighed.alone, weighed.three, weighed.five):
                if scores is not None:
                    those = scores if allowed is None else scores * mask
                    chosen.append(best(those, CANDIDATES, least=POSITIVE).astype(np.int32))
        every = np.unique(np.concatenate(chosen))
        return every[mask[every]]

    def _score(self, prepared: Prepared, vector: Vectors | None, documents: Numbers) -> _Scored:
        standings: dict[str, Scores] = {}
        if prepared.weighed is not None and prepared.asked is not None:
            standings |= stand_by_words(prepared.weighed, prepared.asked, documents)
        if vector is not None:
            total = len(self._keys)
            own = standing_by_meaning(self._vectors, vector, total)
            standings[signals.MEANING] = own(documents)
            standings |= self._windows.stand(vector, documents, total, own)
        own_share = np.minimum(signals.WHOLE_CHARS / np.maximum(self._words.chars(documents), 1), 1)
        for name in signals.SURROUNDINGS:
            if name in standings:
                standings[name] = (standings[name] * own_share).astype(np.float32)
        if prepared.question.only_times:
            standings = {name: signals.BESIDE_TIMES * values for name, values in standings.items()}
        bonus = self._bonus(prepared.question, documents)
        scores = signals.fuse(standings, bonus, documents=len(self._numbers))
        faded = self._fading.left(
            documents, prepared.question.now.timestamp() - self._when.values[documents]
        )
        return _Scored(documents, scores * faded, standings, bonus, scores, faded)

    def _bonus(self, question: Question, documents: Numbers) -> dict[str, Scores]:
        bonus: dict[str, Scores] = {}
        if len(question.speakers) == 1:
            said = np.zeros(len(self._keys), dtype=np.float32)
            for speaker in question.speakers:
                said[np.frombuffer(self._speakers[speaker], dtype=np.int32)] = 1
            bonus[signals.SPEAKER] = said[documents]
        if question.closeness is not None:
            bonus[signals.TIME] = question.closeness(self._when.values[documents])
        return bonus

    def _order(self, scored: _Scored) -> NDArray[np.intp]:
        """Return the places of the candidates, best first, of equals the newer; scores change.

        What says the same as a better one loses a fifth of its score, for each such.
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
        parts = {
            name: float(values[at])
            for name, values in (*scored.signals.items(), *scored.bonus.items())
        }
        score, faded = float(scored.scores[at]), float(scored.faded[at])
        crowded = score / max(float(scored.unfaded[at]) * faded, 1e-9)
        span = self._span(prepared, vector, number)
        worded = prepared.weighed is not None and bool(prepared.weighed.alone[number] > 0)
        return Found(self._keys[number], score, *span, parts, place, faded, crowded, worded)

    def _span(self, prepared: Prepared, vector: Vectors | None, number: int) -> Range:
        # The passage that shares words with the question shows best why it was found.
        if prepared.weighed is None or prepared.asked is None or not prepared.weighed.alone[number]:
            nearest = None if vector is None else self._vectors.best_range(number, vector)
            if nearest is not None:
                return nearest[0]
        asked = prepared.asked or self._words.ask({})
        return self._words.best_range(number, asked)

    def _tail(
        self, mask: Mask, documents: Numbers, behind: int, limit: int, place: int
    ) -> list[Found[Key]]:
        """Return what was too far off to be weighed, the newest first."""
        rest = mask.copy()
        rest[documents] = False
        numbers = np.flatnonzero(rest)[::-1][behind : behind + limit]
        none = self._words.ask({})
        return [
            Found(self._keys[number], 0.0, *self._words.best_range(int(number), none), place=at)
            for at, number in enumerate(numbers, place)
        ]
