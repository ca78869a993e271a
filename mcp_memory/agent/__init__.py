"""Memory: all that an agent can do with its memory, in one object.

The surface, the commands and whatever embeds this package know this façade
and nothing below it. Every method is synchronous, may be called from any
thread, and returns only what is committed.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from mcp_memory.agent.archive import Archive
from mcp_memory.agent.base import Access, Grant, Listener
from mcp_memory.agent.blocks import Blocks
from mcp_memory.agent.consolidator import Complete, Consolidator
from mcp_memory.agent.conversations import Conversations
from mcp_memory.agent.explaining import Explanations
from mcp_memory.agent.loading import Loader
from mcp_memory.agent.readers import Call, Readers
from mcp_memory.agent.reflection import Reflections
from mcp_memory.agent.resume import Resume
from mcp_memory.paging import Pager, PagingState
from mcp_memory.settings import EXTRACTIVE, Settings
from mcp_memory.tiers import events
from mcp_memory.tiers.consolidations import Consolidations
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import MemoryFault
from mcp_memory.values.records import EmbeddingState, Event, Reminder, Rethought, Surface

__all__ = ["Memories", "Memory", "Overview"]

logger = logging.getLogger(__name__)

_IDLE_SECONDS: Final = 30.0
"""After so long without a request nobody is at work; with shorter heartbeats, after one."""


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
        self._consolidations = Consolidations(engine.database)
        self.complete: Complete | None = None
        """Asks the model that consolidates by itself; None where none is set."""
        self._opening = threading.Lock()

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
            shared = self._shared.setdefault(agent, _Shared())
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

    def consolidation_due(self, agent: str) -> Reminder | None:
        """Return the reminder to think core memory over, if there is news that it has not told.

        News is what was said or kept since the last consolidation. After `remind` there is
        no other reminder until something newer has come.
        """
        engine, units = self.engine, self._consolidations
        if not engine.settings.rethink_every:
            return None
        with engine.lock:
            newest, since = self._newest(agent), units.last_at(agent)
            reminded = engine.events.last_at(agent, (events.REMINDER,))
            # What was recorded before the clock was set back is not news for ever.
            told = [at for at in (since, reminded, units.reminded_of(agent)) if at is not None]
            if any(newest <= at for at in told):
                return None
            messages, memories = units.count_news(agent, since)
        if not messages and not memories:
            return None
        text = (
            f"Since core memory was last thought over, {messages} messages and {memories} memories"
            " have come: if something lasting is among them, rethink_memory, then"
            " finish_rethinking_memory."
        )
        return Reminder(agent, messages, memories, since, text)

    def remind(self, agent: str) -> Event | None:
        """Write the event of `consolidation_due` and tell the agent's connections, if it is due."""
        engine = self.engine
        with engine.lock:
            reminder = self.consolidation_due(agent)
            if reminder is None:
                return None
            data: dict[str, object] = {"messages": reminder.messages, "memories": reminder.memories}
            with engine.database.transaction() as tx:
                event = engine.events.add(tx, agent, events.REMINDER, reminder.text, data=data)
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
        idle_seconds = time.monotonic() - self.engine.database.used_at
        with self.engine.lock:
            agents = sorted({readers.agent for readers in self._readers})
        for agent in agents:
            self.remind(agent)
            shared = self._shared[agent]
            with self.engine.lock:
                live = {
                    conversation: next((user for user in users if isinstance(user, Pager)), None)
                    for conversation, users in shared.state.users.items()
                }
                warned = [name for name, pager in live.items() if pager and pager.refresh(name)]
            for conversation in warned:
                for listener in tuple(shared.listeners):
                    listener(frozenset({f"budget/{conversation}", "events"}))
        due = [agent for agent in agents if self._is_endpoint_due(agent)]
        if due and idle_seconds < min(_IDLE_SECONDS, self.engine.settings.heartbeat_seconds):
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
        with self.engine.lock:
            self._consolidations.try_now(agent, self._newest(agent))
        memory = self.open(agent)
        try:
            return memory.consolidator.run(complete)
        except MemoryFault as fault:
            logger.warning("the endpoint's consolidation was not taken: %s", fault)
            return None
        finally:
            memory.close()

    def _is_endpoint_due(self, agent: str) -> bool:
        if self.complete is None or self.engine.settings.auto_consolidate == "off":
            return False
        units = self._consolidations
        with self.engine.lock:
            since, newest = units.last_at(agent), self._newest(agent)
            done = [at for at in (since, units.tried_at(agent)) if at is not None]
            return all(newest > at for at in done) and any(units.count_news(agent, since))

    def _newest(self, agent: str) -> datetime:
        engine = self.engine
        return max(engine.recall.newest(agent), engine.archival.newest(agent))

    def close(self) -> None:
        """Close the database and end the background work."""
        self.engine.close()


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
        self._take_core(Blocks(access))
        self.core.write_snapshot()
        with self._engine.lock:
            access.all_readers.append(access.readers)

    @property
    def tick(self) -> int:
        """The moment, for `as_reader`, at which a call came in; needs no lock."""
        return self._access.readers.tick

    def as_reader(
        self, key: Hashable, *, shown: str | None = None, arrived: int | None = None
    ) -> AgentMemory:
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
        self._engine.database.touch()
        with self._engine.lock:
            # The handshake of one that connected earlier may be repeated, and not shown to it.
            repeated = key not in readers and readers.since is not None
            reader = readers.get(key, lambda: self.core.unseen(shown))
            call = Call(readers, reader, readers.tick if arrived is None else arrived)
            view = copy.copy(self)
            view._take_core(Blocks(self._access, call))
            if shown is not None and not repeated:
                view.core.saw_text(shown)
        return view

    def _take_core(self, core: Blocks) -> None:
        self.core = core
        self.resume = Resume(self._access, core, self.archive, self.conversations)
        self.reflections = Reflections(self._access, core)
        self.consolidator = Consolidator(self._access, core, self.reflections)

    def shows(self, surface: Surface) -> None:
        """Take what the server itself puts into this connection's window from now on."""
        self._access.pager.shows(surface)

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
            self._access.pager.leave()
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

    def consolidated(self) -> tuple[datetime | None, int]:
        """Return when core memory was last thought over, and what the endpoint's cost in tokens."""
        units = self._access.consolidations
        with self._engine.lock:
            return units.last_at(self.agent), units.tokens(self.agent)

    def summarizer_status(self) -> dict[str, object]:
        """Return who writes summaries, and what the endpoint has cost today, as JSON."""
        status = self._engine.summarizer_status
        return {"kind": EXTRACTIVE} if status is None else status()

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
