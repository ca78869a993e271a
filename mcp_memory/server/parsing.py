"""What a line of JSON-RPC is, read from its first and last bytes, and the answers to bad lines.

Only what is light is imported: the process that a client starts uses this too.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate

from mcp_memory.values.errors import InvalidInput

Id = str | int
Message = dict[str, object]

PARSE_ERROR = -32_700
"""JSON-RPC 2.0, section 5.1."""

MAX_PARTS = 100_000
"""Values of one message, nested ones included. By judgement: a hundred for each of the thousand
messages that one call takes. Parsing this many takes a tenth of a second."""

MAX_DEPTH = 64
"""How deep the values of a message may be nested. By judgement: the calls of agents have 10."""

_SMALL_BYTES = 4_096
"""To parse such a line takes 15 µs at most, and to read its members one by one 20."""

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

_TAIL_BYTES = 300
"""By judgement: `"jsonrpc":"2.0","id":"<a UUID>"}` takes 70."""

# How this server and most clients begin a message, the TypeScript SDK excepted.
_COMMON = re.compile(
    rb'\{"jsonrpc": ?"2\.0", ?"id": ?(?:(-?\d{1,18})|"([ !#-\[\]-~]{0,100})"), ?'
    rb'(?:"method": ?"([ !#-\[\]-~]{0,100})"[,}]|"(?:result|error)":)'
)
# The rest is compiled when it is needed: a client waits for this process to start. `W` is JSON's
# own white space; `\s` has two characters more.
_SPACE = rb"[ \t\r\n]*"
_START = rb"W\{".replace(b"W", _SPACE)
# The second half matches nothing for an array, an object or a long string.
_MEMBER = (rb'W"([^"\\]{0,100})"W:W(?:("(?:[^"\\]|\\.){0,500}"|[-+.\w]{1,100})W([,}]))?').replace(
    b"W", _SPACE
)
_TAIL = (rb'(?:,W"[^"\\]{0,100}"W:W(?:"[^"\\]{0,100}"|[-+.\w]{1,100})W){1,9}\}W\Z').replace(
    b"W", _SPACE
)


def envelope(line: bytes, *, parse: bool = True) -> tuple[str | None, Id | None]:
    """Return the method and the id of a message; None for each that it doesn't have.

    A message without a method is an answer. Of a line that is not small, the
    top-level members before the first nested value are read, and those after
    the last one. Only if that doesn't decide it is the whole line parsed.

    The last members can be read backwards: in valid JSON the last brace closes
    the message. A run of members without a backslash up to it has an even
    number of quotes, so it can't have begun inside a string; and it has no
    other brace outside of strings, so it is not nested.

    If a key is there twice, which no valid message has, the first one counts.

    Args:
        line: One message. Of a line that is no message, anything may be returned.
        parse: Whether the whole line may be parsed; without it, None is returned instead.
    """
    common = _COMMON.match(line)
    if common is not None:
        digits, text, name = common.groups()
        method = None if name is None else name.decode()
        return method, text.decode() if digits is None else int(digits)
    found: dict[bytes, bytes] = {}
    start = re.match(_START, line) if len(line) > _SMALL_BYTES or not parse else None
    if start is not None:
        complete, at = _members(line, start.end(), found)
        if not complete and not _decides(found):
            tail = line[max(at, len(line) - _TAIL_BYTES) :]
            last = re.search(_TAIL, tail)
            if last is not None:
                _members(tail, last.start() + 1, found)
        if complete or _decides(found):
            is_answer = b"result" in found or b"error" in found
            method = None if is_answer else _scalar(found.get(b"method"))
            return method if isinstance(method, str) else None, _scalar(found.get(b"id"))
    if not parse:
        return None, None
    message = parsed(line)
    named = message.get("method")
    return named if isinstance(named, str) else None, _id(message.get("id"))


def check_structure(data: bytes) -> None:
    """Check that JSON is not made of so many values that parsing takes seconds and gigabytes.

    It takes a millisecond for each megabyte, and finds nothing else that is wrong.

    Raises:
        InvalidInput: It has more than `MAX_PARTS` values, or is nested deeper than `MAX_DEPTH`.
    """
    opened = data.count(b"[") + data.count(b"{")
    if opened <= MAX_DEPTH and opened + data.count(b",") < MAX_PARTS:
        return
    # Most of these characters may stand in strings, which are left out now.
    data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two strings for each value, a key and itself; this also limits into how much is split.
    if data.count(b'"') <= 4 * MAX_PARTS:
        data = b"".join(data.split(b'"')[::2])
        opened = data.count(b"[") + data.count(b"{")
        if opened + data.count(b",") < MAX_PARTS:
            if opened > MAX_DEPTH and _depth(data) > MAX_DEPTH:
                raise InvalidInput(
                    f"the message is nested deeper than {MAX_DEPTH} levels and was not read",
                    hint="Send its parts as text, or flatten it",
                )
            return
    raise InvalidInput(
        f"the message has more than {MAX_PARTS:,} values and was not read",
        hint="Send it in parts, or as text",
    )


def _depth(structure: bytes) -> int:
    brackets = structure.translate(None, _NO_BRACKETS)
    return max(accumulate(1 if bracket in b"[{" else -1 for bracket in brackets))


def parsed(line: bytes) -> Message:
    """Return the message of a line; an empty one if it can't be read."""
    try:
        check_structure(line)
        # As bytes it could be UTF-16 as well, which `check_structure` can't read.
        message = json.loads(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError, InvalidInput):
        return {}
    return message if isinstance(message, dict) else {}


