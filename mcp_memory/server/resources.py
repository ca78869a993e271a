"""The resources: what a host can read or subscribe to without a tool call."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from mcp_types import Completion, Resource, ResourceTemplate, TextResourceContents

from mcp_memory import __version__
from mcp_memory.server.replies import Fitter, budget_payload
from mcp_memory.server.uris import MemoryUri, read_number, read_uri
from mcp_memory.settings import DEFAULT_CONVERSATION
from mcp_memory.values.dates import show
from mcp_memory.values.errors import InvalidInput, NotFound
from mcp_memory.values.render import compile_block, numbered, render_summary
from mcp_memory.values.text import check_name

if TYPE_CHECKING:
    from mcp_memory.agent import AgentMemory

_TEXT: Final = "text/plain"
_JSON: Final = "application/json"

RESOURCES: Final = (
    Resource(
        uri="memory://core",
        name="core",
        mime_type=_TEXT,
        description="All core memory blocks, as they appear in context.",
    ),
    Resource(
        uri="memory://context-budget",
        name="context-budget",
        mime_type=_JSON,
        description="Tokens used by part, pressure, level and advice for conversation main.",
    ),
    Resource(
        uri="memory://events",
        name="events",
        mime_type=_JSON,
        description="Warnings, flushes and consolidations, newest first.",
    ),
    Resource(
        uri="memory://status",
        name="status",
        mime_type=_JSON,
        description="Version, agent, counts, and whether semantic search is ready.",
    ),
)

TEMPLATES: Final = (
    ResourceTemplate(
        uri_template="memory://core/{label}",
        name="block",
        mime_type=_TEXT,
        description="One block of core memory.",
    ),
    ResourceTemplate(
        uri_template="memory://context-budget/{conversation}",
        name="conversation-budget",
        mime_type=_JSON,
        description="The context budget of one conversation.",
    ),
    ResourceTemplate(
        uri_template="memory://conversations/{conversation}/recent",
        name="recent",
        mime_type=_TEXT,
        description="The newest messages in the context window; ?before=INDEX for older ones.",
    ),
    ResourceTemplate(
        uri_template="memory://conversations/{conversation}/summary",
        name="summary",
        mime_type=_TEXT,
        description="The summary of evicted messages: id, version, author, range, text.",
    ),
    ResourceTemplate(
        uri_template="memory://conversations/{conversation}/resume",
        name="resume",
        mime_type=_TEXT,
        description="Everything needed to continue in a new window; ?max_tokens=N limits it.",
    ),
    ResourceTemplate(
        uri_template="memory://archival/{id}",
        name="memory",
        mime_type=_TEXT,
        description="One archival memory in full; a long one continues at ?from=CHARACTER.",
    ),
)

_BUDGET_TOPICS: Final = (
    "budget/{conversation}",
    "messages/{conversation}",
    "summary/{conversation}",
    "working/{conversation}",
    "core/*",
)

_CHANGES: Final[Mapping[str, tuple[str, ...]]] = {
    "memory://core": ("core/*",),
    "memory://core/{label}": ("core/{label}",),
    "memory://context-budget": _BUDGET_TOPICS,
    "memory://context-budget/{conversation}": _BUDGET_TOPICS,
    "memory://conversations/{conversation}/recent": (
        "messages/{conversation}",
        "summary/{conversation}",
    ),
    "memory://conversations/{conversation}/summary": ("summary/{conversation}",),
    "memory://conversations/{conversation}/resume": (*_BUDGET_TOPICS, "memories/*", "events"),
    "memory://archival/{id}": ("memories/{id}",),
    "memory://events": ("events",),
    "memory://status": ("messages/*", "memories/*", "consolidation", "embedding", "events"),
}
"""Which topics of the façade change which resource; `*` is any one. No resource is read for it."""

_EVENTS: Final = 20
"""Listed in `memory://events`; by judgement."""

_COMPLETIONS: Final = 100
"""The protocol's limit. Source: MCP specification, "Completion", `values`."""

_FOOTER_TOKENS: Final = 60
"""Reserved for the line that says where a long text continues; by judgement."""


