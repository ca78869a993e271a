"""The vectors of documents: how near each document is to a question, by its chunks.

A document of several chunks is as near as the mean of its nearest chunk and of
all of them. The nearest alone would favour the long ones, which have many
chances to have a chunk that is near by accident.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.columns import Column
from mcp_memory.search.signals import LIKE_OTHERS, USUAL_COSINES, Scores, Usual, usual
from mcp_memory.search.vectors import Mask, VectorIndex, Vectors

Range = tuple[int, int]
Documents = NDArray[np.int32]

NONE: Final = -1
_MANY: Final = -2
_SAMPLE_ROWS: Final = 512

_CENTRED_FRAC: Final = 0.5
"""How much of what all documents have in common counts for nothing: some texts are near to every
question, and would crowd out the one that answers it."""
_APART_ROWS: Final = 32
_USUAL_APART: Final = 0.15
"""One less the cosine that nine of ten others have with a text at least, in conversations of a
language that the model knows; of Chinese ones under a model of English it is 0.07."""

_TWINS_COMPARED: Final = 2
"""For what says the same so few are compared for each: it stands far above all others."""


class EmbeddedDocuments:
    """Vectors by document. Documents are numbers; not all of them have vectors."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._vectors: VectorIndex | None = None
        self._documents = Column(np.int32)
        self._starts = Column(np.int32)
        self._ends = Column(np.int32)
        self._row = Column(np.int32)
        """By document its only row, `NONE` or `_MANY`."""
        self._rows: dict[int, list[int]] = {}
        self._sample: tuple[int, Vectors] | None = None
        self._apart: tuple[int, float] | None = None

    def __len__(self) -> int:
        """Return the number of vectors."""
        return len(self._documents)

    @property
    def compressed(self) -> bool:
        """Whether there are so many that not all are compared with each question."""
        return self._vectors is not None and self._vectors.compressed

    @property
    def nbytes(self) -> int:
        """Memory in use."""
        columns = (self._documents, self._starts, self._ends, self._row)
        held = 0 if self._vectors is None else self._vectors.nbytes
        return held + sum(column.nbytes for column in columns)

    def add(self, document: int, ranges: Sequence[Range], vectors: Vectors) -> None:
        """Add vectors (n, dim) of a document, one for each range of its characters."""
        if self._vectors is None:
            self._vectors = VectorIndex(vectors.shape[1], folder=self._folder)
        first = self._vectors.add(vectors)
        for start, end in ranges:
            self._documents.append(document)
            self._starts.append(start)
            self._ends.append(end)
        self._reach(document)
        self._place(document, list(range(first, first + len(vectors))))

    def add_many(
        self, documents: Documents, starts: Documents, ends: Documents, vectors: Vectors
    ) -> None:
        """Add vectors (n, dim), each of characters of a document."""
        if not len(documents):
            return
        if self._vectors is None:
            self._vectors = VectorIndex(vectors.shape[1], folder=self._folder)
        first = self._vectors.add(vectors)
        self._documents.extend(documents)
        self._starts.extend(starts)
        self._ends.extend(ends)
        self._reach(int(documents.max()))
        order = np.argsort(documents, kind="stable")
        every, begins, counts = np.unique(documents[order], return_index=True, return_counts=True)
        alone = (counts == 1) & (self._row.values[every] == NONE)
        self._row.values[every[alone]] = first + order[begins[alone]]
        for document, begin, count in zip(
            every[~alone].tolist(), begins[~alone].tolist(), counts[~alone].tolist(), strict=True
        ):
            self._place(document, (first + order[begin : begin + count]).tolist())

    def _reach(self, document: int) -> None:
        missing = document + 1 - len(self._row)
        if missing > 0:
            self._row.extend(np.full(missing, NONE, dtype=np.int32))

    def _place(self, document: int, rows: list[int]) -> None:
        """Note where new vectors of a document stand."""
        held = self._row.values[document]
        if held == NONE and len(rows) == 1:
            self._row.values[document] = rows[0]
        else:
            before = self._rows.get(document, [] if held == NONE else [int(held)])
            self._rows[document] = before + rows
            self._row.values[document] = _MANY

    def centred(self, query: Vectors) -> Vectors:
        """Return a question (dim,) that asks less for what all documents have in common.

        A text that is near to all others is found less; of few it isn't known what they share.
        """
        if self._vectors is None:
            return query
        share = _CENTRED_FRAC * len(self) / (len(self) + LIKE_OTHERS)
        centred = query - np.float32(share) * self._vectors.mean
        length = max(float(np.linalg.norm(centred)), 1e-6)
        return (centred / length).astype(np.float32, copy=False)

    def apartness(self, vectors: Vectors) -> Scores:
        """Return how far apart from most documents some vectors (n, dim) are: (n,), 1 for usual."""
        if self._vectors is None:
            return np.ones(len(vectors), dtype=np.float32)
        others = _some(self._vectors)
        cosines = np.vecdot(vectors[:, np.newaxis], others[np.newaxis])
        # Not the mean: many copies of one text would be close to "all".
        far = np.partition(cosines, len(others) // 10, axis=1)[:, len(others) // 10]
        share: Scores = np.clip((1 - far) / _USUAL_APART, 0, 1).astype(np.float32)
        return share

    @property
    def apart(self) -> float:
        """How far apart the documents are from each other: 1 for usual, or if there are few.

        So much do their cosines with a question tell: where a model puts all texts close
        together, as one of English does with Chinese, what is left between them is mostly chance.
        """
        if self._vectors is None:
            return 1.0
        if self._apart is None or self._apart[0] * 2 < len(self):
            found = float(self.apartness(_some(self._vectors)).mean())
            mixed = (len(self) * found + LIKE_OTHERS) / (len(self) + LIKE_OTHERS)
            self._apart = (len(self), mixed)
        return self._apart[1]

    def known(self, documents: int) -> Mask:
        """Return which of the documents have vectors: (documents,)."""
        known = np.zeros(documents, dtype=np.bool_)
        row = self._row.values[:documents]
        known[: len(row)] = row != NONE
        return known

    def cosines(self, query: Vectors, documents: int) -> Scores:
        """Return how near every document is to a question: (documents,), NaN without vectors."""
        if self._vectors is None:
            return np.full(documents, np.nan, dtype=np.float32)
        rows = self._vectors.scores(query)
        found = np.full(documents, np.nan, dtype=np.float32)
        row = self._row.values[:documents]
        single = np.flatnonzero(row >= 0)
        found[single] = rows[row[single]]
        for document, many in self._rows.items():
            found[document] = _of_many(rows[many])
        return found

    def cosines_of(self, query: Vectors, documents: Documents) -> Scores:
        """Return how near some documents are: (n,), NaN where one has no vectors or is `NONE`."""
        found = np.full(len(documents), np.nan, dtype=np.float32)
        if self._vectors is None:
            return found
        row = self._rows_of(documents)
        single = np.flatnonzero(row >= 0)
        found[single] = self._vectors.compare(query, row[single])
        for place in np.flatnonzero(row == _MANY):
            many = np.asarray(self._rows[int(documents[place])])
            found[place] = _of_many(self._vectors.compare(query, many))
        return found

    def nearest(self, query: Vectors, allowed: Mask | None, limit: int) -> Documents:
        """Return the documents with the nearest chunks, without order."""
        if self._vectors is None:
            return np.empty(0, dtype=np.int32)
        documents = self._documents.values
        rows = None if allowed is None else allowed[documents]
        found, _ = self._vectors.top(query, limit, rows)
        return np.unique(documents[found]).astype(np.int32)

    def within(self, query: Vectors, at_least: float, limit: int) -> list[tuple[int, float, Range]]:
        """Return the chunks whose cosine is `at_least` that, nearest first, with their document."""
        if self._vectors is None:
            return []
        rows, cosines = self._vectors.top(query, limit, compared=_TWINS_COMPARED * limit)
        return [
            (int(self._documents.values[row]), float(cosine), self._range(int(row)))
            for row, cosine in zip(rows, cosines, strict=True)
            if cosine >= at_least
        ]

    def usual(self, query: Vectors) -> Usual:
        """Return what is usual among the cosines with a question, by a sample if they are many."""
        if self._vectors is None:
            return Usual(0.0, USUAL_COSINES)
        if not self._vectors.compressed:
            return usual(self._vectors.scores(query), USUAL_COSINES)
        if self._sample is None or self._sample[0] * 2 < len(self):
            # The same rows at the same size, so that pages of one result agree.
            chosen = np.random.default_rng(0).choice(len(self), _SAMPLE_ROWS, replace=False)
            self._sample = (len(self), self._vectors.vectors(np.sort(chosen)))
        return usual(np.vecdot(self._sample[1], query), USUAL_COSINES)

    def vectors_of(self, documents: Documents) -> tuple[NDArray[np.intp], Vectors]:
        """Return which of some documents have one chunk alone, as places, and its vectors."""
        row = self._rows_of(documents)
        places = np.flatnonzero(row >= 0)
        if self._vectors is None or not len(places):
            return np.empty(0, dtype=np.intp), np.empty((0, 1), dtype=np.float32)
        return places, self._vectors.vectors(row[places])

    def best_range(self, document: int, query: Vectors) -> tuple[Range, float] | None:
        """Return the characters of a document's nearest chunk, and its cosine; None without any."""
        if self._vectors is None or document >= len(self._row):
            return None
        row = int(self._row.values[document])
        if row == NONE:
            return None
        rows = np.asarray(self._rows[document] if row == _MANY else [row])
        cosines = self._vectors.compare(query, rows)
        best = int(np.argmax(cosines))
        return self._range(int(rows[best])), float(cosines[best])

    def _rows_of(self, documents: Documents) -> Documents:
        """Return by document its only row, `NONE` or `_MANY`."""
        rows = np.full(len(documents), NONE, dtype=np.int32)
        known = (documents >= 0) & (documents < len(self._row))
        rows[known] = self._row.values[documents[known]]
        return rows

    def _range(self, row: int) -> Range:
        return int(self._starts.values[row]), int(self._ends.values[row])


def _some(held: VectorIndex) -> Vectors:
    """Return a few vectors from all over (n, dim)."""
    rows = np.unique(np.linspace(0, len(held) - 1, _APART_ROWS).astype(np.intp))
    return held.vectors(rows)


def _of_many(cosines: Scores) -> float:
    return float(cosines.max() + cosines.mean()) / 2
