"""Messages in the forms that agents hold them, each read as one role and one text.

The forms are those of OpenAI (chat completions, responses), Anthropic, Gemini, Bedrock,
LangChain (its serialized form too) and the Vercel AI SDK. Text is kept to the letter. A call
of a tool and its result become text, such as `[tool call: get_weather {"city":"Porto"}]`;
what is neither is named in brackets: `[image]`. A message without a role that is known, or
with nothing to store, is refused.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from mcp_memory.values.dates import parse_moment
from mcp_memory.values.errors import InvalidInput, MemoryFault
from mcp_memory.values.records import ROLES, NewMessage, Role
from mcp_memory.values.text import NOTHING, check_speaker, check_text, shorten

Fields = Mapping[str, Any]

ROLE_NAMES: Final[Mapping[str, Role]] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}
"""What a role is called: LangChain says human and ai, Gemini model, OpenAI developer."""

_CLASS_NAME: Final = re.compile(r"message(?:chunk)?$")
"""The end of a LangChain class name: `AIMessageChunk` is what `ai` says."""

_BODIES: Final = ("content", "parts")
_WRAPPERS: Final = ("kwargs", "data", "message", "content")
"""Fields that can contain the message itself: LangChain's, a transcript's, Gemini's."""

_TIMES: Final = ("created_at", "timestamp", "createdAt", "created", "create_time")
_CALL_KEYS: Final = (
    "functionCall",
    "function_call",
    "toolUse",
    "toolInvocation",
    "executableCode",
    "executable_code",
)
_RESULT_KEYS: Final = (
    "functionResponse",
    "function_response",
    "toolResult",
    "codeExecutionResult",
    "code_execution_result",
)
_ID_KEYS: Final = (
    "tool_call_id",
    "toolCallId",
    "tool_use_id",
    "toolUseId",
    "call_id",
    "id",
)
_NAME_KEYS: Final = ("name", "toolName", "tool_name")
_INPUT_KEYS: Final = ("arguments", "args", "input", "parameters", "action", "code")
_OUTPUT_KEYS: Final = ("output", "result", "response", "content", "errorText", "error")
_TEXT_TYPES: Final = frozenset({"text", "input_text", "output_text", "summary_text", "refusal"})
_SILENT: Final = _TEXT_TYPES | {"step_start"}
"""Types of parts that say nothing where they have no text."""

_CALL_TYPES: Final = frozenset({"tool_use", "tool_call", "function_call", "dynamic_tool"})
_REASONING: Final = frozenset({"reasoning", "thinking", "redacted_thinking", "thought"})
_FILE_TYPES: Final = frozenset(
    {
        "image",
        "image_url",
        "input_image",
        "computer_screenshot",
        "document",
        "file",
        "input_file",
        "audio",
        "video",
        "resource",
        "resource_link",
    }
)
_LABELS: Final[Mapping[str, str]] = {
    "image_url": "image",
    "input_image": "image",
    "input_file": "file",
    "input_audio": "audio",
    "computer_screenshot": "image",
    "inlinedata": "file",
    "filedata": "file",
    **dict.fromkeys(_REASONING, "reasoning"),
}
_MIME_KEYS: Final = ("mediaType", "mimeType", "mime_type", "media_type")
_MAX_LABEL_CHARS: Final = 60
"""The longest name of a tool, file or part in brackets; by judgement."""


@dataclass(slots=True)
class Batch:
    """The messages of a batch that can be stored, and why the others can't.

    Attributes:
        messages: In the order given.
        refused: The position of each other one with what is wrong with it.
    """

    messages: list[NewMessage] = field(default_factory=list)
    refused: list[tuple[int, MemoryFault]] = field(default_factory=list)

    def fault(self) -> InvalidInput:
        """Return the error that says why no message of the batch can be stored."""
        place, first = self.refused[0]
        more = len(self.refused) - 1
        others = f" ({more} more can't be stored either)" if more else ""
        return InvalidInput(
            f"messages[{place}]: {first.message}{others}",
            field=f"messages[{place}].{getattr(first, 'field', '')}".rstrip("."),
            hint=first.hint,
        )


