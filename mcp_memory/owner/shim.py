"""What a client starts: it passes lines between the client and the owner.

What a client asks first it answers itself, if the last owner has left the answers: so the client
waits for no owner. Requests wait until there is one.

It knows of the conversation only what is needed to go on with another owner
when one dies: the handshake, what was subscribed and listed, and which requests have no
answer yet.

One thread waits for both ends and never blocks, so that neither direction holds up the other;
whatever can block, such as to start an owner, is done in another thread.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from mcp_memory.owner.answers import HANDSHAKES, LISTS, Answers, minimal_result
from mcp_memory.owner.connect import Reached, end, reach
from mcp_memory.owner.lines import Lines, TooLong
from mcp_memory.owner.liveness import Silence
from mcp_memory.owner.places import Address, Places, is_same
from mcp_memory.owner.session import HANDSHAKE, InFlight, Listed, Session, params_of
from mcp_memory.owner.wire import MAX_LINE_BYTES, RETRY_CODE
from mcp_memory.server.parsing import Id, Message, envelope, error, parsed, too_long
from mcp_memory.values.errors import MemoryFault, OwnerFault, SettingsFault, report
from mcp_memory.values.locations import PREFIX, default_db, expanded, own_settings

SILENT_SECONDS = 20.0
"""How long a request may wait before the owner is pinged. By judgement: a host gives up a call
after a minute at the earliest."""

_PING_SECONDS = 5.0
_LEAVE_SECONDS = 6.0
"""How long the owner may give no answer after the client has left; a second more than it takes
itself for the last answers."""

_MAX_PAUSE_SECONDS = 5.0
"""Before the next owner is reached, if one after the other ends without an answer. By judgement."""

_CHUNK_BYTES = 65_536
"""What a pipe holds."""

_MAX_WAITING_BYTES = 4 * _CHUNK_BYTES
"""Of requests that wait for an owner; then no more is read. By judgement."""

# So many bytes can be written to a pipe that `select` calls writable.
_PIPE_BYTES = getattr(select, "PIPE_BUF", _CHUNK_BYTES)

# What the present owner knows of the client: nothing, its handshake was sent, everything.
_NEW, _GREETED, _READY = range(3)

_LISTENING = "notifications/subscriptions/acknowledged"
_SUBSCRIPTION_KEY = "io.modelcontextprotocol/subscriptionId"
_KINDS = {
    "notifications/tools/list_changed": "toolsListChanged",
    "notifications/resources/list_changed": "resourcesListChanged",
    "notifications/prompts/list_changed": "promptsListChanged",
}
"""What a `subscriptions/listen` request calls each notification."""


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
        settings = own_settings(self._environ)
        self._hello: Message = {
            "settings": settings,
            "since": time.time(),
            "connection": os.urandom(8).hex(),
        }
        self._stdin: int | socket.socket = stdin if os.name == "posix" else socket_of(stdin)
        self._stdout = stdout
        self._connection: socket.socket | None = None
        self._address: Address = {}
        self._answers = Answers(places, settings)
        self._session = Session()
        self._stage = _NEW
        # The requests of this process itself, by id; the client sees no answer to them.
        self._echoes: dict[Id, str] = {}
        self._echo_number = 0
        # The lists of the client that this owner has confirmed, or was asked to.
        self._checked: set[str] = set()
        self._changed: set[str] = set()
        self._has_spoken = False
        self._said = ""
        self._silence = Silence()
        self._unlucky = 0
        self._reaching = False
        self._probing = False
        # What other threads have done, and the socket that tells of it.
        self._done: deque[tuple[Callable[[object], None], object]] = deque()
        self._wake, self._waker = socket.socketpair()
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
            MemoryFault: A setting is wrong.
        """
        # What the client has said already is answered first: an owner's start takes processor time.
        if select.select([self._stdin], [], [], 0)[0]:
            self._read_client()
        self._reach()
        while not self._is_over():
            self._turn()
        while self._to_client:
            select.select([], [self._stdout], [])
            self._flush_to_client()

    def _is_over(self) -> bool:
        waits = self._connection is not None or (self._reaching and self._session.pending)
        return self._leaving and not waits

    def _turn(self) -> None:
        """Wait until something can be read or written, and do that."""
        connection = self._connection
        reading, writing = self._ends(connection)
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
        if self._wake in readable:
            self._wake.recv(_CHUNK_BYTES)
            self._finish()

    def _ends(
        self, connection: socket.socket | None
    ) -> tuple[list[int | socket.socket], list[int | socket.socket]]:
        """Return what is waited for, to read and to write."""
        reading: list[int | socket.socket] = [self._wake]
        writing: list[int | socket.socket] = []
        if not self._leaving and not self._to_owner and not self._is_full():
            reading.append(self._stdin)
        if self._to_client:
            writing.append(self._stdout)
        elif connection is not None:
            reading.append(connection)
        if self._to_owner and connection is not None:
            writing.append(connection)
        return reading, writing

    def _finish(self) -> None:
        """Go on with what other threads have done."""
        while self._done:
            then, result = self._done.popleft()
            then(result)

    def _is_full(self) -> bool:
        """Return whether so much waits for an owner that no more is read."""
        if self._stage == _READY:
            return False
        sizes = (len(request.line) for request in self._session.pending.values())
        return sum(sizes) > _MAX_WAITING_BYTES

    def _patience(self) -> float | None:
        if self._connection is None:
            return None
        if self._leaving:
            return max(self._leave_at - time.monotonic(), 0.0)
        # Without a request, nothing has to be watched.
        return _PING_SECONDS if self._session.pending or self._echoes else None

    def _aside(self, work: Callable[[], object], then: Callable[[object], None]) -> None:
        """Do what may block in another thread, and go on with its result in this one."""

        def run() -> None:
            try:
                result = work()
            except Exception as failure:
                result = failure
            self._done.append((then, result))
            self._waker.send(b"!")

        threading.Thread(target=run, name="aside", daemon=True).start()

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
        for line in lines:
            if isinstance(line, TooLong):
                self._answer(too_long(line.ends, MAX_LINE_BYTES))
            elif not line.isspace():
                self._forward(line)
        if self._session.pending and self._connection is None:
            self._reach()
        self._catch_up()
        if not size:
            self._leave()

    def _forward(self, line: bytes) -> None:
        """Answer a line, or send it to the owner; a request waits until that is possible."""
        request = self._session.note(line)
        if request is None:
            if self._stage == _READY:
                self._send(line)
        elif not self._answer_early(request) and self._stage == _READY:
            self._ask(request)

    def _ask(self, request: InFlight) -> None:
        request.since = time.monotonic()
        request.sent = True
        self._send(request.line)

    def _answer_early(self, request: InFlight) -> bool:
        """Answer one of a client's first requests; return whether the last owner left the answer.

        A later handshake is left to an owner that is there: it notes what its client has read.
        """
        if request.method in HANDSHAKES:
            if self._has_spoken and self._connection is not None:
                return False
        elif request.method not in LISTS:
            return False
        result = self._answers.result(request.method, params_of(request.line))
        if result is None:
            return False
        number = envelope(request.line)[1]
        # A part of the answer is not parsed and written again: it is large.
        line = b'{"jsonrpc":"2.0","id":' + json.dumps(number).encode() + b',"result":'
        self._write(line + result + b"}\n")
        if number is not None:
            del self._session.pending[number]
        if request.method == HANDSHAKE:
            self._stage = _NEW
        elif request.method in LISTS:
            self._session.listed[request.method] = Listed(request.line, json.loads(result))
        return True

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
        if self._leaving and self._stage == _READY and connection is not None:
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
        self._silence.broken()
        for line in self._owner_lines.feed(bytes(self._buffer[:size])):
            if isinstance(line, bytes) and not self._is_echo(line):
                self._session.answered(line)
                self._write(line)
                if self._session.streams and envelope(line)[0] == _LISTENING:
                    self._begin_stream(line)
        self._unlucky = 0

    def _write(self, line: bytes) -> None:
        self._has_spoken = True
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
            since = self._session.waits_since()
            if since is not None and now - since >= SILENT_SECONDS:
                self._probe()

    def _probe(self) -> None:
        """Find out whether the owner hangs; then end it, unless a person has started it."""
        address = self._address
        if self._probing or address.get("kind") != "detached":
            return
        self._probing = True

        def work() -> bool:
            if not self._silence.is_final(address):
                return False
            if is_same(self._places.read_address(), address):
                end(self._places, address)
            return True

        def then(hangs: object) -> None:
            self._probing = False
            if hangs is True and self._connection is not None and self._address is address:
                self._go_on()

        self._aside(work, then)

    # From one owner to the next.

    def _reach(self) -> None:
        """Reach an owner in the background; start one if there is none."""
        if self._reaching:
            return
        self._reaching = True
        pause = min(0.05 * 2**self._unlucky, _MAX_PAUSE_SECONDS) if self._unlucky else 0.0

        def work() -> Reached:
            time.sleep(pause)
            return reach(self._places, self._hello, self._environ, silence=self._silence)

        self._aside(work, self._take)

    def _take(self, reached: object) -> None:
        """Go on with an owner; if none was reached, answer what waits with the reason.

        The next request tries again then.
        """
        self._reaching = False
        if isinstance(reached, MemoryFault):
            self._give_up(reached)
        elif isinstance(reached, Reached):
            reached.connection.setblocking(False)
            self._connection = reached.connection
            self._address = reached.address
            self._unlucky = min(self._unlucky + 1, 10)
            tools = reached.answer.get("repeatable")
            self._session.repeatable = frozenset(tools) if isinstance(tools, list) else frozenset()
            self._leave_at = time.monotonic() + _LEAVE_SECONDS
            self._catch_up()
        elif isinstance(reached, BaseException):
            raise reached

    def _give_up(self, fault: MemoryFault) -> None:
        if isinstance(fault, OwnerFault) and fault.status == 2 and not self._has_spoken:
            raise fault
        if str(fault) != self._said:
            self._said = str(fault)
            report(self._said, 1)
        for number, request in self._session.take_all().items():
            if request.method in HANDSHAKES:
                result = minimal_result(request.method, params_of(request.line), str(fault))
                self._answer({"jsonrpc": "2.0", "id": number, "result": result})
            else:
                self._refuse(number, str(fault))
                if request.method in LISTS:
                    self._session.listed[request.method] = Listed(request.line, None)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._stage = _NEW
        self._echoes.clear()
        self._checked.clear()
        self._to_owner.clear()
        self._owner_lines = Lines()  # It may have died in the middle of a line.

    def _go_on(self) -> None:
        """Leave an owner that has ended for the next one."""
        self._drop()
        if self._leaving:
            return
        for number in self._session.take_lost():
            self._refuse(
                number,
                "the memory's process ended during this call: it may or may not have been"
                " done. Look whether it was, and call again if not",
            )
        self._reach()

    def _catch_up(self) -> None:
        """Bring the owner to where the client is, then send it what waits."""
        if self._connection is None or self._stage == _GREETED:
            return
        if self._stage == _NEW:
            handshake = self._session.handshake()
            if handshake is not None:
                self._stage = _GREETED
                self._echo(handshake, HANDSHAKE)
                return
            self._stage = _READY
        for method, listed in self._session.listed.items():
            if method not in self._checked:
                self._checked.add(method)
                self._echo(listed.line, method)
        for request in list(self._session.pending.values()):
            if not request.sent:
                self._ask(request)
        if self._leaving and not self._to_owner:
            self._flush_to_owner()

    def _echo(self, line: bytes, method: str) -> None:
        """Repeat a request of the client under an id of our own."""
        self._echo_number += 1
        number = f"mcp-memory-{self._echo_number}"
        self._echoes[number] = method
        self._send(json.dumps({**parsed(line), "id": number}).encode() + b"\n")

    def _is_echo(self, line: bytes) -> bool:
        """Take the answer to an echo; return whether a line is one."""
        if not self._echoes:
            return False
        kind, number = envelope(line)
        if kind is not None or number not in self._echoes:
            return False
        method = self._echoes.pop(number)
        if method == HANDSHAKE:
            if self._session.initialized is not None:
                self._send(self._session.initialized)
            for repeated in self._session.subscribed():
                self._echo(repeated, "")
            self._stage = _READY
            self._catch_up()
        elif method in self._session.listed:
            result = parsed(line).get("result")
            if not self._session.listed[method].is_same(result):
                self._answers.forget(method)
                del self._session.listed[method]
                self._tell(LISTS[method])
        return True

    def _tell(self, notification: str) -> None:
        """Tell the client that a list is another one than it was given."""
        if self._session.handshake() is not None:
            self._answer({"jsonrpc": "2.0", "method": notification})
            return
        self._changed.add(notification)
        for number, stream in self._session.streams.items():
            if stream.begun and stream.asked.get(_KINDS[notification]):
                self._tell_in(number, notification)

    def _begin_stream(self, line: bytes) -> None:
        """Note that a stream has begun, and tell in it what has changed before."""
        meta = params_of(line).get("_meta")
        number = meta.get(_SUBSCRIPTION_KEY) if isinstance(meta, dict) else None
        stream = self._session.streams.get(number) if isinstance(number, (str, int)) else None
        if stream is not None:
            stream.begun = True
            for notification in self._changed:
                if stream.asked.get(_KINDS[notification]):
                    self._tell_in(number, notification)

    def _tell_in(self, number: object, notification: str) -> None:
        params = {"_meta": {_SUBSCRIPTION_KEY: number}}
        self._answer({"jsonrpc": "2.0", "method": notification, "params": params})

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
        except SettingsFault as fault:
            return report(str(fault), 2)
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
