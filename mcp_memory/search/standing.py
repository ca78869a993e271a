"""Where documents stand in each signal: by words, by meaning, by what surrounds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search import signals
from mcp_memory.search.embedded import EmbeddedDocuments
from mcp_memory.search.lexical import K1, Weighed
from mcp_memory.search.neighbours import NONE, Neighbours
from mcp_memory.search.passages import Asked
from mcp_memory.search.signals import Scores
from mcp_memory.search.vectors import Vectors

Documents = NDArray[np.int32]

Standing = Callable[[Documents], Scores]
"""Gives where documents stand (n,), NaN for `NONE` and for those that have no such signal."""


def stand_by_words(weighed: Weighed, asked: Asked, documents: Documents) -> dict[str, Scores]:
    """Return by signal where some documents stand among all by a question's words.

    Where most of the words occur nowhere, as in a question that is worded otherwise, the few
    that do tell little: one of them alone doesn't stand out. Names tell much in any company.
    """
    known = sum(asked.idf.values()) * (K1 + 1)
    spread = signals.USUAL_WORDS_FRAC * known
    least = signals.LEAST_WORDS_FRAC * (known + asked.missing * (K1 + 1))
    factor = 1.0
    if asked.naming:
        least, factor = 0.0, signals.NAMING
    named = {
        signals.WORDS: weighed.alone,
        signals.WORDS_NEAR: weighed.three,
        signals.WORDS_AROUND: weighed.five,
    }
    return {
        name: factor * signals.usual(scores, spread, least).standing(scores[documents])
        for name, scores in named.items()
        if scores is not None
    }


class Windows:
    """Vectors of documents together with those before them.

    A window is embedded with its last document, when there is nothing after it
    yet, and stands for the one in its middle as soon as there is.
    """

    def __init__(self, neighbours: Neighbours, folder: Path | None = None) -> None:
        self._neighbours = neighbours
        self._windows = (EmbeddedDocuments(folder), EmbeddedDocuments(folder))

    @property
    def nbytes(self) -> int:
        """Memory in use."""
        return sum(window.nbytes for window in self._windows)

    def add(self, document: int, vectors: Vectors) -> None:
        """Add the vectors of a document with the two before it, and with the four (2, dim)."""
        for window, vector in zip(self._windows, vectors, strict=True):
            window.add(document, [(0, 0)], vector[np.newaxis])

    def add_many(self, documents: Documents, sizes: Documents, vectors: Vectors) -> None:
        """Add vectors (n, dim) of documents, of the smaller window where `sizes` (n,) has 0."""
        for size, window in enumerate(self._windows):
            chosen = documents[sizes == size]
            nowhere = np.zeros(len(chosen), dtype=np.int32)
            window.add_many(chosen, nowhere, nowhere, vectors[sizes == size])

    def nearest(self, vector: Vectors, limit: int) -> list[Documents]:
        """Return the documents in the middle of the nearest windows, without order."""
        found = []
        for steps, window in enumerate(self._windows, 1):
            ends = window.nearest(window.centred(vector), None, limit)
            middles = self._neighbours.before(ends, steps)
            found.append(np.where(middles == NONE, ends, middles))
        return found

    def stand(
        self, vector: Vectors, documents: Documents, total: int, own: Standing
    ) -> dict[str, Scores]:
        """Return by signal where documents stand by what is around them, NaN where nothing is.

        Where there is no window yet, it is the mean of those that it would have.

        Args:
            vector: The question's.
            documents: Which (n,).
            total: How many there are in all.
            own: Where documents stand by themselves.
        """
        if not self._neighbours.any:
            return {}
        standings = {}
        named = (signals.MEANING_NEAR, signals.MEANING_AROUND)
        for steps, (name, window) in enumerate(zip(named, self._windows, strict=True), 1):
            around = standing_by_meaning(window, vector, total)
            standing = around(documents)
            # The nearer the document is to the middle the better.
            for after in range(1, steps + 1):
                better = around(self._neighbours.after(documents, after))
                standing = np.where(np.isnan(better), standing, better)
            missing = np.isnan(standing)
            if missing.any():
                standing[missing] = self._mean(documents[missing], steps, own)
            standings[name] = standing
        return standings

    def _mean(self, documents: Documents, steps: int, own: Standing) -> Scores:
        """Return the mean standing of documents and up to so many on each side (n,)."""
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


def standing_by_meaning(vectors: EmbeddedDocuments, query: Vectors, total: int) -> Standing:
    """Return what tells where documents stand by their cosines with a question.

    The less the model tells the documents apart, the nearer all of them stand to the mean.

    Args:
        vectors: Those of the documents.
        query: The question's (dim,).
        total: How many documents there are.
    """
    query = vectors.centred(query)
    usual = vectors.usual(query)
    apart = np.float32(vectors.apart)
    if vectors.compressed:
        return lambda documents: apart * usual.standing(vectors.cosines_of(query, documents))
    every = apart * usual.standing(vectors.cosines(query, total))
    return lambda documents: np.where(documents == NONE, np.float32(np.nan), every[documents])
