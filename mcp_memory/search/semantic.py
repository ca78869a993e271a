"""Find documents by their meaning: the vectors of their chunks, and of the texts around them.

A document with several chunks is as near to a query as the mean of its nearest chunk and
of all its chunks. The nearest alone would favour long documents, which have many chances
to have a chunk that is near by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search import fusion
from mcp_memory.search.arrays import NONE, Column, Mask, Range, Rows, Scores, Vectors
from mcp_memory.search.fusion import ASSUMED_DOCUMENTS, Usual
from mcp_memory.search.neighbours import Neighbours
from mcp_memory.search.vectors import VectorIndex

Standing = Callable[[Rows], Scores]
"""Gives a signal of some documents (n,), NaN for `NONE` and for documents without vectors."""

_MANY: Final = -2
"""Stands for several rows where a document usually has one."""

_SAMPLE_ROWS: Final = 512
"""Vectors that stand for all of a compressed index: their mean and spread are within a few percent;
by judgement."""

_CENTRED_FRAC: Final = 0.5
"""How much of the mean vector of all documents a query loses. Some texts are near to every query
and would crowd out the one that answers it; docs/design.md, "What all documents have in common"."""

_APART_ROWS: Final = 32
"""Vectors that the distance between documents is measured by; by judgement."""

_USUAL_APART: Final = 0.15
"""The usual distance of a text to others: 1 less the cosine that nine of ten others reach. It was
measured on conversations in a language that the model knows; Chinese ones under an English model
have 0.07 (docs/design.md, "Meaning counts by how far apart")."""

_COMPARED_EACH: Final = 2
"""How many chunks to compare for each near-duplicate that is wanted. Few, because a near-duplicate
stands far above all other texts; by judgement."""


class DocumentVectors:
    """The vectors of documents, which are numbers; not all of them have vectors."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._vectors: VectorIndex | None = None
        self._documents = Column(np.int32)
        self._starts = Column(np.int32)
        self._ends = Column(np.int32)
        self._row = Column(np.int32)
        """By document: its only row, `NONE` or `_MANY`."""
        self._rows: dict[int, list[int]] = {}
        self._sample: tuple[int, Vectors] | None = None
        self._apart: tuple[int, float] | None = None

    def __len__(self) -> int:
        """Return the number of vectors."""
        return len(self._documents)

    @property
    def compressed(self) -> bool:
        """Whether there are too many to compare all with each query."""
        return self._vectors is not None and self._vectors.compressed

    @property
    def nbytes(self) -> int:
        """Memory in use."""
        columns = (self._documents, self._starts, self._ends, self._row)
        vectors = 0 if self._vectors is None else self._vectors.nbytes
        return vectors + sum(column.nbytes for column in columns)

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

    def add_many(self, documents: Rows, starts: Rows, ends: Rows, vectors: Vectors) -> None:
        """Add vectors (n, dim), each with its document and range of characters (n,)."""
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
        """Record the rows of a document's new vectors."""
        row = self._row.values[document]
        if row == NONE and len(rows) == 1:
            self._row.values[document] = rows[0]
        else:
            before = self._rows.get(document, [] if row == NONE else [int(row)])
            self._rows[document] = before + rows
            self._row.values[document] = _MANY

    def centred(self, query: Vectors) -> Vectors:
        """Return a query (dim,) without part of what all documents have in common.

        The fewer documents, the smaller the part, since it isn't known what few have in common.
        """
        if self._vectors is None:
            return query
        share = _CENTRED_FRAC * len(self) / (len(self) + ASSUMED_DOCUMENTS)
        centred = query - np.float32(share) * self._vectors.mean
        length = max(float(np.linalg.norm(centred)), 1e-6)
        return (centred / length).astype(np.float32, copy=False)

    def apartness(self, vectors: Vectors) -> Scores:
        """Return how far vectors (n, dim) are from most documents: (n,), 1 if as far as usual."""
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
        """How far the documents are from each other: 1 if as far as usual, or if they are few.

        It is what their cosines with a query count. If a model puts all texts close together,
        as an English one does with Chinese, the small differences are mostly chance.
        """
        if self._vectors is None:
            return 1.0
        if self._apart is None or self._apart[0] * 2 < len(self):
            found = float(self.apartness(_some(self._vectors)).mean())
            mixed = (len(self) * found + ASSUMED_DOCUMENTS) / (len(self) + ASSUMED_DOCUMENTS)
            self._apart = (len(self), mixed)
        return self._apart[1]

    def known(self, documents: int) -> Mask:
        """Return which documents have vectors: (documents,)."""
        known = np.zeros(documents, dtype=np.bool_)
        row = self._row.values[:documents]
        known[: len(row)] = row != NONE
        return known

    def cosines(self, query: Vectors, documents: int) -> Scores:
        """Return the cosine of every document with a query: (documents,), NaN without vectors."""
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

    def cosines_of(self, query: Vectors, documents: Rows) -> Scores:
        """Return the cosines of some documents: (n,), NaN for `NONE` and without vectors."""
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

    def nearest(self, query: Vectors, allowed: Mask | None, limit: int) -> Rows:
        """Return the documents with the nearest chunks, not in order of nearness."""
        if self._vectors is None:
            return np.empty(0, dtype=np.int32)
        documents = self._documents.values
        rows = None if allowed is None else allowed[documents]
        found, _ = self._vectors.top(query, limit, rows)
        return np.unique(documents[found]).astype(np.int32)

    def within(self, query: Vectors, at_least: float, limit: int) -> list[tuple[int, float, Range]]:
        """Return the chunks with at least this cosine, nearest first: document, cosine, range."""
        if self._vectors is None:
            return []
        rows, cosines = self._vectors.top(query, limit, compared=_COMPARED_EACH * limit)
        return [
            (int(self._documents.values[row]), float(cosine), self._range(int(row)))
            for row, cosine in zip(rows, cosines, strict=True)
            if cosine >= at_least
        ]

    def usual(self, query: Vectors) -> Usual:
        """Return the mean and spread of all cosines with a query, by a sample if there are many."""
        if self._vectors is None:
            return Usual(0.0, fusion.USUAL_COSINE_SPREAD)
        if not self._vectors.compressed:
            return fusion.usual(self._vectors.scores(query), fusion.USUAL_COSINE_SPREAD)
        if self._sample is None or self._sample[0] * 2 < len(self):
            # The same sample for the same size, so that the pages of one result agree.
            chosen = np.random.default_rng(0).choice(len(self), _SAMPLE_ROWS, replace=False)
            self._sample = (len(self), self._vectors.vectors(np.sort(chosen)))
        return fusion.usual(np.vecdot(self._sample[1], query), fusion.USUAL_COSINE_SPREAD)

    def vectors_of(self, documents: Rows) -> tuple[NDArray[np.intp], Vectors]:
        """Return the places of documents with a single chunk, and the vectors of these."""
        row = self._rows_of(documents)
        places = np.flatnonzero(row >= 0)
        if self._vectors is None or not len(places):
            return np.empty(0, dtype=np.intp), np.empty((0, 1), dtype=np.float32)
        return places, self._vectors.vectors(row[places])

    def best_range(self, document: int, query: Vectors) -> tuple[Range, float] | None:
        """Return the range of a document's nearest chunk and its cosine; None without vectors."""
        if self._vectors is None or document >= len(self._row):
            return None
        row = int(self._row.values[document])
        if row == NONE:
            return None
        rows = np.asarray(self._rows[document] if row == _MANY else [row])
        cosines = self._vectors.compare(query, rows)
        best = int(np.argmax(cosines))
        return self._range(int(rows[best])), float(cosines[best])

    def _rows_of(self, documents: Rows) -> Rows:
        """Return the only row of each document, `NONE` or `_MANY`."""
        rows = np.full(len(documents), NONE, dtype=np.int32)
        known = (documents >= 0) & (documents < len(self._row))
        rows[known] = self._row.values[documents[known]]
        return rows

    def _range(self, row: int) -> Range:
        return int(self._starts.values[row]), int(self._ends.values[row])


