"""One client's connection in the owner: lines in, lines out, nothing of it in another's way.

A call takes few turns of the event loop: bytes are split where they arrive, and
an answer is written where it is made. With a task and a stream for each
direction it took ten turns, and a third more time.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, Final, Self, TypeGuard

import anyio
import anyio.to_thread
from mcp.server import InitializationOptions, NotificationOptions
from mcp.shared.message import SessionMessage
from mcp_types import (
    CLIENT_INFO_META_KEY,
    INVALID_REQUEST,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from mcp_memory.owner.lines import Lines, TooLong
from mcp_memory.owner.room import Room
from mcp_memory.owner.wire import MAX_HELLO_BYTES, MAX_LINE_BYTES
from mcp_memory.server.app import MemoryServer
from mcp_memory.server.parsing import (
    check_structure,
    error,
    refused,
    too_long,
    unreadable,
)
from mcp_memory.values.errors import InvalidInput

MAX_IN_FLIGHT: Final = 32
"""How many requests of a client are worked on at once; more lines are read after that. By
judgement: less than the threads that do the work, so that something is left for the others."""

MAX_STREAMS: Final = 32
"""How many endless requests of a client are open at once; by judgement: a client has one."""

_LAST_ANSWERS_SECONDS: Final = 5.0
_CHUNK_BYTES: Final = 65_536
"""What the system's socket buffers give at once."""

_MAX_WAITING_BYTES: Final = 4 * _CHUNK_BYTES
"""Of lines that have arrived and that nobody has taken; then no more is read. By judgement."""

_LONG_LINE_BYTES: Final = 200_000
"""Parsing one takes a millisecond. An unfinished line that is longer needs a place in the room."""

# While others wait, by judgement: a line comes from a process of this machine, which sends 72 MB in
# a second, and may have to wait for the answers to those before it.
_STALLED_SECONDS: Final = 3
_UNFINISHED_SECONDS: Final = 60

_CANCELLED_SECONDS: Final = 5.0
"""How long a call may still run after it is cancelled; by judgement, most take milliseconds."""

_ENDLESS: Final = "subscriptions/listen"

_arriving = memoryview(bytearray(_CHUNK_BYTES))
"""One for all clients: the event loop is one thread, and what arrives is copied at once."""


