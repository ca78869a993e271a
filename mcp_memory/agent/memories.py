"""The memories of all agents in one database."""

from __future__ import annotations

import threading
from datetime import datetime

from mcp_memory.agent.base import Access, Grant
from mcp_memory.agent.memory import AgentMemory, Shared
from mcp_memory.agent.readers import Readers
from mcp_memory.agent.schedule import Scheduler
from mcp_memory.paging import Pager
from mcp_memory.settings import Settings
from mcp_memory.tiers.consolidations import Consolidations
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.records import Surface


class Memories:
    """The memories of all agents in one database.

    Args:
        engine: The open database; closed with this.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._shared: dict[str, Shared] = {}
        self._readers: list[Readers] = []
        self._grants: list[Grant] = []
        self._consolidations = Consolidations(engine.database)
        self._opening = threading.Lock()
        self.schedule = Scheduler(
            engine, self._consolidations, self._shared, self._readers, self.open
        )

    def open(
        self,
        agent: str,
        settings: Settings | None = None,
        surface: Surface | None = None,
        since: datetime | None = None,
        connection: str | None = None,
    ) -> AgentMemory:
        """Return one connection's way to the memory of an agent.

        Args:
            settings: Those of the connection; the engine's without.
            surface: What the server itself puts into the window.
            since: When the client connected, be it to a process before this one: it has
                not seen what others have changed in core memory since.
            connection: What names the connection, also to the process after this one.
        """
        with self._opening:
            shared = self._shared.setdefault(agent, Shared())
        settings = settings or self.engine.settings
        pager = Pager(self.engine, agent, settings, surface or Surface(), shared.state)
        readers = Readers(agent, since, connection)
        return AgentMemory(
            Access(
                self.engine,
                agent,
                settings,
                pager,
                shared.listeners,
                readers,
                self._readers,
                self._grants,
                self._consolidations,
            )
        )

    def close(self) -> None:
        """Close the database and end the background work."""
        self.engine.close()
