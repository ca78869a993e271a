"""The arguments of tools: the base class, field types that several tools share, and the schema.

The arguments are read as they were meant (`normalizing.py`), and checked before the façade
is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcp_memory.server.normalizing import AtMost, Prose, normalize
from mcp_memory.values.errors import InvalidInput
from mcp_memory.values.requests import MAX_RESULTS
from mcp_memory.values.text import shorten

Text = Annotated[str, Prose()]
"""Text that is stored to the letter."""

Query = Annotated[str | None, Prose(exact=False)]
Results = Annotated[int, Field(description=f"1-{MAX_RESULTS}"), AtMost(MAX_RESULTS)]
Label = Annotated[str, Field(description="human, persona, working, or another block")]
Conversation = Annotated[str | None, Field(description="Default: main")]
Cursor = Annotated[str | None, Field(description="next_cursor of the previous page")]
Date = Annotated[str | None, Field(description="ISO date or time; a date means the whole day")]
Around = Annotated[str | None, Field(description="A hit's id, or id:char: shows the text there")]
Tags = list[str]

_MAX_PROBLEMS: Final = 5
"""An error lists this many invalid arguments, so that it stays short; by judgement."""

_OMITTED: Final = {"title", "default", "additionalProperties"}


class Arguments(BaseModel):
    """Named arguments of one tool."""

    model_config = ConfigDict(extra="forbid", frozen=True)


A = TypeVar("A", bound=Arguments)


def input_schema(arguments: type[Arguments]) -> dict[str, Any]:
    """Return the JSON Schema of a tool's arguments in as few bytes as possible.

    Definitions are inlined. Titles, defaults, `null` and `additionalProperties` are
    left out: the model pays for them on every turn, and the server checks them anyway.
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
    compact: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            compact[key] = {name: _compact(item, definitions) for name, item in value.items()}
        elif key == "anyOf":
            [branch] = [item for item in value if item != {"type": "null"}]
            compact.update(_compact(branch, definitions))
        elif key not in _OMITTED:
            compact[key] = _compact(value, definitions)
    return compact


def validate(tool: str, arguments: type[A], sent: Mapping[str, Any]) -> tuple[A, str | None]:
    """Return the arguments of a call, checked, and what the caller should know of their reading.

    Raises:
        InvalidInput: An argument is missing, doubtful or of the wrong type.
    """
    given = normalize(arguments, sent)
    problems = dict(given.doubts)
    checked: A | None = None
    try:
        checked = arguments.model_validate(given.values)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_context=False):
            field = ".".join(str(part) for part in problem["loc"])
            problems.setdefault(field or "arguments", _reason(problem))
    if checked is not None and not problems:
        return checked, given.note
    lines = [f"{field}: {reason}" for field, reason in problems.items()][:_MAX_PROBLEMS]
    accepted = ", ".join(arguments.model_fields) or "none"
    unknown = [name for name in given.unknown if name not in problems][:_MAX_PROBLEMS]
    passed_over = f" Unknown: {', '.join(unknown)}." if unknown else ""
    raise InvalidInput(
        f"invalid arguments for {tool}: {'; '.join(lines)}",
        field=next(iter(problems)),
        hint=f"Accepted arguments: {accepted}.{passed_over} Nothing was changed",
    )


def _reason(problem: Any) -> str:
    match problem["type"]:
        case "missing":
            return "missing"
        case "list_type":
            return f'must be a list, such as ["work", "tea"], got {_shown(problem)}'
        case "string_unicode":
            return "contains an unpaired surrogate, which is not valid Unicode"
        case _:
            return f"{problem['msg']}, got {_shown(problem)}"


def _shown(problem: Any) -> str:
    return shorten(repr(problem["input"]), 60).encode("ascii", "backslashreplace").decode()
