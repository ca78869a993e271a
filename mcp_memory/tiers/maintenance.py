"""What a store needs from time to time: a shorter log, fewer old events, less memory in use.

Nothing here is urgent: what would be in somebody's way is put off.
"""

from __future__ import annotations

import ctypes
import sys
from datetime import timedelta
from typing import Final

from mcp_memory.tiers.engine import Engine

KEEP_EVENTS: Final = timedelta(days=30)
"""Older events are pruned, but for an agent's newest; by judgement."""


def give_back_memory() -> bool:
    """Give freed memory back to the system, and return whether that can be asked for.

    glibc keeps it for each thread that ever had it: with the model's batches that was
    half of what an owner took.
    """
    if sys.platform != "linux":
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and needs none.
    if trim is not None:
        trim(0)
    return trim is not None


def maintain(engine: Engine, *, quiet: bool) -> bool:
    """Do what is due for one store, and return whether something was put off.

    Args:
        quiet: Whether no client has called for a while.

    Raises:
        StorageFault: Something could not be done; nothing is lost by it.
    """
    if quiet:
        give_back_memory()
    with engine.lock:
        engine.events.prune(engine.clock() - KEEP_EVENTS)
    return engine.store.maintain(quiet=quiet)
