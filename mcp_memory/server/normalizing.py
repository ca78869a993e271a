"""Reads the arguments of a call as they were meant, before they are checked.

Hosts add arguments of their own, send lists and objects as text, send `null` or an
empty text for what isn't given, and spell names in their own way. All of that is undone
here, for every tool, by the types of its arguments. What can't be read is left as it is:
the check after this refuses it. Text that is stored is never changed.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from itertools import islice
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from mcp_memory.values.text import NOTHING, shorten

_MAX_UNKNOWN: Final = 32
"""Of more unknown arguments only the first are compared with ours; by judgement."""

_MAX_NAME_CHARS: Final = 64
_MAX_LITERAL_CHARS: Final = 100_000
"""A longer list is read as JSON only; by judgement."""

_MAX_NOTES: Final = 3
_LIKE: Final = 0.85
"""How like a misspelt name is to one of ours, by `difflib`; by judgement."""

_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "content": ("text", "body", "value", "memory", "note", "fact"),
    "new_memory": ("new_value", "new_content", "new_text", "content", "text", "value", "memory"),
    "old_content": ("old", "old_text", "old_value", "old_str"),
    "new_content": ("new", "new_text", "new_value", "new_str", "replacement"),
    "query": ("q", "text", "question", "search", "term", "search_term", "keyword", "keywords"),
    "top_k": ("limit", "k", "n", "count", "top_n", "max_results", "num_results", "page_size"),
    "limit": ("top_k", "k", "n", "count", "top_n", "max_results", "num_results", "page_size"),
    "cursor": ("next_cursor", "page_token", "next_page_token"),
    "label": ("block", "block_label", "block_name"),
    "id": ("memory_id", "archival_id"),
    "conversation": ("conversation_id", "conversation_name"),
    "messages": ("turns", "history"),
    "chunks": ("ranges",),
    "context": ("summary", "description"),
    "start_index": ("start", "from", "first"),
    "end_index": ("end", "to", "last"),
    "summary": ("content", "text"),
    "tags": ("label", "labels"),
    "tag_match_mode": ("tag_mode", "match_mode", "tag_match"),
    "start_date": ("since", "from", "from_date", "date_from", "start", "start_time"),
    "end_date": ("until", "to", "to_date", "date_to", "end", "end_time"),
}
"""Other names of an argument; each is used only in a tool that has no argument of that name."""

_DOUBTFUL: Final[Mapping[str, tuple[str, ...]]] = {
    "date": ("start_date", "end_date", "happened_at"),
    "date_range": ("start_date", "end_date"),
    "time_range": ("start_date", "end_date"),
    "after": ("start_date",),
    "before": ("end_date",),
    "filter": ("tags", "kinds", "roles", "start_date", "end_date"),
    "where": ("tags", "kinds", "roles", "start_date", "end_date"),
    "exclude": ("tags", "kinds", "roles"),
    "category": ("tags", "kind", "kinds"),
    "speaker": ("roles",),
    "offset": ("cursor",),
    "skip": ("cursor",),
    "page": ("cursor",),
    "page_number": ("cursor",),
}
"""Names of what a caller means, with those of ours that may be meant; dropped, they change it."""

_DECORATIONS: Final = {"text", "string", "str", "list", "array", "input", "arg", "param"}
_WRAPPERS: Final = {
    "argument",
    "arg",
    "kwarg",
    "param",
    "parameter",
    "input",
    "toolinput",
    "request",
}
"""Where a host may put all arguments of a tool that needs none; of others, in any object."""

_NOUNS: Final = {"search", "memory", "archival", "block"}
"""Words around a name that say nothing more: `query_text`, `tags_list`; `search_query`."""


@dataclass(frozen=True, slots=True)
class Prose:
    """Marks free text; it is stored to the letter if it is `exact`."""

    exact: bool = True


@dataclass(frozen=True, slots=True)
class AtMost:
    """Marks a number that is cut to a limit."""

    limit: int


@dataclass(frozen=True, slots=True)
class With:
    """Marks an argument that means nothing without another one."""

    name: str


@dataclass(frozen=True, slots=True)
class Also:
    """Marks a choice that has other names too, each with the value that it means."""

    names: Mapping[str, str]


@dataclass(slots=True)
class Given:
    """The arguments of a call as they were meant.

    Attributes:
        values: By our names.
        notes: What was understood in another way than it was sent, for the reply.
        doubts: What can't be understood, by the name that was sent; each with the reason.
        unknown: Names that were passed over.
    """

    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    doubts: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    @property
    def note(self) -> str | None:
        """The notes in one line, None without any."""
        return "; ".join(dict.fromkeys(self.notes[:_MAX_NOTES])) or None


def normalize(arguments: type[BaseModel], sent: Mapping[str, Any]) -> Given:
    """Return the arguments of a call as they were meant; nothing is checked."""
    given = Given()
    given.values = _object(shapes(arguments), sent, given)
    return given


Kind = Literal["text", "words", "handle", "choice", "number", "list", "object", "other"]


@dataclass(frozen=True, slots=True)
class Shape:
    """What an argument can be.

    Attributes:
        required: Whether it must be given; then nothing stands for "not given".
        choices: The values of a choice, by their normalized spelling.
        item: The shape of a list's items.
        parts: The shapes of an object's fields.
        most: The limit to which a number is cut.
        needs: The argument without which this one means nothing.
    """

    kind: Kind
    required: bool = False
    choices: Mapping[str, str] = field(default_factory=dict)
    item: Shape | None = None
    parts: Mapping[str, Shape] | None = None
    most: int | None = None
    needs: str | None = None


@cache
def shapes(arguments: type[BaseModel]) -> Mapping[str, Shape]:
    """Return the shapes of a model's fields by name."""
    return {
        name: _shape(info.annotation, tuple(info.metadata), required=info.is_required())
        for name, info in arguments.model_fields.items()
    }