def error(number: Id | None, code: int, message: str, **data: object) -> Message:
    """Return a JSON-RPC error; `data` goes with it if there is any."""
    details: dict[str, object] = {"code": code, "message": message}
    if data:
        details["data"] = data
    return {"jsonrpc": "2.0", "id": number, "error": details}


def refused(line: bytes, fault: InvalidInput) -> Message:
    """Return the answer to a line that `check_structure` refuses."""
    return error(envelope(line, parse=False)[1], PARSE_ERROR, str(fault))


def unreadable(line: bytes, reason: str) -> Message:
    """Return the answer to a line that is no message, with its id if that can be read."""
    return error(
        envelope(line)[1],
        PARSE_ERROR,
        f"the message is not valid JSON-RPC: {reason or 'it cannot be read'}."
        " Send it as UTF-8 without halves of surrogate pairs",
    )


def too_long(ends: bytes, max_bytes: int) -> Message:
    """Return the answer to a line of which only the first and last bytes were kept."""
    return error(
        envelope(ends, parse=False)[1],
        PARSE_ERROR,
        f"the message is longer than {max_bytes // 2**20} MB and was not read: send it in parts",
    )


def _members(line: bytes, at: int, found: dict[bytes, bytes]) -> tuple[bool, int]:
    """Note the members from `at` up to the first nested value; return whether that is all."""
    pattern = re.compile(_MEMBER)
    while (member := pattern.match(line, at)) is not None:
        key, value, end = member.groups()
        if value is None:
            if key in {b"result", b"error"}:
                found.setdefault(key, b"")
            return False, at
        found.setdefault(key, value)
        at = member.end()
        if end == b"}":
            return True, at
    return False, at


def _decides(found: dict[bytes, bytes]) -> bool:
    return b"id" in found and not found.keys().isdisjoint({b"method", b"result", b"error"})


def _scalar(value: bytes | None) -> Id | None:
    """Return a string or an integer; None if it is something else."""
    if value is None:
        return None
    try:
        found = json.loads(value)
    except ValueError:
        return None
    return _id(found)


def _id(value: object) -> Id | None:
    return value if isinstance(value, (str, int)) and not isinstance(value, bool) else None
