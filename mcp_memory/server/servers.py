"""The servers of one database: one for each connection, over one open database."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from mcp_memory.server.app import MemoryServer
from mcp_memory.server.sampling import Sampler
from mcp_memory.server.tools import TOOLS, ToolSpec
from mcp_memory.settings import EXTRACTIVE
from mcp_memory.values.errors import MemoryFault, StorageFault
from mcp_memory.values.snapshot import read_core

if TYPE_CHECKING:
    from mcp_memory.agent import AgentMemory, Memories
    from mcp_memory.agent.rewriter import Rewriter
    from mcp_memory.settings import Settings
    from mcp_memory.values.records import Surface

logger = logging.getLogger(__name__)

READ_ONLY_TOOLS: Final[dict[str, ToolSpec]] = {
    name: spec for name, spec in TOOLS.items() if spec.annotations.read_only_hint
}


@dataclass(slots=True)
class ConnectionInfo:
    """A connected client, as `mcp-memory status` shows it; no agent sees it."""

    agent: str
    version: str
    """The shim's."""

    since: datetime
    name: str | None = None
    """The connection's name, which it keeps with the next owner."""

    client: str | None = None
    """The client's own name, once it has sent it."""

    def named(self, client: str) -> None:
        """Set the client's own name."""
        self.client = client


class Servers:
    """Creates the server of each connection; the database is opened when it is needed.

    Args:
        settings: Those of the process; the database is theirs.
        background: Whether the open database loads the model, which must be that of its vectors,
            and maintains itself.
    """

    def __init__(self, settings: Settings, *, background: bool = True) -> None:
        self.settings = settings
        self._background = background
        self._opening = threading.Lock()
        self._memories: Memories | None = None
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
            settings: Those of the connection; default: the process's.
            read_only: Whether to offer only the tools that change nothing.
            since: When the client connected, if that was to an owner before this one.
            connection: The connection's name, which it keeps with the next owner.
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
            lambda: self.rewriter,
            window_tokens=settings.context_window,
            timeout_seconds=settings.summarizer_timeout_seconds,
        )

    @property
    def opened(self) -> Memories | None:
        """The memories if the database is open, without opening it."""
        return self._memories

    @property
    def rewriter(self) -> Rewriter | None:
        """Who rewrites summaries with a model; None while the database is closed."""
        return None if self._memories is None else self._memories.rewriter

    def memories(self, warm_agent: str | None = None) -> Memories:
        """Return the memories of all agents; opens the database if it is closed, and blocks.

        Args:
            warm_agent: The agent whose search index is loaded in the background.

        Raises:
            MemoryFault: The database can't be opened.
        """
        with self._opening:
            if self._closed:
                raise StorageFault("the database is closed", hint="Repeat the call")
            if self._memories is None:
                # Not before the handshake: this imports the database driver and numpy.
                from mcp_memory.agent import Memories

                memories = Memories.open_database(self.settings, check_model=self._background)
                if self._background:
                    memories.start(warm_agent)
                self._memories = memories
            return self._memories

    def compact(self) -> None:
        """Rewrite the database file if it is open and a third of it is dead rows."""
        memories = self.opened
        if memories is None:
            return
        try:
            memories.compact(only_if_wasteful=True)
        except MemoryFault as fault:
            logger.warning("%s", fault)

    def close(self) -> None:
        """Close the database if it is open; acknowledged writes are in it."""
        with self._opening:
            self._closed = True
            if self._memories is not None:
                self._memories.close()
                self._memories = None
