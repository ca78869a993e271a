"""The tools: arguments in, one call of the façade, a reply out.

A tool is a class of arguments and a function. The function's docstring is the tool's
description, written for the model that calls it. To add one, write both here and run
`mcp-memory schemas`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from mcp_types import Tool, ToolAnnotations
from pydantic import Field, WithJsonSchema

from mcp_memory.server.arguments import (
    Arguments,
    Around,
    Conversation,
    Cursor,
    Date,
    Label,
    Query,
    Results,
    Tags,
    Text,
    input_schema,
)
from mcp_memory.server.cursors import Position, read_cursor, write_cursor
from mcp_memory.server.hits import (
    page_reply,
    parse_around,
    refuse_filters,
    search_request,
    text_reply,
)
from mcp_memory.server.normalizing import Also, With
from mcp_memory.server.replies import (
    ALERT_FRAC,
    PAGE_TOKENS,
    VALUE_FRAC,
    Fitter,
    Payload,
    Reply,
    block_payload,
    budget_payload,
    compact,
    edited,
    inserted_payload,
    memory_hit_payload,
    memory_payload,
    message_hit_payload,
    stored_payload,
)
from mcp_memory.settings import DEFAULT_CONVERSATION
from mcp_memory.values.dates import show
from mcp_memory.values.messages import ROLE_NAMES, read_messages
from mcp_memory.values.records import (
    ROLES,
    Block,
    Kind,
    MemoryHit,
    MessageHit,
    Role,
    StoreChunk,
    TagMatch,
)
from mcp_memory.values.render import compile_block, compile_blocks
from mcp_memory.values.text import shorten, unescape

if TYPE_CHECKING:
    from mcp_memory.agent import AgentMemory

_ESCAPED: Final = "new_content is stored to the letter: write < for &lt;, and & for &amp;"

_REASON_CHARS: Final = 200
"""The longest reason why a message of a batch was refused; by judgement."""

A = TypeVar("A", bound=Arguments)
Handler = Callable[["AgentMemory", Fitter, Any], Reply]


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """One tool: its definition, its arguments and its handler."""

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
"""Every tool by name, in the order of `tools/list`."""


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


class CoreView(Arguments):
    """Arguments of core_memory_view."""

    conversation: Conversation = None
    cursor: Cursor = None


@_tool(CoreView, read_only=True)
def core_memory_view(memory: AgentMemory, fitter: Fitter, given: CoreView) -> Reply:
    """Show all core memory blocks with their token counts and limits."""
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
        # With this block both forms of the reply must still fit, and leave room for a cursor.
        shown = (compact([*items, item]), "\n".join([*text, piece]))
        if all(fitter.fits(form, PAGE_TOKENS) for form in shown):
            items.append(item)
            text.append(piece)
            memory.core.saw(block, conversation, start=start)
            continue
        end = start
        if not items:
            part = fitter.clip(block.value[start:], int(fitter.max_tokens * VALUE_FRAC))
            part = part.removesuffix("…")
            end = start + len(part)
            memory.core.saw(block, conversation, start=start, end=end)
            items.append(item | {"value": part})
            text.append(part)
        cursor = write_cursor("core_memory_view", given, Position(offset=number, part=end))
        payload = {"blocks": items, "total": len(blocks), "next_cursor": cursor}
        return Reply(payload, "\n".join([*text, f"More blocks: next_cursor {cursor}"]))
    return Reply({"blocks": items, "total": len(blocks)}, "\n".join(text))


class CoreAppend(Arguments):
    """Arguments of core_memory_append."""

    label: Label
    content: Text
    conversation: Conversation = None


@_tool(CoreAppend)
def core_memory_append(memory: AgentMemory, fitter: Fitter, given: CoreAppend) -> Reply:
    """Add a line to a core memory block.

    For short, lasting facts that must always stay in view; blocks have a token limit.
    """
    conversation = given.conversation or DEFAULT_CONVERSATION
    block = memory.core.append(given.label, given.content, conversation)
    return _edited(memory, fitter, block, conversation)


class CoreReplace(Arguments):
    """Arguments of core_memory_replace."""

    label: Label
    old_content: Annotated[Text, Field(description="Exact text; must occur once")]
    new_content: Annotated[Text, Field(description="Empty to delete")]
    conversation: Conversation = None


@_tool(CoreReplace, destructive=True)
def core_memory_replace(memory: AgentMemory, fitter: Fitter, given: CoreReplace) -> Reply:
    """Replace or delete text in a block. old_content must match one place only."""
    conversation = given.conversation or DEFAULT_CONVERSATION
    block = memory.core.replace(given.label, given.old_content, given.new_content, conversation)
    if unescape(given.new_content) == given.new_content:
        return _edited(memory, fitter, block, conversation)
    beside = fitter.beside(_ESCAPED)
    return _edited(memory, beside, block, conversation).noted(_ESCAPED, beside)


class Rethink(Arguments):
    """Arguments of rethink_memory."""

    label: Label
    new_memory: Text
    description: Annotated[Text | None, Field(description="Required for a new block")] = None
    conversation: Conversation = None


@_tool(Rethink, destructive=True, idempotent=True)
def rethink_memory(memory: AgentMemory, fitter: Fitter, given: Rethink) -> Reply:
    """Rewrite a whole block: merge, correct, drop outdated facts. Creates a missing block."""
    conversation = given.conversation or DEFAULT_CONVERSATION
    block = memory.core.rethink(given.label, given.new_memory, given.description, conversation)
    return _edited(memory, fitter, block, conversation, created=block.version == 1)


class RethinkUser(Arguments):
    """Arguments of rethink_user_memory."""

    new_memory: Text


@_tool(RethinkUser, destructive=True, idempotent=True)
def rethink_user_memory(memory: AgentMemory, fitter: Fitter, given: RethinkUser) -> Reply:
    """Rewrite the block `human`: what you know about the user."""
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


class FinishRethinking(Arguments):
    """Arguments of finish_rethinking_memory."""

    reason: Annotated[Text | None, Field(description="Why, for the history")] = None


@_tool(FinishRethinking)
def finish_rethinking_memory(memory: AgentMemory, fitter: Fitter, given: FinishRethinking) -> Reply:
    """End a consolidation. Returns the blocks changed since it began, clears the reminder."""
    done = memory.core.finish_rethinking(given.reason)
    unit, zone = done.consolidation, memory.settings.zone
    # Two values a block, and half as much again for the rest of its JSON.
    share = (fitter.max_tokens - PAGE_TOKENS) // (3 * max(len(done.changes), 1))
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


_MESSAGE: Final = {
    "properties": {
        "role": {"enum": list(ROLES), "type": "string"},
        "content": {"type": "string"},
        "name": {"type": "string"},
        "created_at": {"type": "string", "description": "ISO time"},
    },
    "required": ["role", "content"],
    "type": "object",
}
"""The form of messages that a model is told; `values/messages.py` reads many more."""


class ConversationAppend(Arguments):
    """Arguments of conversation_append."""

    messages: list[Annotated[Any, WithJsonSchema(_MESSAGE)]]
    conversation: Conversation = None
    context_tokens: Annotated[
        int | None, Field(description="Tokens in your context now, if known")
    ] = None


@_tool(ConversationAppend)
def conversation_append(memory: AgentMemory, fitter: Fitter, given: ConversationAppend) -> Reply:
    """Store conversation turns permanently, in order, so that they can be searched.

    Returns how full the context window is and what to save.
    """
    batch = read_messages(given.messages, zone=memory.settings.zone)
    if batch.refused and not batch.messages:
        raise batch.fault()
    done = memory.conversations.append(
        batch.messages, given.conversation or DEFAULT_CONVERSATION, given.context_tokens
    )
    ids: list[str | None] = list(done.ids)
    for place, _ in batch.refused:
        ids.insert(place, None)
    refused = [
        {"index": place, "reason": shorten(str(fault), _REASON_CHARS)}
        for place, fault in batch.refused
    ]
    payload: Payload = {
        "ids": ids,
        **({"refused": refused} if refused else {}),
        "pressure": done.budget.pressure,
        "level": done.level,
        "used_tokens": done.budget.used_tokens,
        "window_tokens": done.budget.window_tokens,
    }
    if done.alert:
        payload["alert"] = fitter.clip(done.alert, int(fitter.max_tokens * ALERT_FRAC))
    if done.flush is not None and done.flush.summary is not None:
        payload["flushed"] = {
            "evicted": done.flush.evicted,
            "kept": done.flush.kept,
            "summary_id": done.flush.summary.id,
            "author": done.flush.summary.author,
        }
    if not fitter.fits(compact(payload)):
        # A large batch: the first and last id name the range, conversation_search lists the rest.
        payload["ids"] = [done.ids[0], done.ids[-1]]
        payload["ids_left_out"] = len(ids) - 2
    while refused and not fitter.fits(compact(payload)):
        del refused[len(refused) // 2 :]
        payload["refused_left_out"] = len(batch.refused) - len(refused)
    return Reply(payload)


class ConversationSearch(Arguments):
    """Arguments of conversation_search."""

    query: Query = None
    roles: list[Annotated[Role, Also(ROLE_NAMES)]] | None = None
    start_date: Date = None
    end_date: Date = None
    conversation: Annotated[str | None, Field(description="Default: all")] = None
    around: Around = None
    limit: Results = 10
    cursor: Cursor = None


@_tool(ConversationSearch, read_only=True)
def conversation_search(memory: AgentMemory, fitter: Fitter, given: ConversationSearch) -> Reply:
    """Search everything ever said, by meaning and keywords.

    Without query: list by date, newest first. Use it before you say you don't know.
    """
    zone = memory.settings.zone
    extra = _alert(memory, fitter, given.conversation)
    position = read_cursor("conversation_search", given, given.cursor)
    request = search_request(given, position)

    def cursor(position: Position) -> str:
        return write_cursor("conversation_search", given, position)

    if given.around is None:
        page = memory.conversations.search(request)
    else:
        refuse_filters(request)
        message_id, char = parse_around(given.around)
        if char is not None:
            message = memory.conversations.get(message_id)
            return text_reply(
                fitter,
                message.content,
                char,
                position,
                extra=extra,
                show=lambda passage: message_hit_payload(MessageHit(message, passage, 0.0), zone),
                cursor=cursor,
            )
        offset = None if given.cursor is None else position.offset
        page = memory.conversations.around(message_id, limit=given.limit, offset=offset)
    items = [message_hit_payload(hit, zone) for hit in page.items]
    return page_reply(fitter, page, items, query=given.query, extra=extra, cursor=cursor)


class ConversationFlush(Arguments):
    """Arguments of conversation_flush."""

    conversation: Conversation = None
    summary: Text | None = None


@_tool(ConversationFlush)
def conversation_flush(memory: AgentMemory, fitter: Fitter, given: ConversationFlush) -> Reply:
    """Move the oldest messages out of the context window into the summary.

    Best with a summary you write yourself; the prompt summarize_overflow says how.
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
            "summary": fitter.clip(flush.summary.content, int(fitter.max_tokens * VALUE_FRAC)),
        }
    if not flush.evicted:
        payload["note"] = "nothing was evicted: the window has only the newest messages"
        if given.summary is not None and flush.summary is None:
            payload["note"] += "; your summary was not stored"
    return Reply(payload)