def read_messages(given: Sequence[object], *, zone: ZoneInfo) -> Batch:
    """Return the messages of a batch, each read by itself.

    A result gets the name of the tool from its call, if that is in the batch.

    Args:
        zone: The time zone of dates that have none.
    """
    batch = Batch()
    names: dict[str, str] = {}
    for place, one in enumerate(given):
        try:
            batch.messages.append(read_message(one, zone=zone, names=names))
        except MemoryFault as fault:
            batch.refused.append((place, fault))
    return batch


def read_message(
    given: object, *, zone: ZoneInfo, names: dict[str, str] | None = None
) -> NewMessage:
    """Return one message as it can be stored.

    Args:
        zone: The time zone of a date that has none.
        names: The names of tools by the ids of their calls; those of this message are added.

    Raises:
        InvalidInput, OverLimit: It can't be stored.
    """
    try:
        fields = _fields(given)
        reader = _Reader({} if names is None else names)
        role = _role(fields)
        pieces = [piece for piece in reader.pieces(fields) if piece.text or piece.is_result]
        name = _name(fields)
        if pieces and all(piece.is_result for piece in pieces) and role != "assistant":
            role = "tool"
        if role == "tool":
            name = name or _tool_name(fields, pieces, reader.names)
        content = _joined(pieces, bare=role == "tool" and len(pieces) == 1)
    except RecursionError as error:
        raise InvalidInput("content is nested too deeply", field="content") from error
    if role == "tool" and not content.strip():
        content = "[tool result]"
    return NewMessage(role, check_text(content, "content"), name, _moment(fields, zone))


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a message as text; `head` stands above it unless it is all of the message."""

    text: str
    head: str = ""
    is_result: bool = False
    tool: str = ""


class _Reader:
    """Reads the parts of one message.

    Args:
        names: The names of tools by the ids of their calls.
    """

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self._called: set[str] = set()

    def pieces(self, fields: Fields) -> Iterator[_Piece]:
        """Yield the parts of a message in order: its content, then its calls of tools."""
        content = fields.get("content")
        parts = fields.get("parts")
        if parts:
            content = parts  # The content repeats the text of the parts, if it is there.
        elif content is None:
            content = _first(fields, ("text", "refusal")) or _transcript(fields)
        if "role" not in fields and _type(fields) not in ROLE_NAMES and _is_item(fields):
            content = fields
        yield from self._parts(content)
        more = fields.get("additional_kwargs")
        for source in (fields, more if isinstance(more, Mapping) else {}):
            for key in ("tool_calls", "invalid_tool_calls", "toolInvocations"):
                calls = source.get(key)
                for call in calls if isinstance(calls, list) else ():
                    yield from self._call(call)
            if isinstance(source.get("function_call"), Mapping) and content is not fields:
                yield from self._call(source["function_call"])

    def _parts(self, content: object) -> Iterator[_Piece]:
        match content:
            case None:
                return
            case str():
                yield _Piece(content)
            case list():
                for part in content:
                    yield from self._part(part)
            case Mapping():
                known = {"type", "text", "thought", *_CALL_KEYS, *_RESULT_KEYS}
                if known.isdisjoint(content):
                    yield _Piece(_json(content))  # What a tool gave back.
                else:
                    yield from self._part(content)
            case _:
                raise InvalidInput(
                    f"content {shorten(repr(content), 60)} is neither text nor a list of parts",
                    field="content",
                    hint="Give the text of the message",
                )

    def _part(self, part: object) -> Iterator[_Piece]:
        if not isinstance(part, Mapping):
            yield from self._parts(part if isinstance(part, str) else json.dumps(part))
            return
        kind = _type(part)
        text = part.get("refusal" if kind == "refusal" else "text")
        text = text.get("value") if isinstance(text, Mapping) else text
        call, result = _first(part, _CALL_KEYS), _first(part, _RESULT_KEYS)
        if isinstance(call, Mapping):
            yield from self._call(call)
        elif isinstance(result, Mapping):
            yield self._result(result)
        elif kind in _REASONING or part.get("thought") is True:
            yield _Piece("[reasoning]")
        elif isinstance(text, str) and (not kind or kind in _TEXT_TYPES):
            yield _Piece(text)
        elif kind not in _SILENT:
            yield from self._typed(part, kind)

    def _typed(self, part: Fields, kind: str) -> Iterator[_Piece]:
        """Yield a part that its type names: a call, a result, or what is not read."""
        if kind in _CALL_TYPES or kind.endswith(("_call", "_use")) or _own_type(part):
            yield from self._call(part)
        elif kind.endswith(("_result", "_output")):
            yield self._result(part)
        else:
            yield _Piece(_label(part, kind))

    def _call(self, call: object) -> Iterator[_Piece]:
        """Yield a call of a tool, and its result if that is in the same part."""
        if not isinstance(call, Mapping):
            return
        inner = _first(call, ("function", "custom"))
        call = {**call, **inner} if isinstance(inner, Mapping) else call
        name = _first(call, _NAME_KEYS) or _own_type(call) or _type(call) or "code"
        name = shorten(str(name), _MAX_LABEL_CHARS)
        key = _first(call, _ID_KEYS)
        if isinstance(key, str):
            if key in self._called:
                return  # LangChain lists a call of a part once more beside the content.
            self._called.add(key)
            self.names[key] = name
        given = _first(call, _INPUT_KEYS)
        shown = given if isinstance(given, str) else _json(given)
        yield _Piece(f"[tool call: {name} {shown}]" if shown else f"[tool call: {name}]")
        if _first(call, ("output", "result", "errorText", "error")) is not None:
            yield self._result({**call, "name": name})

    def _result(self, result: Fields) -> _Piece:
        key = _first(result, _ID_KEYS)
        name = _first(result, _NAME_KEYS) or (self.names.get(key) if isinstance(key, str) else "")
        name = shorten(str(name or ""), _MAX_LABEL_CHARS)
        head = f"[tool result: {name}]" if name else "[tool result]"
        return _Piece(self._output(_first(result, _OUTPUT_KEYS)), head, is_result=True, tool=name)

    def _output(self, value: object) -> str:
        """Return what a tool gave back as text."""
        if isinstance(value, Mapping) and isinstance(value.get("type"), str) and "value" in value:
            value = value["value"]  # Vercel: {"type": "json", "value": …}
        if isinstance(value, Mapping) and len(value) == 1 and not _type(value):
            [(key, inner)] = value.items()
            value = inner if key in _OUTPUT_KEYS else value  # Gemini: {"output": …}
        parts = value if isinstance(value, list) else [value]
        if all(isinstance(part, Mapping) and _is_content(part) for part in parts):
            return _joined([piece for part in parts for piece in self._part(part)])
        return value if isinstance(value, str) else _json(value)


def _fields(given: object) -> Fields:
    """Return the fields of a message, with those of an object that it is wrapped in."""
    if isinstance(given, str):
        with contextlib.suppress(ValueError):
            given = json.loads(given)
    if not isinstance(given, Mapping):
        raise InvalidInput(
            f"{shorten(repr(given), 60)} is not a message",
            field="",
            hint='A message is an object such as {"role": "user", "content": "Hello"}',
        )
    for key in _WRAPPERS:
        inner = given.get(key)
        if not isinstance(inner, Mapping) or inner.keys().isdisjoint(_BODIES):
            continue
        if key == "content" or given.keys().isdisjoint(_BODIES):
            # LangChain names the class in `id`.
            return {**given, "content": None, **inner, "id": given.get("id") or inner.get("id")}
    return given


def _role(fields: Fields) -> Role:
    """Return the role that a message names, or that its type or class stands for."""
    role = fields.get("role")
    if role is None:
        key = fields.get("id")
        names = [fields.get("type"), key[-1] if isinstance(key, list) and key else None]
        for name in names:
            if isinstance(name, str) and (found := _known(name)):
                return found
        if _is_item(fields):
            return "tool" if _type(fields).endswith(("_output", "_result")) else "assistant"
    elif isinstance(role, str) and (found := _known(role)):
        return found
    shown = shorten(repr(role), 60)
    raise InvalidInput(
        "role is missing" if role is None else f"role {shown} is unknown",
        field="role",
        hint=f"Use one of {', '.join(ROLES)}",
    )


def _known(name: str) -> Role | None:
    plain = name.strip().lower()
    return ROLE_NAMES.get(plain) or ROLE_NAMES.get(_CLASS_NAME.sub("", plain))


def _is_item(fields: Fields) -> bool:
    """Return whether it is a call, a result or reasoning that stands alone, as OpenAI has them."""
    kind = _type(fields)
    return kind in _REASONING or kind.endswith(("_call", "_output", "_result", "_use"))


def _is_content(part: Fields) -> bool:
    """Return whether a part of what a tool gave back is text or a file, not data of its own."""
    kind = _type(part)
    return kind in _TEXT_TYPES or kind in _FILE_TYPES or (not kind and set(part) == {"text"})


def _name(fields: Fields) -> str | None:
    name = fields.get("name")
    if name is None or str(name).strip() in NOTHING or _is_item(fields):
        return None
    return check_speaker(str(name), "name")


def _tool_name(fields: Fields, pieces: Sequence[_Piece], names: Mapping[str, str]) -> str | None:
    """Return the name of the tool whose results these are, if it is one and can be a name."""
    key = _first(fields, _ID_KEYS)
    found = {piece.tool for piece in pieces if piece.tool}
    if not found and isinstance(key, str) and key in names:
        found = {names[key]}
    if len(found) != 1:
        return None
    try:
        return check_speaker(found.pop(), "name")
    except MemoryFault:
        return None


def _moment(fields: Fields, zone: ZoneInfo) -> datetime | None:
    for key in _TIMES:
        value = fields.get(key)
        if value is None or (isinstance(value, str) and value.strip() in NOTHING):
            continue
        text = str(value) if isinstance(value, (str, int, float)) else repr(value)
        return parse_moment(text, zone=zone, field=key)
    return None


def _joined(pieces: Sequence[_Piece], *, bare: bool = False) -> str:
    """Return the pieces below each other; white space between two texts stays what it is."""
    texts = [
        piece.text if bare or not piece.head else f"{piece.head}\n{piece.text}".rstrip("\n")
        for piece in pieces
    ]
    if len(texts) > 1:
        texts = [text for text in texts if text.strip()]
    joined = ""
    for text in texts:
        apart = not joined or joined[-1].isspace() or text[:1].isspace()
        joined += text if apart else f"\n{text}"
    return joined


def _label(part: Fields, kind: str) -> str:
    """Return what stands for a part that is no text."""
    kind = kind or next(
        (key.lower().replace("_", "") for key, value in part.items() if value), "part"
    )
    label = _LABELS.get(kind, kind)
    if label == "file":
        holders = (part, *(value for value in part.values() if isinstance(value, Mapping)))
        mimes = (str(_first(holder, _MIME_KEYS) or "").partition("/")[0] for holder in holders)
        label = next((mime for mime in mimes if mime in ("image", "audio", "video")), label)
    label = re.sub(r"[^\w.-]+", "_", label)[:_MAX_LABEL_CHARS]
    named = _first(part, ("filename", "file_name", "title"))
    return f"[{label}: {shorten(str(named), _MAX_LABEL_CHARS)}]" if named else f"[{label}]"


def _transcript(fields: Fields) -> Any:
    audio = fields.get("audio")
    return audio.get("transcript") if isinstance(audio, Mapping) else None


def _type(fields: Fields) -> str:
    """Return the type of a part with `_` between its words; empty without one."""
    kind = fields.get("type")
    return kind.strip().lower().replace("-", "_") if isinstance(kind, str) else ""


def _own_type(part: Fields) -> str:
    """Return the tool's name in a type such as Vercel's `tool-getWeather`; empty without one."""
    kind = part.get("type")
    own = isinstance(kind, str) and kind.startswith("tool-") and "toolCallId" in part
    return str(kind)[5:] if own and kind not in ("tool-call", "tool-result") else ""


def _first(fields: Fields, keys: Sequence[str]) -> Any:
    return next((fields[key] for key in keys if fields.get(key) is not None), None)


def _json(value: object) -> str:
    """Return JSON without spaces; nothing for what is absent or empty."""
    if value is None or value in ({}, []):
        return ""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
