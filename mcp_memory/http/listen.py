"""Listening: from the free port to the last request, without signals of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Iterator
from typing import Final

import anyio
import anyio.to_thread
import uvicorn
from anyio.abc import TaskStatus

from mcp_memory.http.app import HttpApp
from mcp_memory.http.jwts import JwtVerifier
from mcp_memory.http.metrics import Metrics
from mcp_memory.http.options import HttpOptions
from mcp_memory.http.principals import Authenticator
from mcp_memory.server.servers import Servers
from mcp_memory.tiers.access import AccessTokens
from mcp_memory.values.errors import SettingsFault, StorageFault

logger = logging.getLogger(__name__)

GRACE_SECONDS: Final = 5.0
"""How long requests that are being answered may take once the listener is to end."""

_POLL_SECONDS: Final = 0.05
_BACKLOG: Final = 2_048


async def listen(
    servers: Servers,
    options: HttpOptions,
    *,
    stop: anyio.Event,
    task_status: TaskStatus[str] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve MCP over HTTP until `stop` is set and what was being answered is answered.

    Requests get `GRACE_SECONDS`, then they are cut; streams are cut as soon as
    nothing is being answered. A call that a worker thread is in can't be cut, so
    whoever waits for this should have a limit of its own.

    Args:
        task_status: Told the URL once connections are taken.

    Raises:
        SettingsFault: The address can't be listened on, or the set-up is not safe.
        StorageFault: The database can't be opened.
    """
    memories = await anyio.to_thread.run_sync(servers.memories)
    access = memories.engine.access
    options.check(tokens=await anyio.to_thread.run_sync(access.exist))
    metrics = Metrics()
    auth = Authenticator(access, _verifier(options), servers.settings.agent)
    app = HttpApp(servers, options, auth, metrics)
    with contextlib.closing(_bind(options.host, options.port)) as listener:
        loop = asyncio.get_running_loop()

        def tokens_changed() -> None:
            with contextlib.suppress(RuntimeError):  # The loop has ended, and all sessions with it.
                loop.call_soon_threadsafe(app.tenants.look_again)

        access.listen(tokens_changed)
        try:
            url = f"{_origin(options.host, listener.getsockname()[1])}{options.path}"
            print(f"mcp-memory listens on {url}", file=sys.stderr, flush=True)
            task_status.started(url)
            await _serve(app, listener, stop, access)
        finally:
            access.unlisten(tokens_changed)


async def _serve(
    app: HttpApp, listener: socket.socket, stop: anyio.Event, access: AccessTokens
) -> None:
    config = uvicorn.Config(
        app.asgi(),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=int(GRACE_SECONDS) + 1,
    )
    server = _Server(config)

    async def save_uses() -> None:
        try:
            await anyio.to_thread.run_sync(access.save_uses)
        except StorageFault as fault:
            logger.warning("when tokens were used is not written down: %s", fault)

    ending = anyio.Event()

    async def watch() -> None:
        try:
            await stop.wait()
        finally:
            # A caller that is cancelled ends it as well; what is being answered comes first.
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
    """Let what is being answered be answered, then cut the rest."""
    with anyio.move_on_after(GRACE_SECONDS):
        quiet = 0
        # An answer over SSE is on its way a moment after its call has ended.
        while quiet < 2:
            await anyio.sleep(_POLL_SECONDS)
            quiet = 0 if app.tenants.busy else quiet + 1
    app.tenants.cut()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: they would take those of the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _verifier(options: HttpOptions) -> JwtVerifier | None:
    audience = options.audience or options.resource
    if options.issuer is None or audience is None:
        return None
    return JwtVerifier(options, issuer=options.issuer, audience=audience)


def _bind(host: str, port: int) -> socket.socket:
    """Return a socket that takes connections.

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
