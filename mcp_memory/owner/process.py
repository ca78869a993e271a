"""The owner: the one process that has a database open and serves all its clients."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NoReturn

import anyio
import anyio.to_thread

from mcp_memory import __version__
from mcp_memory.owner.answers import settings_key
from mcp_memory.owner.connection import ClientStream, Connection, encoded
from mcp_memory.owner.room import Room
from mcp_memory.owner.seat import Seat, error_message
from mcp_memory.owner.wire import PROTOCOL
from mcp_memory.server.accepting import accept_all, raise_file_limit
from mcp_memory.server.logs import set_up
from mcp_memory.server.parsing import parsed
from mcp_memory.server.servers import ConnectionInfo, Servers
from mcp_memory.server.tools import TOOLS
from mcp_memory.settings import Settings, load_settings, settings_of
from mcp_memory.values.errors import MemoryFault, OwnerFault, SettingsFault, report
from mcp_memory.values.kinds import DEFAULTS

logger = logging.getLogger(__name__)

Listen = Callable[..., Coroutine[Any, Any, None]]
"""Serves clients in another way as well, such as HTTP: takes the servers, the event `stop` that
ends it, and a task status."""

REPEATABLE: Final = sorted(
    name
    for name, spec in TOOLS.items()
    if spec.annotations.read_only_hint or spec.annotations.idempotent_hint
)
"""The tools that a shim may call again if an owner ends before it answers."""

_SAME_FOR_ALL: Final = ("embedding_model", "tokenizer")

# All by judgement: each is many times what the step takes, and short for a person who waits.
_HELLO_SECONDS: Final = 10.0
"""How long a client may take for its hand-shake."""

_SILENT_SECONDS: Final = 1.0
"""How long a client may say nothing if others wait for its place; a shim says it at once."""

_MAX_OF_PROCESS: Final = 32
"""Connections of one process: a shim has one, and a second for a moment."""

_FIRST_CLIENT_SECONDS: Final = 10.0
"""How long a new owner waits for the client that has started it, at least."""

_KEEP_AFTER_SECONDS: Final = 0.5
"""When the first answers are kept, after a client has connected: it has them itself by then."""

_SETTLE_SECONDS: Final = 2.0
"""How long open requests may take once the owner ends: none waits for the model then."""

_END_SECONDS: Final = 4.5
"""How long the whole end may take, whatever is worked on: supervisors kill after ten seconds, and
what is acknowledged is durable."""


def own_detached(seat: Seat) -> NoReturn:
    """Serve the clients of the environment's database, and end the process."""
    try:
        settings = load_settings()
    except SettingsFault as fault:
        seat.refuse(fault)
        sys.stderr.write(f"{fault}\n")
        seat.leave()
        sys.exit(2)
    own(seat, settings)


def own(seat: Seat, settings: Settings, listen: Listen | None = None) -> NoReturn:
    """Serve a database's clients until the last has left, and end the process.

    Args:
        seat: The owner's lock and socket, taken.
        settings: Those of the process.
        listen: Another way to serve; with it the owner stays until a signal ends it.
    """
    set_up(
        settings.log_level,
        "%(asctime)s mcp-memory %(levelname)s %(name)s: %(message)s",
        seat.places.log if seat.kind == "detached" else None,
    )
    owner = Owner(settings, seat, listen)
    status = 1
    try:
        anyio.run(owner.run)
        status = 0
    except BaseException as error:
        fault = _fault_in(error)
        if fault is None:
            logger.exception("the owner has failed")
        else:  # For example a port that is in use.
            status = report(str(fault), 2 if isinstance(fault, SettingsFault) else 1)
    seat.stop_listening()
    owner.servers.close()
    seat.leave()
    with contextlib.suppress(OSError):  # The log may be on a full disk.
        sys.stderr.flush()
    # A thread in a long call would keep the process alive.
    os._exit(status)


