"""The words of documents: each as a whole, and long ones by passage as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.analysis import terms
from mcp_memory.search.columns import Column
from mcp_memory.search.lexical import LexicalIndex, Weighed
from mcp_memory.search.neighbours import Neighbours
from mcp_memory.search.signals import Scores

Range = tuple[int, int]

PASSAGE_CHARS: Final = 1_600
PASSAGE_OVERLAP_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """The words of a question and how telling each is."""

    idf: dict[str, float]
    passages: Scores
    """What each passage of the long documents scores."""


class Words:
    """What documents say, by number, counting up from 0."""

    def __init__(self) -> None:
        self.neighbours = Neighbours()
        self._whole = LexicalIndex()
        self._chars = Column(np.int32)
        self._passages = LexicalIndex()
        self._long: dict[int, list[int]] = {}
        self._ranges: list[Range] = []

    @property
    def nbytes(self) -> int:
        """Memory in use, about."""
        columns = self._chars.nbytes + self.neighbours.nbytes
        return self._whole.nbytes + self._passages.nbytes + columns

    def add(self, text: str, prefix: str, thread: str | None, when: float) -> None:
        """Add the next document; see `SearchIndex.add`."""
        number = self._chars.append(len(text))
        self.neighbours.add(thread, when)
        extra = terms(prefix)
        ranges = passages(text)
        if len(ranges) == 1:
            self._whole.add([*extra, *terms(text)])
            return
        parts = [terms(text[start:end]) for start, end in ranges]
        self._whole.add([*extra, *(term for part in parts for term in part)])
        self._long[number] = [self._passages.add([*extra, *part]) for part in parts]
        self._ranges += ranges

    def ask(self, query: Sequence[str]) -> Asked:
        """Return the words of a question as `weigh` and `best_range` take them."""
        idf = self._whole.idf(query)
        return Asked(idf, self._passages.scores(idf))

    def weigh(self, asked: Asked) -> Weighed:
        """Return what the words are worth in every document.

        A long document counts as a whole and by its best passage in equal parts.
        """
        weighed = self._whole.weigh(asked.idf, self.neighbours)
        for number, rows in self._long.items():
            best = max(asked.passages[row] for row in rows)
            weighed.alone[number] = (weighed.alone[number] + best) / 2
        return weighed

    def chars(self, numbers: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return how long documents are, in characters (n,)."""
        lengths: NDArray[np.int32] = self._chars.values[numbers]
        return lengths

    def best_range(self, number: int, asked: Asked) -> Range:
        """Return the characters of a document that have most of the words."""
        rows = self._long.get(number)
        if rows is None:
            return 0, int(self._chars.values[number])
        return self._ranges[max(rows, key=lambda row: (asked.passages[row], -row))]


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
