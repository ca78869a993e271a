"""Maintenance of a store: shorten the log, prune old events, free memory.

Nothing here is urgent: work that would delay a client is postponed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from mcp_memory.tiers.engine import Engine
from mcp_memory.tiers.heap import give_back_memory

KEEP_EVENTS: Final = timedelta(days=30)
"""Older events are pruned, except an agent's newest; by judgement."""


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
