"""Events that a client may want to know of: warnings, flushes, consolidations."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from mcp_memory.store.ports import Store, UnitOfWork
from mcp_memory.values.dates import Clock
from mcp_memory.values.ids import new_id
from mcp_memory.values.records import Event

WARNING: Final = "pressure_warning"
FLUSHED: Final = "flushed"
REMINDER: Final = "rethink_reminder"
RETHOUGHT: Final = "rethought"
REFUSED: Final = "rethink_refused"

MAX_OLD: Final = 1_000
"""Events of an agent that are never pruned, however old; by judgement."""


class EventLog:
    """The events of every agent.

    Args:
        store: Where the rows are.
        clock: Gives the time of an event.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._events = store.events
        self._clock = clock

    def add(
        self,
        unit: UnitOfWork,
        agent: str,
        kind: str,
        text: str,
        *,
        conversation: str | None = None,
        data: dict[str, object] | None = None,
    ) -> Event:
        """Write an event; `data` must be JSON values."""
        event = Event(
            id=new_id(),
            kind=kind,
            conversation=conversation,
            text=text,
            created_at=self._clock(),
            data=data or {},
        )
        self._events.insert(unit, agent, event)
        return event

    def recent(self, agent: str, limit: int) -> tuple[Event, ...]:
        """Return the newest events, newest first."""
        return tuple(self._events.recent(agent, limit))

    def prune(self, before: datetime) -> int:
        """Delete the events before a moment, and return their number.

        The newest `MAX_OLD` of each agent stay, and the last of each kind in each
        conversation, so that `last_at` still returns the same.
        """
        return self._events.prune(before, MAX_OLD)

    def last_at(
        self, agent: str, kinds: tuple[str, ...], conversation: str | None = None
    ) -> datetime | None:
        """Return when an event of these kinds last happened, in one conversation or in any."""
        return self._events.last_at(agent, kinds, conversation)
