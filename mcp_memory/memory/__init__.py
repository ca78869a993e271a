"""Memory: all that an agent can do with its memory, in one object.

The surface, the commands and whatever embeds this package know this façade
and nothing below it. Every method is synchronous, may be called from any
thread, and returns only what is committed.
"""

from __future__ import annotations

from dataclasses import dataclass

from mcp_memory.engine import Engine
from mcp_memory.memory.archive import Archive
from mcp_memory.memory.base import Listener
from mcp_memory.memory.blocks import Blocks
from mcp_memory.memory.conversations import Conversations
from mcp_memory.paging import Pager
from mcp_memory.records import EmbeddingState, Event, Surface

__all__ = ["Memory", "Overview"]


@dataclass(frozen=True, slots=True)
class Overview:
    """Figures beside the blocks: what lies outside the window."""

    messages: int
    memories: int
    tags: tuple[str, ...]


class Memory:
    """The memory of one agent.

    Args:
        engine: The open database; closed with the memory.
        agent: Whose memory it is.
        window_tokens: The model's context window; the setting's without.
        surface: What the server itself puts into the window.

    Example:
        ```python
        memory = Memory(Engine(load_settings()), "default")
        memory.archive.insert("Ana's flight lands at 21:40 on Friday.", tags=["travel"])
        ```
    """

    def __init__(
        self,
        engine: Engine,
        agent: str,
        *,
        window_tokens: int | None = None,
        surface: Surface | None = None,
    ) -> None:
        self.settings = engine.settings
        self.agent = agent
        self._engine = engine
        self._listeners: list[Listener] = []
        pager = Pager(
            engine, agent, window_tokens or engine.settings.context_window, surface or Surface()
        )
        self.core = Blocks(engine, agent, self._listeners, pager)
        self.archive = Archive(engine, agent, self._listeners)
        self.conversations = Conversations(engine, agent, self._listeners, pager, self.archive)
        self.core.write_snapshot()

    def listen(self, listener: Listener) -> None:
        """Call `listener` with the topics of every change, from the thread that made it.

        Topics are `core`, `events` and `budget/{conversation}`.
        """
        self._listeners.append(listener)

    def close(self) -> None:
        """Close the database and end the background work."""
        self._engine.close()

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
