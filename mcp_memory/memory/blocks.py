"""The façade's core memory: read and edit the blocks."""

from __future__ import annotations

from datetime import datetime

from mcp_memory import events
from mcp_memory.memory.base import Part, check_conversation
from mcp_memory.records import Block, BlockChange
from mcp_memory.render import compile_blocks
from mcp_memory.settings import DEFAULT_CONVERSATION
from mcp_memory.snapshot import write_snapshot


class Blocks(Part):
    """The blocks of one agent that are always in view."""

    def all(self, conversation: str = DEFAULT_CONVERSATION) -> tuple[Block, ...]:
        """Return the blocks that are in view in a conversation."""
        with self._engine.lock:
            return self._engine.core.blocks(self._agent, check_conversation(conversation))

    def get(self, label: str, conversation: str = DEFAULT_CONVERSATION) -> Block:
        """Return one block.

        Raises:
            NotFound: There is none of that label.
        """
        with self._engine.lock:
            return self._engine.core.block(self._agent, check_conversation(conversation), label)

    def append(self, label: str, content: str, conversation: str = DEFAULT_CONVERSATION) -> Block:
        """Add a line to a block and return it.

        Raises:
            InvalidInput, NotFound, ReadOnly, OverLimit: Nothing is changed.
        """
        conversation = check_conversation(conversation)
        with self._engine.lock:
            block = self._engine.core.append(self._agent, conversation, label, content)
            return self._store(conversation, block)

    def replace(
        self, label: str, old: str, new: str, conversation: str = DEFAULT_CONVERSATION
    ) -> Block:
        """Replace the one place of `old` in a block and return it; an empty `new` deletes.

        Raises:
            MatchFault: `old` is not there, or more than once.
            InvalidInput, NotFound, ReadOnly, OverLimit: Nothing is changed.
        """
        conversation = check_conversation(conversation)
        with self._engine.lock:
            block = self._engine.core.replace(self._agent, conversation, label, old, new)
            return self._store(conversation, block)

    def rethink(
        self,
        label: str,
        value: str,
        description: str | None = None,
        conversation: str = DEFAULT_CONVERSATION,
    ) -> Block:
        """Rewrite a block as a whole, or make it, and return it.

        Raises:
            InvalidInput, ReadOnly, OverLimit: Nothing is changed.
        """
        conversation = check_conversation(conversation)
        with self._engine.lock:
            core = self._engine.core
            block = core.rethink(self._agent, conversation, label, value, description)
            return self._store(conversation, block)

    def define(
        self,
        label: str,
        value: str,
        *,
        description: str | None = None,
        limit: int | None = None,
        read_only: bool | None = None,
    ) -> Block:
        """Set a block as its owner wants it, read-only ones too; None leaves a property as it is.

        Raises:
            InvalidInput, OverLimit: Nothing is changed.
        """
        with self._engine.lock:
            block = self._engine.core.define(
                self._agent, DEFAULT_CONVERSATION, label, value,
                description=description, limit=limit, read_only=read_only,
            )  # fmt: skip
            return self._store(DEFAULT_CONVERSATION, block)

    def finish_rethinking(self) -> tuple[tuple[BlockChange, ...], datetime | None]:
        """End a consolidation: return what changed since the last one, and when that was."""
        with self._engine.lock:
            since = self._engine.events.last_at(self._agent, (events.RETHOUGHT,))
            changes = self._engine.core.changes_since(self._agent, since)
            with self._engine.database.transaction() as tx:
                self._engine.events.add(
                    tx, self._agent, events.RETHOUGHT,
                    f"Core memory was thought over; {len(changes)} blocks changed.",
                    data={"changed": [change.label for change in changes]},
                )  # fmt: skip
            self._pager.rethought()
        self._notify("events")
        return changes, since

    def compiled(self, conversation: str = DEFAULT_CONVERSATION) -> str:
        """Return the blocks as they stand in context."""
        return compile_blocks(self.all(conversation))

    def _store(self, conversation: str, block: Block) -> Block:
        with self._engine.database.transaction() as tx:
            self._engine.core.store(tx, self._agent, conversation, block)
        self._engine.core.stored(self._agent, conversation, block)
        self.write_snapshot()
        self._notify("core", f"budget/{conversation}")
        return block

    def write_snapshot(self) -> None:
        """Write the copy of the blocks that `initialize` is answered from."""
        path = self._engine.path
        if path is not None:
            with self._engine.lock:
                blocks = self._engine.core.blocks(self._agent, DEFAULT_CONVERSATION)
                write_snapshot(path, self._agent, compile_blocks(blocks))
