"""Find documents by their words: BM25 in memory, updated with each text.

`LexicalIndex` scores rows: a text, or a passage of one. A row is scored alone and
together with its neighbours, because a turn of a conversation is often answered, or
only named, in the turn beside it. `DocumentWords` has a row for each document, and
more for the passages of long ones.

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25
and Beyond", 2009, equation 3.15, with an idf that is never negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search import fusion
from mcp_memory.search.arrays import NONE, Column, Range, Rows, Scores
from mcp_memory.search.kept import KeptWords
from mcp_memory.search.language.analysis import terms
from mcp_memory.search.neighbours import Around, Neighbours
from mcp_memory.search.postings import Folded, Postings, Reading, Unfolded

K1: Final = 1.2
B: Final = 0.75
"""The usual values. A smaller `B` finds a little more among
short turns of similar length, and much less where some messages are long."""

COMMON_PART: Final = 12
"""A term is common if at least one of 12 rows has it. Its sums over neighbours are made for all
rows at once, which is faster and changes no score; by judgement."""

PASSAGE_CHARS: Final = 1_600
PASSAGE_OVERLAP_CHARS: Final = 200
"""The size of a passage and its overlap with the next, about 400 and 50 tokens; by judgement."""

_PAUSE_PASSAGES: Final = 64
"""Passages that are read without a pause; by judgement, they take 20 ms."""

_PREFIXES: Final = 4_096
"""Prefixes whose terms are cached: as many as days and speakers in use; by judgement."""


@dataclass(frozen=True, slots=True)
class WordScores:
    """BM25 scores of all rows (rows,), 0 where no term occurs."""

    alone: Scores
    three: Scores | None
    """Of each row together with the ones before and after it; None without neighbours."""
    five: Scores | None
    """The same with two rows on each side."""


class LexicalIndex:
    """BM25 over rows that count up from 0. Rows stay: the caller masks removed ones."""

    def __init__(self) -> None:
        self._postings = Postings()
        self._lengths = Column(np.float32)
        self._total_length = 0.0
        self._three, self._five = Column(np.float32), Column(np.float32)
        """The lengths of windows of three and five, for the rows of the last search."""

    @classmethod
    def of(cls, folded: Folded, lengths: Scores) -> LexicalIndex:
        """Return an index of folded postings and the number of terms of each row."""
        index = cls()
        index._postings = Postings(folded, len(lengths))
        index._lengths = Column.of(lengths)
        index._total_length = float(lengths.sum(dtype=np.float64))
        return index

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._lengths)

    @property
    def nbytes(self) -> int:
        """Memory in use, about."""
        columns = (self._lengths, self._three, self._five)
        return self._postings.nbytes + sum(column.nbytes for column in columns)

    def add(self, terms: Sequence[str]) -> int:
        """Add a text by its terms and return its row."""
        row = self._lengths.append(len(terms))
        self._total_length += len(terms)
        self._postings.add(row, terms, self._lengths.values)
        return row

    def add_folded(self, folded: Folded, lengths: Scores) -> int:
        """Add texts by their folded postings and numbers of terms; return the first row."""
        first = len(self._lengths)
        self._lengths.extend(lengths)
        self._total_length += float(lengths.sum(dtype=np.float64))
        self._postings.add_folded(folded, self._lengths.values, len(lengths))
        return first

    @contextmanager
    def bulk(self) -> Iterator[None]:
        """Add many texts faster, in a `with`; don't search before its end."""
        with self._postings.bulk(self._lengths.values):
            yield
        self._postings.fold(self._lengths.values)

    def copy(self) -> tuple[Unfolded, Scores]:
        """Return a copy of the postings, and the number of terms of each row."""
        return self._postings.copy(), self._lengths.values.copy()

    def adopt(self, folded: Folded, rows: int) -> None:
        """Use the folded postings of a copy, which had `rows` rows."""
        self._postings.adopt(folded, rows, self._lengths.values)

    def idf(self, terms: Iterable[str]) -> dict[str, float]:
        """Return the inverse document frequency of the terms that occur."""
        total = len(self._lengths)
        return {
            term: math.log1p((total - count + 0.5) / (count + 0.5))
            for term in terms
            if (count := self._postings.count(term))
        }

    @property
    def rarest_idf(self) -> float:
        """The inverse document frequency of a term that occurs nowhere."""
        return math.log1p((len(self._lengths) + 0.5) / 0.5)

    def scores(self, idf: dict[str, float]) -> Scores:
        """Return the BM25 score of every row.

        Args:
            idf: The terms with their weights.
        """
        scores = np.zeros(len(self._lengths), dtype=np.float32)
        lengths = self._lengths.values
        average = self._average()
        for term, weight in idf.items():
            for rows, counts in self._postings.find(term):
                # Indexing with this type takes half the time.
                places = rows.astype(np.intp)
                scores[places] += _saturated(weight, counts, lengths[places], average)
        return scores

    def scores_around(self, idf: dict[str, float], neighbours: Neighbours) -> WordScores:
        """Return the scores of every row alone and with its neighbours."""
        if not neighbours.any:
            return WordScores(self.scores(idf), None, None)
        total = len(self._lengths)
        alone, three, five = (np.zeros(total, dtype=np.float32) for _ in range(3))
        average = self._average()
        three_lengths, five_lengths = self._surrounding_lengths(neighbours)
        around = Around(neighbours, total)
        lengths = self._lengths.values
        averages = [average * size for size in neighbours.sizes]
        for weight, rows, counts in self._matching(idf):
            alone[rows] += _saturated(weight, counts, lengths[rows], average)
            if len(rows) * COMMON_PART > total:
                near, far = around.everywhere(rows, counts)
                three += _saturated(weight, near, three_lengths.copy(), averages[0])
                five += _saturated(weight, far, five_lengths.copy(), averages[1])
                continue
            # A row that occurs twice gets the same value twice; it counts once.
            for scores, own_lengths, own_average, (places, found) in zip(
                (three, five),
                (three_lengths, five_lengths),
                averages,
                around.nearby(rows, counts),
                strict=True,
            ):
                scores[places] += _saturated(weight, found, own_lengths[places], own_average)
        return WordScores(alone, three, five)

    def _surrounding_lengths(self, neighbours: Neighbours) -> tuple[Scores, Scores]:
        """Return the number of terms of each row with its neighbours, and with two on each side."""
        done, total = len(self._three), len(self._lengths)
        if done < total:
            new = np.arange(done, total)
            before = [neighbours.before(new, steps) for steps in (1, 2)]
            changed = np.unique(np.concatenate([new, *before]))
            changed = changed[changed != NONE]
            for column, steps in ((self._three, 1), (self._five, 2)):
                column.extend(np.zeros(len(new), dtype=np.float32))
                column.values[changed] = neighbours.summed(self._lengths.values, changed, steps)
        return self._three.values, self._five.values

    def _average(self) -> float:
        return max(self._total_length / max(len(self._lengths), 1), 1.0)

    def _matching(self, idf: dict[str, float]) -> Iterator[tuple[float, NDArray[np.intp], Scores]]:
        for term, weight in idf.items():
            parts = self._postings.find(term)
            if parts:
                rows = np.concatenate([rows for rows, _ in parts], dtype=np.intp)
                counts = parts[0][1] if len(parts) == 1 else np.concatenate([c for _, c in parts])
                yield weight, rows, counts


