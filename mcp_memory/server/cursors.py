"""Cursors: opaque tokens that name a call and the position where its reply continues."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mcp_memory.server.arguments import Arguments
from mcp_memory.values.errors import BadCursor

_CHECK_CHARS: Final = 6
"""24 bits of checksum: enough against typing errors; a cursor is no secret."""

_MAX_CHARS: Final = 400
"""A longer text isn't decoded; the longest cursor has about 140."""

_MAX_COUNT: Final = 10**12
"""No reply has as many items or characters; by judgement."""

_YEARS: Final = range(1970, 3000)
"""When a search can have been made; a clock may be wrong. By judgement."""

_PAGING: Final = {"cursor", "limit", "top_k"}
"""Arguments that may differ between two pages of one search."""


@dataclass(frozen=True, slots=True)
class Position:
    """After `offset` items of the result as of `as_of`, at character `part` of the next item."""

    offset: int = 0
    as_of: datetime | None = None
    part: int = 0


def write_cursor(tool: str, arguments: Arguments, position: Position) -> str:
    """Return the cursor that continues a call at a position."""
    moment = None if position.as_of is None else position.as_of.isoformat()
    body = json.dumps([_call(tool, arguments), position.offset, position.part, moment])
    text = base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")
    return text + _check(text)


def read_cursor(tool: str, arguments: Arguments, cursor: str | None) -> Position:
    """Return the position of a cursor; the beginning if it is None.

    Raises:
        BadCursor: It isn't from this server, or belongs to a call with other arguments.
    """
    if cursor is None:
        return Position()
    text, check = cursor[:-_CHECK_CHARS], cursor[-_CHECK_CHARS:]
    try:
        if not text or len(cursor) > _MAX_CHARS or _check(text) != check:
            raise BadCursor("it is damaged or not from this server")
        call, offset, part, moment = json.loads(
            base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        )
        position = Position(_count(offset), _moment(moment), _count(part))
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadCursor("it is damaged or not from this server") from error
    if call != _call(tool, arguments):
        raise BadCursor("it belongs to a call with other arguments")
    return position


def _count(value: object) -> int:
    """Return a number of items or characters; the checksum is public, so it can be anything."""
    if type(value) is not int or not 0 <= value <= _MAX_COUNT:
        raise ValueError(value)
    return value


def _moment(value: str | None) -> datetime | None:
    if value is None:
        return None
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None or moment.year not in _YEARS:
        raise ValueError(value)
    return moment


def _call(tool: str, arguments: Arguments) -> str:
    # repr() is the same in every process and takes half as long as JSON.
    # An empty list filters by nothing, as None does.
    given = [f"{name}={value or None!r}" for name, value in arguments if name not in _PAGING]
    text = "\n".join([tool, *sorted(given)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _check(text: str) -> str:
    return hashlib.sha256(f"mcp-memory cursor {text}".encode()).hexdigest()[:_CHECK_CHARS]