def _some(vectors: VectorIndex) -> Vectors:
    """Return a few vectors from all parts of an index (n, dim)."""
    rows = np.unique(np.linspace(0, len(vectors) - 1, _APART_ROWS).astype(np.intp))
    return vectors.vectors(rows)


def _of_many(cosines: Scores) -> float:
    return float(cosines.max() + cosines.mean()) / 2


class WindowVectors:
    """Vectors of windows: documents together with the ones before them.

    A window is embedded when its last document is added. It stands for that document until
    others follow, and then for the document in its middle.
    """

    def __init__(self, neighbours: Neighbours, folder: Path | None = None) -> None:
        self._neighbours = neighbours
        self._windows = (DocumentVectors(folder), DocumentVectors(folder))

    @property
    def nbytes(self) -> int:
        """Memory in use."""
        return sum(window.nbytes for window in self._windows)

    def add(self, document: int, vectors: Vectors) -> None:
        """Add the vectors of a document with the two before it, and with the four before it."""
        for window, vector in zip(self._windows, vectors, strict=True):
            window.add(document, [(0, 0)], vector[np.newaxis])

    def add_many(self, documents: Rows, sizes: Rows, vectors: Vectors) -> None:
        """Add vectors (n, dim) by last document; `sizes` (n,) has 0 for windows of three."""
        for size, window in enumerate(self._windows):
            chosen = documents[sizes == size]
            nowhere = np.zeros(len(chosen), dtype=np.int32)
            window.add_many(chosen, nowhere, nowhere, vectors[sizes == size])

    def nearest(self, vector: Vectors, limit: int) -> list[Rows]:
        """Return the documents in the middle of the nearest windows, not in order."""
        found = []
        for steps, window in enumerate(self._windows, 1):
            ends = window.nearest(window.centred(vector), None, limit)
            middles = self._neighbours.before(ends, steps)
            found.append(np.where(middles == NONE, ends, middles))
        return found

    def stand(
        self, query: Vectors, documents: Rows, total: int, own: Standing
    ) -> dict[str, Scores]:
        """Return the signals of what is around documents, NaN where nothing is known.

        A window without a vector yet counts as the mean of its documents.

        Args:
            query: Its vector (dim,).
            documents: Which (n,).
            total: How many documents there are.
            own: Gives the signal of documents by their own meaning.
        """
        if not self._neighbours.any:
            return {}
        standings = {}
        names = (fusion.MEANING_NEAR, fusion.MEANING_AROUND)
        for steps, (name, window) in enumerate(zip(names, self._windows, strict=True), 1):
            around = standing_by_meaning(window, query, total)
            standing = around(documents)
            # A window is better the nearer the document is to its middle.
            for after in range(1, steps + 1):
                better = around(self._neighbours.after(documents, after))
                standing = np.where(np.isnan(better), standing, better)
            missing = np.isnan(standing)
            if missing.any():
                standing[missing] = self._mean(documents[missing], steps, own)
            standings[name] = standing
        return standings

    def _mean(self, documents: Rows, steps: int, own: Standing) -> Scores:
        """Return the mean signal of documents and up to `steps` on each side (n,)."""
        sums = np.zeros(len(documents), dtype=np.float32)
        counts = np.zeros(len(documents), dtype=np.float32)
        neighbours = self._neighbours
        for places in (
            documents,
            *(neighbours.before(documents, step) for step in range(1, steps + 1)),
            *(neighbours.after(documents, step) for step in range(1, steps + 1)),
        ):
            standing = own(places)
            known = ~np.isnan(standing)
            sums[known] += standing[known]
            counts += known
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.float32(np.nan))


def standing_by_meaning(vectors: DocumentVectors, query: Vectors, total: int) -> Standing:
    """Return a function that gives the meaning signal of documents: their cosines with a query.

    The less the model distinguishes the documents, the nearer all of them are to the mean.

    Args:
        vectors: The vectors of the documents.
        query: Its vector (dim,).
        total: How many documents there are.
    """
    query = vectors.centred(query)
    usual = vectors.usual(query)
    apart = np.float32(vectors.apart)
    if vectors.compressed:
        return lambda documents: apart * usual.standing(vectors.cosines_of(query, documents))
    every = apart * usual.standing(vectors.cosines(query, total))
    return lambda documents: np.where(documents == NONE, np.float32(np.nan), every[documents])