def _saturated(weight: float, counts: Scores, lengths: Scores, average: float) -> Scores:
    """Return the BM25 scores of one term, in the array of the lengths.

    Args:
        weight: The term's idf.
        counts: How often rows have it.
        lengths: How many terms these rows have; overwritten.
        average: How many terms a row has on average.
    """
    lengths *= np.float32(K1 * B / average)
    lengths += np.float32(K1 * (1 - B))
    lengths += counts
    np.divide(counts, lengths, out=lengths)
    lengths *= np.float32(weight * (K1 + 1))
    return lengths


@dataclass(frozen=True, slots=True)
class QueryWords:
    """The words of a query as an index knows them.

    Attributes:
        idf: The terms that occur, with weights.
        missing: The sum of the weights that the others would have.
        naming: Whether a term that occurs is a name, an identifier or a number.
        passages: The score of each passage of the long documents.
    """

    idf: dict[str, float]
    missing: float
    naming: bool
    passages: Scores


@dataclass(frozen=True, slots=True)
class LongWords:
    """The words of a long text, read before it is added to an index.

    Attributes:
        prefix: What was put before the text and each of its passages.
        ranges: The passages.
        whole: The postings of the whole text, and its number of terms.
        passages: The postings of the passages, numbered from 0, and their numbers of terms.
    """

    prefix: str
    ranges: list[Range]
    whole: tuple[Folded, Scores]
    passages: tuple[Folded, Scores]


