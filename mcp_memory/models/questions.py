"""The vectors of questions, with those of the most recent ones cached."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.models.embedding import Turns

Vector = NDArray[np.float32]

_MAX_CACHED: Final = 256
"""0.4 MB with 384 dimensions. By judgement."""

_MAX_AT_ONCE: Final = 4
"""As many as batches of passages. By judgement."""


class Questions:
    """Embeds questions, a few at once, and caches their vectors.

    Args:
        embed: Returns the vector (dim,) of a question, None while no model is loaded. Its
            second argument says whether the question is about facts.
    """

    def __init__(self, embed: Callable[[str, bool], Vector | None]) -> None:
        self._embed = embed
        self._turns = Turns(_MAX_AT_ONCE)
        self._lock = threading.Lock()
        self._cached: OrderedDict[tuple[str, bool], Vector] = OrderedDict()

    def vector(self, text: str, *, of_facts: bool) -> Vector | None:
        """Return the vector of a question (dim,), None while no model is loaded.

        Args:
            of_facts: Whether it is asked of facts, not of a conversation.
        """
        key = text, of_facts
        with self._lock:
            cached = self._cached.get(key)
            if cached is not None:
                self._cached.move_to_end(key)
                return cached
        with self._turns.taken():
            vector = self._embed(text, of_facts)
        if vector is not None:
            with self._lock:
                self._cached[key] = vector
                if len(self._cached) > _MAX_CACHED:
                    self._cached.popitem(last=False)
        return vector
