"""Opaque continuation tokens: where a paged reply goes on, and of which call it is."""

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
_MAX_CHARS: Final = 400
_PAGING: Final = {"cursor", "limit", "top_k"}


@dataclass(frozen=True, slots=True)
class Position:
    """Go on after `offset` items of the result as it was at `as_of`; `part` within an item."""

    offset: int = 0
    as_of: datetime | None = None
    part: int = 0


def write_cursor(tool: str, arguments: Arguments, position: Position) -> str:
    """Return the token with which the same call goes on."""
    moment = None if position.as_of is None else position.as_of.isoformat()
    body = json.dumps([_call(tool, arguments), position.offset, position.part, moment])
    text = base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")
    return text + _check(text)


def read_cursor(tool: str, arguments: Arguments, cursor: str | None) -> Position:
    """Return where a call goes on; the beginning without a cursor.

    Raises:
        BadCursor: This server gave no such token, or gave it for another call.
    """
    if cursor is None:
        return Position()
    text, check = cursor[:-_CHECK_CHARS], cursor[-_CHECK_CHARS:]
    try:
        if not text or len(cursor) > _MAX_CHARS or _check(text) != check:
            raise BadCursor("it is not one that this server gave")
        call, offset, part, moment = json.loads(
            base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        )
        position = Position(
            int(offset), None if moment is None else datetime.fromisoformat(moment), int(part)
        )
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadCursor("it is not one that this server gave") from error
    if call != _call(tool, arguments):
        raise BadCursor("it belongs to a call with other arguments")
    return position


def _call(tool: str, arguments: Arguments) -> str:
    # Their representations, which are the same in every process, take half as long as JSON.
    given = [f"{name}={value!r}" for name, value in arguments if name not in _PAGING]
    text = "\n".join([tool, *sorted(given)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _check(text: str) -> str:
    return hashlib.sha256(f"mcp-memory cursor {text}".encode()).hexdigest()[:_CHECK_CHARS]
