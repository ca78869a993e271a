"""What a client starts: it passes lines between the client and the owner.

It knows of the conversation only what is needed to go on with another owner
when one dies: the handshake, what was subscribed, and which requests have no
answer yet.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

from mcp_memory.owner.connect import Reached, end, reach
from mcp_memory.owner.lines import lines, parsed
from mcp_memory.owner.places import Address, Places, is_same
from mcp_memory.owner.session import HANDSHAKE, Request, Session, answered_id
from mcp_memory.owner.wire import MAX_LINE_BYTES, RETRY_CODE, alive
from mcp_memory.values.errors import MemoryFault, OwnerFault
from mcp_memory.values.locations import PREFIX, default_db, expanded, own_settings

SILENT_SECONDS = 20.0
"""A request may wait so long before the owner is asked whether it is there at all."""

_LEAVE_SECONDS = 6.0
_PING_SECONDS = 5.0
_CHUNK_BYTES = 65_536
_ID = re.compile(rb'"id"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)')


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
        self._hello: dict[str, object] = {
            "settings": own_settings(self._environ),
            "since": time.time(),
            "connection": os.urandom(8).hex(),
        }
        self._stdin = stdin
        self._stdout = stdout
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._connection: socket.socket | None = None
        self._address: Address = {}
        self._session = Session()
        self._ending = False
        self._sending = threading.Lock()
        self._asked = threading.Event()

    def run(self) -> None:
        """Pass lines until the client closes its end, or takes no more.

        Raises:
            MemoryFault: No owner can be had.
        """
        self._take(self._reach())
        threading.Thread(target=self._pump_in, name="stdin", daemon=True).start()
        while True:
            self._pump_out()
            while not self._go_on():
                if self._ending:
                    return
                # Nobody can be had at present; the next call tries again.
                self._asked.wait()

    def _reach(self) -> Reached:
        return reach(self._places, self._hello, self._environ)

    def _take(self, reached: Reached) -> None:
        self._connection = reached.connection
        self._address = reached.address
        tools = reached.answer.get("repeatable")
        self._session.repeatable = frozenset(tools) if isinstance(tools, list) else frozenset()

    # From the client to the owner.

    def _pump_in(self) -> None:
        buffer = memoryview(bytearray(_CHUNK_BYTES))

        def read() -> bytes:
            if hasattr(os, "readv"):
                return bytes(buffer[: os.readv(self._stdin, [buffer])])
            return os.read(self._stdin, _CHUNK_BYTES)

        try:
            for line in lines(read, self._refuse_long):
                if line.strip():
                    self._forward(line)
        except OSError:
            pass
        with self._lock:
            self._ending = True
            self._asked.set()
            connection = self._connection
        if connection is not None:
            # The owner finishes what it is at, answers, and closes.
            if self._sending.acquire(timeout=_LEAVE_SECONDS):
                _shut(connection, socket.SHUT_WR)
                self._sending.release()
            waiting = -1
            while waiting != len(self._session.pending):
                waiting = len(self._session.pending)
                time.sleep(_LEAVE_SECONDS)
            _shut(connection, socket.SHUT_RDWR)

    def _forward(self, line: bytes) -> None:
        with self._lock:
            request = self._session.note(line)
            connection = self._connection
            if request is not None:
                self._asked.set()
        if connection is not None:
            with self._sending:
                _send(connection, line, request)

    def _refuse_long(self, head: bytes) -> None:
        found = _ID.search(head)
        limit = MAX_LINE_BYTES // (1024 * 1024)
        self._answer(
            json.loads(found[1]) if found else None,
            -32_700,
            f"the message is longer than {limit} MB and was not read: send it in parts",
        )

    # From the owner to the client.

    def _pump_out(self) -> None:
        """Pass the owner's lines on until it has gone."""
        connection = self._connection
        if connection is None:
            return

        # One for all reads: a fresh one each time lets the process grow by a sixth.
        buffer = memoryview(bytearray(_CHUNK_BYTES))

        def read() -> bytes:
            # Not a time-out of the socket: that would end the other thread's writes as well.
            while not select.select([connection], [], [], _PING_SECONDS)[0]:
                if self._is_silent():
                    return b""
            return bytes(buffer[: connection.recv_into(buffer)])

        try:
            for line in lines(read):
                number = answered_id(line)
                if number is not None:
                    with self._lock:
                        self._session.answered(number)
                self._write(line)
        except OSError:
            pass
        finally:
            _shut(connection, socket.SHUT_RDWR)
            connection.close()

    def _write(self, line: bytes) -> None:
        rest = memoryview(line + b"\n")
        with self._writing:
            while rest:
                try:
                    rest = rest[os.write(self._stdout, rest) :]
                except OSError:
                    # The client reads no more: there is nobody left to serve.
                    os._exit(0)

    def _is_silent(self) -> bool:
        """Return whether the owner is to be given up; a hanging one is ended."""
        with self._lock:
            if self._ending:
                return False
            since = self._session.waits_since()
            address = self._address
        if since is None or time.monotonic() - since < SILENT_SECONDS:
            return False
        if alive(address, _PING_SECONDS):
            return False  # It works at something long.
        if address.get("kind") != "detached":
            return False
        if is_same(self._places.read_address(), address):
            end(self._places, address)
        return True

    # From one owner to the next.

    def _go_on(self) -> bool:
        """Take the next owner and bring it to where the last one was; return whether there is one.

        If there is none, all that waits has been answered with the reason.
        """
        with self._lock:
            self._connection = None
            self._give_up()
            while not self._ending:
                try:
                    reached = self._reach()
                except MemoryFault as fault:
                    self._refuse_all(str(fault))
                    self._asked.clear()
                    return False
                try:
                    self._replay(reached.connection)
                except OSError:
                    reached.connection.close()
                    continue  # This one has gone as well.
                self._take(reached)
                # Let go by the thread: what the client says next comes after what is repeated.
                self._sending.acquire()
                again = list(self._session.pending.values())
                threading.Thread(
                    target=self._repeat, args=(reached.connection, again), daemon=True
                ).start()
                return True
            return False

    def _give_up(self) -> None:
        """Answer the calls that may have been done and can't be repeated."""
        for number in self._session.take_lost():
            self._answer(
                number,
                RETRY_CODE,
                "the memory's process ended during this call: it may or may not have been"
                " done. Look whether it was, and call again if not",
                retryable=True,
            )

    def _refuse_all(self, reason: str) -> None:
        for number in self._session.take_all():
            self._answer(number, RETRY_CODE, reason, retryable=True)

    def _repeat(self, connection: socket.socket, requests: list[Request]) -> None:
        """Ask again what has no answer; the answers are read meanwhile, or both ends would wait."""
        try:
            for request in requests:
                request.since = time.monotonic()
                _send(connection, request.line, request)
        finally:
            self._sending.release()

    def _replay(self, connection: socket.socket) -> None:
        """Repeat the client's handshake and subscriptions; the client sees no answer to them."""
        connection.settimeout(_PING_SECONDS * 4)
        for line in self._session.repeated():
            connection.sendall(line + b"\n")
            message = parsed(line)
            self._skip_answer(connection, message.get("id"))
            if message.get("method") == HANDSHAKE and self._session.initialized is not None:
                connection.sendall(self._session.initialized + b"\n")
        connection.settimeout(None)

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
            self._write(bytes(line[:-1]))
            line.clear()

    def _answer(
        self, number: object, code: int, message: str, *, retryable: bool | None = None
    ) -> None:
        error: dict[str, object] = {"code": code, "message": message}
        if retryable is not None:
            error["data"] = {"retryable": retryable}
        reply = {"jsonrpc": "2.0", "id": number, "error": error}
        self._write(json.dumps(reply, ensure_ascii=False).encode())


