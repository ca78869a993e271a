"""The words of documents: each as a whole, and long ones by passage as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.columns import Column
from mcp_memory.search.kept import KeptWords
from mcp_memory.search.language.analysis import terms
from mcp_memory.search.lexical import LexicalIndex, Weighed
from mcp_memory.search.neighbours import Neighbours
from mcp_memory.search.signals import Scores

Range = tuple[int, int]

PASSAGE_CHARS: Final = 1_600
PASSAGE_OVERLAP_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """The words of a question that occur, and how telling each is."""

    idf: dict[str, float]
    missing: float
    """How telling all those would be that occur nowhere."""
    naming: bool
    """Whether one that occurs is a name, an identifier or a number."""
    passages: Scores
    """What each passage of the long documents scores."""


class Words:
    """What documents say, by number, counting up from 0."""

    def __init__(self) -> None:
        self.neighbours = Neighbours()
        self._whole = LexicalIndex()
        self._chars = Column(np.int32)
        self._passages = LexicalIndex()
        self._long = Column(np.int32)
        """The documents of several passages, ascending."""
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

    def add(self, text: str, prefix: str, thread: str | None, when: float) -> None:
        """Add the next document; see `SearchIndex.add`."""
        number = self._chars.append(len(text))
        self.neighbours.add(thread, when)
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

    @contextmanager
    def bulk(self) -> Iterator[None]:
        """Add many documents faster, in a `with`; nothing can be asked before its end."""
        with self._whole.bulk(), self._passages.bulk():
            yield

    def copy(self) -> Callable[[], KeptWords]:
        """Copy the words of all documents in a moment; return what makes the rest of it."""
        chars = self._chars.values.copy()
        names, threads = self.neighbours.threads
        whole, lengths = self._whole.copy()
        parts, part_lengths = self._passages.copy()
        long, firsts, starts, ends = (
            column.values.copy() for column in (self._long, self._firsts, self._starts, self._ends)
        )

        def kept() -> KeptWords:
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

        return kept

    def adopt(self, kept: KeptWords) -> None:
        """Use what was made of a copy, so that it need not be folded here."""
        self._whole.adopt(kept.whole, len(kept.lengths))
        self._passages.adopt(kept.passages, len(kept.passage_lengths))

    def restore(self, kept: KeptWords, when: NDArray[np.float64]) -> None:
        """Take up the words of documents, in an empty one.

        Args:
            kept: What `copy` makes.
            when: The times of the documents, in seconds (n,).
        """
        self.neighbours.restore(kept.thread_names, kept.threads, when)
        self._chars = Column.of(kept.chars)
        self._whole = LexicalIndex.of(kept.whole, kept.lengths)
        self._passages = LexicalIndex.of(kept.passages, kept.passage_lengths)
        self._long, self._firsts = Column.of(kept.long), Column.of(kept.firsts)
        self._starts, self._ends = Column.of(kept.starts), Column.of(kept.ends)

    def ask(self, query: Mapping[str, float], named: Set[str] = frozenset()) -> Asked:
        """Return the words of a question as `weigh` and `best_range` take them.

        Args:
            query: Its terms by what each counts.
            named: Which of them are names.
        """
        idf = {term: telling * query[term] for term, telling in self._whole.idf(query).items()}
        # Of characters in a row many pairs are no word.
        missing = sum(term.isascii() for term in query if term not in idf)
        naming = any(term in named or not term.isalpha() for term in idf)
        rarest = self._whole.rarest_idf
        return Asked(idf, missing * rarest, naming, self._passages.scores(idf))

    def weigh(self, asked: Asked) -> Weighed:
        """Return what the words are worth in every document.

        A long document counts as a whole and by its best passage in equal parts.
        """
        weighed = self._whole.weigh(asked.idf, self.neighbours)
        if len(self._long):
            best = np.maximum.reduceat(asked.passages, self._firsts.values)
            long = self._long.values
            weighed.alone[long] = (weighed.alone[long] + best) / 2
        return weighed

    def chars(self, numbers: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return how long documents are, in characters (n,)."""
        lengths: NDArray[np.int32] = self._chars.values[numbers]
        return lengths

    def best_range(self, number: int, asked: Asked) -> Range:
        """Return the characters of a document that have most of the words."""
        place = int(self._long.values.searchsorted(number))
        if place == len(self._long) or self._long.values[place] != number:
            return 0, int(self._chars.values[number])
        first = int(self._firsts.values[place])
        end = len(self._passages)
        if place + 1 < len(self._long):
            end = int(self._firsts.values[place + 1])
        best = first + int(np.argmax(asked.passages[first:end]))
        return int(self._starts.values[best]), int(self._ends.values[best])


@lru_cache(maxsize=4_096)
def _prefix_terms(prefix: str) -> tuple[str, ...]:
    """Return the terms of what stands before many documents."""
    return tuple(terms(prefix))


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
