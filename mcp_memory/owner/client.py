"""A command's way to a database that an owner may have open: over MCP, or as an operation.

If an owner runs, it does the work. If none runs, the command's own process does, while
it keeps other processes from the database; either way the command sees the same.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from mcp_memory import __version__
from mcp_memory.owner.connect import reach, refusal, retire
from mcp_memory.owner.locks import ProcessLock, read_note
from mcp_memory.owner.places import Places
from mcp_memory.owner.seat import Seat
from mcp_memory.owner.wire import Gone, Silent, dial, greet
from mcp_memory.values.errors import OwnerFault
from mcp_memory.values.locations import PREFIX, own_settings

if TYPE_CHECKING:
    from mcp_memory.server.app import MemoryServer
    from mcp_memory.settings import Settings

Params = dict[str, Any]

ANSWER_SECONDS: Final = 60.0
"""How long an answer may take, by judgement: a first search may load an index before it."""

LONG_SECONDS: Final = 3_600.0
"""The same for work on the whole database, by judgement: an hour for the slowest disk."""

_CONNECT_SECONDS: Final = 10.0
"""How long an owner may take to accept a connection, by judgement; it takes milliseconds."""

_WAIT_SECONDS: Final = 20.0
"""How long to wait for another process to leave the database, by judgement."""

_TRIES: Final = 3
"""How many owners in a row may end before an operation fails, by judgement."""

_PROTOCOL_VERSION: Final = "2025-11-25"
"""The last revision with a handshake, after which a connection has its client's name."""