def _send(connection: socket.socket, line: bytes, request: Request | None) -> None:
    if request is not None:
        # Before it is: whether a line that failed half-way was done, nobody can tell.
        request.sent = True
    # If it fails, whoever reads sees it too and goes on with the next owner.
    with suppress(OSError):
        connection.sendall(line + b"\n")


def _shut(connection: socket.socket, how: int) -> None:
    with suppress(OSError):  # It may have gone already.
        connection.shutdown(how)


def serve_client(environ: Mapping[str, str]) -> int:
    """Serve the client on stdin and stdout through the owner; return the exit status."""
    try:
        path = own_settings(environ).get(f"{PREFIX}DB")
        try:
            db = default_db() if path is None else expanded(path)
        except ValueError as error:
            return _said(f"{PREFIX}DB: {path!r}: {error}", 2)
        if sys.stdin is not None and sys.stdin.isatty():
            _said(
                "waits for an MCP client on stdin; clients start it by themselves."
                " `mcp-memory --help` shows what else it does, Ctrl-C ends it",
                0,
            )
        Shim(Places(db), environ).run()
    except OwnerFault as fault:
        return _said(str(fault), fault.status)
    except MemoryFault as fault:
        return _said(str(fault), 1)
    except KeyboardInterrupt:
        return 130
    return 0


def _said(line: str, status: int) -> int:
    sys.stderr.write(f"mcp-memory: {line}\n")
    sys.stderr.flush()
    return status