def read_long(text: str, prefix: str, pause: Callable[[], None] = lambda: None) -> LongWords:
    """Read the words of a text of several passages, which takes a second for 4 MB.

    Args:
        pause: Called every few milliseconds, to let other threads run.
    """
    extra = _prefix_terms(prefix)
    ranges = passages(text)
    reading = Reading()
    for number, (start, end) in enumerate(ranges):
        reading.add([*extra, *terms(text[start:end])])
        if number % _PAUSE_PASSAGES == 0:
            pause()
    rows = reading.rows()
    return LongWords(prefix, ranges, reading.whole(extra), rows)


class DocumentWords:
    """The words of documents, which are numbered from 0."""

    def __init__(self) -> None:
        self.neighbours = Neighbours()
        self._whole = LexicalIndex()
        self._chars = Column(np.int32)
        self._passages = LexicalIndex()
        self._long = Column(np.int32)
        """The documents with several passages, ascending."""
        self._firsts = Column(np.int32)
        """The first passage of each of them."""
        self._starts = Column(np.int32)
        self._ends = Column(np.int32)

    @property
    def nbytes(self) -> int:
        """Memory in use, about."""
        columns = (self._chars, self._long, self._firsts, self._starts, self._ends)
        indexes = self._whole.nbytes + self._passages.nbytes + self.neighbours.nbytes
        return indexes + sum(column.nbytes for column in columns)

    def add(
        self,
        text: str,
        prefix: str,
        thread: str | None,
        when: float,
        words: LongWords | None = None,
    ) -> None:
        """Add the next document; see `SearchIndex.add`."""
        number = self._chars.append(len(text))
        self.neighbours.add(thread, when)
        if words is not None and words.prefix == prefix:
            self._add_read(number, words)
            return
        extra = _prefix_terms(prefix)
        ranges = passages(text)
        if len(ranges) == 1:
            self._whole.add([*extra, *terms(text)])
            return
        parts = [terms(text[start:end]) for start, end in ranges]
        self._whole.add([*extra, *(term for part in parts for term in part)])
        self._long.append(number)
        self._firsts.append(len(self._passages))
        for (start, end), part in zip(ranges, parts, strict=True):
            self._passages.add([*extra, *part])
            self._starts.append(start)
            self._ends.append(end)

    def _add_read(self, number: int, words: LongWords) -> None:
        self._whole.add_folded(*words.whole)
        self._long.append(number)
        self._firsts.append(self._passages.add_folded(*words.passages))
        starts, ends = np.array(words.ranges, dtype=np.int32).T
        self._starts.extend(starts)
        self._ends.extend(ends)

    @contextmanager
    def bulk(self) -> Iterator[None]:
        """Add many documents faster, in a `with`; don't search before its end."""
        with self._whole.bulk(), self._passages.bulk():
            yield

    def copy(self) -> Callable[[], KeptWords]:
        """Copy the words of all documents; return a function that does the slow part of it."""
        chars = self._chars.values.copy()
        names, threads = self.neighbours.threads
        whole, lengths = self._whole.copy()
        parts, part_lengths = self._passages.copy()
        long, firsts, starts, ends = (
            column.values.copy() for column in (self._long, self._firsts, self._starts, self._ends)
        )

        def fold() -> KeptWords:
            return KeptWords(
                chars,
                names,
                threads,
                whole.fold(lengths),
                lengths,
                long,
                firsts,
                starts,
                ends,
                parts.fold(part_lengths),
                part_lengths,
            )

        return fold

    def adopt(self, kept: KeptWords) -> None:
        """Use the folded words of a copy."""
        self._whole.adopt(kept.whole, len(kept.lengths))
        self._passages.adopt(kept.passages, len(kept.passage_lengths))

    def restore(self, kept: KeptWords, when: NDArray[np.float64]) -> None:
        """Fill an empty index with the words of a copy.

        Args:
            kept: The copy.
            when: The times of the documents, in seconds (n,).
        """
        self.neighbours.restore(kept.thread_names, kept.threads, when)
        self._chars = Column.of(kept.chars)
        self._whole = LexicalIndex.of(kept.whole, kept.lengths)
        self._passages = LexicalIndex.of(kept.passages, kept.passage_lengths)
        self._long, self._firsts = Column.of(kept.long), Column.of(kept.firsts)
        self._starts, self._ends = Column.of(kept.starts), Column.of(kept.ends)

    def query(self, weights: Mapping[str, float], named: Set[str] = frozenset()) -> QueryWords:
        """Return the words of a query as this index knows them.

        Args:
            weights: The terms of the query, with the weights that multiply their idf.
            named: Which of them are names.
        """
        idf = {term: value * weights[term] for term, value in self._whole.idf(weights).items()}
        # Not of other scripts: many pairs of characters are no words.
        missing = sum(term.isascii() for term in weights if term not in idf)
        naming = any(term in named or not term.isalpha() for term in idf)
        rarest = self._whole.rarest_idf
        return QueryWords(idf, missing * rarest, naming, self._passages.scores(idf))

    def scores(self, words: QueryWords) -> WordScores:
        """Return the scores of all documents.

        A long document counts as a whole and by its best passage in equal parts.
        """
        scores = self._whole.scores_around(words.idf, self.neighbours)
        if len(self._long):
            best = np.maximum.reduceat(words.passages, self._firsts.values)
            long = self._long.values
            scores.alone[long] = (scores.alone[long] + best) / 2
        return scores

    def chars(self, numbers: Rows) -> Rows:
        """Return the lengths of documents in characters (n,)."""
        lengths: Rows = self._chars.values[numbers]
        return lengths

    def best_range(self, number: int, words: QueryWords) -> Range:
        """Return the passage of a document that matches the words best."""
        place = int(self._long.values.searchsorted(number))
        if place == len(self._long) or self._long.values[place] != number:
            return 0, int(self._chars.values[number])
        first = int(self._firsts.values[place])
        end = len(self._passages)
        if place + 1 < len(self._long):
            end = int(self._firsts.values[place + 1])
        best = first + int(np.argmax(words.passages[first:end]))
        return int(self._starts.values[best]), int(self._ends.values[best])