class ChunkArgument(Arguments):
    """One range of store_memories."""

    start_index: int
    end_index: int
    context: Annotated[Text, Field(description="1-3 sentences")]
    kind: Kind | None = None


class StoreMemories(Arguments):
    """Arguments of store_memories."""

    chunks: list[ChunkArgument]
    conversation: Conversation = None


@_tool(StoreMemories, idempotent=True)
def store_memories(memory: AgentMemory, fitter: Fitter, given: StoreMemories) -> Reply:
    """Copy ranges of messages verbatim to archival memory before they leave the window.

    Indexes are the numbers shown with the messages; end_index is included.
    """
    chunks = [
        StoreChunk(chunk.start_index, chunk.end_index, chunk.context, chunk.kind or Kind.EPISODE)
        for chunk in given.chunks
    ]
    done = memory.conversations.store(chunks, given.conversation or DEFAULT_CONVERSATION)
    payload = stored_payload(fitter, done, chunks, memory.archive.kinds)
    alert = _alert(memory, fitter, given.conversation)
    return Reply(payload | alert if fitter.fits(compact(payload | alert)) else payload)


class ContextBudget(Arguments):
    """Arguments of context_budget."""

    conversation: Conversation = None
    context_tokens: int | None = None


@_tool(ContextBudget, read_only=True)
def context_budget(memory: AgentMemory, fitter: Fitter, given: ContextBudget) -> Reply:
    """Show how full the context window is, by part, and what to do."""
    budget = memory.conversations.budget(
        given.conversation or DEFAULT_CONVERSATION, given.context_tokens
    )
    return Reply(budget_payload(budget) | _alert(memory, fitter, given.conversation))


