"""What a client starts: it passes lines between the client and the owner.

It knows of the conversation only what is needed to go on with another owner
when one dies: the handshake, what was subscribed, and which requests have no
answer yet.

One thread waits for both ends and never blocks on a write, so that neither
direction holds up the other.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from mcp_memory.owner.connect import Reached, end, reach
from mcp_memory.owner.lines import Lines, TooLong
from mcp_memory.owner.places import Address, Places, is_same
from mcp_memory.owner.session import HANDSHAKE, Session
from mcp_memory.owner.wire import MAX_LINE_BYTES, RETRY_CODE, alive
from mcp_memory.server.parsing import Id, Message, error, parsed, too_long
from mcp_memory.values.errors import MemoryFault, OwnerFault, report
from mcp_memory.values.locations import PREFIX, default_db, expanded, own_settings

SILENT_SECONDS = 20.0
"""How long a request may wait before the owner is pinged. By judgement: a host gives up a call
after a minute at the earliest."""

_PING_SECONDS = 5.0
_LEAVE_SECONDS = 6.0
"""How long the owner may give no answer after the client has left; a second more than it takes
itself for the last answers."""

_CHUNK_BYTES = 65_536
"""What a pipe holds."""

# So many bytes can be written to a pipe that `select` calls writable.
_PIPE_BYTES = getattr(select, "PIPE_BUF", _CHUNK_BYTES)


class Shim:
    """One client's connection to whichever process owns the database.

    Args:
        places: The files of the owner.
        environ: The environment of the client; its settings go to the owner.
        stdin: The file descriptor that the client writes to.
        stdout: The one that it reads from.
    """

    def __init__(
        self, places: Places, environ: Mapping[str, str], stdin: int = 0, stdout: int = 1
    ) -> None:
        self._places = places
        self._environ = {**environ, f"{PREFIX}DB": places.db}
        self._hello: Message = {
            "settings": own_settings(self._environ),
            "since": time.time(),
            "connection": os.urandom(8).hex(),
        }
        self._stdin: int | socket.socket = stdin if os.name == "posix" else socket_of(stdin)
        self._stdout = stdout
        self._connection: socket.socket | None = None
        self._address: Address = {}
        self._session = Session()
        self._client_lines = Lines(MAX_LINE_BYTES)
        self._owner_lines = Lines()
        # What could not be written at once. While there is any, the other end is not read.
        self._to_owner: deque[memoryview] = deque()
        self._to_client: deque[memoryview] = deque()
        # One for all reads: a fresh one each time lets the process grow by a sixth.
        self._buffer = memoryview(bytearray(_CHUNK_BYTES))
        self._leaving = False
        self._leave_at = 0.0
        self._left = 0
        self._ping_at = 0.0

    def run(self) -> None:
        """Pass lines until the client closes its end, or takes no more.

        Raises:
            MemoryFault: No owner can be reached.
        """
        self._take(self._reach())
        while not self._leaving or self._connection is not None:
            self._turn()
        while self._to_client:
            select.select([], [self._stdout], [])
            self._flush_to_client()

    def _turn(self) -> None:
        """Wait until something can be read or written, and do that."""
        connection = self._connection
        reading: list[int | socket.socket] = []
        writing: list[int | socket.socket] = []
        if not self._leaving and not self._to_owner:
            reading.append(self._stdin)
        if self._to_client:
            writing.append(self._stdout)
        elif connection is not None:
            reading.append(connection)
        if self._to_owner and connection is not None:
            writing.append(connection)
        readable, writable, _ = select.select(reading, writing, [], self._patience())
        if self._stdout in writable:
            self._flush_to_client()
        if connection is not None:
            if connection in writable:
                self._flush_to_owner()
            if connection in readable:
                self._read_owner(connection)
            else:
                self._watch()
        if self._stdin in readable:
            self._read_client()

    def _patience(self) -> float | None:
        if self._leaving:
            return max(self._leave_at - time.monotonic(), 0.0)
        # Without a request, nothing has to be watched.
        return _PING_SECONDS if self._session.pending else None

    # From the client to the owner.

    def _read_client(self) -> None:
        try:
            if isinstance(self._stdin, int):
                size = os.readv(self._stdin, [self._buffer])
            else:
                size = self._stdin.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        lines = self._client_lines.feed(bytes(self._buffer[:size]))
        if not size:
            lines.append(self._client_lines.rest() + b"\n")
        asked = False
        for line in lines:
            if isinstance(line, TooLong):
                self._answer(too_long(line.ends, MAX_LINE_BYTES))
            elif not line.isspace():
                asked = self._forward(line) or asked
        if asked and self._connection is None:
            self._go_on()
        if not size:
            self._leave()

    def _forward(self, line: bytes) -> bool:
        """Send a line to the owner, if there is one; return whether it is a request."""
        request = self._session.note(line)
        if self._connection is not None:
            if request is not None:
                request.sent = True
            self._send(line)
        return request is not None

    def _send(self, line: bytes) -> None:
        self._to_owner.append(memoryview(line))
        if len(self._to_owner) == 1:
            self._flush_to_owner()

    def _flush_to_owner(self) -> None:
        connection = self._connection
        try:
            while self._to_owner and connection is not None:
                _advance(self._to_owner, connection.send(self._to_owner[0]))
        except BlockingIOError:
            return
        except OSError:
            # The next read sees it too, after the last answers.
            self._to_owner.clear()
        if self._leaving and connection is not None:
            # The owner finishes its work, answers, and closes.
            _shut(connection)

    def _leave(self) -> None:
        """Let the owner give its last answers."""
        self._leaving = True
        self._left = len(self._session.pending)
        self._leave_at = time.monotonic() + _LEAVE_SECONDS
        if not self._to_owner:
            self._flush_to_owner()

    # From the owner to the client.

    def _read_owner(self, connection: socket.socket) -> None:
        try:
            size = connection.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size:
            self._go_on()
            return
        self._ping_at = time.monotonic() + _PING_SECONDS
        for line in self._owner_lines.feed(bytes(self._buffer[:size])):
            if isinstance(line, bytes):
                self._session.answered(line)
                self._write(line)

    def _write(self, line: bytes) -> None:
        self._to_client.append(memoryview(line))
        if len(self._to_client) == 1:
            self._flush_to_client()

    def _flush_to_client(self) -> None:
        try:
            while self._to_client:
                if os.name == "posix" and not select.select([], [self._stdout], [], 0)[1]:
                    return
                _advance(self._to_client, os.write(self._stdout, self._to_client[0][:_PIPE_BYTES]))
        except BlockingIOError:
            return
        except OSError:
            # The client reads no more: there is nobody left to serve.
            os._exit(0)

    def _watch(self) -> None:
        """Leave an owner that gives no answer; replace one that hangs."""
        now = time.monotonic()
        if self._leaving:
            if now >= self._leave_at:
                if len(self._session.pending) == self._left:
                    self._drop()
                else:
                    self._left = len(self._session.pending)
                    self._leave_at = now + _LEAVE_SECONDS
        elif now >= self._ping_at and not self._to_client:
            self._ping_at = now + _PING_SECONDS
            if self._is_silent(now):
                self._go_on()

    def _is_silent(self, now: float) -> bool:
        """Return whether to leave the owner for another one; a hanging one is ended."""
        since = self._session.waits_since()
        if since is None or now - since < SILENT_SECONDS:
            return False
        if alive(self._address, _PING_SECONDS):
            return False  # A call takes long.
        if self._address.get("kind") != "detached":
            return False
        if is_same(self._places.read_address(), self._address):
            end(self._places, self._address)
        return True

    # From one owner to the next.

    def _reach(self) -> Reached:
        return reach(self._places, self._hello, self._environ)

    def _take(self, reached: Reached) -> None:
        reached.connection.setblocking(False)
        self._connection = reached.connection
        self._address = reached.address
        tools = reached.answer.get("repeatable")
        self._session.repeatable = frozenset(tools) if isinstance(tools, list) else frozenset()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._to_owner.clear()
        self._owner_lines = Lines()  # It may have died in the middle of a line.

    def _go_on(self) -> None:
        """Reach the next owner and bring it to where the last one was.

        If none can be reached, what waits is answered with the reason, and the next request
        tries again.
        """
        self._drop()
        if self._leaving:
            return
        for number in self._session.take_lost():
            self._refuse(
                number,
                "the memory's process ended during this call: it may or may not have been"
                " done. Look whether it was, and call again if not",
            )
        while self._connection is None:
            try:
                reached = self._reach()
            except MemoryFault as fault:
                for number in self._session.take_all():
                    self._refuse(number, str(fault))
                return
            try:
                self._replay(reached.connection)
            except OSError:
                reached.connection.close()
                continue  # This one has gone as well.
            self._take(reached)
        for request in list(self._session.pending.values()):
            request.since = time.monotonic()
            request.sent = True
            self._send(request.line)

    def _replay(self, connection: socket.socket) -> None:
        """Repeat the client's handshake and subscriptions; the client sees no answer to them."""
        connection.settimeout(_PING_SECONDS * 4)
        for line in self._session.repeated():
            connection.sendall(line)
            message = parsed(line)
            self._skip_answer(connection, message.get("id"))
            if message.get("method") == HANDSHAKE and self._session.initialized is not None:
                connection.sendall(self._session.initialized)

    def _skip_answer(self, connection: socket.socket, number: object) -> None:
        """Read up to the answer to a repeated line; what comes between goes to the client."""
        line = bytearray()
        while True:
            # Byte by byte would be slow, a whole chunk would take what comes after: look first.
            seen = connection.recv(_CHUNK_BYTES, socket.MSG_PEEK)
            if not seen:
                raise ConnectionResetError
            end = seen.find(b"\n")
            line += connection.recv(len(seen) if end < 0 else end + 1)
            if not line.endswith(b"\n"):
                continue
            message = parsed(bytes(line))
            if "method" not in message and message.get("id") == number:
                return
            self._write(bytes(line))
            line.clear()

    def _refuse(self, number: Id, reason: str) -> None:
        self._answer(error(number, RETRY_CODE, reason, retryable=True))

    def _answer(self, message: Message) -> None:
        self._write(json.dumps(message, ensure_ascii=False).encode() + b"\n")


