"""How a client reaches the server: stdio, streamable HTTP, SSE; loopback only for now."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage

from mcp_memory.errors import SettingsFault
from mcp_memory.server.app import MemoryServer
from mcp_memory.server.parsing import parse_error
from mcp_memory.server.servers import Servers

if TYPE_CHECKING:
    from starlette.applications import Starlette

logger = logging.getLogger(__name__)

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
MAX_BODY_BYTES: Final = 72 * 1024 * 1024
"""Room for the largest text that is stored, escaped as JSON."""

_GRACE_SECONDS: Final = 5


async def serve_stdio(servers: Servers) -> None:
    """Serve one client over stdin and stdout until it closes them or the process is told to end."""
    server = servers.server()
    async with anyio.create_task_group() as group, _stdio_streams() as (read, write):
        group.start_soon(_leave_on_signal, servers)
        await server.run(read, write, server.create_initialization_options())
        group.cancel_scope.cancel()


async def serve_http(server: MemoryServer, transport: str, host: str, port: int) -> None:
    """Serve streamable HTTP at `/mcp`, or SSE at `/sse`, until the process is told to end.

    Raises:
        SettingsFault: The address is not a loopback one, or is in use.
    """
    import uvicorn

    if host not in LOOPBACK:
        raise SettingsFault(
            "--host",
            f"{host!r} is not a loopback address, and there is no authentication yet",
            hint="Use 127.0.0.1, and a tunnel or a reverse proxy with a login for other machines",
        )
    app = http_app(server, host) if transport == "http" else sse_app(server)
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=_GRACE_SECONDS
    )
    listener = config.bind_socket() if _is_free(host, port) else None
    if listener is None:
        raise SettingsFault("--port", f"{port} is in use on {host}", hint="Choose another one")
    path = "/mcp" if transport == "http" else "/sse"
    name = f"[{host}]" if ":" in host else host
    print(f"mcp-memory listens on http://{name}:{listener.getsockname()[1]}{path}", file=sys.stderr)
    # uvicorn handles SIGINT and SIGTERM: it stops listening and lets requests end.
    await uvicorn.Server(config).serve(sockets=[listener])


def http_app(server: MemoryServer, host: str = "127.0.0.1") -> Starlette:
    """Return the ASGI application of streamable HTTP at `/mcp`."""
    return server.streamable_http_app(host=host, max_request_body_size=MAX_BODY_BYTES)


def sse_app(server: MemoryServer) -> Starlette:
    """Return the ASGI application of the older SSE transport at `/sse` and `/messages/`."""
    from mcp.server.sse import SseServerTransport
    from mcp.server.transport_security import TransportSecuritySettings
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Mount, Route

    transport = SseServerTransport(
        "/messages/",
        security_settings=TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=["127.0.0.1:*", "localhost:*", "[::1]:*"],
            allowed_origins=["http://127.0.0.1:*", "http://localhost:*", "http://[::1]:*"],
        ),
        max_request_body_size=MAX_BODY_BYTES,
    )

    class Endpoint:
        """An ASGI application, so that the route hands over `send` itself."""

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async with transport.connect_sse(scope, receive, send) as (read, write):
                await server.run(read, write, server.create_initialization_options())
            await Response()(scope, Request(scope).receive, _ignore)

    return Starlette(
        routes=[
            Route("/sse", endpoint=Endpoint(), methods=["GET"]),
            Mount("/messages/", app=transport.handle_post_message),
        ]
    )


async def _ignore(message: Any) -> None:
    """Take what would be sent on a stream that has ended."""


async def _leave_on_signal(servers: Servers) -> None:
    """Close the memory and leave on SIGTERM or SIGINT.

    Cancelling is not enough: a thread waits in a read of stdin that nothing ends.
    """
    if sys.platform == "win32":
        return  # The console ends the process there; what was acknowledged is durable.
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            await anyio.to_thread.run_sync(servers.close)
            sys.stderr.flush()
            os._exit(0)


@asynccontextmanager
async def _stdio_streams() -> AsyncIterator[tuple[Any, Any]]:
    """Give the SDK's stdio streams; a line that is no message is answered, not dropped."""
    send, receive = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    async with stdio_server() as (read, write), anyio.create_task_group() as group:

        async def relay() -> None:
            async with send:
                async for item in read:
                    if isinstance(item, Exception):
                        await write.send(SessionMessage(parse_error(item)))
                    else:
                        await send.send(item)

        group.start_soon(relay)
        yield receive, write
        group.cancel_scope.cancel()


def _is_free(host: str, port: int) -> bool:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