@lru_cache(maxsize=_PREFIXES)
def _prefix_terms(prefix: str) -> tuple[str, ...]:
    """Return the terms of a prefix, which many documents can have."""
    return tuple(terms(prefix))


def passages(text: str) -> list[Range]:
    """Cut a text into overlapping passages, at spaces where there are any."""
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


def stand_by_words(scores: WordScores, words: QueryWords, documents: Rows) -> dict[str, Scores]:
    """Return the word signals of some documents: standard deviations above the mean of all.

    If most words of a query occur nowhere, it says things in other words, and the few that
    occur mean little: one of them alone doesn't stand out. Names always mean much.
    """
    known = sum(words.idf.values()) * (K1 + 1)
    spread = fusion.USUAL_WORDS_FRAC * known
    least = fusion.LEAST_WORDS_FRAC * (known + words.missing * (K1 + 1))
    factor = 1.0
    if words.naming:
        least, factor = 0.0, fusion.NAMES_FACTOR
    by_signal = {
        fusion.WORDS: scores.alone,
        fusion.WORDS_NEAR: scores.three,
        fusion.WORDS_AROUND: scores.five,
    }
    return {
        name: factor * fusion.usual(values, spread, least).standing(values[documents])
        for name, values in by_signal.items()
        if values is not None
    }