def _shape(annotation: Any, marks: tuple[Any, ...] = (), *, required: bool = False) -> Shape:
    while get_origin(annotation) in (Annotated, Union, types.UnionType):
        if get_origin(annotation) is Annotated:
            marks += annotation.__metadata__
            annotation = annotation.__origin__
            continue
        options = [option for option in get_args(annotation) if option is not type(None)]
        if len(options) != 1:
            return Shape("other", required)
        annotation = options[0]
    return _plain_shape(annotation, {type(mark): mark for mark in marks}, required)


def _plain_shape(annotation: Any, marks: Mapping[type, Any], required: bool) -> Shape:
    needs = marks[With].name if With in marks else None
    if annotation is str and Prose in marks:
        return Shape("text" if marks[Prose].exact else "words", required)
    if annotation is str:
        return Shape("handle", required, needs=needs)
    if annotation is int:
        return Shape("number", required, most=marks[AtMost].limit if AtMost in marks else None)
    if get_origin(annotation) is Literal:
        choices = _choices(get_args(annotation))
        also = marks[Also].names if Also in marks else {}
        return Shape("choice", required, choices={**also, **choices}, needs=needs)
    if get_origin(annotation) is list:
        return Shape("list", required, item=_shape(get_args(annotation)[0], required=True))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return Shape("choice", required, choices=_choices(annotation), needs=needs)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return Shape("object", required, parts=shapes(annotation))
    return Shape("other", required)


def _choices(values: Iterable[Any]) -> dict[str, str]:
    return {_singular(_squashed(str(value))): str(value) for value in values}


# Names.


def _object(parts: Mapping[str, Shape], sent: Mapping[str, Any], given: Given) -> dict[str, Any]:
    """Return an object with its fields by our names, each as it was meant."""
    values: dict[str, Any] = {}
    for name, value in _named(parts, sent, given).items():
        shape = parts[name]
        if is_nothing(value) and (not shape.required or value is None):
            if isinstance(value, str) and value.strip() and shape.kind in ("text", "words"):
                given.notes.append(f"{name} {value.strip()!r} was read as not given")
            continue
        read = _READERS[shape.kind](shape, name, value, given)
        if read is not _ABSENT:
            values[name] = read
    return {
        name: value
        for name, value in values.items()
        if parts[name].needs is None or parts[name].needs in values
    }


def _named(parts: Mapping[str, Shape], sent: Mapping[str, Any], given: Given) -> dict[str, Any]:
    """Return the fields by our names; others are taken for ours, passed over or doubtful."""
    named = {name: value for name, value in sent.items() if name in parts}
    if len(named) == len(sent):
        return named
    others = {name: value for name, value in sent.items() if name not in parts}
    inner = _wrapped(parts, others) if all(map(is_nothing, named.values())) else None
    if inner is not None:
        return _named(parts, inner, given)
    for name in islice(others, _MAX_UNKNOWN):
        if isinstance(name, str) and len(name) <= _MAX_NAME_CHARS:
            _take(parts, named, name, others[name], given)
    given.unknown += [shorten(str(name), 40) for name in others]
    return named