def _advance(waiting: deque[memoryview], size: int) -> None:
    """Take the bytes away that were written."""
    if size == len(waiting[0]):
        waiting.popleft()
    else:
        waiting[0] = waiting[0][size:]


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # It may have gone already.
        connection.shutdown(socket.SHUT_WR)


def socket_of(file: int) -> socket.socket:
    """Return a socket that gives what is read from a file: Windows can wait for sockets only."""
    import threading

    ours, theirs = socket.socketpair()

    def copy() -> None:
        with theirs, suppress(OSError):
            while chunk := os.read(file, _CHUNK_BYTES):
                theirs.sendall(chunk)

    threading.Thread(target=copy, name="stdin", daemon=True).start()
    return ours


def serve_client(environ: Mapping[str, str]) -> int:
    """Serve the client on stdin and stdout through the owner; return the exit status."""
    try:
        path = own_settings(environ).get(f"{PREFIX}DB")
        try:
            db = default_db() if path is None else expanded(path)
        except ValueError as wrong:
            return report(f"{PREFIX}DB: {path!r}: {wrong}", 2)
        if sys.stdin is not None and sys.stdin.isatty():
            report(
                "waits for an MCP client on stdin; clients start it by themselves."
                " `mcp-memory --help` shows what else it does, Ctrl-C ends it",
                0,
            )
        Shim(Places(db), environ).run()
    except OwnerFault as fault:
        return report(str(fault), fault.status)
    except MemoryFault as fault:
        return report(str(fault), 1)
    except KeyboardInterrupt:
        return 130
    return 0
