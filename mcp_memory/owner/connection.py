"""One client's connection in the owner: lines in, lines out, nothing of it in another's way.

A call takes few turns of the event loop: bytes are split where they arrive, and
an answer is written where it is made. With a task and a stream for each
direction it took ten turns, and a third more time.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
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

from mcp_memory.owner.lines import Lines, TooLong
from mcp_memory.owner.wire import MAX_HELLO_BYTES, MAX_LINE_BYTES
from mcp_memory.server.app import MemoryServer
from mcp_memory.server.parsing import check_structure, refused, too_long, unreadable
from mcp_memory.server.stdio import MessageStream
from mcp_memory.values.errors import InvalidInput

MAX_IN_FLIGHT: Final = 128
"""How many requests of a client are worked on at once; more lines are read after that. By
judgement: three times the threads that do the work."""

_LAST_ANSWERS_SECONDS: Final = 5.0
_CHUNK_BYTES: Final = 65_536
"""What the system's socket buffers give at once."""

_MAX_WAITING_BYTES: Final = 4 * _CHUNK_BYTES
"""Of lines that have arrived and that nobody has taken; then no more is read. By judgement."""

_LONG_LINE_BYTES: Final = 200_000
"""Parsing one takes a millisecond."""

_ENDLESS: Final = "subscriptions/listen"

_arriving = memoryview(bytearray(_CHUNK_BYTES))
"""One for all clients: the event loop is one thread, and what arrives is copied at once."""


class ClientStream(asyncio.BufferedProtocol):
    """The lines of one client.

    The first one may be as long as a hand-shake; `max_line_bytes` sets the limit of the next.

    Args:
        accept: Is given the stream when the client has connected.
    """

    def __init__(self, accept: Callable[[ClientStream], None]) -> None:
        self._accept = accept
        self._splitter = Lines(MAX_HELLO_BYTES)
        self._lines: deque[bytes | TooLong] = deque()
        self._waiting_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._drained: asyncio.Event | None = None
        self._ended = False
        self._gone = False

    @property
    def max_line_bytes(self) -> int | None:
        """The longest line that is read."""
        return self._splitter.max_bytes

    @max_line_bytes.setter
    def max_line_bytes(self, limit: int) -> None:
        self._splitter.max_bytes = limit

    async def line(self) -> bytes | TooLong | None:
        """Return the next line; None at the end of the stream."""
        while not self._lines:
            if self._ended:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        line = self._lines.popleft()
        if isinstance(line, bytes):
            was_full = self._is_full()
            self._waiting_bytes -= len(line)
            if was_full and not self._is_full() and not self._ended:
                self._transport.resume_reading()
        return line

    async def send(self, data: bytes) -> None:
        """Send bytes; return when the system has taken them, or the client has gone."""
        await self._until_drained()
        if not self._gone:
            self._transport.write(data)
            await self._until_drained()

    async def _until_drained(self) -> None:
        while (drained := self._drained) is not None:
            await drained.wait()

    def close(self) -> None:
        """Close the connection; a `send` that still waits is given up."""
        self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # for the type checker
        self._transport = transport
        # Whatever the system doesn't take at once makes the sender wait.
        transport.set_write_buffer_limits(0)
        self._accept(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go."""
        return _arriving

    def buffer_updated(self, nbytes: int) -> None:
        """Split what has arrived."""
        lines = self._splitter.feed(bytes(_arriving[:nbytes]))
        if lines:
            was_full = self._is_full()
            self._lines.extend(lines)
            self._waiting_bytes += sum(len(line) for line in lines if isinstance(line, bytes))
            if self._is_full() and not was_full:
                self._transport.pause_reading()
            self._wake_reader()

    def eof_received(self) -> bool:
        """Let the last answers be sent."""
        self._ended = True
        self._wake_reader()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake who waits for the client."""
        self._ended = self._gone = True
        self._wake_reader()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Let the next senders wait."""
        self._drained = asyncio.Event()

    def resume_writing(self) -> None:
        """Let them go on."""
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    def _is_full(self) -> bool:
        return self._waiting_bytes > _MAX_WAITING_BYTES

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Connection(MessageStream):
    """Runs a server for one client; it is both streams of messages that the SDK asks for.

    Args:
        stream: The client's lines; the hand-shake has been read from it.
    """

    def __init__(self, stream: ClientStream) -> None:
        stream.max_line_bytes = MAX_LINE_BYTES
        self._stream = stream
        self._in_flight: set[str | int] = set()
        self._answered = asyncio.Event()
        self._is_ended = False
        self.on_client: Callable[[str], None] | None = None
        """Is given what the client calls itself."""

    async def serve(self, server: MemoryServer) -> None:
        """Serve until the client has closed its end and has its last answers."""
        await server.run(self, self, server.create_initialization_options())

    async def settle(self, seconds: float) -> None:
        """Wait until no request is worked on, but no longer than `seconds`."""
        with anyio.move_on_after(seconds):
            while self._in_flight:
                await self._answered.wait()

    def end(self) -> None:
        """Send nothing any more: the next owner answers what has no answer yet.

        The SDK answers each request that it cancels, an endless one such as a subscription
        too, and the shim would take that for the end of it.
        """
        self._is_ended = True

    async def receive(self) -> SessionMessage:
        """Return the next message; lines that are none are answered here."""
        while (line := await self._stream.line()) is not None:
            if isinstance(line, TooLong):
                await self._refuse(too_long(line.ends, MAX_LINE_BYTES))
            elif not line.isspace():
                try:
                    if len(line) > _LONG_LINE_BYTES:
                        # Seconds of work for the largest: the other clients go on meanwhile.
                        message = await anyio.to_thread.run_sync(_parse, line)
                    else:
                        message = _parse(line)
                except InvalidInput as fault:
                    await self._refuse(refused(line, fault))
                    continue
                except ValidationError as error:
                    await self._refuse(unreadable(line, error.errors()[0]["msg"]))
                    continue
                await self._admit(message)
                return SessionMessage(message)
        await self._settle_last()
        raise anyio.EndOfStream

    async def send(self, item: SessionMessage) -> None:
        """Send a message to the client."""
        if self._is_ended:
            return
        message = item.message
        line = message.model_dump_json(by_alias=True, exclude_unset=True)
        await self._stream.send(line.encode() + b"\n")
        if isinstance(message, (JSONRPCResponse, JSONRPCError)):
            self._done(message.id)

    async def _refuse(self, answer: Mapping[str, object]) -> None:
        await self._stream.send(json.dumps(answer).encode() + b"\n")
        # Nothing else lets the other clients in between two such lines.
        await asyncio.sleep(0)

    async def _settle_last(self) -> None:
        """Wait until the last requests are answered, as long as there is any answer meanwhile."""
        left = -1
        while self._in_flight and len(self._in_flight) != left:
            left = len(self._in_flight)
            await self.settle(_LAST_ANSWERS_SECONDS)

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
            self._answered = asyncio.Event()


def _client_name(params: dict[str, Any]) -> str | None:
    """Return what the client calls itself: in the handshake, or with each request since 2026."""
    info = params.get("clientInfo") or (params.get("_meta") or {}).get(CLIENT_INFO_META_KEY)
    name = info.get("name") if isinstance(info, dict) else None
    return name[:100] if isinstance(name, str) else None


def _parse(line: bytes) -> JSONRPCMessage:
    check_structure(line)
    return jsonrpc_message_adapter.validate_json(line, by_name=False)
