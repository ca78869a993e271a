"""The servers of all who use one database: a server a connection, one open database for all."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from mcp_memory.agent.snapshot import read_core
from mcp_memory.server.app import MemoryServer
from mcp_memory.server.sampling import Sampler
from mcp_memory.server.tools import TOOLS, ToolSpec
from mcp_memory.settings import EXTRACTIVE

if TYPE_CHECKING:
    from mcp_memory.agent import AgentMemory, Memories
    from mcp_memory.agent.rewriter import Rewriter
    from mcp_memory.settings import Settings
    from mcp_memory.tiers.heartbeat import Heart
    from mcp_memory.values.records import Surface

READ_ONLY_TOOLS: Final[dict[str, ToolSpec]] = {
    name: spec for name, spec in TOOLS.items() if spec.annotations.read_only_hint
}


@dataclass(slots=True)
class ConnectionInfo:
    """Who is connected, for the user of the machine; no agent is shown it."""

    agent: str
    version: str
    """The shim's."""

    since: datetime
    name: str | None = None
    """What names the connection, also to another owner."""

    client: str | None = None
    """What the client calls itself, once it has said so."""

    def named(self, client: str) -> None:
        """Take the name of the client."""
        self.client = client


class Servers:
    """Makes the server of each connection; they share the database, opened when it is needed.

    Args:
        settings: Those of the process; the database is theirs.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._opening = threading.Lock()
        self._memories: Memories | None = None
        self._heart: Heart | None = None
        self._rewriter: Rewriter | None = None
        self._closed = False
        self.connections: list[ConnectionInfo] = []

    def server(
        self,
        settings: Settings | None = None,
        *,
        read_only: bool = False,
        since: datetime | None = None,
        connection: str | None = None,
    ) -> MemoryServer:
        """Return a new server of the agent that is set; close it with its connection.

        Args:
            settings: Those of the connection; the process's without.
            read_only: Whether to offer only the tools that change nothing.
            since: When the client connected, if that was to an owner before this one.
            connection: What names the connection, also to the owner after this one.
        """
        own = settings or self.settings

        def open_memory(surface: Surface) -> AgentMemory:
            return self.memories(own.agent).open(own.agent, own, surface, since, connection)

        return MemoryServer(
            open_memory,
            core=read_core(self.settings.db, own.agent, own.shared_blocks),
            max_reply_tokens=own.max_reply_tokens,
            tools=READ_ONLY_TOOLS if read_only else TOOLS,
            sampler=self._sampler(own),
        )

    def _sampler(self, settings: Settings) -> Sampler | None:
        if settings.sampling == "off" or self.settings.summarizer != EXTRACTIVE:
            return None
        return Sampler(
            lambda: self._rewriter,
            window_tokens=settings.context_window,
            timeout_seconds=settings.summarizer_timeout_seconds,
        )

    @property
    def opened(self) -> Memories | None:
        """The memories if the database is open, without opening it."""
        return self._memories

    @property
    def heartbeats(self) -> int:
        """How often what can wait was done."""
        return 0 if self._heart is None else self._heart.beats

    @property
    def rewriter(self) -> Rewriter | None:
        """Who writes summaries anew by a model; None while the database is closed."""
        return self._rewriter

    def memories(self, warm_agent: str | None = None) -> Memories:
        """Return the memories of all agents, opened now if they are not; blocks.

        Args:
            warm_agent: Whose search index to load in the background at once.

        Raises:
            MemoryFault: The database can't be opened.
        """
        # Not before the handshake: these bring the database driver and the model.
        from mcp_memory.agent import Memories
        from mcp_memory.agent.rewriter import Rewriter
        from mcp_memory.tiers.engine import Engine
        from mcp_memory.tiers.heartbeat import Heart
        from mcp_memory.values.errors import StorageFault

        with self._opening:
            if self._closed:
                raise StorageFault("the database is closed", hint="Repeat the call")
            if self._memories is None:
                memories = Memories(Engine(self.settings))
                memories.engine.start(warm_agent)
                self._memories = memories
                self._rewriter = Rewriter.of(memories)
                seconds = self.settings.heartbeat_seconds
                self._heart = Heart(memories.engine, seconds, memories.schedule.beat)
                self._heart.start()
            return self._memories

    def close(self) -> None:
        """Close the database if it was opened; what was acknowledged is in it."""
        with self._opening:
            self._closed = True
            # A heartbeat may be waiting for what the rewriter is asked to write.
            if self._rewriter is not None:
                self._rewriter.close()
            if self._heart is not None:
                self._heart.close()
            if self._memories is not None:
                self._memories.close()
                self._memories = None
