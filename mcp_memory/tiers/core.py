"""Core memory: the bounded blocks that are always in context.

A change of a block is a new version; the old ones stay. This module enforces the limits:
no edit leaves a block over its limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.store.ports import BlockKey, Change, Store, UnitOfWork
from mcp_memory.tiers.feed import ChangeFeed
from mcp_memory.values.dates import EPOCH, Clock
from mcp_memory.values.errors import InvalidInput, MatchFault, NotFound, OverLimit, ReadOnly
from mcp_memory.values.likeness import alike, nearest
from mcp_memory.values.records import SHARED, Block, BlockChange, Scope
from mcp_memory.values.render import compile_blocks
from mcp_memory.values.text import LINE_BREAK, check_characters, check_label, check_text, shorten

DEFAULT_LIMIT_TOKENS: Final = 2_000
MAX_BLOCKS: Final = 32
MAX_DESCRIPTION_CHARS: Final = 300
"""All three by judgement; the owner of a block can change the block's limit."""

_NEAR_CHARS: Final = 300
"""The longest text that a refused replacement shows; by judgement."""

WORKING: Final = "working"


def _fresh(label: str, scope: Scope, description: str) -> Block:
    """Return a block that nobody has written yet."""
    return Block(
        label=label,
        value="",
        tokens=0,
        limit=DEFAULT_LIMIT_TOKENS,
        description=description,
        read_only=False,
        scope=scope,
        version=0,
        changed_at=EPOCH,
    )


_DEFAULTS: Final = (
    _fresh("persona", "agent", "Who you, the assistant, are: your role, manner and rules."),
    _fresh("human", "agent", "What you know of the person you talk with and must not forget."),
    _fresh(WORKING, "conversation", "This conversation's task: Goals, In progress, Next."),
)
_SHARED_DESCRIPTION: Final = "What all who work here should know; others read and edit it too."


