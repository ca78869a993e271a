"""Room in memory for long lines: few at once, of all clients together; the others wait unread.

A line takes a place when it has become long, and keeps it until its message is answered. While
others wait, who has a place for a line that is not worked on yet is told so each second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

PLACES: Final = 2
"""Long lines in memory at once, so that they take no more than two of the longest; by judgement."""


class Holder(Protocol):
    """A stream with long lines."""

    def go_on(self) -> None:
        """Take the place: there is one now."""

    def others_wait(self) -> None:
        """Finish the line, or leave the place."""


class Room:
    """The places of one process.

    Args:
        places: How many there are.
    """

    def __init__(self, places: int = PLACES) -> None:
        self._places = places
        self._waiting: deque[Holder] = deque()
        self._inside: list[Holder] = []
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, holder: Holder) -> None:
        """Ask for a place for a line that arrives; `go_on` is called now or later."""
        self._waiting.append(holder)
        self._admit()

    def leave(self, holder: Holder) -> None:
        """Give a place back."""
        self._inside.remove(holder)
        self._admit()

    def withdraw(self, holder: Holder) -> None:
        """Wait no longer."""
        if holder in self._waiting:
            self._waiting.remove(holder)

    def _admit(self) -> None:
        while self._waiting and len(self._inside) < self._places:
            holder = self._waiting.popleft()
            self._inside.append(holder)
            holder.go_on()
        if self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(1.0, self._look)

    def _look(self) -> None:
        # Once a second, and never twice without having read in between.
        self._timer = None
        if self._waiting:
            for holder in set(self._inside):
                holder.others_wait()
        self._admit()
