"""The memories of all agents in one database, and the operations on the whole database.

`probe`, `figures`, `status` and `check` only observe: they write nothing, cause no
fsync and don't count as activity, which would postpone maintenance.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from mcp_memory.agent.access_tokens import AccessTokens
from mcp_memory.agent.base import Access, Grant
from mcp_memory.agent.memory import AgentMemory, Shared
from mcp_memory.agent.readers import Readers
from mcp_memory.agent.rewriter import Rewriter
from mcp_memory.agent.schedule import Scheduler
from mcp_memory.agent.topics import topics_of
from mcp_memory.paging import Pager, PagingStates
from mcp_memory.settings import Settings
from mcp_memory.store import check_files, inspect_file
from mcp_memory.store.ports import Change, Compacted, Finding
from mcp_memory.tiers.engine import Engine
from mcp_memory.tiers.heartbeat import Heart
from mcp_memory.values.records import SHARED, EmbeddingState, Surface
from mcp_memory.values.snapshot import keep_snapshots

if TYPE_CHECKING:
    from mcp_memory.models.embedding import Embedder

__all__ = ["Figures", "Memories", "Status", "check_files", "inspect_file", "load_model"]


@dataclass(frozen=True, slots=True)
class Figures:
    """The numbers of a metrics page; none of them names an agent."""

    pending_vectors: int
    """Texts whose vectors are not computed yet."""

    embedding: str
    """`ready`, `loading`, `downloading` or `unavailable`."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is in a database."""

    schema: int
    agents: int
    rows: dict[str, int]
    """By table."""

    dead_frac: float
    """The part of the file, 0 to 1, that compacting would free."""

    embedding: EmbeddingState
    """The state of the model, with the number of pending texts of all agents."""


