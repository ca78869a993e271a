"""Memory: all that an agent can do with its memory, in one object.

The surface, the commands and whatever embeds this package know this façade
and nothing below it. Every method is synchronous, may be called from any
thread, and returns only what is committed.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime

from mcp_memory.engine import Engine
from mcp_memory.memory.archive import Archive
from mcp_memory.memory.base import Access, Grant, Listener
from mcp_memory.memory.blocks import Blocks
from mcp_memory.memory.conversations import Conversations
from mcp_memory.memory.readers import Call, Readers
from mcp_memory.paging import Pager, PagingState
from mcp_memory.records import EmbeddingState, Event, Surface
from mcp_memory.settings import Settings

__all__ = ["Memories", "Memory", "Overview"]


@dataclass(frozen=True, slots=True)
class Overview:
    """Figures beside the blocks: what lies outside the window."""

    messages: int
    memories: int
    tags: tuple[str, ...]


@dataclass(slots=True)
class _Shared:
    """What all connections of one agent have in common."""

    state: PagingState = field(default_factory=PagingState)
    listeners: list[Listener] = field(default_factory=list)


class Memories:
    """The memories of all agents in one database.

    Args:
        engine: The open database; closed with this.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._shared: dict[str, _Shared] = {}
        self._readers: list[Readers] = []
        self._grants: list[Grant] = []
        self._opening = threading.Lock()

    def open(
        self,
        agent: str,
        settings: Settings | None = None,
        surface: Surface | None = None,
        since: datetime | None = None,
        connection: str | None = None,
    ) -> Memory:
        """Return one connection's way to the memory of an agent.

        Args:
            settings: Those of the connection; the engine's without.
            surface: What the server itself puts into the window.
            since: When the client connected, be it to a process before this one: it has
                not seen what others have changed in core memory since.
            connection: What names the connection, also to the process after this one.
        """
        with self._opening:
            shared = self._shared.setdefault(agent, _Shared())
        settings = settings or self.engine.settings
        pager = Pager(self.engine, agent, settings, surface or Surface(), shared.state)
        readers = Readers(agent, since, connection)
        return Memory(
            Access(
                self.engine, agent, settings, pager, shared.listeners, readers, self._readers,
                self._grants,
            )
        )  # fmt: skip

    def close(self) -> None:
        """Close the database and end the background work."""
        self.engine.close()


class Memory:
    """The memory of one agent, as one connection sees it.

    Example:
        ```python
        memories = Memories(Engine(load_settings()))
        memory = memories.open("default")
        memory.archive.insert("Ana's flight lands at 21:40 on Friday.", tags=["travel"])
        ```
    """

    def __init__(self, access: Access) -> None:
        self.settings = access.settings
        self.agent = access.agent
        self._access = access
        self._engine = access.engine
        self._listeners = access.listeners
        self._listener: Listener | None = None
        self._grant: Grant | None = None
        self.core = Blocks(access)
        self.archive = Archive(access)
        self.conversations = Conversations(access, self.archive)
        self.core.write_snapshot()
        with self._engine.lock:
            access.all_readers.append(access.readers)

    @property
    def tick(self) -> int:
        """The moment, for `as_reader`, at which a call came in; needs no lock."""
        return self._access.readers.tick

    def as_reader(
        self, key: Hashable, *, shown: str | None = None, arrived: int | None = None
    ) -> Memory:
        """Return this memory for one call of one client, held to what that client has seen.

        An edit through it that would undo what another client has changed unseen
        is a `Conflict`. Without it, as for whoever has the memory alone, none is.

        Args:
            key: Which client.
            shown: The text with core memory that the client has been given before.
                One that is new has seen nothing else, unless it is known since when.
            arrived: The `tick` at which the call came in; the present one without.
        """
        readers = self._access.readers
        with self._engine.lock:
            # The handshake of one that connected earlier may be repeated, and not shown to it.
            repeated = key not in readers and readers.since is not None
            reader = readers.get(key, lambda: self.core.unseen(shown))
            call = Call(readers, reader, readers.tick if arrived is None else arrived)
            view = copy.copy(self)
            view.core = Blocks(self._access, call)
            if shown is not None and not repeated:
                view.core.saw_text(shown)
        return view

    def listen(self, listener: Listener) -> None:
        """Call `listener` with the topics of every change to the agent's memory.

        It is called from the thread that made the change, whichever connection
        that belongs to, until `close`. Topics are `core`, `events` and
        `budget/{conversation}`.
        """
        self._listener = listener
        self._listeners.append(listener)
        if self.settings.shared_blocks:
            self._grant = Grant(self.agent, self.settings.shared_blocks, listener)
            self._access.grants.append(self._grant)

    def close(self) -> None:
        """End this connection's part; the memory stays open for others."""
        with self._engine.lock:
            if self._access.readers in self._access.all_readers:
                self._access.all_readers.remove(self._access.readers)
        if self._listener is not None:
            self._listeners.remove(self._listener)
            self._listener = None
        if self._grant is not None:
            self._access.grants.remove(self._grant)
            self._grant = None

    def overview(self) -> Overview:
        """Return what lies outside the window: numbers and tags in use."""
        with self._engine.lock:
            return Overview(
                self._engine.recall.count(self.agent),
                self._engine.archival.count(self.agent),
                tuple(self._engine.archival.tags(self.agent)),
            )

    def events(self, limit: int = 20) -> tuple[Event, ...]:
        """Return the newest events, newest first."""
        with self._engine.lock:
            return self._engine.events.recent(self.agent, limit)

    def embedding_state(self) -> EmbeddingState:
        """Return whether search has its semantic half."""
        with self._engine.lock:
            return self._engine.state(self.agent)

    def count_tokens(self, text: str) -> int:
        """Return the tokens of a text by the tokenizer that is set."""
        return self._engine.tokenizer.count(text)

    def clip_tokens(self, text: str, max_tokens: int) -> str:
        """Return the longest beginning of a text that has at most so many tokens."""
        return self._engine.tokenizer.clip(text, max_tokens)