def _alert(memory: AgentMemory, fitter: Fitter, conversation: str | None) -> Payload:
    """Return an alert that this client has not had yet, as a field of a reply."""
    alert = memory.conversations.alert(conversation or DEFAULT_CONVERSATION)
    return {"alert": fitter.clip(alert, int(fitter.max_tokens * ALERT_FRAC))} if alert else {}


class ArchivalInsert(Arguments):
    """Arguments of archival_memory_insert."""

    content: Text
    tags: Tags | None = None
    kind: Kind | None = None
    happened_at: Annotated[str | None, Field(description="ISO date or time; default now")] = None


@_tool(ArchivalInsert, idempotent=True)
def archival_memory_insert(memory: AgentMemory, fitter: Fitter, given: ArchivalInsert) -> Reply:
    """Store a text of any length permanently, to be found by meaning, keywords, tags and date.

    One fact or passage per call, complete in itself.
    """
    done = memory.archive.insert(
        given.content,
        tags=given.tags or (),
        kind=given.kind or Kind.FACT,
        happened_at=given.happened_at,
    )
    return Reply(inserted_payload(done))


class ArchivalSearch(Arguments):
    """Arguments of archival_memory_search."""

    query: Query = None
    tags: Tags | None = None
    tag_match_mode: Annotated[TagMatch, With("tags")] = "any"
    kinds: list[Kind] | None = None
    start_date: Date = None
    end_date: Date = None
    around: Around = None
    top_k: Results = 10
    cursor: Cursor = None


