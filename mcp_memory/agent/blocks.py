"""The façade's core memory: read and edit the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from mcp_memory.agent.base import Access, Part, check_conversation
from mcp_memory.agent.readers import BlockKey, Call, block_key
from mcp_memory.agent.units import log_consolidation, unit_of, version_ranges
from mcp_memory.settings import DEFAULT_CONVERSATION
from mcp_memory.store.ports import UnitOfWork
from mcp_memory.tiers.consolidations import check_reason
from mcp_memory.values.errors import Conflict, MatchFault
from mcp_memory.values.ids import new_id
from mcp_memory.values.records import SHARED, Block, Consolidation, Rethought, Revision
from mcp_memory.values.render import compile_block, compile_blocks
from mcp_memory.values.snapshot import drop_snapshot, write_snapshot

UNNAMED: Final = "unnamed"
"""The editor of a connection without a name, such as one over HTTP."""


class Blocks(Part):
    """The blocks of one agent that are always in view.

    Args:
        call: The call of a client that must not undo edits it has not seen; None
            for a caller that may. What is returned counts as seen after `saw`.
    """

    def __init__(self, access: Access, call: Call | None = None) -> None:
        super().__init__(access)
        self._readers = access.readers
        self._all_readers = access.all_readers
        self._shared = access.settings.shared_blocks
        self._call = call

    def all(self, conversation: str = DEFAULT_CONVERSATION) -> tuple[Block, ...]:
        """Return the blocks that are in view in a conversation."""
        with self._view():
            return self._engine.core.blocks(
                self._agent, check_conversation(conversation), self._shared
            )

    def get(self, label: str, conversation: str = DEFAULT_CONVERSATION) -> Block:
        """Return one block.

        Raises:
            NotFound: No block has this label.
        """
        conversation = check_conversation(conversation)
        with self._view():
            label = self._spelled(conversation, label)
            return self._engine.core.block(self._agent, conversation, label, self._shared)

    def append(self, label: str, content: str, conversation: str = DEFAULT_CONVERSATION) -> Block:
        """Add a line to a block and return it.

        Raises:
            InvalidInput, NotFound, ReadOnly, OverLimit: Nothing was changed.
        """
        conversation = check_conversation(conversation)
        with self._view():
            label = self._spelled(conversation, label)
            block = self._engine.core.append(
                self._agent, conversation, label, content, self._shared
            )
            return self._store(conversation, block)

    def replace(
        self, label: str, old: str, new: str, conversation: str = DEFAULT_CONVERSATION
    ) -> Block:
        """Replace the only occurrence of `old` in a block and return it; an empty `new` deletes it.

        Raises:
            MatchFault: `old` is missing, or occurs more than once.
            Conflict: It is missing because another client has changed the block unseen.
            InvalidInput, NotFound, ReadOnly, OverLimit: Nothing was changed.
        """
        conversation = check_conversation(conversation)
        with self._view():
            core = self._engine.core
            label = self._spelled(conversation, label)
            try:
                block = core.replace(self._agent, conversation, label, old, new, self._shared)
            except MatchFault as fault:
                if not fault.lines:
                    present = core.block(self._agent, conversation, label, self._shared)
                    self._check_seen(conversation, present, "old_content")
                raise
            return self._store(conversation, block)

    def rethink(
        self,
        label: str,
        value: str,
        description: str | None = None,
        conversation: str = DEFAULT_CONVERSATION,
    ) -> Block:
        """Rewrite a whole block, or create it, and return it.

        Nothing is written if the block already has this value.

        Raises:
            Conflict: Another client has changed it unseen.
            InvalidInput, ReadOnly, OverLimit: Nothing was changed.
        """
        conversation = check_conversation(conversation)
        with self._view():
            core = self._engine.core
            label = self._spelled(conversation, label)
            block = core.rethink(self._agent, conversation, label, value, description, self._shared)
            present = self._present(conversation, label)
            if present is not None and present.value != block.value:
                self._check_seen(conversation, present, "new_memory")
            elif present is not None and present.description == block.description:
                self.saw(present, conversation)
                return present
            return self._store(conversation, block, rewritten=True)

    def define(
        self,
        label: str,
        value: str,
        *,
        description: str | None = None,
        limit: int | None = None,
        read_only: bool | None = None,
    ) -> Block:
        """Set a block for its owner, even a read-only one; None leaves a property unchanged.

        Raises:
            InvalidInput, OverLimit: Nothing was changed.
        """
        with self._view():
            block = self._engine.core.define(
                self._agent,
                DEFAULT_CONVERSATION,
                label,
                value,
                description=description,
                limit=limit,
                read_only=read_only,
                shared=self._shared,
            )
            return self._store(DEFAULT_CONVERSATION, block, by_user=True)

    def finish_rethinking(self, reason: str | None = None) -> Rethought:
        """Finish a consolidation, and return it with what has changed since it began.

        If no rewrite has begun one, it covers everything since the last consolidation.

        Args:
            reason: Why the blocks were changed, for the history.

        Raises:
            InvalidInput, OverLimit: The reason is not valid; nothing is finished.
        """
        reason = check_reason(reason)
        with self._view():
            units, agent = self._consolidations, self._agent
            changes = self._engine.core.changes_since(agent, units.since(agent), self._shared)
            began = units.present(agent) or Consolidation(
                id=new_id(), author="client", began_at=units.since(agent), began_by=None
            )
            done = replace(
                began,
                finished_at=units.later(agent, self._engine.clock()),
                finished_by=self._editor(),
                reason=reason,
                changed=version_ranges(changes),
            )
            with self._engine.transaction() as unit:
                units.finish(unit, agent, done)
                log_consolidation(unit, self._engine.events, agent, done)
        return Rethought(done, changes)

    def history(
        self, label: str, conversation: str = DEFAULT_CONVERSATION, limit: int | None = 20
    ) -> tuple[Revision, ...]:
        """Return the versions of a block, newest first, each with the consolidation that made it.

        Args:
            limit: The number of versions; None for all.

        Raises:
            NotFound: No block has this label.
        """
        block = self.get(label, conversation)
        keeper = SHARED if block.scope == "shared" else self._agent
        owner = conversation if block.scope == "conversation" else ""
        with self._view():
            versions = self._engine.core.history(keeper, owner, label, limit)
            units = self._consolidations.of_block(keeper, owner, label)
        return tuple(Revision(version, unit_of(version, owner, units)) for version in versions)

    def compiled(self, conversation: str = DEFAULT_CONVERSATION) -> str:
        """Return the compiled blocks, as a context has them."""
        return compile_blocks(self.all(conversation))

    def show(self, conversation: str = DEFAULT_CONVERSATION) -> str:
        """Return the compiled blocks, and note that the client sees all of them."""
        blocks = self.all(conversation)
        for block in blocks:
            self.saw(block, conversation)
        return compile_blocks(blocks)

    def saw(
        self,
        block: Block,
        conversation: str = DEFAULT_CONVERSATION,
        *,
        start: int = 0,
        end: int | None = None,
    ) -> None:
        """Note that the client is shown a block, or characters `start` to `end` of its value.

        A value shown in parts counts as seen if nobody has changed it between the parts.
        """
        key = block_key(block, conversation)
        if self._call is None or self._call.has_seen(key):
            return
        with self._view():
            present = self._present(conversation, block.label)
            if present is None or present.version != block.version:
                return
            last = end is None or end >= len(block.value)
            if start == 0 and last:
                self._call.saw(key)
            else:
                self._call.saw_part(key, first=start == 0, last=last)

    def saw_text(self, text: str) -> None:
        """Note that the client had read a text with compiled blocks before this call."""
        if self._call is None:
            return
        for block in self.all():
            if compile_block(block) in text:
                self._call.had_seen(block_key(block, DEFAULT_CONVERSATION))

    def unseen(self, shown: str | None) -> set[BlockKey]:
        """Return the blocks that a new client has not seen.

        These are the blocks that others have changed since it connected. If neither that
        moment nor a text is known, it has seen none.

        Args:
            shown: The text with compiled blocks that it has read; None if it has read none.
        """
        since, unseen = self._readers.since, set[BlockKey]()
        with self._view():
            if since is not None or shown is None:
                unseen = {
                    block_key(block, conversation)
                    for conversation, block in self._engine.core.changed_since(
                        self._agent, since, self._shared
                    )
                    if block.editor is None or block.editor != self._readers.connection
                }
            if shown is not None:
                unseen |= {
                    block_key(block, DEFAULT_CONVERSATION)
                    for block in self.all()
                    if block.version and compile_block(block) not in shown
                }
        return unseen

    def _spelled(self, conversation: str, label: str) -> str:
        """Return the label of the block that is meant: case and blanks around it don't matter.

        A label that fits no block, or several, is returned unchanged.
        """
        blocks = self._engine.core.blocks(self._agent, conversation, self._shared)
        labels = [block.label for block in blocks]
        if label in labels:
            return label
        bare = label.strip().casefold()
        meant = [present for present in labels if present.casefold() == bare]
        return meant[0] if len(meant) == 1 else label

    def _present(self, conversation: str, label: str) -> Block | None:
        blocks = self._engine.core.blocks(self._agent, conversation, self._shared)
        return next((block for block in blocks if block.label == label), None)

    def _check_seen(self, conversation: str, present: Block, field: str) -> None:
        key = block_key(present, conversation)
        if self._call is not None and not self._call.knows(key):
            self._call.saw(key)  # The error shows it, to this reader's later calls.
            raise Conflict(present.label, value=present.value, field=field)

    def _editor(self) -> str | None:
        return (self._readers.connection or UNNAMED) if self._call else None

    def _store(
        self, conversation: str, block: Block, *, rewritten: bool = False, by_user: bool = False
    ) -> Block:
        before = self._present(conversation, block.label)
        units, agent = self._consolidations, self._agent
        block = replace(
            block, editor=self._editor(), changed_at=units.later(agent, block.changed_at)
        )
        with self.changing() as unit:
            if not by_user:
                moment, by = block.changed_at, block.editor
                units.begin(unit, agent, moment, by, rewritten=rewritten)
            self._engine.core.insert(unit, agent, conversation, block)
        self.announce(conversation, before, block)
        return block

    @contextmanager
    def changing(self) -> Iterator[UnitOfWork]:
        """Begin a unit of work that changes blocks.

        The snapshot is deleted before the commit and written after it: a process that dies in
        between leaves none, and never an older one.
        """
        try:
            with self._engine.transaction() as unit:
                path = self._engine.path
                if path is not None:
                    drop_snapshot(path, self._agent)
                    if self._shared:
                        drop_snapshot(path, SHARED)
                yield unit
        finally:
            self.write_snapshot()

    def announce(self, conversation: str, before: Block | None, block: Block) -> None:
        """Tell other clients of a version that was committed."""
        if before is None or before.value != block.value:
            self._tell_readers(block_key(block, conversation), block)

    def _tell_readers(self, key: BlockKey, block: Block) -> None:
        by = self._call.reader if self._call else None
        for readers in self._all_readers:
            if readers.agent == self._agent or block.scope == "shared":
                readers.changed(key, by)

    def write_snapshot(self) -> None:
        """Write the snapshot of the blocks that `initialize` reads."""
        path = self._engine.path
        if path is not None:
            with self._view():
                blocks = self._engine.core.blocks(self._agent, DEFAULT_CONVERSATION)
                write_snapshot(path, self._agent, compile_blocks(blocks))
                if self._shared:
                    write_snapshot(path, SHARED, compile_blocks(self._engine.core.shared()))
