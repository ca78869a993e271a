"""Vectors of texts, computed once and cached in a file between runs.

The file belongs to one model; texts are known by their sha256.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.models.embedding import Embedder

Vectors = NDArray[np.float32]

_AT_ONCE: Final = 64
_SAVE_EVERY: Final = 4_000
_QUERY: Final = "question\0"


class VectorCache:
    """The vectors of passages and of questions.

    Args:
        embedder: Computes what is missing.
        path: The file; None to cache them in memory only.
    """

    def __init__(self, embedder: Embedder, path: Path | None) -> None:
        self.embedder = embedder
        self._path = path
        self._vectors: dict[str, Vectors] = {}
        self._unsaved = 0
        if path is not None and path.exists():
            with np.load(path) as held:
                # Vectors of another model can't be compared with these.
                if str(held["fingerprint"]) == embedder.fingerprint:
                    vectors = held["vectors"]
                    self._vectors = dict(zip(held["keys"].tolist(), vectors, strict=True))

    def __len__(self) -> int:
        """Return how many vectors are held."""
        return len(self._vectors)

    def fill(self, passages: Iterable[str], on_done: Callable[[int], None] | None = None) -> None:
        """Compute the vectors that are missing.

        Args:
            passages: Texts to be found, as they are embedded.
            on_done: Called with how many were computed since the last call.
        """
        missing = [text for text in dict.fromkeys(passages) if _key(text) not in self._vectors]
        # Texts of like length are embedded together.
        missing.sort(key=len)
        for start in range(0, len(missing), _AT_ONCE):
            part = missing[start : start + _AT_ONCE]
            for text, vector in zip(part, self.embedder.embed_passages(part), strict=True):
                self._keep(_key(text), vector)
            if on_done is not None:
                on_done(len(part))

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of texts (n, dim)."""
        self.fill(texts)
        return np.stack([self._vectors[_key(text)] for text in texts])

    @cached_property
    def _way(self) -> str:
        """What changes with how a question's vector is made of the model's."""
        vector = self.embedder.embed_query("Which one was it?")
        return hashlib.sha256(np.round(vector, 3).tobytes()).hexdigest()

    def query(self, text: str) -> Vectors:
        """Return the vector of a question (dim,)."""
        key = _key(f"{_QUERY}{self._way} {text}")
        if key not in self._vectors:
            self._keep(key, self.embedder.embed_query(text))
        return self._vectors[key]

    def save(self) -> None:
        """Write what is new to the file, if there is one."""
        if self._path is None or not self._unsaved:
            return
        # Beside it first: a run that is stopped leaves the old file whole.
        new = self._path.with_suffix(".new.npz")
        np.savez(
            new,
            fingerprint=self.embedder.fingerprint,
            keys=list(self._vectors),
            vectors=np.stack(list(self._vectors.values())),
        )
        os.replace(new, self._path)
        self._unsaved = 0

    def _keep(self, key: str, vector: Vectors) -> None:
        self._vectors[key] = vector
        self._unsaved += 1
        if self._unsaved >= _SAVE_EVERY:
            self.save()


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
