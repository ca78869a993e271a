"""Consolidations as records: the versions they cover, their event, and which made a version."""

from __future__ import annotations

from collections.abc import Sequence

from mcp_memory.store.ports import UnitOfWork
from mcp_memory.tiers import events
from mcp_memory.tiers.events import EventLog
from mcp_memory.values.records import Block, BlockChange, Consolidation, VersionRange


def version_ranges(changes: Sequence[BlockChange]) -> tuple[VersionRange, ...]:
    """Return the versions that a consolidation has made, by block."""
    return tuple(
        VersionRange(c.label, c.conversation, c.from_version, c.to_version, c.shared)
        for c in changes
    )


def log_consolidation(unit: UnitOfWork, log: EventLog, agent: str, done: Consolidation) -> None:
    """Write the event of a finished consolidation, in the transaction that finishes it."""
    data: dict[str, object] = {
        "consolidation": done.id,
        "author": done.author,
        "changed": [change.label for change in done.changed],
        "versions": [[change.from_version, change.to_version] for change in done.changed],
    }
    if done.reason:
        data["reason"] = done.reason
    if done.tokens:
        data["tokens"] = done.tokens
    text = f"Core memory was consolidated; {len(done.changed)} blocks changed."
    log.add(unit, agent, events.RETHOUGHT, text, data=data)


def unit_of(
    block: Block, conversation: str, units: Sequence[Consolidation]
) -> Consolidation | None:
    """Return the consolidation that made a version of a block."""
    key = (block.label, conversation, block.scope == "shared")
    for unit in units:
        for change in unit.changed:
            same = (change.label, change.conversation, change.shared) == key
            if same and change.from_version < block.version <= change.to_version:
                return unit
    return None