class Owner:
    """Accepts clients, gives each a server of its own, and ends once it is idle."""

    def __init__(self, settings: Settings, seat: Seat, listen: Listen | None) -> None:
        self.servers = Servers(settings)
        self._settings = settings
        self._seat = seat
        self._listen = listen
        self._stop = anyio.Event()
        self._news = anyio.Event()
        self._open: set[Connection] = set()
        self._room = Room()
        connections = raise_file_limit()
        # Those over HTTP have the other half.
        self._max_open = connections if listen is None else max(connections // 2, 1)
        self._max_of_process = max(min(self._max_open // 4, _MAX_OF_PROCESS), 1)
        self._silent: dict[ClientStream, float] = {}
        """Those without a hand-shake yet, the oldest first, and when each was accepted."""
        self._of_process: Counter[int | None] = Counter()
        self._kept: set[str] = set()
        """The settings of clients whose first answers are kept for the next start."""

    async def run(self) -> None:
        """Serve until the idle time is over or a signal ends the process."""
        if self._seat.listener is None:
            raise OwnerFault("the owner has no socket to listen on")
        async with anyio.create_task_group() as group:
            self._group = group

            def accept(stream: ClientStream) -> None:
                if self._admits(stream):
                    group.start_soon(self._serve, stream)

            group.start_soon(self._leave_on_signal)
            listening = asyncio.create_task(
                accept_all(
                    self._seat.listener,
                    lambda: ClientStream(accept, self._room),
                    encoded({"error": error_message(_too_many(self._max_open))}),
                )
            )
            if self._listen is not None:
                await group.start(partial(self._listen, self.servers, stop=self._stop))
            else:
                group.start_soon(self._leave_when_idle)
            self._seat.ready()
            await self._stop.wait()
            end_soon(self.servers)
            listening.cancel()
            self._seat.stop_listening()
            async with anyio.create_task_group() as settling:
                for connection in self._open:
                    settling.start_soon(connection.settle, _SETTLE_SECONDS)
            for connection in self._open:
                connection.end()
            group.cancel_scope.cancel()

    async def _leave_on_signal(self) -> None:
        if sys.platform == "win32":
            return
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                self._stop.set()

    async def _leave_when_idle(self) -> None:
        # The client that has started this process is about to connect.
        patience = max(self._settings.owner_idle_seconds, _FIRST_CLIENT_SECONDS)
        while True:
            with anyio.move_on_after(None if self._open else patience) as waiting:
                await self._news.wait()
                self._news = anyio.Event()
                patience = self._settings.owner_idle_seconds
            if waiting.cancelled_caught:
                # A client that connects meanwhile is accepted, and waits for its first call.
                await anyio.to_thread.run_sync(self.servers.compact, abandon_on_cancel=True)
                if not self._open:
                    self._stop.set()
                    return

    def _admits(self, stream: ClientStream) -> bool:
        """Return whether there is room for a new connection; tell it if there is none."""
        fault = None
        if stream.peer is not None and self._of_process[stream.peer] >= self._max_of_process:
            fault = OwnerFault(
                f"this process has {self._max_of_process} connections to the memory already",
                hint="Close some of them first",
            )
        elif self._of_process.total() >= self._max_open:
            oldest = next(iter(self._silent), None)
            if oldest is not None and self._silent[oldest] < time.monotonic() - _SILENT_SECONDS:
                oldest.refuse(encoded({"error": error_message(_too_many(self._max_open))}))
                self._silent.pop(oldest)
            else:
                fault = _too_many(self._max_open)
        if fault is not None:
            logger.warning("a client is refused: %s", fault.message)
            stream.refuse(encoded({"error": error_message(fault)}))
            return False
        self._silent[stream] = time.monotonic()
        self._of_process[stream.peer] += 1
        return True

    async def _serve(self, stream: ClientStream) -> None:
        """Answer a client's hand-shake and serve it; no client can end the owner."""
        process = stream.peer
        try:
            await self._greet_and_serve(stream)
        finally:
            self._silent.pop(stream, None)
            self._of_process -= Counter((process,))

    async def _greet_and_serve(self, stream: ClientStream) -> None:
        with contextlib.closing(stream):
            try:
                hello = await self._hello(stream)
                self._silent.pop(stream, None)
                if hello is None:
                    return
                if "op" in hello:
                    await _send(stream, await self._operate(hello))
                    return
                settings = self._settings_of(hello)
                since = _moment(hello.get("since"))
                connection = Connection(stream)
                self._open.add(connection)
                self._news.set()
            except MemoryFault as fault:
                await _send(stream, {"error": error_message(fault)})
                return
            except Exception:
                logger.exception("a client could not be greeted")
                return
            self._group.start_soon(self._keep_answers, _given(hello), settings)
            name = str(hello.get("connection") or "") or None
            info = ConnectionInfo(settings.agent, str(hello.get("version")), since, name)
            await self._serve_client(stream, connection, settings, info)

    async def _serve_client(
        self,
        stream: ClientStream,
        connection: Connection,
        settings: Settings,
        info: ConnectionInfo,
    ) -> None:
        connection.on_client = info.named
        server = self.servers.server(settings, since=info.since, connection=info.name)
        self.servers.connections.append(info)
        try:
            await _send(
                stream,
                {
                    "mcp_memory": PROTOCOL,
                    "version": __version__,
                    "pid": os.getpid(),
                    "kind": self._seat.kind,
                    "repeatable": REPEATABLE,
                },
            )
            if not server.knows_core and self._settings.db.exists():
                # Else the handshake would show an empty core memory.
                await server.open()
            await connection.serve(server)
        except Exception:
            logger.exception("a connection has failed")
        finally:
            self.servers.connections.remove(info)
            self._open.discard(connection)
            server.close()
            self._news.set()

    async def _keep_answers(self, given: dict[str, str], settings: Settings) -> None:
        """Keep what a client with these settings asks first, once; not while it waits for it."""
        key = settings_key(given)
        if key in self._kept:
            return
        self._kept.add(key)
        await anyio.sleep(_KEEP_AFTER_SECONDS)
        # Not at the top: it would delay the answer to the first client.
        from mcp_memory.owner.rehearsal import rehearse

        try:
            await anyio.to_thread.run_sync(
                rehearse, self.servers, self._seat.places, given, settings
            )
        except Exception:
            logger.exception("the first answers can't be kept for the next start")

    async def _hello(self, stream: ClientStream) -> dict[str, Any] | None:
        line = None
        with anyio.move_on_after(_HELLO_SECONDS):
            line = await stream.line()
        if not isinstance(line, bytes):
            return None
        hello = parsed(line)
        stream.leave_place()
        if hello.get("mcp_memory") != PROTOCOL:
            return None
        secret = self._seat.secret
        given = str(hello.get("secret")).encode("utf-8", "replace")
        if secret is not None and not hmac.compare_digest(given, secret.encode()):
            return None
        return hello

    async def _operate(self, hello: dict[str, Any]) -> dict[str, Any]:
        if hello["op"] == "ping":
            return {"result": {}}
        if hello["op"] == "retire":
            self._stop.set()
            return {"result": {}}
        # Not at the top: it would delay the answer to the first client.
        from mcp_memory.owner.admin import OPERATIONS

        operation = OPERATIONS.get(str(hello["op"]))
        if operation is None:
            raise OwnerFault(
                f"the owner, version {__version__}, has no operation {hello['op']!r}",
                hint="Close all clients once, so that the newest version starts",
            )
        params = hello.get("params") or {}
        return {"result": await anyio.to_thread.run_sync(operation, self.servers, params)}

    def _settings_of(self, hello: dict[str, Any]) -> Settings:
        settings = settings_of(_given(hello))
        for name in _SAME_FOR_ALL:
            ours, theirs = getattr(self._settings, name), getattr(settings, name)
            if ours != theirs:
                raise SettingsFault(
                    f"MCP_MEMORY_{name.upper()}",
                    f"it is {theirs!r} here, but {ours!r} for the clients that use this database"
                    " now",
                    hint="Set the same in every client",
                )
        if settings.kinds not in (self._settings.kinds, DEFAULTS):
            logger.warning("a client has another MCP_MEMORY_KINDS; that of this process is used")
        return settings


def _too_many(limit: int) -> OwnerFault:
    return OwnerFault(
        f"{limit} clients are connected to the memory, as many as its open files allow",
        hint="Close one, or allow more open files (`ulimit -n`) and restart all clients",
    )


def end_soon(servers: Servers) -> None:
    """Let calls end that wait for the model, and end the process after a while in any case."""
    timer = threading.Timer(_END_SECONDS, os._exit, (0,))
    timer.daemon = True
    timer.start()
    if servers.opened is not None:
        servers.opened.leave_vectors()


def _given(hello: dict[str, Any]) -> dict[str, str]:
    """Return the settings of a client as it gave them."""
    given = hello.get("settings")
    return given if isinstance(given, dict) else {}


def _moment(seconds: object) -> datetime:
    """Return the time when a client connected; now if it is not given."""
    with contextlib.suppress(TypeError, ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(float(str(seconds)), UTC)
    return datetime.now(UTC)


def _fault_in(error: BaseException) -> MemoryFault | None:
    """Return the fault that ended a group of tasks; None if it was another exception."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, MemoryFault) else None


async def _send(stream: ClientStream, answer: dict[str, Any]) -> None:
    await stream.send(encoded(answer))
