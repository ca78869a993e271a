"""The arguments of tools: the base class, field types that several tools share, and the schema.

The arguments are checked before the façade is called; unknown ones are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcp_memory.values.errors import InvalidInput
from mcp_memory.values.text import shorten

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


def validate(tool: str, arguments: type[Arguments], given: dict[str, Any]) -> Arguments:
    """Return the arguments of a call, checked.

    Raises:
        InvalidInput: An argument is missing, unknown or of the wrong type.
    """
    try:
        return arguments.model_validate(given)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        fields = [".".join(str(part) for part in problem["loc"]) for problem in problems]
        lines = [
            f"{field or 'arguments'}: {_reason(problem)}"
            for field, problem in zip(fields[:_MAX_PROBLEMS], problems, strict=False)
        ]
        accepted = ", ".join(arguments.model_fields) or "none"
        raise InvalidInput(
            f"invalid arguments for {tool}: {'; '.join(lines)}",
            field=fields[0],
            hint=f"Accepted arguments: {accepted}. Nothing was changed",
        ) from error


def _reason(problem: Any) -> str:
    match problem["type"]:
        case "extra_forbidden":
            return "unknown argument"
        case "missing":
            return "missing"
        case "string_unicode":
            return "contains an unpaired surrogate, which is not valid Unicode"
        case _:
            shown = shorten(repr(problem["input"]), 60).encode("ascii", "backslashreplace").decode()
            return f"{problem['msg']}, got {shown}"
