"""Maintenance of a store: shorten the log, prune old events, free memory.

Nothing here is urgent: work that would delay a client is postponed.
"""

from __future__ import annotations

import ctypes
import sys
from datetime import timedelta
from typing import Final

from mcp_memory.tiers.engine import Engine

KEEP_EVENTS: Final = timedelta(days=30)
"""Older events are pruned, except an agent's newest; by judgement."""


def give_back_memory() -> bool:
    """Return freed memory to the system; return whether the system can do that.

    glibc keeps freed memory for each thread that used it: with the model's batches that was
    half of an owner's memory.
    """
    if sys.platform != "linux":
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl needs none.
    if trim is not None:
        trim(0)
    return trim is not None


def maintain(engine: Engine, *, quiet: bool) -> bool:
    """Do what is due for one store, and return whether something was postponed.

    Args:
        quiet: Whether no client has called for a while.

    Raises:
        StorageFault: Something failed; no data is lost.
    """
    if quiet:
        give_back_memory()
    with engine.lock:
        engine.events.prune(engine.clock() - KEEP_EVENTS)
    return engine.store.maintain(quiet=quiet)
