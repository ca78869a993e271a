"""Answers to lines that are no message: the SDK would drop them, and the client would wait."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from mcp_types import PARSE_ERROR, ErrorData, JSONRPCError

_ID: Final = re.compile(rb'"id"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)')


def parse_error(error: Exception) -> JSONRPCError:
    """Return the answer to a line that can't be read, with its id if that can be."""
    request: str | int | None = None
    details: list[dict[str, Any]] = getattr(error, "errors", list)()
    line = details[0].get("input") if details else None
    if isinstance(line, (str, bytes)):
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if isinstance(message, dict) and isinstance(message.get("id"), (str, int)):
            request = message["id"]
    reason = str(details[0].get("msg", "")) if details else "it can't be read"
    return JSONRPCError(
        jsonrpc="2.0",
        id=request,
        error=ErrorData(
            code=PARSE_ERROR,
            message=f"the message is not valid JSON-RPC: {reason}."
            " Send it as UTF-8 without halves of surrogate pairs",
        ),
    )


def too_long(head: bytes, max_bytes: int) -> JSONRPCError:
    """Return the answer to a line that was not read to its end, with its id if `head` has it."""
    found = _ID.search(head)
    return JSONRPCError(
        jsonrpc="2.0",
        id=json.loads(found[1]) if found else None,
        error=ErrorData(
            code=PARSE_ERROR,
            message=f"the message is longer than {max_bytes // 2**20} MB and was not read:"
            " send it in parts",
        ),
    )
