"""The HTTP listener, from the free port to the last request; it handles no signals."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import socket
from collections.abc import Callable, Iterator
from typing import Final

import anyio
import anyio.to_thread
import uvicorn
from anyio.abc import TaskStatus

from mcp_memory.agent import AccessTokens
from mcp_memory.http.app import HttpApp
from mcp_memory.http.auth import Authenticator, JwtVerifier
from mcp_memory.http.connections import (
    KEEP_ALIVE_SECONDS,
    REFUSAL,
    Connections,
    HttpConnection,
)
from mcp_memory.http.metrics import Metrics
from mcp_memory.http.options import HttpOptions
from mcp_memory.http.startup_token import announce, startup_token
from mcp_memory.server.accepting import accept_all, raise_file_limit
from mcp_memory.server.servers import Servers
from mcp_memory.values.errors import SettingsFault, StorageFault

logger = logging.getLogger(__name__)

GRACE_SECONDS: Final = 2.0
"""How long open requests may take once the listener ends, by judgement: most take milliseconds."""

_POLL_SECONDS: Final = 0.05
"""By judgement: it delays the end by a tenth of a second at most."""

_TICKS_PER_SECOND: Final = 10
"""Of uvicorn's main loop."""

_BACKLOG: Final = 2_048
"""uvicorn's own default."""


async def listen(
    servers: Servers,
    options: HttpOptions,
    *,
    stop: anyio.Event,
    task_status: TaskStatus[str] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve MCP over HTTP until `stop` is set and open requests are answered.

    Requests have `GRACE_SECONDS` to end, then they are cut; streams are cut as soon as
    no request is open. A call in a worker thread can't be cut, so the caller should
    have a limit of its own.

    Args:
        servers: The database and the servers of its clients.
        options: How to listen.
        stop: Ends the listener.
        task_status: Gets the URL once connections are accepted.

    Raises:
        SettingsFault: The address can't be used, or the configuration is not safe.
        StorageFault: The database can't be opened.
    """
    tokens = (await anyio.to_thread.run_sync(servers.memories)).tokens
    exist = await anyio.to_thread.run_sync(tokens.exist)
    options.check(tokens=exist)
    startup = startup_token(servers.settings, options, tokens=exist)
    metrics = Metrics()
    auth = Authenticator(
        tokens,
        _verifier(options),
        servers.settings.agent,
        startup=startup,
        no_auth=options.no_auth,
    )
    app = HttpApp(servers, options, auth, metrics)
    with contextlib.closing(_bind(options.host, options.port)) as listener:
        loop = asyncio.get_running_loop()

        def tokens_changed() -> None:
            with contextlib.suppress(RuntimeError):  # The loop has ended, and all sessions with it.
                loop.call_soon_threadsafe(app.tenants.sweep_soon)

        tokens.listen(tokens_changed)
        try:
            url = f"{_origin(options.host, listener.getsockname()[1])}{options.path}"
            announce(url, startup, servers.settings, options)
            task_status.started(url)
            await _serve(app, listener, stop, tokens)
        finally:
            tokens.unlisten(tokens_changed)


async def _serve(
    app: HttpApp, listener: socket.socket, stop: anyio.Event, tokens: AccessTokens
) -> None:
    config = uvicorn.Config(
        app.asgi(),
        log_config=None,
        access_log=False,
        http="h11",
        lifespan="off",
        ws="none",
        server_header=False,
        # What a proxy says of its client is not used, and anybody here could say it.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(GRACE_SECONDS),
    )
    # Below this are only notes on what clients do wrong; they are told.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    server = _Server(config, Connections(max(raise_file_limit() // 2, 1)))

    async def save_uses() -> None:
        try:
            await anyio.to_thread.run_sync(tokens.save_uses)
        except StorageFault as fault:
            logger.warning("the last use of tokens could not be stored: %s", fault)

    ending = anyio.Event()

    async def watch() -> None:
        try:
            await stop.wait()
        finally:
            # If the caller is cancelled, open requests are still answered first.
            ending.set()

    async def end() -> None:
        await ending.wait()
        server.should_exit = app.draining = True
        await _drain(app)

    async with anyio.create_task_group() as outer:
        outer.start_soon(watch)
        with anyio.CancelScope(shield=True):
            async with app.tenants.running(save_uses), anyio.create_task_group() as group:
                group.start_soon(end)
                await server.serve(sockets=[listener])
                group.cancel_scope.cancel()
            await save_uses()
        outer.cancel_scope.cancel()


async def _drain(app: HttpApp) -> None:
    """Wait for the open requests, then cut the rest."""
    with anyio.move_on_after(GRACE_SECONDS):
        quiet = 0
        # An answer over SSE is still being sent for a moment after its call has ended.
        while quiet < 2:
            await anyio.sleep(_POLL_SECONDS)
            quiet = 0 if app.tenants.busy else quiet + 1
    app.tenants.cut()


class _Server(uvicorn.Server):
    """uvicorn with bounded connections, and without its signal handlers.

    They would replace those of the process.
    """

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        def connect() -> HttpConnection:
            return HttpConnection(
                self._connections,
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )

        accepting = [_Accepting(listener, connect) for listener in sockets or ()]
        self.servers = accepting  # type: ignore[assignment]  # all of it that is used
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_PER_SECOND == 0:
            self._connections.sweep(asyncio.get_running_loop().time())
        return await super().on_tick(counter)


class _Accepting:
    """Accepts the connections of one socket, as uvicorn wants to see it."""

    def __init__(self, listener: socket.socket, connect: Callable[[], HttpConnection]) -> None:
        self._task = asyncio.create_task(accept_all(listener, connect, REFUSAL))

    def close(self) -> None:
        self._task.cancel()

    async def wait_closed(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


def _verifier(options: HttpOptions) -> JwtVerifier | None:
    audience = options.audience or options.resource
    if options.issuer is None or audience is None:
        return None
    return JwtVerifier(options, issuer=options.issuer, audience=audience)


def _bind(host: str, port: int) -> socket.socket:
    """Return a socket that accepts connections.

    Raises:
        SettingsFault: The port is in use or not allowed, or the address is not this machine's.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(
            address[:2], family=socket.AddressFamily(family), backlog=_BACKLOG
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingsFault(
                "--port", f"{port} is in use on {host}", hint="Choose another one"
            ) from error
        if error.errno == errno.EACCES:
            raise SettingsFault(
                "--port", f"{port} is not allowed to this user", hint="Choose one from 1024"
            ) from error
        raise SettingsFault(
            "--host", f"can't listen on {host!r}: {error.strerror}", hint="Use 127.0.0.1"
        ) from error


def _origin(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