@dataclass(frozen=True, slots=True)
class _Content:
    text: str
    mime_type: str


def read_resource(memory: AgentMemory, fitter: Fitter, uri: str) -> TextResourceContents:
    """Return the content of a resource.

    Raises:
        NotFound: The URI is unknown.
        InvalidInput: A part of the URI is invalid.
    """
    found = read_uri(uri)
    if found is None:
        raise _unknown(uri)
    content = _read(memory, fitter, uri, found)
    return TextResourceContents(uri=uri, text=content.text, mime_type=content.mime_type)


def _read(memory: AgentMemory, fitter: Fitter, uri: str, found: MemoryUri) -> _Content:
    match found.path:
        case ["core"]:
            return _Content(memory.core.show(), _TEXT)
        case ["core", label]:
            block = memory.core.get(label)
            memory.core.saw(block)
            return _Content(compile_block(block), _TEXT)
        case ["context-budget"]:
            return _budget(memory, DEFAULT_CONVERSATION)
        case ["context-budget", conversation]:
            return _budget(memory, conversation)
        case ["conversations", conversation, ("recent" | "summary" | "resume") as what]:
            return _Content(_of_conversation(memory, fitter, conversation, what, found), _TEXT)
        case ["archival", memory_id]:
            return _Content(_memory(memory, fitter, memory_id, found), _TEXT)
        case ["events"]:
            return _Content(_events(memory, fitter), _JSON)
        case ["status"]:
            return _Content(_status(memory), _JSON)
        case _:
            raise _unknown(uri)


def _of_conversation(
    memory: AgentMemory, fitter: Fitter, conversation: str, what: str, found: MemoryUri
) -> str:
    if what == "recent":
        hint = "Use the number at the end of the previous page"
        before = read_number(found.arguments.get("before"), "before", hint)
        return _recent(memory, fitter, conversation, before)
    if what == "resume":
        return memory.resume.write(conversation, read_size(found.arguments.get("max_tokens")))
    summary = memory.conversations.summary(conversation)
    return "" if summary is None else render_summary(summary)


def complete_resource(memory: AgentMemory, argument: str, value: str) -> Completion:
    """Return completions for a template's variable or a prompt's argument."""
    match argument:
        case "label":
            values = [block.label for block in memory.core.all()]
        case "conversation":
            values = memory.conversations.names() or [DEFAULT_CONVERSATION]
        case "id":
            values = memory.archive.recent_ids(value, _COMPLETIONS)
        case _:
            values = []
    fitting = [item for item in values if item.lower().startswith(value.lower())]
    return Completion(
        values=fitting[:_COMPLETIONS], total=len(fitting), has_more=len(fitting) > _COMPLETIONS
    )


def topics_of_uri(memory: AgentMemory, uri: str) -> tuple[str, ...]:
    """Return the topics of the façade that change a resource; `*` at the end is any one.

    Raises:
        NotFound: There is no such resource.
        InvalidInput: A part of the URI is invalid.
    """
    found = read_uri(uri)
    for template, topics in _CHANGES.items():
        names = None if found is None else _names(template, found.path)
        if names is not None:
            return tuple(topic.format(**_present(memory, names)) for topic in topics)
    raise _unknown(uri)


def is_changed(topics_of_uri: Iterable[str], topics: Collection[str]) -> bool:
    """Return whether a resource with these topics changes with some of the façade."""
    return any(
        topic == one or (one.endswith("/*") and topic.startswith(one[:-1]))
        for one in topics_of_uri
        for topic in topics
    )


def _names(template: str, path: tuple[str, ...]) -> dict[str, str] | None:
    """Return the variables of a URI's path, None if it isn't of the template."""
    parts = template.removeprefix("memory://").split("/")
    if len(parts) != len(path):
        return None
    pairs = list(zip(parts, path, strict=True))
    if any(part != given for part, given in pairs if part[0] != "{"):
        return None
    return {part[1:-1]: given for part, given in pairs if part[0] == "{"}


