"""One client's connection in the owner: lines in, lines out, nothing of it in another's way."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import anyio.abc
import anyio.to_thread
from mcp.shared.message import SessionMessage
from mcp_types import (
    CLIENT_INFO_META_KEY,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from mcp_memory.owner.wire import MAX_LINE_BYTES
from mcp_memory.server.app import MemoryServer
from mcp_memory.server.parsing import parse_error, too_long

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT: Final = 128
"""So many requests of a client are worked on at once; the next lines are read after that."""

_LAST_ANSWERS_SECONDS: Final = 5.0
_CHUNK_BYTES: Final = 65_536
_LONG_LINE_BYTES: Final = 200_000
_ENDLESS: Final = "subscriptions/listen"


class LineReader:
    """The lines of a byte stream."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._rest = b""

    async def line(self, max_bytes: int) -> bytes | None:
        """Return the next line without its end, None at the end of the stream.

        Raises:
            ValueError: It is longer; its beginning is the argument, its rest is read away.
        """
        parts: list[bytes] = []
        size = 0
        head: bytes | None = None
        while True:
            line, end, rest = self._rest.partition(b"\n")
            if head is None:
                parts.append(line)
                size += len(line)
            self._rest = rest
            if size > max_bytes:
                head, parts, size = b"".join(parts)[:4_000], [], 0
            if end:
                if head is not None:
                    raise ValueError(head)
                return b"".join(parts)
            try:
                self._rest = await self._stream.receive(_CHUNK_BYTES)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return None


class Connection:
    """Runs a server for one client.

    Args:
        stream: Where the client's messages come from and the answers go to.
        reader: The lines of the stream; the hand-shake has been read from it.
    """

    def __init__(self, stream: anyio.abc.ByteStream, reader: LineReader) -> None:
        self._stream = stream
        self._reader = reader
        self._in_flight: set[str | int] = set()
        self._answered = anyio.Event()
        self.on_client: Callable[[str], None] | None = None
        """Told what the client calls itself."""

    async def serve(self, server: MemoryServer) -> None:
        """Serve until the client has closed its end and has its last answers."""
        async with self._pumps() as (read, write):
            await server.run(read, write, server.create_initialization_options())

    async def settle(self, seconds: float) -> None:
        """Wait until no request is worked on, but no longer than `seconds`."""
        with anyio.move_on_after(seconds):
            while self._in_flight:
                await self._answered.wait()

    async def _settle_last(self) -> None:
        """Wait until the last requests are answered, as long as there is any answer meanwhile."""
        left = -1
        while self._in_flight and len(self._in_flight) != left:
            left = len(self._in_flight)
            await self.settle(_LAST_ANSWERS_SECONDS)

    @asynccontextmanager
    async def _pumps(self) -> AsyncIterator[tuple[Any, Any]]:
        in_send, in_receive = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        out_send, out_receive = anyio.create_memory_object_stream[SessionMessage](0)
        async with anyio.create_task_group() as group:

            async def pump_in() -> None:
                async with in_send:
                    while True:
                        message = await self._next()
                        if message is None:
                            break
                        if isinstance(message, JSONRPCError):
                            await self._send(message)
                            continue
                        await self._admit(message)
                        await in_send.send(SessionMessage(message))
                    await self._settle_last()

            async def pump_out() -> None:
                async with out_receive:
                    async for item in out_receive:
                        await self._send(item.message)

            group.start_soon(pump_in)
            group.start_soon(pump_out)
            yield in_receive, out_send
            group.cancel_scope.cancel()

    async def _next(self) -> JSONRPCMessage | None:
        """Return the next message, or the answer to a line that is none."""
        while True:
            try:
                line = await self._reader.line(MAX_LINE_BYTES)
            except ValueError as error:
                return too_long(error.args[0], MAX_LINE_BYTES)
            if line is None:
                return None
            if not line.strip():
                continue
            try:
                if len(line) > _LONG_LINE_BYTES:
                    # Seconds of work for the largest: the other clients go on meanwhile.
                    return await anyio.to_thread.run_sync(_parse, line)
                return _parse(line)
            except ValidationError as error:
                return parse_error(error)

    async def _admit(self, message: JSONRPCMessage) -> None:
        if self.on_client is not None and isinstance(message, JSONRPCRequest):
            name = _client_name(message.params or {})
            if name is not None:
                self.on_client(name)
                self.on_client = None
        if isinstance(message, JSONRPCRequest) and message.method != _ENDLESS:
            while len(self._in_flight) >= MAX_IN_FLIGHT:
                await self._answered.wait()
            self._in_flight.add(message.id)
        elif getattr(message, "method", None) == "notifications/cancelled":
            # A cancelled request need not be answered.
            self._done((getattr(message, "params", None) or {}).get("requestId"))

    def _done(self, number: object) -> None:
        if number in self._in_flight:
            self._in_flight.discard(number)
            self._answered.set()
            self._answered = anyio.Event()

    async def _send(self, message: JSONRPCMessage) -> None:
        line = message.model_dump_json(by_alias=True, exclude_unset=True)
        try:
            await self._stream.send(line.encode() + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            logger.debug("a client has gone before its answer")
        if isinstance(message, (JSONRPCResponse, JSONRPCError)):
            self._done(message.id)


def _client_name(params: dict[str, Any]) -> str | None:
    """Return what the client calls itself: in the handshake, or with each request since 2026."""
    info = params.get("clientInfo") or (params.get("_meta") or {}).get(CLIENT_INFO_META_KEY)
    name = info.get("name") if isinstance(info, dict) else None
    return name[:100] if isinstance(name, str) else None


def _parse(line: bytes) -> JSONRPCMessage:
    return jsonrpc_message_adapter.validate_json(line, by_name=False)