@_tool(ArchivalSearch, read_only=True)
def archival_memory_search(memory: AgentMemory, fitter: Fitter, given: ArchivalSearch) -> Reply:
    """Search archival memory by meaning and keywords; filters apply first.

    Without query: list by date. A hit shows the passage that matched.
    """
    zone = memory.settings.zone
    position = read_cursor("archival_memory_search", given, given.cursor)
    request = search_request(given, position)

    def cursor(position: Position) -> str:
        return write_cursor("archival_memory_search", given, position)

    if given.around is not None:
        refuse_filters(request)
        memory_id, char = parse_around(given.around)
        record = memory.archive.get(memory_id, position.as_of)
        # A later part shows the same version, even if it was updated meanwhile.
        position = replace(position, as_of=position.as_of or record.recorded_at)
        return text_reply(
            fitter,
            record.content,
            char or 0,
            position,
            extra={},
            show=lambda passage: memory_hit_payload(MemoryHit(record, passage, 0.0), zone),
            cursor=cursor,
        )
    page = memory.archive.search(request)
    items = [memory_hit_payload(hit, zone) for hit in page.items]
    return page_reply(fitter, page, items, query=given.query, extra={}, cursor=cursor)


class ArchivalUpdate(Arguments):
    """Arguments of archival_memory_update."""

    id: str
    content: Text | None = None
    tags: Tags | None = None
    kind: Kind | None = None


@_tool(ArchivalUpdate, destructive=True, idempotent=True)
def archival_memory_update(memory: AgentMemory, fitter: Fitter, given: ArchivalUpdate) -> Reply:
    """Update a memory whose facts changed. Searches find only the new text; the id stays."""
    done = memory.archive.update(given.id, content=given.content, tags=given.tags, kind=given.kind)
    return Reply(memory_payload(done))


class ArchivalDelete(Arguments):
    """Arguments of archival_memory_delete."""

    id: str


@_tool(ArchivalDelete, destructive=True)
def archival_memory_delete(memory: AgentMemory, fitter: Fitter, given: ArchivalDelete) -> Reply:
    """Remove a memory from all searches."""
    return Reply({"id": memory.archive.delete(given.id).id, "deleted": True})