class CoreMemory:
    """The blocks of every agent; follows the change feed.

    A parameter `shared` names the shared blocks that the agent sees. Its own block with the
    same label stays stored, but out of view.

    Args:
        store: Where the rows are.
        feed: Reports their changes.
        tokenizer: Counts the tokens of blocks.
        clock: Gives the time at which a block is changed.
    """

    def __init__(self, store: Store, feed: ChangeFeed, tokenizer: Tokenizer, clock: Clock) -> None:
        self._blocks = store.blocks
        self._feed = feed
        self._tokenizer = tokenizer
        self._clock = clock
        self._loaded: dict[str, dict[BlockKey, Block]] = {}
        self._compiled: dict[tuple[str, str, tuple[str, ...]], tuple[int, int]] = {}
        feed.follow(self)

    def blocks(
        self, agent: str, conversation: str, shared: Sequence[str] = ()
    ) -> tuple[Block, ...]:
        """Return the blocks in view: the default blocks first, then the others by label."""
        found = {
            label: block
            for (owner, label), block in self._of(agent).items()
            if owner in {"", conversation}
        }
        if shared:
            theirs = self._of(SHARED)
            found |= {label: theirs.get(("", label)) or _fresh_shared(label) for label in shared}
        first = [found.pop(default.label, default) for default in _DEFAULTS]
        return (*first, *(found[label] for label in sorted(found)))

    def shared(self) -> tuple[Block, ...]:
        """Return all shared blocks that have been written, whichever agents see them."""
        return tuple(self._of(SHARED).values())

    def block(self, agent: str, conversation: str, label: str, shared: Sequence[str] = ()) -> Block:
        """Return one block.

        Raises:
            NotFound: No block has this label; the message names the existing ones.
        """
        check_label(label)
        blocks = self.blocks(agent, conversation, shared)
        for block in blocks:
            if block.label == label:
                return block
        raise NotFound(
            f"there is no block {label!r}; there are {', '.join(b.label for b in blocks)}",
            key=label,
            hint="Create it with rethink_memory and a description",
        )

    def tokens(self, agent: str, conversation: str, shared: Sequence[str] = ()) -> tuple[int, int]:
        """Return the tokens of the compiled blocks: without `working`, and of `working`."""
        view = (agent, conversation, tuple(shared))
        counted = self._compiled.get(view)
        if counted is None:
            blocks = self.blocks(agent, conversation, shared)
            core = compile_blocks([b for b in blocks if b.label != WORKING])
            working = compile_blocks([b for b in blocks if b.label == WORKING])
            counted = (self._tokenizer.count(core), self._tokenizer.count(working))
            self._compiled[view] = counted
        return counted

    def append(
        self, agent: str, conversation: str, label: str, content: str, shared: Sequence[str] = ()
    ) -> Block:
        """Return the block with `content` added as a new line, not yet stored.

        Raises:
            InvalidInput, NotFound, ReadOnly, OverLimit: Nothing was changed.
        """
        block = self._editable(agent, conversation, label, shared)
        check_text(content, "content")
        value = f"{block.value}\n{content}" if block.value else content
        return self._revised(block, value)

    def replace(
        self,
        agent: str,
        conversation: str,
        label: str,
        old: str,
        new: str,
        shared: Sequence[str] = (),
    ) -> Block:
        """Return the block with the only occurrence of `old` replaced, not yet stored.

        If it does not occur to the letter, the only place that is like it is replaced; see
        `likeness.py`. The rest of the block and `new` stay to the letter.

        Raises:
            MatchFault: `old` is missing or occurs more than once; `lines` says where.
            InvalidInput, NotFound, ReadOnly, OverLimit: Nothing was changed.
        """
        block = self._editable(agent, conversation, label, shared)
        if not old:
            raise InvalidInput(
                "old_content is empty",
                field="old_content",
                hint="Give the exact text to replace, or use core_memory_append to add",
            )
        check_characters(old, "old_content")
        check_characters(new, "new_content")
        places = _occurrences(block.value, old) or alike(block.value, old)
        if len(places) != 1:
            raise _match_fault(block, old, places)
        [(start, end)] = places
        before, after = block.value[:start], block.value[end:]
        if not new and (not before or before.endswith("\n")):
            after = after.removeprefix("\n")  # Deleting a whole line leaves no empty line.
        return self._revised(block, before + new + after)

    def rethink(
        self,
        agent: str,
        conversation: str,
        label: str,
        value: str,
        description: str | None,
        shared: Sequence[str] = (),
    ) -> Block:
        """Return the whole block rewritten, or a new one, not yet stored.

        Raises:
            InvalidInput: A new block has no description, or there are too many.
            ReadOnly, OverLimit: Nothing was changed.
        """
        check_label(label)
        check_characters(value, "new_memory")
        if description is not None:
            description = _check_description(description)
        blocks = {block.label: block for block in self.blocks(agent, conversation, shared)}
        block = blocks.get(label)
        if block is None:
            if description is None:
                raise InvalidInput(
                    f"there is no block {label!r} yet, and a new one needs a description",
                    field="description",
                    hint=f"Say what it is for, or use one of {', '.join(blocks)}",
                )
            if len(blocks) >= MAX_BLOCKS:
                raise OverLimit(
                    "core memory",
                    used=len(blocks) + 1,
                    limit=MAX_BLOCKS,
                    unit="blocks",
                    field="label",
                    hint="Use an existing block, or archival memory",
                )
            block = _fresh(label, "agent", description)
        elif block.read_only:
            raise ReadOnly(label)
        return self._revised(replace(block, description=description or block.description), value)

    def define(
        self,
        agent: str,
        conversation: str,
        label: str,
        value: str,
        *,
        description: str | None,
        limit: int | None,
        read_only: bool | None,
        shared: Sequence[str] = (),
    ) -> Block:
        """Return a block as its owner, not the agent, sets it, not yet stored.

        Raises:
            InvalidInput, OverLimit: Nothing was changed.
        """
        check_label(label)
        check_characters(value, "value")
        blocks = self.blocks(agent, conversation, shared)
        present = next((block for block in blocks if block.label == label), None)
        block = present or _fresh(label, "agent", description or label)
        block = replace(
            block,
            description=_check_description(description) if description else block.description,
            limit=block.limit if limit is None else limit,
            read_only=block.read_only if read_only is None else read_only,
        )
        return self._revised(block, value)

    def insert(self, unit: UnitOfWork, agent: str, conversation: str, block: Block) -> None:
        """Write a new version of a block."""
        owner = conversation if block.scope == "conversation" else ""
        self._blocks.insert(unit, SHARED if block.scope == "shared" else agent, owner, block)

    def apply(self, change: Change) -> None:
        """Apply new versions of blocks; see `feed.Follower`."""
        blocks = self._loaded.get(change.agent)
        for conversation, block in change.blocks:
            if blocks is not None:
                blocks[conversation, block.label] = block
            for key in list(self._compiled):
                if key[0] == change.agent or block.label in key[2]:
                    del self._compiled[key]

    def forget(self) -> None:
        """Drop everything in memory."""
        self._loaded.clear()
        self._compiled.clear()

    def changes_since(
        self, agent: str, moment: datetime | None, shared: Sequence[str] = ()
    ) -> tuple[BlockChange, ...]:
        """Return how the blocks of an agent have changed since `moment`."""
        changed = {
            (conversation, block.label): block
            for conversation, block in self.changed_since(agent, moment, shared)
        }
        if not changed:
            return ()
        before: dict[BlockKey, tuple[int, str]] = {}
        labels = {label for _, label in changed}
        for owner, wanted in ((agent, labels - set(shared)), (SHARED, labels & set(shared))):
            if wanted:
                before |= self._blocks.values_at(owner, moment or EPOCH, wanted)
        found: list[BlockChange] = []
        for (conversation, label), block in sorted(changed.items()):
            version, value = before.get((conversation, label), (0, None))
            if value != block.value:
                found.append(
                    BlockChange(
                        label=label,
                        before=value,
                        after=block.value,
                        changed_at=block.changed_at,
                        conversation=conversation,
                        from_version=version,
                        to_version=block.version,
                        shared=block.scope == "shared",
                    )
                )
        return tuple(found)

    def history(
        self, agent: str, conversation: str, label: str, limit: int | None
    ) -> tuple[Block, ...]:
        """Return the versions of a block of an agent or `SHARED`, newest first."""
        return tuple(self._blocks.history(agent, conversation, label, limit))

    def changed_since(
        self, agent: str, moment: datetime | None, shared: Sequence[str] = ()
    ) -> tuple[tuple[str, Block], ...]:
        """Return the blocks changed after `moment`, None for all, each with its conversation."""
        theirs = self._of(SHARED) if shared else {}
        return tuple(
            (conversation, block)
            for blocks, of_others in ((self._of(agent), False), (theirs, True))
            for (conversation, label), block in blocks.items()
            if (label in shared) is of_others and (moment is None or block.changed_at > moment)
        )

    def _of(self, agent: str) -> dict[BlockKey, Block]:
        blocks = self._loaded.get(agent)
        if blocks is None:
            blocks = self._blocks.current(agent, self._feed.seq(agent))
            self._loaded[agent] = blocks
        return blocks

    def _editable(self, agent: str, conversation: str, label: str, shared: Sequence[str]) -> Block:
        block = self.block(agent, conversation, label, shared)
        if block.read_only:
            raise ReadOnly(label)
        return block

    def _revised(self, block: Block, value: str) -> Block:
        value = value.strip("\n")
        tokens = self._tokenizer.count(value)
        if tokens > block.limit:
            raise OverLimit(
                f"block {block.label!r}",
                used=tokens,
                limit=block.limit,
                field=block.label,
                hint="Shorten it with rethink_memory, or move detail to archival memory",
            )
        return replace(
            block, value=value, tokens=tokens, version=block.version + 1, changed_at=self._clock()
        )