class ClientStream(asyncio.BufferedProtocol):
    """The lines of one client.

    The first one may be as long as a hand-shake; `max_line_bytes` sets the limit of the next.

    Args:
        accept: Is given the stream when the client has connected.
        room: Where long lines take their places.
    """

    def __init__(self, accept: Callable[[ClientStream], None], room: Room) -> None:
        self._accept = accept
        self._room = room
        self._splitter = Lines(MAX_HELLO_BYTES)
        self._lines: deque[tuple[bytes | TooLong, bool]] = deque()
        self._waiting_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._drained: asyncio.Event | None = None
        self._ended = False
        self._gone = False
        self._places = 0
        self._is_long = False
        self._waits_for_place = False
        self.peer: int | None = None
        """The process at the other end; None where the system doesn't say it."""
        self.took_place = False
        """Whether the last line has a place, for `leave_place` to give back."""
        self._waited_seconds = self._stalled_seconds = 0

    @property
    def max_line_bytes(self) -> int | None:
        """The longest line that is read."""
        return self._splitter.max_bytes

    @max_line_bytes.setter
    def max_line_bytes(self, limit: int) -> None:
        self._splitter.max_bytes = limit

    @property
    def has_more(self) -> bool:
        """Whether another line is there already."""
        return bool(self._lines)

    def _peer(self) -> int | None:
        option = getattr(socket, "SO_PEERCRED", None)
        connection = self._transport.get_extra_info("socket")
        if option is None or connection.family != getattr(socket, "AF_UNIX", None):
            return None
        given = connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
        pid: int = struct.unpack("3i", given)[0]
        return pid or None  # 0 is a process that can't be seen from here.

    async def line(self) -> bytes | TooLong | None:
        """Return the next line; None at the end of the stream."""
        while not self._lines:
            if self._ended:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        line, self.took_place = self._lines.popleft()
        if isinstance(line, bytes):
            self._waiting_bytes -= len(line)
        self._read_or_wait()
        return line

    def keep_place(self) -> None:
        """Keep the place of the last line, which is worked on now; `give_back` ends it."""
        self._places -= 1

    def give_back(self) -> None:
        """Give back a place that was kept."""
        self._room.leave(self)

    def leave_place(self) -> None:
        """Give back the place of the last line, or of one that has not come to its end."""
        if self._places:
            self._places -= 1
            self._room.leave(self)

    async def send(self, data: bytes) -> None:
        """Send bytes; return when the system has taken them, or the client has gone."""
        await self._until_drained()
        if not self._gone:
            self._transport.write(data)
            await self._until_drained()

    async def _until_drained(self) -> None:
        while (drained := self._drained) is not None:
            await drained.wait()

    def refuse(self, last: bytes) -> None:
        """Close the connection after some last bytes, if the system takes them at once."""
        if self._drained is None:
            self._transport.write(last)
        self._transport.abort()

    def close(self) -> None:
        """Close the connection; a `send` that still waits is given up."""
        self._transport.abort()
        while self._places:
            self.leave_place()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # for the type checker
        self._transport = transport
        self.peer = self._peer()
        # Whatever the system doesn't take at once makes the sender wait.
        transport.set_write_buffer_limits(0)
        self._accept(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go."""
        return _arriving

    def buffer_updated(self, nbytes: int) -> None:
        """Split what has arrived."""
        self._stalled_seconds = 0
        lines = self._splitter.feed(bytes(_arriving[:nbytes]))
        for line in lines:
            self._lines.append((line, self._is_long))
            self._is_long = False
            if isinstance(line, bytes):
                self._waiting_bytes += len(line)
        unfinished = self._splitter.held_bytes
        if unfinished > _LONG_LINE_BYTES and not self._is_long:
            self._is_long = self._waits_for_place = True
            self._room.enter(self)
        elif self._is_long and not unfinished:
            # It is too long, and nothing of it is kept.
            self._is_long = False
            self.leave_place()
        self._read_or_wait()
        if lines:
            self._wake_reader()

    def eof_received(self) -> bool:
        """Let the last answers be sent."""
        self._ended = True
        self._wake_reader()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake who waits for the client."""
        self._ended = self._gone = True
        self._room.withdraw(self)
        if self._is_long and not self._waits_for_place:
            self.leave_place()
        self._is_long = False
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

    # What the room calls.

    def go_on(self) -> None:
        """Read on: the long line has a place now."""
        self._waits_for_place = False
        self._places += 1
        self._waited_seconds = self._stalled_seconds = 0
        self._read_or_wait()

    def others_wait(self) -> None:
        """Close the connection if its long line doesn't come, or can't be worked on."""
        if not self._places:
            return
        self._waited_seconds += 1
        self._stalled_seconds += 1
        if self._waited_seconds > _UNFINISHED_SECONDS or (
            self._is_long and self._stalled_seconds > _STALLED_SECONDS
        ):
            reason = "the rest of a long message did not come: connect again, and send it at once"
            self.refuse(encoded(error(None, INVALID_REQUEST, reason)))

    def _read_or_wait(self) -> None:
        if self._ended:
            return
        if self._waits_for_place or self._waiting_bytes > _MAX_WAITING_BYTES:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class MessageStream:
    """Messages for the SDK, one `receive` a message: a stream that needs no task of its own."""

    async def receive(self) -> SessionMessage:
        """Return the next message.

        Raises:
            EndOfStream: The client has closed its end.
        """
        raise NotImplementedError

    async def aclose(self) -> None:
        """Do nothing: the stream is closed where it was opened."""

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> SessionMessage:
        """Return the next message."""
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.aclose()


class Connection(MessageStream):
    """Runs a server for one client; it is both streams of messages that the SDK asks for.

    Args:
        stream: The client's lines; the hand-shake has been read from it.
    """

    def __init__(self, stream: ClientStream) -> None:
        stream.max_line_bytes = MAX_LINE_BYTES
        self._stream = stream
        # By the request's id, as text: a client may cancel 1 as "1". It may also use an id twice.
        self._in_flight: Counter[str] = Counter()
        self._endless: Counter[str] = Counter()
        self._with_place: Counter[str] = Counter()
        self._answered = asyncio.Event()
        self._is_ended = False
        self.on_client: Callable[[str], None] | None = None
        """Is given what the client calls itself."""

    async def serve(self, server: MemoryServer) -> None:
        """Serve until the client has closed its end and has its last answers."""
        try:
            await server.run(self, self, initialization_options(server))
        finally:
            for _ in range(self._with_place.total()):
                self._stream.give_back()

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
        """Return the next message; lines that are none are answered here.

        Raises:
            EndOfStream: The client has closed its end and has its answers.
        """
        while (line := await self._stream.line()) is not None:
            has_place = self._stream.took_place
            message = await self._read(line)
            if message is not None:
                await self._admit(message)
            if has_place:
                if isinstance(message, JSONRPCRequest):
                    self._stream.keep_place()
                    self._with_place[str(message.id)] += 1
                else:
                    self._stream.leave_place()
            if self._stream.has_more:
                # Nothing else lets the other clients in between two lines.
                await asyncio.sleep(0)
            if message is not None:
                return SessionMessage(message)
        await self._settle_last()
        raise anyio.EndOfStream

    async def send(self, item: SessionMessage) -> None:
        """Send a message to the client."""
        message = item.message
        number = message.id if isinstance(message, (JSONRPCResponse, JSONRPCError)) else None
        if number is not None and _take(self._with_place, number):
            # Before it is sent: a client that reads nothing keeps no place from the others.
            self._stream.give_back()
        if not self._is_ended:
            line = message.model_dump_json(by_alias=True, exclude_unset=True)
            await self._stream.send(line.encode() + b"\n")
            if number is not None:
                self._done(number)

    async def _read(self, line: bytes | TooLong) -> JSONRPCMessage | None:
        """Return the message of a line; one that is none is answered."""
        if isinstance(line, TooLong):
            answer = too_long(line.ends, MAX_LINE_BYTES)
        elif line.isspace():
            return None
        else:
            try:
                if len(line) > _LONG_LINE_BYTES:
                    # The other clients go on meanwhile.
                    message = await anyio.to_thread.run_sync(_parse, line)
                else:
                    message = _parse(line)
            except InvalidInput as fault:
                answer = refused(line, fault)
            except ValidationError as failed:
                answer = unreadable(line, failed.errors()[0]["msg"])
            else:
                if not self._is_one_too_many(message):
                    return message
                answer = error(
                    message.id,
                    INVALID_REQUEST,
                    f"{MAX_STREAMS} subscriptions of this client are open: cancel one first",
                )
        await self._stream.send(encoded(answer))
        return None

    async def _settle_last(self) -> None:
        """Wait until the last requests are answered, as long as there is any answer meanwhile."""
        left = -1
        while self._in_flight and len(self._in_flight) != left:
            left = len(self._in_flight)
            await self.settle(_LAST_ANSWERS_SECONDS)

    def _is_one_too_many(self, message: JSONRPCMessage) -> TypeGuard[JSONRPCRequest]:
        return (
            isinstance(message, JSONRPCRequest)
            and message.method == _ENDLESS
            and self._endless.total() >= MAX_STREAMS
        )

    async def _admit(self, message: JSONRPCMessage) -> None:
        if isinstance(message, JSONRPCRequest):
            if self.on_client is not None:
                name = _client_name(message.params or {})
                if name is not None:
                    self.on_client(name)
                    self.on_client = None
            if message.method == _ENDLESS:
                self._endless[str(message.id)] += 1
                return
            while self._in_flight.total() >= MAX_IN_FLIGHT:
                await self._answered.wait()
            self._in_flight[str(message.id)] += 1
        elif getattr(message, "method", None) == "notifications/cancelled":
            # A cancelled request need not be answered.
            number = (getattr(message, "params", None) or {}).get("requestId")
            if _take(self._with_place, number):
                # Its thread may still have the text.
                loop = asyncio.get_running_loop()
                loop.call_later(_CANCELLED_SECONDS, self._stream.give_back)
            self._done(number)

    def _done(self, number: object) -> None:
        _take(self._endless, number)
        if _take(self._in_flight, number):
            self._answered.set()
            self._answered = asyncio.Event()


def _take(counts: Counter[str], number: object) -> bool:
    """Count one less; return whether there was one."""
    key = str(number)
    found = counts[key] > 0
    if found:
        counts[key] -= 1
    if not counts[key]:
        del counts[key]
    return found


def initialization_options(server: MemoryServer) -> InitializationOptions:
    """Return what a server says of itself: a shim tells its client of other lists."""
    changes = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
    return server.create_initialization_options(changes)


def _client_name(params: dict[str, Any]) -> str | None:
    """Return what the client calls itself: in the handshake, or with each request since 2026."""
    meta = params.get("_meta")
    info = params.get("clientInfo") or (isinstance(meta, dict) and meta.get(CLIENT_INFO_META_KEY))
    name = info.get("name") if isinstance(info, dict) else None
    return name[:100] if isinstance(name, str) else None


def _parse(line: bytes) -> JSONRPCMessage:
    check_structure(line)
    return jsonrpc_message_adapter.validate_json(line, by_name=False)


def encoded(message: Mapping[str, object]) -> bytes:
    """Return a message as a line."""
    return json.dumps(message).encode() + b"\n"


async def serve_socket(connection: socket.socket, server: MemoryServer) -> None:
    """Serve the client at the other end of a socket until it closes it and has its answers."""
    _, stream = await asyncio.get_running_loop().connect_accepted_socket(
        lambda: ClientStream(lambda _: None, Room()), connection
    )
    with closing(stream):
        await Connection(stream).serve(server)
