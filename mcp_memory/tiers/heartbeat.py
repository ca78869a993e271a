"""A timer for maintenance that can wait, started by commits.

Without a commit there is no beat: an unused database costs no processor time.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from mcp_memory.tiers.engine import Engine
from mcp_memory.tiers.maintenance import maintain
from mcp_memory.values.errors import MemoryFault

logger = logging.getLogger(__name__)

QUIET_SECONDS: Final = 30.0
"""The database is idle after this long without a call, or after one interval if that is
shorter; by judgement."""

_CLOSE_SECONDS: Final = 10.0
"""How long `close` waits for a running beat; by judgement."""


class Heart:
    """Beats once, an interval after a commit, and again if there was another commit.

    Args:
        seconds: The interval; 0 for a heart that never beats.
        write_events: Called at each beat, before maintenance; returns whether it has
            postponed something.
    """

    def __init__(
        self, engine: Engine, seconds: float, write_events: Callable[[], bool | None] = lambda: None
    ) -> None:
        self.beats = 0
        self._engine = engine
        self._seconds = seconds
        self._write_events = write_events
        self._stop = threading.Event()
        self._news = threading.Event()
        # What was committed before the start needs one beat too.
        self._news.set()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to beat."""
        if self._seconds and self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="mcp-memory-heartbeat", daemon=True
            )
            self._engine.store.on_commit = self._stir
            self._thread.start()

    def close(self) -> None:
        """Stop, after a running beat has finished."""
        self._stop.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(timeout=_CLOSE_SECONDS)

    def _stir(self) -> None:
        # What a beat itself writes is no reason for another beat.
        if threading.current_thread() is not self._thread:
            self._news.set()

    def _run(self) -> None:
        while True:
            self._news.wait()
            if self._stop.wait(self._seconds):
                return
            self._news.clear()
            if self._beat():
                self._news.set()

    def _beat(self) -> bool:
        """Do one beat; return whether something was postponed."""
        idle_seconds = time.monotonic() - self._engine.used_at
        quiet = idle_seconds >= min(QUIET_SECONDS, self._seconds)
        put_off = False
        self._engine.wake()
        with _logged():
            put_off = bool(self._write_events())
        with _logged():
            put_off = maintain(self._engine, quiet=quiet) or put_off
        self.beats += 1
        return put_off


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """Log any error and go on: the next commit causes another beat."""
    try:
        yield
    except MemoryFault as fault:
        # Every call reports it to its client.
        logger.warning("%s", fault)
    except Exception:
        logger.exception("a heartbeat has failed")
