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

from mcp_memory.errors import MemoryFault, OwnerFault
from mcp_memory.locations import PREFIX, default_db, expanded, own_settings
from mcp_memory.owner.connect import Reached, reach
from mcp_memory.owner.lines import lines, parsed
from mcp_memory.owner.places import Address, Places
from mcp_memory.owner.wire import MAX_LINE_BYTES, RETRY_CODE, alive, kill

SILENT_SECONDS = 20.0
"""A request may wait so long before the owner is asked whether it is there at all."""

_LEAVE_SECONDS = 6.0
_PING_SECONDS = 5.0
_CHUNK_BYTES = 65_536
_ANSWER = re.compile(rb'\{"jsonrpc":"2\.0","id":("(?:[^"\\]|\\.)*"|-?\d+),"(?:result|error)":')
_ID = re.compile(rb'"id"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)')

_HANDSHAKE = "initialize"
_NEVER_REPEATED = frozenset({"tools/call"})
"""Everything else asks and changes nothing; of the tools the owner tells which can be repeated."""

Id = str | int


class Request:
    """A request of the client that has no answer yet."""

    def __init__(self, line: bytes, method: str, tool: str | None) -> None:
        self.line = line
        self.method = method
        self.tool = tool
        self.since = time.monotonic()
        self.sent = False


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
        }
        self._stdin = stdin
        self._stdout = stdout
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._connection: socket.socket | None = None
        self._address: Address = {}
        self._repeatable: frozenset[str] = frozenset()
        self._pending: dict[Id, Request] = {}
        self._handshake: bytes | None = None
        self._initialized: bytes | None = None
        self._level: bytes | None = None
        self._subscribed: dict[str, bytes] = {}
        self._ending = False

    def run(self) -> None:
        """Pass lines until the client closes its end, or takes no more.

        Raises:
            MemoryFault: No owner can be had.
        """
        self._take(self._reach())
        threading.Thread(target=self._pump_in, name="stdin", daemon=True).start()
        while True:
            self._pump_out()
            with self._lock:
                if self._ending:
                    return
                self._go_on()

    def _reach(self) -> Reached:
        return reach(self._places, self._hello, self._environ)

    def _take(self, reached: Reached) -> None:
        self._connection = reached.connection
        self._address = reached.address
        tools = reached.answer.get("repeatable")
        self._repeatable = frozenset(tools) if isinstance(tools, list) else frozenset()

    # From the client to the owner.

    def _pump_in(self) -> None:
        try:
            for line in lines(lambda: os.read(self._stdin, _CHUNK_BYTES), self._refuse_long):
                if line.strip():
                    self._forward(line)
        except OSError:
            pass
        with self._lock:
            self._ending = True
            connection = self._connection
        if connection is not None:
            # The owner finishes what it is at, answers, and closes.
            _shut(connection, socket.SHUT_WR)
            time.sleep(_LEAVE_SECONDS)
            _shut(connection, socket.SHUT_RDWR)

    def _forward(self, line: bytes) -> None:
        message = parsed(line)
        with self._lock:
            request = self._note(line, message)
            connection = self._connection
        if connection is None:
            return
        if request is not None:
            # Before it is: whether a line that failed half-way was done, nobody can tell.
            request.sent = True
        # If it fails, the other thread sees it too and goes on with the next owner.
        with suppress(OSError):
            connection.sendall(line + b"\n")

    def _note(self, line: bytes, message: dict[str, object]) -> Request | None:
        """Remember what another owner would have to be told."""
        method, number = message.get("method"), message.get("id")
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        if not isinstance(method, str):
            return None
        if isinstance(number, (str, int)):
            if method == _HANDSHAKE:
                self._handshake = line
            elif method == "logging/setLevel":
                self._level = line
            elif method == "resources/subscribe":
                self._subscribed[str(params.get("uri"))] = line
            elif method == "resources/unsubscribe":
                self._subscribed.pop(str(params.get("uri")), None)
            tool = params.get("name") if method == "tools/call" else None
            request = Request(line, method, tool if isinstance(tool, str) else None)
            self._pending[number] = request
            return request
        if method == "notifications/initialized":
            self._initialized = line
        elif method == "notifications/cancelled":
            cancelled = params.get("requestId")
            if isinstance(cancelled, (str, int)):
                self._pending.pop(cancelled, None)
        return None

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

        def read() -> bytes:
            # Not a time-out of the socket: that would end the other thread's writes as well.
            while not select.select([connection], [], [], _PING_SECONDS)[0]:
                if self._is_silent():
                    return b""
            return connection.recv(_CHUNK_BYTES)

        try:
            for line in lines(read):
                self._answered(line)
                self._write(line)
        except OSError:
            pass
        finally:
            _shut(connection, socket.SHUT_RDWR)
            connection.close()

    def _answered(self, line: bytes) -> None:
        found = _ANSWER.match(line)
        if found is not None:
            number: object = json.loads(found[1])
        elif b'"method"' in line[:200]:
            return
        else:
            number = parsed(line).get("id")
        if isinstance(number, (str, int)):
            with self._lock:
                self._pending.pop(number, None)

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
            waiting = [
                request.since
                for request in self._pending.values()
                if request.method != "subscriptions/listen"
            ]
            address = self._address
        if not waiting or time.monotonic() - min(waiting) < SILENT_SECONDS:
            return False
        if alive(address, _PING_SECONDS):
            return False  # It works at something long.
        if address.get("kind") != "detached":
            return False
        if self._places.read_address() == address:
            kill(address)
        return True

    # From one owner to the next.

    def _go_on(self) -> None:
        """Take the next owner and bring it to where the last one was."""
        self._connection = None
        again = [item for item in self._pending.items() if self._can_repeat(item[1])]
        for number, request in list(self._pending.items()):
            if not self._can_repeat(request):
                del self._pending[number]
                self._answer(
                    number,
                    RETRY_CODE,
                    "the memory's process ended during this call: it may or may not have been"
                    " done. Look whether it was, and call again if not",
                    retryable=True,
                )
        while True:
            reached = self._reach()
            try:
                self._replay(reached.connection)
                for _, request in again:
                    request.since = time.monotonic()
                    reached.connection.sendall(request.line + b"\n")
                    request.sent = True
            except OSError:
                reached.connection.close()
                continue  # This one has gone as well.
            self._take(reached)
            return

    def _can_repeat(self, request: Request) -> bool:
        if not request.sent or request.method not in _NEVER_REPEATED:
            return True
        return request.tool in self._repeatable

    def _replay(self, connection: socket.socket) -> None:
        """Repeat the client's handshake and subscriptions; the client sees no answer to them."""
        again: list[bytes] = []
        if self._handshake is not None and not self._is_pending(self._handshake):
            again.append(self._handshake)
        others = (self._level, *self._subscribed.values())
        again.extend(line for line in others if line is not None and not self._is_pending(line))
        connection.settimeout(_PING_SECONDS * 4)
        for line in again:
            connection.sendall(line + b"\n")
            self._skip_answer(connection, parsed(line).get("id"))
            if line is self._handshake and self._initialized is not None:
                connection.sendall(self._initialized + b"\n")
        connection.settimeout(None)

    def _is_pending(self, line: bytes) -> bool:
        return any(request.line is line for request in self._pending.values())

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
