"""The bodies of requests: read within limits, and checked before anything else parses them.

The largest body of one token, and twice that of all tokens, are in memory at a time; small
ones are not counted. A body has to arrive at a minimum speed.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio
import anyio.to_thread
from mcp_types import JSONRPCMessage, jsonrpc_message_adapter
from pydantic import ValidationError
from starlette.types import Message, Receive, Scope

from mcp_memory.http.requests import Refused
from mcp_memory.server import parsing
from mcp_memory.values.errors import InvalidInput

SMALL_BYTES: Final = 65_536
"""Bodies up to here are not counted: what uvicorn reads ahead for each connection anyway."""

READ_SECONDS: Final = 20.0
"""How long a body may take to arrive, besides the time for its size: the default of Apache's
mod_reqtimeout."""

MIN_BYTES_PER_SECOND: Final = 16_000
"""How fast a body has to arrive after that: by judgement a slow mobile network."""

_LONG_BYTES: Final = 200_000
"""Parsing such a body takes a millisecond; a longer one is parsed in a thread."""

_REPLAY_BYTES: Final = 65_536
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_RETRY_SECONDS: Final = 5


class ClientLeft(Exception):
    """The client closed the connection before its body was complete."""


class NoMessage(Exception):
    """A body that is no JSON-RPC message.

    Args:
        answer: The JSON-RPC error that answers it.
    """

    def __init__(self, answer: parsing.Message) -> None:
        super().__init__()
        self.answer = answer


class Bodies:
    """Reads the bodies of a listener's requests.

    Args:
        max_bytes: The largest body.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._held_bytes: Counter[Hashable] = Counter()
        self._parsing = anyio.CapacityLimiter(1)

    @contextmanager
    def share(self, owner: Hashable) -> Iterator[Share]:
        """Give a share of the memory, which is free again after the `with` block.

        Args:
            owner: Who sends the request; all its requests are counted together.
        """
        share = Share(self._held_bytes, owner, self.max_bytes)
        try:
            yield share
        finally:
            share.free()

    async def read(self, scope: Scope, receive: Receive, share: Share, max_bytes: int) -> bytes:
        """Return the whole body of a request.

        Raises:
            Refused: 408 if it is too slow, 413 if it is too large, 503 while others are read.
            ClientLeft: The client did not wait for the end.
        """
        max_bytes = min(max_bytes, self.max_bytes)
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared[:20]) > max_bytes:
            raise _too_large(max_bytes)
        body = io.BytesIO()
        with anyio.move_on_after(READ_SECONDS) as time:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientLeft
                part = message.get("body", b"")
                if body.tell() + len(part) > max_bytes:
                    raise _too_large(max_bytes)
                body.write(part)
                share.grow(body.tell())
                time.deadline += len(part) / MIN_BYTES_PER_SECOND
                if not message.get("more_body", False):
                    return body.getvalue().removeprefix(_BYTE_ORDER_MARK)
        raise Refused(408, "too_slow", "the body did not arrive in time; send it again")

    async def parse(self, body: bytes) -> JSONRPCMessage:
        """Return the message that a body is.

        Raises:
            NoMessage: It is none.
        """
        if len(body) < _LONG_BYTES:
            return _parse(body)
        # One after the other: the text of a message takes as much memory again.
        return await anyio.to_thread.run_sync(_parse, body, limiter=self._parsing)


class Share:
    """The memory that the body of one request takes."""

    def __init__(self, held_bytes: Counter[Hashable], owner: Hashable, max_bytes: int) -> None:
        self._held_bytes = held_bytes
        self._owner = owner
        self._max_bytes = max_bytes
        self._bytes = 0

    def grow(self, size: int) -> None:
        """Count what has arrived so far.

        Raises:
            Refused: There is no room for it.
        """
        if size <= SMALL_BYTES:
            return
        self._held_bytes[self._owner] += size - self._bytes
        self._bytes = size
        held = self._held_bytes[self._owner]
        if held > self._max_bytes or self._held_bytes.total() > 2 * self._max_bytes:
            raise Refused(
                503,
                "busy",
                "too many large requests are being answered; send it again later",
                retry_after_seconds=_RETRY_SECONDS,
            )

    def free(self) -> None:
        """Count this body no more."""
        self._held_bytes[self._owner] -= self._bytes
        self._bytes = 0
        if not self._held_bytes[self._owner]:
            del self._held_bytes[self._owner]


def replay(body: bytes, receive: Receive) -> Receive:
    """Return what receives a body that was read already, and then what comes after it.

    In parts, so that who joins them again does not have all of it twice.
    """
    left: bytes | None = body
    at = 0

    async def receive_again() -> Message:
        nonlocal left, at
        if left is None:
            return await receive()
        part, at = left[at : at + _REPLAY_BYTES], at + _REPLAY_BYTES
        more = at < len(left)
        if not more:
            left = None
        return {"type": "http.request", "body": part, "more_body": more}

    return receive_again


def _parse(body: bytes) -> JSONRPCMessage:
    try:
        parsing.check_structure(body)
        return jsonrpc_message_adapter.validate_json(body, by_name=False)
    except InvalidInput as fault:
        raise NoMessage(parsing.refused(body, fault)) from fault
    except ValidationError as error:
        reason = error.errors(include_url=False, include_context=False, include_input=False)
        raise NoMessage(parsing.unreadable(body, reason[0]["msg"])) from error


def _too_large(max_bytes: int) -> Refused:
    return Refused(
        413,
        "too_large",
        f"the body is larger than {max_bytes:,} bytes, the limit of this server for this token",
    )
