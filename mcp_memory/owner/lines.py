"""Lines out of a stream of bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator

from mcp_memory.owner.wire import MAX_LINE_BYTES


def lines(read, refuse=None) -> Iterator[bytes]:  # type: ignore[no-untyped-def]  # see the package
    """Give the lines that `read` brings, without their ends.

    Args:
        read: Gives the next bytes, none at the end.
        refuse: For a client's lines: is given the beginning of one that is too long, in its
            place. Without it what comes after the last end of a line is dropped: an owner has
            died in the middle of it.
    """
    parts: list[bytes] = []
    size = 0
    head: bytes | None = None
    while chunk := read():
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            if head is not None:
                refuse(head)
                head = None
            else:
                yield b"".join((*parts, piece)) if parts else piece
            parts, size = [], 0
        if head is None and rest:
            parts.append(rest)
            size += len(rest)
            if refuse is not None and size > MAX_LINE_BYTES:
                head = b"".join(parts)[:4_000]
                parts, size = [], 0
    if parts and refuse is not None:
        yield b"".join(parts)


def parsed(line: bytes) -> dict[str, object]:
    """Return the message of a line; nothing if the owner is to say what is wrong with it."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
