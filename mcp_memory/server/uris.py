"""Our URIs: `memory://`, parts between slashes, and arguments behind a question mark.

They have no host and no port, so they are not read as URLs: a reader of those refuses
some of their texts, and changes others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote

from mcp_memory.values.errors import InvalidInput
from mcp_memory.values.text import whole_number

_URI: Final = re.compile(r"memory://([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class MemoryUri:
    """A URI of ours.

    Attributes:
        path: Its parts, without the one that a slash at the end leaves.
        arguments: What its arguments are; of one that is there twice, the first.
    """

    path: tuple[str, ...]
    arguments: dict[str, str]


def read_uri(uri: str) -> MemoryUri | None:
    """Return the parts of a URI; None if it is none of ours."""
    match = _URI.fullmatch(uri)
    if match is None:
        return None
    path = match[1].removesuffix("/")
    arguments = {name: values[0] for name, values in parse_qs(match[2] or "").items()}
    return MemoryUri(tuple(unquote(part) for part in path.split("/")), arguments)


def read_number(given: str | None, name: str, hint: str) -> int | None:
    """Return an argument that is a whole number; None if it is missing or blank.

    Raises:
        InvalidInput: It is something else; `hint` says what to use.
    """
    if given is None or not given.strip():
        return None
    number = whole_number(given)
    if number is None:
        raise InvalidInput(f"{name} {given[:40]!r} isn't a whole number", field=name, hint=hint)
    return number
