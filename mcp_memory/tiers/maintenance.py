"""What a database needs from time to time: less log, a smaller file, less memory, no old events.

Deciding is apart from doing, and pure. Nothing here is urgent: what would be
in somebody's way is put off.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from mcp_memory.store.duckdb.compaction import compact
from mcp_memory.store.duckdb.files import size_bytes
from mcp_memory.store.duckdb.space import Space, space
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.dates import now
from mcp_memory.values.errors import StorageFault

logger = logging.getLogger(__name__)

BIG_LOG_BYTES: Final = 8 * 1024 * 1024
"""From here on the log is written back though somebody is at work: at twice the size the driver
does it within a commit."""

RETRY_AFTER: Final = timedelta(days=1)
RETRY_GROWTH: Final = 4 / 3
KEEP_EVENTS: Final = timedelta(days=30)

_FAILED: Final = "compaction_failed"
"""The key of the settings that tells when, and at which size."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A compaction that did not come about."""

    at: datetime
    file_bytes: int


def wants_checkpoint(log_bytes: int, *, quiet: bool) -> bool:
    """Return whether to move the log into the file: others wait for it."""
    return log_bytes > 0 if quiet else log_bytes >= BIG_LOG_BYTES


def wants_compaction(found: Space, failure: Failure | None, moment: datetime) -> bool:
    """Return whether to copy a file without what is dead.

    After a failure that waits until a day has passed or the file has grown by a third.
    """
    return found.is_wasteful and (
        failure is None
        or abs(moment - failure.at) >= RETRY_AFTER
        or found.file_bytes >= failure.file_bytes * RETRY_GROWTH
    )


def give_back_memory() -> bool:
    """Give memory that was freed back to the system, and return whether that can be asked for.

    glibc keeps it for each thread that ever had it: with the model's batches that was
    half of what an owner took.
    """
    if sys.platform != "linux":
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and needs none.
    if trim is not None:
        trim(0)
    return trim is not None


class Maintenance:
    """Does for one database what is due.

    Args:
        stopped: Whether the process is about to end; long work is given up then.
    """

    def __init__(self, engine: Engine, stopped: Callable[[], bool] = lambda: False) -> None:
        self._engine = engine
        self._db = engine.database
        self._stopped = stopped

    def run(self, *, quiet: bool) -> bool:
        """Do what is due, and return whether something was put off because somebody is at work.

        Args:
            quiet: Whether nobody has asked for anything for a while.

        Raises:
            StorageFault: Something could not be done; nothing is lost by it.
        """
        if quiet:
            give_back_memory()
        with self._engine.lock:
            self._engine.events.prune(now() - KEEP_EVENTS)
        if self._db.path == ":memory:":
            return False
        put_off = False
        log_bytes = size_bytes(f"{self._db.path}.wal")
        if wants_checkpoint(log_bytes, quiet=quiet):
            put_off = not self._db.checkpoint(wait=False)
        elif log_bytes:
            put_off = True
        found = space(self._db.read)
        if not wants_compaction(found, self._failure(), now()):
            return put_off
        return put_off or not quiet or not self._compact(found)

    def _compact(self, found: Space) -> bool:
        """Return False if somebody came between."""
        try:
            done = compact(self._db, on_step=self._go_on)
        except StorageFault as fault:
            logger.warning("%s", fault)
            self._remember(Failure(now(), found.file_bytes))
            return True
        if done is not None:
            logger.info(
                "compacted %s from %d to %d bytes",
                self._db.path,
                done.before_bytes,
                done.after_bytes,
            )
        return done is not None

    def _go_on(self, step: str) -> None:
        if self._stopped() and step not in {"closed", "renamed", "reopened"}:
            raise InterruptedError("the process is about to end")

    def _failure(self) -> Failure | None:
        rows = self._db.read("SELECT value FROM settings WHERE key = $1", _FAILED)
        if not rows:
            return None
        at, file_bytes = str(rows[0][0]).split()
        return Failure(datetime.fromisoformat(at), int(file_bytes))

    def _remember(self, failure: Failure) -> None:
        try:
            with self._db.transaction() as tx:
                tx.run(
                    "INSERT INTO settings VALUES ($1, $2)"
                    " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    _FAILED,
                    f"{failure.at.isoformat()} {failure.file_bytes}",
                )
        except StorageFault as fault:
            logger.warning("%s", fault)
