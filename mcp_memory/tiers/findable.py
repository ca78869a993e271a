"""By what a search finds memories and messages: where they stand, and what the index takes of them.

Pure functions of records and rows. An index that was kept is made anew when this changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mcp_memory.search.index import Ageing
from mcp_memory.store.duckdb.database import Row
from mcp_memory.tiers.keeping import Document, Texts, moment
from mcp_memory.values.kinds import Policies
from mcp_memory.values.records import Kind, Memory, Message
from mcp_memory.values.render import speaker_prefix
from mcp_memory.values.text import MAX_TAG_CHARS

SOURCE_PREFIX: Final = "messages:"
"""How a tag begins that says which messages a memory was made from; see `source_tag`."""

_MEMORIES_AT: Final = "agent = $1 AND recorded_at <= $2 AND (retired_at IS NULL OR retired_at > $2)"
MEMORIES: Final = Texts(
    tier="memory",
    table="memories",
    columns="id, content, kind, tags, epoch_us(happened_at) AS happened,"
    " epoch_us(recorded_at) AS recorded",
    live="agent = $1 AND retired_at IS NULL",
    at=_MEMORIES_AT,
    version="id, version, recorded_at",
    order="recorded_at, id",
    gone=f"{_MEMORIES_AT} AND retired_at IS NOT NULL",
)

_MESSAGES_AT: Final = "agent = $1 AND searchable AND recorded_at <= $2"
MESSAGES: Final = Texts(
    tier="message",
    table="messages",
    columns="id, content, conversation, role, coalesce(name, '') AS name,"
    " epoch_us(created_at) AS created, epoch_us(recorded_at) AS recorded",
    live="agent = $1 AND searchable",
    at=_MESSAGES_AT,
    version="id, conversation, position, recorded_at",
    order="recorded_at, conversation, position",
    gone=f"{_MESSAGES_AT} AND false",
)


def of_memory(memory: Memory, kinds: Policies) -> dict[str, Any]:
    """Return what the index takes of a memory besides its text."""
    policy = kinds[memory.kind]
    return {
        "when": memory.happened_at,
        "recorded": memory.recorded_at,
        "labels": (f"kind:{memory.kind}", *(f"tag:{tag}" for tag in memory.tags)),
        "prefix": " ".join(tag for tag in memory.tags if not tag.startswith(SOURCE_PREFIX)),
        "half_life_days": policy.half_life_days,
        "fade_floor": policy.fade_floor,
    }


def ageing(kinds: Policies) -> Ageing:
    """Return how the scores of memories age by the labels that `of_memory` gives."""
    return {
        f"kind:{kind}": (policy.half_life_days, policy.fade_floor) for kind, policy in kinds.items()
    }


def memory_reader(kinds: Policies) -> Callable[[Row], Document]:
    """Return what makes a document of a row of `MEMORIES`."""

    def read(row: Row) -> Document:
        key, content, kind, tags, happened_at, recorded_at = row
        times = moment(happened_at), moment(recorded_at)
        memory = Memory(key, 1, content, Kind(kind), tuple(tags), 0, *times)
        return key, content, of_memory(memory, kinds)

    return read


def of_message(message: Message) -> dict[str, Any]:
    """Return what the index takes of a message besides its text."""
    return {
        "when": message.created_at,
        "recorded": message.recorded_at,
        "labels": (f"conversation:{message.conversation}", f"role:{message.role}"),
        "prefix": speaker_prefix(message),
        "thread": message.conversation,
        "speaker": message.name,
    }


def read_message(row: Row) -> Document:
    """Return the document of a row of `MESSAGES`."""
    key, content, conversation, role, name, created_at, recorded_at = row
    times = moment(created_at), moment(recorded_at)
    message = Message(key, conversation, -1, role, content, 0, *times, name or None)
    return key, content, of_message(message)


def source_tag(conversation: str, first: int, last: int) -> str:
    """Return the tag of a memory made from messages `first` to `last`, both included.

    A search finds it by this tag, and no words; the end of a long name is left out.
    """
    numbers = f":{first}-{last}"
    room = MAX_TAG_CHARS - len(SOURCE_PREFIX) - len(numbers)
    return f"{SOURCE_PREFIX}{conversation[:room].strip()}{numbers}"