def _fresh_shared(label: str) -> Block:
    return _fresh(label, "shared", _SHARED_DESCRIPTION)


def _check_description(text: str) -> str:
    check_text(text, "description")
    if len(text) > MAX_DESCRIPTION_CHARS:
        raise OverLimit(
            "description",
            used=len(text),
            limit=MAX_DESCRIPTION_CHARS,
            unit="characters",
            field="description",
            hint="One sentence is enough",
        )
    return " ".join(text.split())


def _occurrences(value: str, part: str) -> list[tuple[int, int]]:
    """Return every place of `part`, overlapping ones too."""
    found: list[tuple[int, int]] = []
    at = value.find(part)
    while at >= 0:
        found.append((at, at + len(part)))
        at = value.find(part, at + 1)
    return found


def _match_fault(block: Block, old: str, places: Sequence[tuple[int, int]]) -> MatchFault:
    def line_of(at: int) -> int:
        return len(LINE_BREAK.findall(block.value, 0, at)) + 1

    if not places:
        near = nearest(block.value, old)
        hint = "core_memory_view shows the block"
        if near:
            at, text = near
            shown = text if len(text) <= _NEAR_CHARS else text[:_NEAR_CHARS] + "…"
            hint = f"The nearest text, on line {line_of(at)}, is: {shown}"
        return MatchFault(
            f"old_content is not in block {block.label!r}", lines=(), field="old_content", hint=hint
        )
    lines = tuple(line_of(start) for start, _ in places)
    where = ", ".join(str(line) for line in lines[:10])
    return MatchFault(
        f"old_content {shorten(old, 80)!r} is in block {block.label!r} {len(lines)} times,"
        f" on lines {where}",
        lines=lines,
        field="old_content",
        hint="Give more of the text around the place to change",
    )
