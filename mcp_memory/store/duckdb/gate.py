"""A gate that many pass at once, and that can be shut while one works behind it."""

from __future__ import annotations

import threading


class Gate:
    """Counts who is inside; whoever shuts it waits for them and keeps others out."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._shut = False

    def enter(self) -> None:
        """Go in, as soon as the gate is open."""
        with self._changed:
            while self._shut:
                self._changed.wait()
            self._inside += 1

    def leave(self) -> None:
        """Go out again."""
        with self._changed:
            self._inside -= 1
            if self._shut:
                self._changed.notify_all()

    def shut(self, seconds: float) -> bool:
        """Keep others out and wait until nobody is inside; return whether that came about.

        If not, the gate is open again. Whoever is inside must not call it.
        """
        with self._changed:
            self._shut = True
            if not self._changed.wait_for(lambda: not self._inside, seconds):
                self._open()
        return self._shut

    def open(self) -> None:
        """Let those in who wait."""
        with self._changed:
            self._open()

    def _open(self) -> None:
        self._shut = False
        self._changed.notify_all()
