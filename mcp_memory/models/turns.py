"""Waiting for a turn, in the order of arrival."""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """Room for so many at once; whoever has waited longest is next.

    A semaphore lets the thread in again that has just left, before another has woken:
    beside a load of many texts an insert then waits for seconds.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        """Wait for a place."""
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def __exit__(self, *_: object) -> None:
        """Leave it to whoever is next."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1
