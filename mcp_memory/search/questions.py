"""The vectors of questions; those asked last are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.turns import Turns

Vector = NDArray[np.float32]

_KEPT: Final = 256
_AT_ONCE: Final = 4


class Questions:
    """Embeds questions, some at once.

    Args:
        embed: Gives a question's vector (dim,), None while there is no model.
    """

    def __init__(self, embed: Callable[[str], Vector | None]) -> None:
        self._embed = embed
        self._turns = Turns(_AT_ONCE)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Vector] = OrderedDict()

    def vector(self, text: str) -> Vector | None:
        """Return the vector of a question (dim,), None while there is no model."""
        with self._lock:
            held = self._kept.get(text)
            if held is not None:
                self._kept.move_to_end(text)
                return held
        with self._turns:
            vector = self._embed(text)
        if vector is not None:
            with self._lock:
                self._kept[text] = vector
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return vector
