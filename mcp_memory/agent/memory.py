"""The memory of one agent, as one connection sees it."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime

from mcp_memory.agent.archive import Archive
from mcp_memory.agent.base import Access, Grant
from mcp_memory.agent.blocks import Blocks
from mcp_memory.agent.consolidator import Consolidator
from mcp_memory.agent.conversations import Conversations
from mcp_memory.agent.explaining import Explanations
from mcp_memory.agent.loading import Loader
from mcp_memory.agent.readers import Call
from mcp_memory.agent.reflection import Reflections
from mcp_memory.agent.resume import Resume
from mcp_memory.agent.topics import Listener
from mcp_memory.settings import EXTRACTIVE
from mcp_memory.values.records import EmbeddingState, Event, Surface


@dataclass(frozen=True, slots=True)
class Overview:
    """How much is stored outside the window."""

    messages: int
    memories: int
    tags: tuple[str, ...]


@dataclass(slots=True)
class Shared:
    """State that all connections of one agent share."""

    listeners: list[Listener] = field(default_factory=list)


class AgentMemory:
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
        self.archive = Archive(access)
        self.conversations = Conversations(access, self.archive)
        self.explanations = Explanations(access)
        self.loader = Loader(access)
        self.core = Blocks(access)
        self.core.write_snapshot()
        with self._engine.view(self.agent):
            access.all_readers.append(access.readers)

    @property
    def tick(self) -> int:
        """The moment at which a call came in, for `as_reader`; needs no lock."""
        return self._access.readers.tick

    def as_reader(
        self, key: Hashable, *, shown: str | None = None, arrived: int | None = None
    ) -> AgentMemory:
        """Return this memory for one call of one client, which may not undo unseen edits.

        An edit through it is a `Conflict` if it would undo a change by another client
        that this one has not seen. Edits through this memory itself are never one.

        Args:
            key: The client.
            shown: The text with core memory that the client has read before. A new
                client has seen nothing else, unless it is known when it connected.
            arrived: The `tick` at which the call came in; None for the present one.
        """
        readers = self._access.readers
        self._engine.touch()
        with self._engine.view(self.agent):
            # A client that connected earlier may repeat the handshake without reading the answer.
            repeated = key not in readers and readers.since is not None
            reader = readers.get(key, lambda: self.core.unseen(shown))
            call = Call(readers, reader, readers.tick if arrived is None else arrived)
            view = copy.copy(self)
            view.core = Blocks(self._access, call)
            if shown is not None and not repeated:
                view.core.saw_text(shown)
        return view

    @property
    def resume(self) -> Resume:
        """Writes what a new window needs to continue a conversation."""
        return Resume(self._access, self.core, self.archive, self.conversations)

    @property
    def reflections(self) -> Reflections:
        """Gathers what a consolidation should look at."""
        return Reflections(self._access, self.core)

    @property
    def consolidator(self) -> Consolidator:
        """Consolidation by an endpoint, without a client."""
        return Consolidator(self._access, self.core, self.reflections)

    def shows(self, surface: Surface) -> None:
        """Set what the server itself puts into this connection's window from now on."""
        self._access.pager.shows(surface)

    def listen(self, listener: Listener) -> None:
        """Call `listener` with the topics of every change to the agent's memory.

        It is called from the thread that made the change, whichever connection
        that belongs to, with the engine's lock held, until `close`. The topics are in
        `topics.py`.
        """
        self._listener = listener
        self._listeners.append(listener)
        if self.settings.shared_blocks:
            self._grant = Grant(self.agent, self.settings.shared_blocks, listener)
            self._access.grants.append(self._grant)

    def close(self) -> None:
        """End this connection's part; the memory stays open for others."""
        with self._engine.view(self.agent):
            if self._access.readers in self._access.all_readers:
                self._access.all_readers.remove(self._access.readers)
            self._access.pager.leave()
        if self._listener is not None:
            self._listeners.remove(self._listener)
            self._listener = None
        if self._grant is not None:
            self._access.grants.remove(self._grant)
            self._grant = None

    def overview(self) -> Overview:
        """Return how much is stored outside the window, and the tags in use."""
        with self._engine.view(self.agent):
            return Overview(
                self._engine.recall.count(self.agent),
                self._engine.archival.count(self.agent),
                tuple(self._engine.archival.tags(self.agent)),
            )

    def events(self, limit: int = 20) -> tuple[Event, ...]:
        """Return the newest events, newest first."""
        with self._engine.view(self.agent):
            return self._engine.events.recent(self.agent, limit)

    def consolidated(self) -> tuple[datetime | None, int]:
        """Return when core memory was last consolidated, and what the endpoint's cost in tokens."""
        units = self._access.consolidations
        with self._engine.view(self.agent):
            return units.last_at(self.agent), units.tokens(self.agent)

    def summarizer_status(self) -> dict[str, object]:
        """Return what writes the summaries, and what the endpoint has cost today, as JSON."""
        status = self._engine.summarizer_status
        return {"kind": EXTRACTIVE} if status is None else status()

    def embedding_state(self) -> EmbeddingState:
        """Return whether search works by meaning too, not by words alone."""
        with self._engine.view(self.agent):
            return self._engine.state(self.agent)

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text, by the tokenizer of the settings."""
        return self._engine.tokenizer.count(text)

    def clip_tokens(self, text: str, max_tokens: int) -> str:
        """Return the longest beginning of a text that has at most `max_tokens`."""
        return self._engine.tokenizer.clip(text, max_tokens)
