"""Where documents stand in each signal: by words, by meaning, by what surrounds them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search import signals
from mcp_memory.search.embedded import EmbeddedDocuments
from mcp_memory.search.lexical import K1, Weighed
from mcp_memory.search.neighbours import NONE, Neighbours
from mcp_memory.search.passages import Asked
from mcp_memory.search.signals import Scores, Usual
from mcp_memory.search.vectors import Vectors

Documents = NDArray[np.int32]

_AROUND: Final = 2


def stand_by_words(weighed: Weighed, asked: Asked, documents: Documents) -> dict[str, Scores]:
    """Return by signal where some documents stand among all by a question's words."""
    spread = signals.USUAL_WORDS_FRAC * sum(asked.idf.values()) * (K1 + 1)
    named = {
        signals.WORDS: weighed.alone,
        signals.WORDS_NEAR: weighed.three,
        signals.WORDS_AROUND: weighed.five,
    }
    return {
        name: signals.usual(scores, spread).standing(scores[documents])
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

    def nearest(self, vector: Vectors, limit: int) -> list[Documents]:
        """Return the documents in the middle of the nearest windows, without order."""
        found = []
        for steps, window in enumerate(self._windows, 1):
            ends = window.nearest(vector, None, limit)
            middles = self._neighbours.before(ends, steps)
            found.append(np.where(middles == NONE, ends, middles))
        return found

    def stand(self, vector: Vectors, documents: Documents, total: int) -> dict[str, Scores]:
        """Return by signal where documents stand by what is around them, NaN where nothing is.

        Args:
            vector: The question's.
            documents: Which (n,).
            total: How many there are in all.
        """
        if not self._neighbours.any:
            return {}
        standings = {}
        named = (signals.MEANING_NEAR, signals.MEANING_AROUND)
        for steps, (name, window) in enumerate(zip(named, self._windows, strict=True), 1):
            usual = window.usual(vector)
            standing = stand_by_meaning(window, vector, documents, usual, total)
            # The nearer the document is to the middle the better.
            for after in range(1, steps + 1):
                ends = self._neighbours.after(documents, after)
                better = stand_by_meaning(window, vector, ends, usual, total)
                standing = np.where(np.isnan(better), standing, better)
            standings[name] = standing
        return standings


def stand_by_meaning(
    vectors: EmbeddedDocuments, query: Vectors, documents: Documents, usual: Usual, total: int
) -> Scores:
    """Return where documents stand by their cosines (n,), NaN without vectors or for `NONE`."""
    if vectors.compressed:
        return usual.standing(vectors.cosines_of(query, documents))
    every = usual.standing(vectors.cosines(query, total))
    return np.where(documents == NONE, np.float32(np.nan), every[documents])
