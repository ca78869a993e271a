"""What runs for connected agents without a call: reminders and consolidation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from mcp_memory.agent.consolidator import Complete
from mcp_memory.agent.memory import AgentMemory
from mcp_memory.agent.readers import Readers
from mcp_memory.paging import PagingStates
from mcp_memory.paging.alerts import news_reminder
from mcp_memory.tiers import events
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import MemoryFault
from mcp_memory.values.records import Event, Reminder, Rethought

logger = logging.getLogger(__name__)

_IDLE_SECONDS: Final = 30.0
"""A database is idle this long after the last request, or a heartbeat if that is shorter; by
judgement."""


class Scheduler:
    """Reminds connected agents, and consolidates their core memory while the database is idle.

    Args:
        engine: The open database.
        paging: What the windows of each agent remember.
        readers: The clients of every connection.
        open_memory: Opens the memory of an agent.
    """

    def __init__(
        self,
        engine: Engine,
        paging: PagingStates,
        readers: Sequence[Readers],
        open_memory: Callable[[str], AgentMemory],
    ) -> None:
        self._engine = engine
        self._consolidations = engine.consolidations
        self._paging = paging
        self._readers = readers
        self._open = open_memory
        self.complete: Complete | None = None
        """Asks the model that consolidates core memory; None if none is configured."""

    def consolidation_due(self, agent: str) -> Reminder | None:
        """Return the reminder to consolidate core memory, None without unreported news.

        News are the messages and memories since the last consolidation. After `remind`
        there is no other reminder until something newer has come.
        """
        engine, units = self._engine, self._consolidations
        if not engine.settings.rethink_every:
            return None
        with engine.view(agent):
            newest, since = self._newest(agent), units.last_at(agent)
            reminded = engine.events.last_at(agent, (events.REMINDER,))
            # Rows dated later than now, because the clock was set back, must not stay news.
            covered = [at for at in (since, reminded, units.reminded_of(agent)) if at is not None]
            if any(newest <= at for at in covered):
                return None
            messages, memories = units.count_news(agent, since)
        if not messages and not memories:
            return None
        return Reminder(agent, messages, memories, since, news_reminder(messages, memories))

    def remind(self, agent: str) -> Event | None:
        """Write the event of `consolidation_due`, if due, and notify the agent's connections."""
        engine = self._engine
        with engine.view(agent):
            reminder = self.consolidation_due(agent)
            if reminder is None:
                return None
            data: dict[str, object] = {"messages": reminder.messages, "memories": reminder.memories}
            with engine.transaction() as unit:
                event = engine.events.add(unit, agent, events.REMINDER, reminder.text, data=data)
            self._consolidations.reminded(agent, self._newest(agent))
        return event

    def beat(self) -> bool:
        """Notify the connected agents of news, and of pressure that no call has reported.

        While the database is idle, the endpoint consolidates their core memory, if configured.

        Returns:
            Whether the consolidation was postponed because a client is active.

        Raises:
            StorageFault: An event can't be written.
        """
        idle_seconds = time.monotonic() - self._engine.used_at
        with self._engine.lock:
            agents = sorted({readers.agent for readers in self._readers})
        for agent in agents:
            self.remind(agent)
            with self._engine.view(agent):
                live = {
                    conversation: next(iter(pagers), None)
                    for conversation, pagers in self._paging.of(agent).users.items()
                }
                for name, pager in live.items():
                    if pager is not None:
                        pager.refresh(name)
        due = [agent for agent in agents if self._is_endpoint_due(agent)]
        if due and idle_seconds < min(_IDLE_SECONDS, self._engine.settings.heartbeat_seconds):
            return True
        for agent in due:
            self.consolidate(agent)
        return False

    def consolidate(self, agent: str) -> Rethought | None:
        """Let the endpoint consolidate an agent's core memory, if configured and there is news.

        Blocks until the answer comes. After a failure the endpoint is not asked again
        before something newer has come.
        """
        complete = self.complete
        if complete is None or not self._is_endpoint_due(agent):
            return None
        with self._engine.view(agent):
            self._consolidations.try_now(agent, self._newest(agent))
        memory = self._open(agent)
        try:
            return memory.consolidator.run(complete)
        except MemoryFault as fault:
            logger.warning("the endpoint's consolidation was not applied: %s", fault)
            return None
        finally:
            memory.close()

    def _is_endpoint_due(self, agent: str) -> bool:
        if self.complete is None or self._engine.settings.auto_consolidate == "off":
            return False
        units = self._consolidations
        with self._engine.view(agent):
            since, newest = units.last_at(agent), self._newest(agent)
            done = [at for at in (since, units.tried_at(agent)) if at is not None]
            return all(newest > at for at in done) and any(units.count_news(agent, since))

    def _newest(self, agent: str) -> datetime:
        engine = self._engine
        return max(engine.recall.newest(agent), engine.archival.newest(agent))