class CommandSession:
    """What a command can do: MCP requests on one connection, and operations of `admin`.

    Args:
        connect: Opens a connection that an MCP server is at the other end of.
        operate: Does an operation: its name, its parameters, and the seconds it may take.
        db: The database, for messages.
    """

    def __init__(
        self,
        connect: Callable[[], socket.socket],
        operate: Callable[[str, Params, float], Params],
        db: str,
    ) -> None:
        self._connection = connect()
        self._lines = self._connection.makefile("rb")
        self._operate = operate
        self._db = db
        self._requests = 0

    def call(self, tool: str, **arguments: object) -> Params:
        """Call a tool and return its structured content; arguments that are None are left out.

        Raises:
            OwnerFault: The tool refused, or there was no answer.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        result = self._request("tools/call", {"name": tool, "arguments": given})
        content: Params = result.get("structuredContent") or {}
        if result.get("isError"):
            raise refusal({**content, "type": content.get("error")})
        return content

    def read(self, uri: str) -> str:
        """Return the text of a resource.

        Raises:
            OwnerFault: There is no such resource, or there was no answer.
        """
        [content] = self._request("resources/read", {"uri": uri})["contents"]
        return str(content["text"])

    def operate(self, name: str, params: Params, seconds: float = ANSWER_SECONDS) -> Params:
        """Do an operation of `admin` and return its result.

        Raises:
            MemoryFault: It was refused, or there was no answer.
        """
        return self._operate(name, params, seconds)

    def close(self) -> None:
        """Close the connection."""
        self._lines.close()
        # Without it the other end would not read an end while the descriptor is shared.
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _request(self, method: str, params: Params) -> Params:
        if not self._requests:
            self._requests = 1
            client = {"name": "mcp-memory command", "version": __version__}
            self._answer(
                "initialize",
                {"protocolVersion": _PROTOCOL_VERSION, "capabilities": {}, "clientInfo": client},
            )
            self._send({"method": "notifications/initialized"})
        return self._answer(method, params)

    def _answer(self, method: str, params: Params) -> Params:
        self._requests += 1
        try:
            self._connection.settimeout(ANSWER_SECONDS)
            self._send({"id": self._requests, "method": method, "params": params})
            while line := self._lines.readline():
                message = json.loads(line)
                if message.get("id") == self._requests and "method" not in message:
                    if "error" in message:
                        raise refusal(message["error"])
                    result: Params = message["result"]
                    return result
        except TimeoutError:
            raise _silent(self._db, ANSWER_SECONDS) from None
        except OSError:
            pass  # Said below, as for an end of the stream.
        raise OwnerFault(
            f"the owner of {self._db} ended before it answered", hint="Run the command again"
        )

    def _send(self, message: Params) -> None:
        self._connection.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


@contextmanager
def session(
    settings: Settings, purpose: str, *, start: bool = False, background: bool = False
) -> Iterator[CommandSession]:
    """Connect to the owner of a database or, if there is none, serve it in this process.

    Args:
        settings: Those of the connection.
        purpose: The command's name, which other processes show while they wait for it.
        start: Whether to start an owner if none runs, also if one ends meanwhile: operations
            are then repeated and must allow it. It ends by itself after its idle time.
        background: Whether this process loads the model if it has to serve the database.

    Raises:
        MemoryFault: The owner refuses or doesn't answer, or the database can't be opened.
    """
    places = Places(str(settings.db))
    with ExitStack() as stack:
        opened = None
        if start or places.read_address() is not None:
            try:
                opened = _owner_session(settings, places, stack, start=start)
            except OwnerFault:
                if start or places.read_address() is not None:
                    raise
        if opened is None:
            opened = stack.enter_context(_own_session(settings, purpose, background=background))
        stack.callback(opened.close)
        yield opened


def ask(
    settings: Settings,
    operation: str,
    params: Params | None = None,
    seconds: float = ANSWER_SECONDS,
) -> Params:
    """Do one operation of `admin`, in the owner or, if there is none, in this process.

    Raises:
        MemoryFault: It was refused, or the owner doesn't answer.
    """
    places = Places(str(settings.db))
    if places.read_address() is not None:
        try:
            return ask_owner(settings, operation, params, seconds)
        except OwnerFault:
            if places.read_address() is not None:
                raise
    from mcp_memory.owner.admin import OPERATIONS
    from mcp_memory.server.servers import Servers

    with exclusive(settings, operation), _errors_only():
        # No operation needs the model, and maintenance has time.
        servers = Servers(settings, background=False)
        try:
            return OPERATIONS[operation](servers, params or {})
        finally:
            servers.close()


def ask_owner(
    settings: Settings,
    operation: str,
    params: Params | None = None,
    seconds: float = ANSWER_SECONDS,
) -> Params:
    """Do one operation of `admin` in the owner that runs.

    Raises:
        OwnerFault: None runs, it doesn't answer, or it has refused.
    """
    places = Places(str(settings.db))
    try:
        return _operate(places, operation, params or {}, seconds)
    except Gone:
        raise OwnerFault("no owner is running", hint="It starts with the first client") from None


def _operate(places: Places, operation: str, params: Params, seconds: float) -> Params:
    """Do an operation in the owner.

    Raises:
        Gone: No owner runs.
        OwnerFault: It doesn't answer, or it has refused.
    """
    address = places.read_address()
    if address is None:
        raise Gone
    try:
        with dial(address, _CONNECT_SECONDS) as connection:
            connection.settimeout(seconds)
            answer = greet(connection, address, {"op": operation, "params": params})
    except Silent:
        raise _silent(places.db, seconds) from None
    if answer.get("error") is not None:
        raise refusal(answer["error"])
    result = answer.get("result")
    return result if isinstance(result, dict) else {}


def _silent(db: str, seconds: float) -> OwnerFault:
    return OwnerFault(
        f"the owner of {db} has not answered within {seconds:g} s", hint="Run `mcp-memory doctor`"
    )


def _owner_session(
    settings: Settings, places: Places, stack: ExitStack, *, start: bool
) -> CommandSession:
    """Return a session with the owner, which stays as long as a connection of `stack` is open."""
    given = own_settings(os.environ) | {
        f"{PREFIX}AGENT": settings.agent,
        f"{PREFIX}MAX_REPLY_TOKENS": str(settings.max_reply_tokens),
    }

    def connect() -> socket.socket:
        hello: dict[str, object] = {"settings": given, "since": time.time()}
        return stack.enter_context(reach(places, hello, os.environ, start=start).connection)

    def operate(operation: str, params: Params, seconds: float) -> Params:
        for _ in range(_TRIES):
            try:
                return _operate(places, operation, params, seconds)
            except Gone:
                if not start:
                    break
                connect()
        raise OwnerFault(
            f"the owner of {places.db} has ended",
            hint="Run the command again; `mcp-memory doctor` looks for the cause",
        )

    return CommandSession(connect, operate, places.db)


@contextmanager
def _own_session(settings: Settings, purpose: str, *, background: bool) -> Iterator[CommandSession]:
    """Serve the database in this process, for one session."""
    from mcp_memory.owner.admin import OPERATIONS
    from mcp_memory.server.servers import Servers

    with exclusive(settings, purpose), _errors_only():
        servers = Servers(settings, background=background)
        server = servers.server()
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=_serve, args=(theirs, server), name="mcp-memory-server")
        thread.start()
        try:
            yield CommandSession(
                lambda: ours,
                lambda operation, params, seconds: OPERATIONS[operation](servers, params),
                str(settings.db),
            )
        finally:
            ours.close()
            thread.join()
            server.close()
            servers.close()


def _serve(connection: socket.socket, server: MemoryServer) -> None:
    """Serve one MCP client until it closes its end."""
    import anyio

    from mcp_memory.owner.connection import serve_socket

    anyio.run(serve_socket, connection, server)


@contextmanager
def _errors_only() -> Iterator[None]:
    """Log errors only: a command says the rest in its own words."""
    logger = logging.getLogger("mcp_memory")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def exclusive(settings: Settings, purpose: str) -> Iterator[None]:
    """Be the only process at the database, without serving clients.

    An owner that clients have started leaves; its clients wait for a while.

    Args:
        settings: Their database is meant.
        purpose: What it is for; other processes show it while they wait.

    Raises:
        OwnerFault: A server that a person has started, or another command, has the database.
    """
    with election(settings) as places:
        lock = ProcessLock(places.lock)
        deadline = time.monotonic() + _WAIT_SECONDS
        while not lock.acquire():
            if time.monotonic() > deadline:
                raise OwnerFault(
                    f"the database {places.db} is in use by {read_note(places.lock)}",
                    hint="Wait until it is done, or end it",
                )
            time.sleep(0.01)
        lock.note(f"process {os.getpid()} ({purpose})")
        try:
            yield
        finally:
            lock.release()


@contextmanager
def election(settings: Settings) -> Iterator[Places]:
    """Keep clients from starting an owner, and ask the present one to leave.

    Raises:
        OwnerFault: A person has started the present owner, so it stays.
    """
    places = Places(str(settings.db))
    places.make()
    lock = ProcessLock(places.election)
    deadline = time.monotonic() + _WAIT_SECONDS
    while not lock.acquire():
        if time.monotonic() > deadline:
            raise OwnerFault(
                f"another process is about to open {places.db}", hint="Try again in a moment"
            )
        time.sleep(0.01)
    try:
        address = places.read_address()
        if address is not None:
            taken = ProcessLock(places.lock)
            if taken.acquire():
                taken.release()  # The address is a dead owner's.
            elif address.get("kind") != "detached":
                raise OwnerFault(
                    f"the database {places.db} is served by process {address.get('pid')}",
                    hint="End that server first",
                )
            else:
                retire(places, address)
        yield places
    finally:
        lock.release()


def take_seat(settings: Settings) -> Seat:
    """Become the owner, for a server that a person starts.

    Raises:
        OwnerFault: Another such server is the owner.
    """
    with election(settings) as places:
        taken = Seat(places, "serve")
        taken.take(_WAIT_SECONDS)
        return taken
