"""The vectors of questions; those asked last are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.models.turns import Turns

Vector = NDArray[np.float32]

_KEPT: Final = 256
_AT_ONCE: Final = 4


class Questions:
    """Embeds questions, some at once.

    Args:
        embed: Gives the vector (dim,) of a question and whether it is asked of facts, None
            while there is no model.
    """

    def __init__(self, embed: Callable[[str, bool], Vector | None]) -> None:
        self._embed = embed
        self._turns = Turns(_AT_ONCE)
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, bool], Vector] = OrderedDict()

    def vector(self, text: str, *, of_facts: bool) -> Vector | None:
        """Return the vector of a question (dim,), None while there is no model.

        Args:
            of_facts: Whether it is asked of facts, and not of a conversation.
        """
        key = text, of_facts
        with self._lock:
            held = self._kept.get(key)
            if held is not None:
                self._kept.move_to_end(key)
                return held
        with self._turns:
            vector = self._embed(text, of_facts)
        if vector is not None:
            with self._lock:
                self._kept[key] = vector
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return vector
