"""What each tool takes: checked before the façade is called, unknown arguments refused."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from mcp_memory.values.records import Kind, Role, TagMatch

Conversation = Annotated[str | None, Field(description="Default: main")]
Cursor = Annotated[str | None, Field(description="next_cursor of the last page")]
Date = Annotated[str | None, Field(description="ISO date or time; a date is the whole day")]
Around = Annotated[str | None, Field(description="A hit's id, or id:char; shows what is there")]
Tags = list[str]


class Arguments(BaseModel):
    """Named arguments of one tool."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoArguments(Arguments):
    """A tool that takes nothing."""


class CoreView(Arguments):
    """Arguments of core_memory_view."""

    conversation: Conversation = None
    cursor: Cursor = None


class CoreAppend(Arguments):
    """Arguments of core_memory_append."""

    label: str
    content: str
    conversation: Conversation = None


class CoreReplace(Arguments):
    """Arguments of core_memory_replace."""

    label: str
    old_content: Annotated[str, Field(description="Exact text, found once")]
    new_content: Annotated[str, Field(description="Empty deletes")]
    conversation: Conversation = None


class Rethink(Arguments):
    """Arguments of rethink_memory."""

    label: str
    new_memory: str
    description: Annotated[str | None, Field(description="Needed for a new block")] = None
    conversation: Conversation = None


class RethinkUser(Arguments):
    """Arguments of rethink_user_memory."""

    new_memory: str


class FinishRethinking(Arguments):
    """Arguments of finish_rethinking_memory."""

    reason: Annotated[str | None, Field(description="Why, for the history")] = None


class MessageArgument(Arguments):
    """One message of conversation_append."""

    role: Role
    content: str
    name: str | None = None
    created_at: Annotated[str | None, Field(description="ISO time")] = None


class ConversationAppend(Arguments):
    """Arguments of conversation_append."""

    messages: list[MessageArgument]
    conversation: Conversation = None
    context_tokens: Annotated[
        int | None, Field(description="Tokens in your context now, if known")
    ] = None


class ConversationSearch(Arguments):
    """Arguments of conversation_search."""

    query: str | None = None
    roles: list[Role] | None = None
    start_date: Date = None
    end_date: Date = None
    conversation: Annotated[str | None, Field(description="Default: all")] = None
    around: Around = None
    limit: Annotated[int, Field(description="1-50")] = 10
    cursor: Cursor = None


class ConversationFlush(Arguments):
    """Arguments of conversation_flush."""

    conversation: Conversation = None
    summary: str | None = None


class ChunkArgument(Arguments):
    """One range of store_memories."""

    start_index: int
    end_index: int
    context: Annotated[str, Field(description="1-3 sentences")]
    kind: Kind | None = None


class StoreMemories(Arguments):
    """Arguments of store_memories."""

    chunks: list[ChunkArgument]
    conversation: Conversation = None


class ContextBudget(Arguments):
    """Arguments of context_budget."""

    conversation: Conversation = None
    context_tokens: int | None = None


class ArchivalInsert(Arguments):
    """Arguments of archival_memory_insert."""

    content: str
    tags: Tags | None = None
    kind: Kind | None = None
    happened_at: Annotated[str | None, Field(description="ISO date or time; default now")] = None


class ArchivalSearch(Arguments):
    """Arguments of archival_memory_search."""

    query: str | None = None
    tags: Tags | None = None
    tag_match_mode: TagMatch = "any"
    kinds: list[Kind] | None = None
    start_date: Date = None
    end_date: Date = None
    around: Around = None
    top_k: Annotated[int, Field(description="1-50")] = 10
    cursor: Cursor = None


class ArchivalUpdate(Arguments):
    """Arguments of archival_memory_update."""

    id: str
    content: str | None = None
    tags: Tags | None = None
    kind: Kind | None = None


class ArchivalDelete(Arguments):
    """Arguments of archival_memory_delete."""

    id: str


_NOISE: Final = {"title", "default", "additionalProperties"}


def input_schema(arguments: type[Arguments]) -> dict[str, Any]:
    """Return the JSON Schema of a tool's arguments, as few bytes as say the same.

    Definitions stand in place; titles, defaults, `null` and the refusal of unknown
    arguments (the server refuses them all the same) are left out.
    """
    schema = arguments.model_json_schema()
    compact: dict[str, Any] = _compact(schema, schema.pop("$defs", {}))
    compact.pop("description", None)
    compact.setdefault("properties", {})
    return compact


def _compact(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_compact(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        found = dict(definitions[node["$ref"].rpartition("/")[2]])
        found.pop("description", None)
        return _compact(found, definitions)
    kept: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            kept[key] = {name: _compact(item, definitions) for name, item in value.items()}
        elif key == "anyOf":
            [branch] = [item for item in value if item != {"type": "null"}]
            kept.update(_compact(branch, definitions))
        elif key not in _NOISE:
            kept[key] = _compact(value, definitions)
    return kept
