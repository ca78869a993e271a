"""What is done for connected agents without a call of theirs: reminders and consolidation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from mcp_memory.agent.consolidator import Complete
from mcp_memory.agent.memory import AgentMemory, Shared
from mcp_memory.agent.readers import Readers
from mcp_memory.paging import PagingStates
from mcp_memory.paging.alerts import news_reminder
from mcp_memory.tiers import events
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import MemoryFault
from mcp_memory.values.records import Event, Reminder, Rethought

logger = logging.getLogger(__name__)

_IDLE_SECONDS: Final = 30.0
"""After so long without a request nobody is at work; with shorter heartbeats, after one."""


class Scheduler:
    """Reminds connected agents, and consolidates their core memory while nobody is at work.

    Args:
        engine: The open database.
        paging: What the windows of each agent remember.
        shared: What the connections of each agent have in common.
        readers: The clients of every connection.
        open_memory: Opens the memory of an agent.
    """

    def __init__(
        self,
        engine: Engine,
        paging: PagingStates,
        shared: Mapping[str, Shared],
        readers: Sequence[Readers],
        open_memory: Callable[[str], AgentMemory],
    ) -> None:
        self._engine = engine
        self._consolidations = engine.consolidations
        self._paging = paging
        self._shared = shared
        self._readers = readers
        self._open = open_memory
        self.complete: Complete | None = None
        """Asks the model that consolidates core memory; None where none is set."""

    def consolidation_due(self, agent: str) -> Reminder | None:
        """Return the reminder to think core memory over, if there is news that it has not told.

        News is what was said or kept since the last consolidation. After `remind` there is
        no other reminder until something newer has come.
        """
        engine, units = self._engine, self._consolidations
        if not engine.settings.rethink_every:
            return None
        with engine.view(agent):
            newest, since = self._newest(agent), units.last_at(agent)
            reminded = engine.events.last_at(agent, (events.REMINDER,))
            # What was recorded before the clock was set back is not news for ever.
            told = [at for at in (since, reminded, units.reminded_of(agent)) if at is not None]
            if any(newest <= at for at in told):
                return None
            messages, memories = units.count_news(agent, since)
        if not messages and not memories:
            return None
        return Reminder(agent, messages, memories, since, news_reminder(messages, memories))

    def remind(self, agent: str) -> Event | None:
        """Write the event of `consolidation_due` and tell the agent's connections, if it is due."""
        engine = self._engine
        with engine.view(agent):
            reminder = self.consolidation_due(agent)
            if reminder is None:
                return None
            data: dict[str, object] = {"messages": reminder.messages, "memories": reminder.memories}
            with engine.transaction() as unit:
                event = engine.events.add(unit, agent, events.REMINDER, reminder.text, data=data)
            self._consolidations.reminded(agent, self._newest(agent))
        shared = self._shared.get(agent)
        for listener in tuple(shared.listeners) if shared is not None else ():
            listener(frozenset({"events"}))
        return event

    def beat(self) -> bool:
        """Tell the agents that are connected what no call of theirs has: news, and pressure.

        While nobody is at work, the endpoint thinks their core memory over, if it is set to.

        Returns:
            Whether that was put off, as somebody is at work.

        Raises:
            StorageFault: An event can't be written.
        """
        idle_seconds = time.monotonic() - self._engine.used_at
        with self._engine.lock:
            agents = sorted({readers.agent for readers in self._readers})
        for agent in agents:
            self.remind(agent)
            shared = self._shared[agent]
            with self._engine.view(agent):
                live = {
                    conversation: next(iter(pagers), None)
                    for conversation, pagers in self._paging.of(agent).users.items()
                }
                warned = [name for name, pager in live.items() if pager and pager.refresh(name)]
            for conversation in warned:
                for listener in tuple(shared.listeners):
                    listener(frozenset({f"budget/{conversation}", "events"}))
        due = [agent for agent in agents if self._is_endpoint_due(agent)]
        if due and idle_seconds < min(_IDLE_SECONDS, self._engine.settings.heartbeat_seconds):
            return True
        for agent in due:
            self.consolidate(agent)
        return False

    def consolidate(self, agent: str) -> Rethought | None:
        """Let the endpoint think an agent's core memory over, if it is set to and there is news.

        It waits for the answer, and is for a thread that may. After a failure it is not
        asked again before something newer has come.
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
            logger.warning("the endpoint's consolidation was not taken: %s", fault)
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
