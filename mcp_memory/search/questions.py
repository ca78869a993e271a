"""The vectors of questions, computed beside whoever asks; those asked last are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

_KEPT: Final = 256
_AT_ONCE: Final = 4


class Questions:
    """Embeds questions in threads of its own.

    Args:
        embed: Gives a question's vector (dim,), None while there is no model.
    """

    def __init__(self, embed: Callable[[str], Vector | None]) -> None:
        self._embed = embed
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="question")
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Vector] = OrderedDict()

    def ask(self, text: str) -> Future[Vector | None]:
        """Begin to embed a question, and return what will have its vector (dim,).

        It has None while there is no model.
        """
        return self._pool.submit(self._vector, text)

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _vector(self, text: str) -> Vector | None:
        with self._lock:
            held = self._kept.get(text)
            if held is not None:
                self._kept.move_to_end(text)
                return held
        vector = self._embed(text)
        if vector is not None:
            with self._lock:
                self._kept[text] = vector
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return vector