def _take(
    parts: Mapping[str, Shape], named: dict[str, Any], name: str, value: Any, given: Given
) -> None:
    """Add an argument of another name to `named`, if it can mean one of ours."""
    absent = [ours for ours in parts if is_nothing(named.get(ours))]
    meant, is_spelling = _meant(parts, name)
    if meant is not None and _fits(parts[meant], value):
        if meant in absent:
            named[meant] = value
            if not is_spelling:
                given.notes.append(f"{name} was read as {meant}")
        elif named[meant] != value and not is_nothing(value):
            given.notes.append(f"{name} was ignored: {meant} is given")
    elif value and not is_nothing(value):
        doubtful = _doubtful(parts, name, value, absent)
        if doubtful:
            given.doubts[name] = f"unknown argument, perhaps {' or '.join(doubtful)} is meant"


def _wrapped(parts: Mapping[str, Shape], others: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the only object that has fields of ours: some hosts put all arguments into one."""
    if _has_ours(parts, others):
        return None
    needed = any(shape.required for shape in parts.values())
    found = []
    for name in islice(others, _MAX_UNKNOWN):
        if needed or _singular(_squashed(str(name))) in _WRAPPERS:
            inner = _parsed(others[name]) if isinstance(others[name], str) else others[name]
            if isinstance(inner, Mapping) and _has_ours(parts, inner):
                found.append(inner)
    return found[0] if len(found) == 1 else None


def _has_ours(parts: Mapping[str, Shape], sent: Mapping[str, Any]) -> bool:
    return any(_meant(parts, str(name))[0] for name in islice(sent, _MAX_UNKNOWN))


def _meant(parts: Mapping[str, Shape], name: str) -> tuple[str | None, bool]:
    """Return the only argument that a name can mean, and whether it is only spelled differently."""
    words = _words(name[:_MAX_NAME_CHARS])
    bare = "".join(words)
    same = [ours for ours in parts if _singular(ours.replace("_", "")) == _singular(bare)]
    if same:
        return (same[0] if len(same) == 1 else None), True
    snake = _singular("_".join(words))
    found = [
        ours for ours in parts if snake in [_singular(alias) for alias in _ALIASES.get(ours, ())]
    ]
    if not found:
        cut = [word for word in words if word not in _DECORATIONS]
        less = [word for word in cut if word not in _NOUNS]
        for rest in (cut, less):
            squashed = _singular("".join(rest))
            found = found or [
                ours for ours in parts if _singular(ours.replace("_", "")) == squashed
            ]
    return (found[0] if len(found) == 1 else None), False


def _doubtful(
    parts: Mapping[str, Shape], name: str, value: Any, absent: list[str]
) -> tuple[str, ...]:
    """Return what a name may mean: dropping it silently would change the call."""
    words = [_singular(word) for word in _words(name)]
    if not words or words[-1] == "id":
        return ()
    known = _DOUBTFUL.get("_".join(words), ())
    meant = tuple(ours for ours in known if ours in parts)
    if meant and ("cursor" not in meant or _fits(Shape("number"), value)):
        return meant
    # exclude_tags, min_start_date: a filter of ours, and something more.
    for ours, shape in parts.items():
        is_filter = shape.kind in ("list", "choice") or ours.endswith("_date")
        own = {_singular(word) for word in ours.split("_")}
        if is_filter and not shape.required and own < set(words) and _fits(shape, value):
            return (ours,)
    squashed = {ours.replace("_", ""): ours for ours in absent}
    for like in difflib.get_close_matches("".join(_words(name)), squashed, 1, _LIKE):
        if _fits(parts[squashed[like]], value):
            return (squashed[like],)
    return ()


def _fits(shape: Shape, value: Any) -> bool:
    """Return whether a value can be one of a shape, so that its name can mean it."""
    read = _READERS[shape.kind](shape, "", value, Given())
    match shape.kind:
        case "text":
            return isinstance(value, (str, int, float))
        case "words" | "handle":
            return isinstance(read, str)
        case "number":
            return isinstance(read, int) and not isinstance(read, bool)
        case "choice":
            return read in shape.choices.values()
        case "list":
            item = shape.item
            return isinstance(read, list) and (
                item is None or all(_fits(item, one) for one in read)
            )
        case "object":
            return isinstance(read, dict) and bool(read)
    return True


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case: topK, top-k and TOP_K have the same."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return re.findall(r"[^\W_]+", spaced.lower())


def _squashed(text: str) -> str:
    return "".join(_words(text))


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word


# Values.

_ABSENT: Final = object()


def is_nothing(value: Any) -> bool:
    """Return whether a value only says that nothing is given."""
    if isinstance(value, str):
        return not value or value.isspace() or value.strip() in NOTHING
    if isinstance(value, list):
        return bool(value) and all(map(is_nothing, value))
    return value is None


def _parsed(text: str) -> Any:
    """Return what a text is as JSON, or as a literal of Python; None if it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if len(text) <= _MAX_LITERAL_CHARS:
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            pass
    return None


def _as_text(value: Any) -> str | None:
    """Return a number or truth value as text, as JSON has it; None for something else."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        try:
            return json.dumps(value)
        except ValueError:  # More digits than Python writes.
            return None
    return None


def _one(value: Any) -> Any:
    """Return the only item of a list; anything else unchanged."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _read_text(shape: Shape, name: str, value: Any, given: Given) -> Any:
    text = _as_text(value)
    if text is None and isinstance(value, (dict, list)):
        # A host has parsed a text that is JSON.
        given.notes.append(f"{name} was not a text: it is stored as JSON")
        return json.dumps(value, ensure_ascii=False)
    return value if text is None else text


def _read_handle(shape: Shape, name: str, value: Any, given: Given) -> Any:
    text = _as_text(_one(value))
    return value if text is None else text.strip()


def _read_choice(shape: Shape, name: str, value: Any, given: Given) -> Any:
    one = _one(value)
    if not isinstance(one, str):
        return value
    return shape.choices.get(_singular(_squashed(one)), one.strip())


def _read_number(shape: Shape, name: str, value: Any, given: Given) -> Any:
    one = _one(value)
    if isinstance(one, bool):
        return json.dumps(one)  # Refused: Python takes it for 0 or 1.
    if isinstance(one, str) and re.fullmatch(r"\s*[-+]?\d{1,18}(?:\.0*)?\s*", one):
        one = int(one.strip().partition(".")[0])
    if isinstance(one, float) and one.is_integer():
        one = int(one)
    if shape.most is not None and isinstance(one, int) and one > shape.most:
        given.notes.append(f"{name} was cut to {shape.most}, the maximum")
        return shape.most
    return one


def _read_list(shape: Shape, name: str, value: Any, given: Given) -> Any:
    item = shape.item or Shape("other", required=True)
    items = value
    if isinstance(value, str):
        items = _listed(item, name, value, given)
    elif not isinstance(value, list):
        items = [value]
    if not isinstance(items, list):
        return items
    kept = items if shape.required else [one for one in items if not is_nothing(one)]
    if items and not kept:
        return _ABSENT
    return [_READERS[item.kind](item, name, one, given) for one in kept]


def _listed(item: Shape, name: str, text: str, given: Given) -> Any:
    """Return the list that a text is."""
    bare = text.strip()
    if bare[:1] in ("[", "{") or (bare[:1] == '"' and bare[-1:] == '"'):
        found = _parsed(bare)
        if isinstance(found, list):
            return found
        if isinstance(found, dict) or (found is not None and item.kind != "object"):
            return [found]
        if bare[:1] == "[" and bare[-1:] == "]":
            return text  # Refused: it was to be a list.
    if item.kind in ("choice", "handle") and "," in text:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if item.kind == "handle" and len(parts) > 1:
            given.notes.append(f"{name} was one text: it was read as {len(parts)}")
        return parts
    return [text]


def _read_object(shape: Shape, name: str, value: Any, given: Given) -> Any:
    found = _parsed(value) if isinstance(value, str) else _one(value)
    return _object(shape.parts or {}, found, given) if isinstance(found, Mapping) else value


def _read_other(shape: Shape, name: str, value: Any, given: Given) -> Any:
    """Return a value of any form; only an object may come as text."""
    found = _parsed(value) if isinstance(value, str) and value.lstrip()[:1] == "{" else None
    return found if isinstance(found, Mapping) else value


_READERS: Final[Mapping[Kind, Callable[[Shape, str, Any, Given], Any]]] = {
    "text": _read_text,
    "words": _read_handle,
    "handle": _read_handle,
    "choice": _read_choice,
    "number": _read_number,
    "list": _read_list,
    "object": _read_object,
    "other": _read_other,
}