class Memories:
    """The memories of all agents in one database.

    Args:
        engine: The open database; closed with this.
    """

    @classmethod
    def open_database(cls, settings: Settings, *, check_model: bool = True) -> Memories:
        """Open the database of the settings, and create it if it is missing.

        Nothing runs in the background before `start`: until then search uses words alone.

        Args:
            check_model: Whether to refuse a database made with another embedding model.

        Raises:
            StorageFault: The database can't be opened.
            ModelMismatch: It was made with another embedding model.
        """
        memories = cls(Engine(settings, check_model=check_model))
        memories.rewriter = Rewriter.of(memories)
        return memories

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.rewriter: Rewriter | None = None
        """Rewrites summaries with a model; None if this was not made by `open_database`."""
        self._heart: Heart | None = None
        self._shared: dict[str, Shared] = {}
        self._readers: list[Readers] = []
        self._grants: list[Grant] = []
        self._paging = PagingStates(engine.feed)
        self._opening = threading.Lock()
        engine.feed.on_changes = self._tell
        engine.on_state = self._tell_all
        self.schedule = Scheduler(engine, self._paging, self._readers, self.open)

    def open(
        self,
        agent: str,
        settings: Settings | None = None,
        surface: Surface | None = None,
        since: datetime | None = None,
        connection: str | None = None,
    ) -> AgentMemory:
        """Return the memory of an agent, as one connection sees it.

        Args:
            settings: The settings of the connection; None for the engine's.
            surface: What the server itself puts into the window.
            since: When the client connected, to this process or to an earlier one: it has
                not seen what others have changed in core memory since.
            connection: The name of the connection, which outlives this process.
        """
        with self._opening:
            shared = self._shared.setdefault(agent, Shared())
        settings = settings or self.engine.settings
        pager = Pager(self.engine, agent, settings, surface or Surface(), self._paging.of(agent))
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
                self.engine.consolidations,
            )
        )

    def _tell(self, changes: Sequence[Change]) -> None:
        """Tell each listener what of the memory it hears of has changed."""
        for change in changes:
            topics = topics_of(change)
            shared = self._shared.get(change.agent)
            for listener in tuple(shared.listeners) if topics and shared is not None else ():
                listener(topics)
            if change.agent == SHARED:
                for grant in tuple(self._grants):
                    granted = topics & {f"core/{label}" for label in grant.labels}
                    if granted:
                        grant.listener(granted)

    def _tell_all(self) -> None:
        for shared in tuple(self._shared.values()):
            for listener in tuple(shared.listeners):
                listener(frozenset({"embedding"}))

    def start(self, warm_agent: str | None = None) -> None:
        """Start the background work: the model, pending vectors, reminders, maintenance.

        Args:
            warm_agent: The agent whose search index is loaded at once.
        """
        self.engine.start(warm_agent)
        if self._heart is None:
            seconds = self.engine.settings.heartbeat_seconds
            self._heart = Heart(self.engine, seconds, self.schedule.beat)
            self._heart.start()

    @property
    def heartbeats(self) -> int:
        """The number of times that maintenance has run."""
        return 0 if self._heart is None else self._heart.beats

    @property
    def tokens(self) -> AccessTokens:
        """The access tokens of all agents."""
        return self.engine.access

    @property
    def embedding(self) -> str:
        """The state of the model: `ready`, `loading`, `downloading` or `unavailable`."""
        return self.engine.embedding

    def probe(self) -> None:
        """Check that the database can be read and written; commits nothing.

        Raises:
            StorageFault: It can't be read or written.
        """
        self.engine.store.probe()

    def figures(self) -> Figures:
        """Return the numbers of a metrics page."""
        with self.engine.lock:
            return Figures(self.engine.vectors.pending_count(), self.engine.embedding)

    def agents(self) -> list[str]:
        """Return the agents with anything in the database, by name."""
        return self.engine.store.agents()

    def status(self) -> Status:
        """Return what is in the database."""
        found = self.engine.store.statistics()
        return Status(
            found.schema,
            len(self.agents()),
            dict(found.rows),
            found.dead_frac,
            self.embedding_state(),
        )

    def embedding_state(self) -> EmbeddingState:
        """Return the state of the model, with the pending texts of all agents."""
        return self.engine.state(None)

    def summarizer_status(self) -> dict[str, object] | None:
        """Return what writes the summaries and its cost today, as JSON."""
        return None if self.rewriter is None else self.rewriter.status()

    def check(self) -> list[Finding]:
        """Check the open database for damage, and return what was found."""
        return self.engine.store.check()

    def compact(self, *, only_if_wasteful: bool = False) -> Compacted | None:
        """Rewrite the file without deleted rows; all other calls wait meanwhile.

        Args:
            only_if_wasteful: Whether to leave the file alone if little of it is dead.

        Returns:
            None if the file was left alone.

        Raises:
            StorageFault: It failed; nothing was changed.
        """
        path = self.engine.path
        inode = None if path is None else path.stat().st_ino
        compacted = self.engine.store.compact(only_if_wasteful=only_if_wasteful)
        if compacted is not None and path is not None and inode is not None:
            with self.engine.lock:
                keep_snapshots(path, inode)
        return compacted

    def reembed(
        self,
        embedder: Embedder,
        on_start: Callable[[int], None] = lambda texts: None,
        on_done: Callable[[int], None] = lambda texts: None,
    ) -> int:
        """Compute the vectors of all texts with another model; finished ones are stored as it goes.

        Args:
            embedder: The model.
            on_start: Called once with the number of texts.
            on_done: Called with the number of texts done since the last call.

        Returns:
            The number of texts that were embedded.
        """
        on_start(self.engine.reembed(embedder))
        return self.engine.fill_pending(on_done)

    def leave_vectors(self) -> None:
        """Compute no more vectors, so that calls end soon; the next start computes them."""
        self.engine.leave_vectors()

    def close(self) -> None:
        """Stop the background work and close the database; every acknowledged write is stored."""
        # A heartbeat may be waiting for an answer that the rewriter has asked for.
        if self.rewriter is not None:
            self.rewriter.close()
        if self._heart is not None:
            self._heart.close()
        self.engine.close()


def load_model(settings: Settings) -> Embedder:
    """Load the embedding model of the settings; files that are missing are fetched.

    Raises:
        ModelUnavailable: The files are missing and can't be fetched.
    """
    from mcp_memory.models.embedding import FastEmbedder
    from mcp_memory.models.fetching import fetch_model

    files = fetch_model(settings.embedding_model, settings.cache_dir, offline=settings.offline)
    return FastEmbedder.load(files, threads=settings.threads)
