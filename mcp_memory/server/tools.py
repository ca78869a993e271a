"""The tools: arguments in, one call of the façade, a reply out.

A tool's docstring is its description, written for the model that calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mcp_types import Tool, ToolAnnotations

from mcp_memory.server import arguments as args
from mcp_memory.server.arguments import Arguments, input_schema
from mcp_memory.server.cursors import Position, read_cursor, write_cursor
from mcp_memory.server.hits import search_conversations, search_memories
from mcp_memory.server.payloads import (
    VALUE_FRACTION,
    block_payload,
    budget_payload,
    edited,
    inserted_payload,
    memory_payload,
    stored_payload,
)
from mcp_memory.server.results import Fitter, Payload, Reply, compact
from mcp_memory.settings import DEFAULT_CONVERSATION
from mcp_memory.values.dates import parse_moment, show
from mcp_memory.values.records import (
    Block,
    Kind,
    NewMessage,
    StoreChunk,
)
from mcp_memory.values.render import compile_block, compile_blocks

if TYPE_CHECKING:
    from mcp_memory.agent import AgentMemory

A = TypeVar("A", bound=Arguments)
Handler = Callable[["AgentMemory", Fitter, Any], Reply]


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """One tool: how it is announced, what it takes, what it does."""

    name: str
    description: str
    arguments: type[Arguments]
    annotations: ToolAnnotations
    handler: Handler

    def definition(self) -> Tool:
        """Return it as `tools/list` sends it."""
        return Tool(
            name=self.name,
            description=self.description,
            input_schema=input_schema(self.arguments),
            annotations=self.annotations,
        )


TOOLS: Final[dict[str, ToolSpec]] = {}
"""Every tool by name, in the order in which they are listed."""


def _tool(
    takes: type[A], *, read_only: bool = False, destructive: bool = False, idempotent: bool = False
) -> Callable[
    [Callable[[AgentMemory, Fitter, A], Reply]], Callable[[AgentMemory, Fitter, A], Reply]
]:
    def register(
        handler: Callable[[AgentMemory, Fitter, A], Reply],
    ) -> Callable[[AgentMemory, Fitter, A], Reply]:
        annotations = (
            ToolAnnotations(read_only_hint=True)
            if read_only
            else ToolAnnotations(destructive_hint=destructive, idempotent_hint=idempotent)
        )
        name = handler.__name__
        description = " ".join((handler.__doc__ or "").split())
        TOOLS[name] = ToolSpec(name, description, takes, annotations, handler)
        return handler

    return register


@_tool(args.CoreView, read_only=True)
def core_memory_view(memory: AgentMemory, fitter: Fitter, given: args.CoreView) -> Reply:
    """Show the core memory blocks as they are now, with tokens used and limits."""
    conversation = given.conversation or DEFAULT_CONVERSATION
    blocks = memory.core.all(conversation)
    position = read_cursor("core_memory_view", given, given.cursor)
    if given.cursor is None:
        whole: Payload = {"blocks": [block_payload(b) for b in blocks], "total": len(blocks)}
        compiled = compile_blocks(blocks)
        if fitter.fits(compact(whole)) and fitter.fits(compiled):
            for block in blocks:
                memory.core.saw(block, conversation)
            return Reply(whole, compiled)
    text: list[str] = []
    items: list[Payload] = []
    for number in range(position.offset, len(blocks)):
        start = position.part if number == position.offset else 0
        block = blocks[number]
        item = block_payload(block) | {"value": block.value[start:]}
        piece = compile_block(block) if not start else block.value[start:]
        # One block more, as data and as text: both must fit.
        if fitter.fits(compact([*items, item]) + " " * 400) and fitter.fits(
            "\n".join([*text, piece]) + " " * 400
        ):
            items.append(item)
            text.append(piece)
            memory.core.saw(block, conversation, start=start)
            continue
        end = start
        if not items:
            part = fitter.clip(block.value[start:], int(fitter.max_tokens * VALUE_FRACTION))
            part = part.removesuffix("…")
            end = start + len(part)
            memory.core.saw(block, conversation, start=start, end=end)
            items.append(item | {"value": part})
            text.append(part)
        cursor = write_cursor("core_memory_view", given, Position(offset=number, part=end))
        payload = {"blocks": items, "total": len(blocks), "next_cursor": cursor}
        return Reply(payload, "\n".join([*text, f"There is more: next_cursor {cursor}"]))
    return Reply({"blocks": items, "total": len(blocks)}, "\n".join(text))


@_tool(args.CoreAppend)
def core_memory_append(memory: AgentMemory, fitter: Fitter, given: args.CoreAppend) -> Reply:
    """Add a line to a block.

    Use it for lasting facts that must always be in view; keep it short, blocks have a limit.
    """
    conversation = given.conversation or DEFAULT_CONVERSATION
    block = memory.core.append(given.label, given.content, conversation)
    return _edited(memory, fitter, block, conversation)


@_tool(args.CoreReplace, destructive=True)
def core_memory_replace(memory: AgentMemory, fitter: Fitter, given: args.CoreReplace) -> Reply:
    """Correct or delete text in a block. old_content must be there exactly once."""
    conversation = given.conversation or DEFAULT_CONVERSATION
    block = memory.core.replace(given.label, given.old_content, given.new_content, conversation)
    return _edited(memory, fitter, block, conversation)


@_tool(args.Rethink, destructive=True, idempotent=True)
def rethink_memory(memory: AgentMemory, fitter: Fitter, given: args.Rethink) -> Reply:
    """Rewrite a whole block: merge, correct, drop what has passed. Makes a missing block."""
    conversation = given.conversation or DEFAULT_CONVERSATION
    block = memory.core.rethink(given.label, given.new_memory, given.description, conversation)
    return _edited(memory, fitter, block, conversation, created=block.version == 1)


@_tool(args.RethinkUser, destructive=True, idempotent=True)
def rethink_user_memory(memory: AgentMemory, fitter: Fitter, given: args.RethinkUser) -> Reply:
    """Rewrite the block `human`, what you know of the user."""
    block = memory.core.rethink("human", given.new_memory)
    return _edited(memory, fitter, block, DEFAULT_CONVERSATION)


def _edited(
    memory: AgentMemory,
    fitter: Fitter,
    block: Block,
    conversation: str,
    *,
    created: bool | None = None,
) -> Reply:
    reply = edited(fitter, block, created=created)
    if reply.payload["value"] == block.value:
        memory.core.saw(block, conversation)
    return reply


@_tool(args.FinishRethinking)
def finish_rethinking_memory(
    memory: AgentMemory, fitter: Fitter, given: args.FinishRethinking
) -> Reply:
    """End a consolidation: shows which blocks changed since it began, clears the reminder."""
    done = memory.core.finish_rethinking(given.reason)
    unit, zone = done.consolidation, memory.settings.zone
    share = (fitter.max_tokens - 100) // (3 * max(len(done.changes), 1))
    changed = [
        {
            "label": change.label,
            "before": None if change.before is None else fitter.clip(change.before, share),
            "after": fitter.clip(change.after, share),
        }
        | ({"conversation": change.conversation} if change.conversation else {})
        for change in done.changes
    ]
    since = None if unit.began_at is None else show(unit.began_at, zone)
    payload: Payload = {"id": unit.id, "changed": changed, "since": since}
    while len(changed) > 1 and not fitter.fits(compact(payload)):
        changed.pop()
        payload["left_out"] = len(done.changes) - len(changed)
    return Reply(payload)


@_tool(args.ConversationAppend)
def conversation_append(
    memory: AgentMemory, fitter: Fitter, given: args.ConversationAppend
) -> Reply:
    """Record turns of the conversation, in order, so that they can be found for ever.

    Returns how full the window is and what to save.
    """
    zone = memory.settings.zone
    messages = [
        NewMessage(
            message.role,
            message.content,
            message.name,
            None
            if message.created_at is None
            else parse_moment(message.created_at, zone=zone, field=f"messages[{at}].created_at"),
        )
        for at, message in enumerate(given.messages)
    ]
    done = memory.conversations.append(
        messages, given.conversation or DEFAULT_CONVERSATION, given.context_tokens
    )
    payload: Payload = {
        "ids": list(done.ids),
        "pressure": done.budget.pressure,
        "level": done.level,
        "used_tokens": done.budget.used_tokens,
        "window_tokens": done.budget.window_tokens,
    }
    if done.alert:
        payload["alert"] = fitter.clip(done.alert, fitter.max_tokens // 2)
    if done.flush is not None and done.flush.summary is not None:
        payload["flushed"] = {
            "evicted": done.flush.evicted,
            "kept": done.flush.kept,
            "summary_id": done.flush.summary.id,
            "author": done.flush.summary.author,
        }
    if not fitter.fits(compact(payload)):
        # Ids of a large batch: the ends name the range, the rest follows from the listing.
        payload["ids"] = [done.ids[0], done.ids[-1]]
        payload["ids_left_out"] = len(done.ids) - 2
    return Reply(payload)


@_tool(args.ConversationSearch, read_only=True)
def conversation_search(
    memory: AgentMemory, fitter: Fitter, given: args.ConversationSearch
) -> Reply:
    """Search everything ever said, by meaning and words.

    Without query: list by date, newest first. Use it before you say that you don't know.
    """
    return search_conversations(memory, fitter, given, _alert(memory, fitter, given.conversation))


@_tool(args.ConversationFlush)
def conversation_flush(memory: AgentMemory, fitter: Fitter, given: args.ConversationFlush) -> Reply:
    """Move the oldest messages out of the window into the summary.

    Best with your own summary, written from the prompt summarize_overflow.
    """
    conversation = given.conversation or DEFAULT_CONVERSATION
    flush = memory.conversations.flush(conversation, given.summary)
    budget = memory.conversations.budget(conversation)
    payload: Payload = {
        "evicted": flush.evicted,
        "kept": flush.kept,
        "pressure": budget.pressure,
        "level": budget.level,
        "used_tokens": budget.used_tokens,
    }
    if flush.summary is not None:
        payload |= {
            "summary_id": flush.summary.id,
            "author": flush.summary.author,
            "summary": fitter.clip(flush.summary.content, int(fitter.max_tokens * VALUE_FRACTION)),
        }
    if not flush.evicted:
        payload["note"] = "nothing was evicted: only the newest messages are in the window"
        if given.summary is not None and flush.summary is None:
            payload["note"] += "; your summary was not kept"
    return Reply(payload)


@_tool(args.StoreMemories, idempotent=True)
def store_memories(memory: AgentMemory, fitter: Fitter, given: args.StoreMemories) -> Reply:
    """Keep ranges of messages verbatim in archival memory before they leave the window.

    Indexes are the numbers shown with the messages, both ends included.
    """
    chunks = [
        StoreChunk(chunk.start_index, chunk.end_index, chunk.context, chunk.kind or Kind.EPISODE)
        for chunk in given.chunks
    ]
    done = memory.conversations.store(chunks, given.conversation or DEFAULT_CONVERSATION)
    payload = stored_payload(fitter, done, chunks, memory.archive.kinds)
    alert = _alert(memory, fitter, given.conversation)
    return Reply(payload | alert if fitter.fits(compact(payload | alert)) else payload)


@_tool(args.ContextBudget, read_only=True)
def context_budget(memory: AgentMemory, fitter: Fitter, given: args.ContextBudget) -> Reply:
    """How full the context window is, by part, and what to do."""
    budget = memory.conversations.budget(
        given.conversation or DEFAULT_CONVERSATION, given.context_tokens
    )
    return Reply(budget_payload(budget) | _alert(memory, fitter, given.conversation))


def _alert(memory: AgentMemory, fitter: Fitter, conversation: str | None) -> Payload:
    """Return what the client was not told yet of the pressure, as a field of a reply."""
    alert = memory.conversations.alert(conversation or DEFAULT_CONVERSATION)
    return {"alert": fitter.clip(alert, fitter.max_tokens // 2)} if alert else {}


@_tool(args.ArchivalInsert, idempotent=True)
def archival_memory_insert(
    memory: AgentMemory, fitter: Fitter, given: args.ArchivalInsert
) -> Reply:
    """Keep a text for ever, of any length, found again by meaning, words, tags and date.

    One fact or passage a call, complete in itself.
    """
    done = memory.archive.insert(
        given.content,
        tags=given.tags or (),
        kind=given.kind or Kind.FACT,
        happened_at=given.happened_at,
    )
    return Reply(inserted_payload(done))


@_tool(args.ArchivalSearch, read_only=True)
def archival_memory_search(
    memory: AgentMemory, fitter: Fitter, given: args.ArchivalSearch
) -> Reply:
    """Search what was kept, by meaning and words; filters apply first.

    Without query: list by date. A hit shows the passage that matched.
    """
    return search_memories(memory, fitter, given)


@_tool(args.ArchivalUpdate, destructive=True, idempotent=True)
def archival_memory_update(
    memory: AgentMemory, fitter: Fitter, given: args.ArchivalUpdate
) -> Reply:
    """Correct a memory that has changed; searches show only the new text. The id stays."""
    done = memory.archive.update(given.id, content=given.content, tags=given.tags, kind=given.kind)
    return Reply(memory_payload(done))


@_tool(args.ArchivalDelete, destructive=True)
def archival_memory_delete(
    memory: AgentMemory, fitter: Fitter, given: args.ArchivalDelete
) -> Reply:
    """Remove a memory from every search."""
    return Reply({"id": memory.archive.delete(given.id).id, "deleted": True})