def _present(memory: AgentMemory, names: Mapping[str, str]) -> dict[str, str]:
    """Return the variables as the façade spells them; what they name must exist."""
    conversation = names.get("conversation", DEFAULT_CONVERSATION)
    spelled = {"conversation": check_name(conversation, "conversation")}
    if "label" in names:
        spelled["label"] = memory.core.get(names["label"]).label
    if "id" in names:
        spelled["id"] = memory.archive.get(names["id"]).id
    return spelled


def read_size(given: str | None) -> int | None:
    """Return the number in the argument `max_tokens`, None if it is missing.

    Raises:
        InvalidInput: It isn't a whole number.
    """
    return read_number(given, "max_tokens", "Omit it, or use a number such as 4000")


def _budget(memory: AgentMemory, conversation: str) -> _Content:
    return _Content(_dump(budget_payload(memory.conversations.budget(conversation))), _JSON)


def _recent(memory: AgentMemory, fitter: Fitter, conversation: str, before: int | None) -> str:
    messages = memory.conversations.recent(conversation)
    if before is not None:
        messages = tuple(message for message in messages if message.index < before)
    lines: list[str] = []
    left = fitter.max_tokens - _FOOTER_TOKENS
    for message in reversed(messages):
        line = fitter.clip(numbered(message), fitter.max_tokens // 3)
        left -= memory.count_tokens(line) + 1
        if left < 0:
            break
        lines.append(line)
    older = len(messages) - len(lines)
    if older:
        uri = f"memory://conversations/{quote(conversation, safe='')}/recent"
        lines.append(f"({older} older messages: {uri}?before={messages[older].index})")
    return "\n".join(reversed(lines))


def _memory(memory: AgentMemory, fitter: Fitter, memory_id: str, found: MemoryUri) -> str:
    hint = "Use the number at the end of the previous part"
    start = read_number(found.arguments.get("from"), "from", hint) or 0
    record = memory.archive.get(memory_id)
    if start > len(record.content):
        raise InvalidInput(
            f"from={start} is behind the end of a text of {len(record.content)} characters",
            field="from",
            hint=hint,
        )
    text = record.content[start:]
    if fitter.fits(text):
        return text
    part = fitter.clip(text, fitter.max_tokens - _FOOTER_TOKENS).removesuffix("…")
    end = start + len(part)
    return (
        f"{part}\n[{len(record.content) - end} of {len(record.content)} characters left:"
        f" memory://archival/{record.id}?from={end}]"
    )


def _events(memory: AgentMemory, fitter: Fitter) -> str:
    zone = memory.settings.zone
    events: list[dict[str, object]] = []
    for event in memory.events(_EVENTS):
        item = {
            "id": event.id,
            "kind": event.kind,
            "conversation": event.conversation,
            "at": show(event.created_at, zone),
            "text": event.text,
            **event.data,
        }
        if not fitter.fits(_dump({"events": [*events, item]})):
            break
        events.append(item)
    return _dump({"events": events})


def _status(memory: AgentMemory) -> str:
    state, overview = memory.embedding_state(), memory.overview()
    embedding: dict[str, object] = {
        "state": state.state,
        "model": state.model,
        "pending": state.pending,
        "windows_pending": state.windows_pending,
    }
    if state.detail:
        embedding["detail"] = state.detail
    consolidated_at, endpoint_tokens = memory.consolidated()
    return _dump(
        {
            "version": __version__,
            "agent": memory.agent,
            "search": "hybrid" if state.state == "ready" else "lexical",
            "embedding": embedding,
            "counts": {"messages": overview.messages, "memories": overview.memories},
            "consolidation": {
                "last_at": consolidated_at and show(consolidated_at, memory.settings.zone),
                "endpoint_tokens": endpoint_tokens,
            },
            "summarizer": memory.summarizer_status(),
            "tags": list(overview.tags[:20]),
        }
    )


def _dump(payload: object) -> str:
    return json.dumps(payload, ensure_ascii=False, indent=1)


def _unknown(uri: str) -> NotFound:
    return NotFound(
        f"unknown resource {uri[:200]!r}",
        key=uri,
        hint=f"The resources are {', '.join(_CHANGES)}",
    )
