"""What each caller has of its own: a server, its sessions, its streams, its limits.

Nothing is shared between two callers, so a session id, a subscription or an
event of one means nothing to another.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http_manager import (
    DEFAULT_MAX_SESSIONS,
    StreamableHTTPSessionManager,
)
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from mcp_memory import __version__
from mcp_memory.http.metrics import LISTEN, Metrics
from mcp_memory.http.openrequest import OpenRequest
from mcp_memory.http.options import HttpOptions
from mcp_memory.http.principals import Authenticator, Principal
from mcp_memory.http.rate import Rate
from mcp_memory.server.app import MemoryServer
from mcp_memory.server.servers import ConnectionInfo, Servers
from mcp_memory.tiers.access import Scope as AccessScope
from mcp_memory.values.dates import now
from mcp_memory.values.errors import MemoryFault

logger = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 2.0
"""How often ended and idle callers are looked for, besides at every change of the tokens."""

_METHOD_HEADER: Final = "mcp-method"


class Tenant:
    """One caller's part of the server."""

    def __init__(self, principal: Principal, servers: Servers, options: HttpOptions) -> None:
        self.principal = principal
        self.rate = Rate(options.requests_per_minute)
        self.requests: set[OpenRequest] = set()
        self.streams = 0
        self.used_at = 0.0
        self.started = anyio.Event()
        self.ended = anyio.Event()
        self.most = DEFAULT_MAX_SESSIONS if principal.is_open else options.sessions_per_token
        self._servers = servers
        self._options = options
        prefix = urlsplit(options.public_url or "").path
        self._sse = SseServerTransport(
            f"{prefix}/messages/", max_request_body_size=options.max_body_bytes
        )
        self._manager: StreamableHTTPSessionManager | None = None

    @property
    def sessions(self) -> int:
        """How many sessions are open; clients of 2026-07-28 have none."""
        # The SDK has no public count.
        return 0 if self._manager is None else len(self._manager._server_instances)

    def server(self, metrics: Metrics) -> MemoryServer:
        """Return a new server of this caller's agent."""
        settings = self._servers.settings.model_copy(update={"agent": self.principal.agent})
        read_only = not self.principal.scope.covers(AccessScope.WRITE)
        server = self._servers.server(settings, read_only=read_only)
        server.middleware.append(metrics.observe)
        return server

    async def run(
        self, metrics: Metrics, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep the sessions of streamable HTTP until `ended` is set."""
        server = self.server(metrics)
        self._manager = StreamableHTTPSessionManager(
            server,
            session_idle_timeout=self._options.session_idle_seconds,
            max_request_body_size=self._options.max_body_bytes,
            max_sessions=self.most,
        )
        try:
            await _open(server)
            with self._listed():
                async with self._manager.run():
                    task_status.started()
                    await self.ended.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(server.close)

    @contextmanager
    def _listed(self) -> Iterator[None]:
        """Let the user of the machine see in `status` that this caller is here."""
        info = ConnectionInfo(
            self.principal.agent, __version__, now(), client=f"HTTP, {self.principal.key[0]}"
        )
        self._servers.connections.append(info)
        try:
            yield
        finally:
            self._servers.connections.remove(info)

    async def streamable_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request to `/mcp`."""
        if self._manager is None:
            raise RuntimeError("the caller's sessions are not kept yet")
        await self._manager.handle_request(scope, receive, send)

    async def sse_stream(
        self, metrics: Metrics, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve one client of the SSE transport, with a server of its own, until it leaves."""
        server = self.server(metrics)
        try:
            await _open(server)
            async with self._sse.connect_sse(scope, receive, send) as (read, write):
                metrics.sessions.inc()
                try:
                    async with read, write:
                        with self._listed():
                            await server.run(read, write, server.create_initialization_options())
                finally:
                    metrics.sessions.dec()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(server.close)

    async def sse_message(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a message for one of this caller's SSE streams."""
        await self._sse.handle_post_message(scope, receive, send)


class Tenants:
    """The callers that are here. A caller leaves when it is idle or no longer let in."""

    def __init__(
        self, servers: Servers, options: HttpOptions, metrics: Metrics, auth: Authenticator
    ) -> None:
        self._servers = servers
        self._options = options
        self._metrics = metrics
        self._auth = auth
        self._here: dict[tuple[str, ...], Tenant] = {}
        self._group: TaskGroup | None = None
        self._news = anyio.Event()
        self.answering = 0
        """Requests that are being answered; streams of changes do not count."""

    @asynccontextmanager
    async def running(self, on_sweep: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Keep callers while the body runs.

        Args:
            on_sweep: What else to do now and then.
        """
        async with anyio.create_task_group() as group:
            self._group = group
            group.start_soon(self._sweep_often, on_sweep)
            try:
                yield
            finally:
                self._group = None
                group.cancel_scope.cancel()

    def look_again(self) -> None:
        """Let whoever is no longer let in leave, at once; call it in the event loop."""
        self._news.set()

    @property
    def busy(self) -> bool:
        """Whether anything is being worked on, streams of changes aside."""
        return self.answering > 0 or self._metrics.running > 0

    def count_sessions(self) -> int:
        """Return how many sessions of streamable HTTP are open, of all callers together."""
        return sum(tenant.sessions for tenant in self._here.values())

    def cut(self) -> None:
        """End every request and stream that is still open."""
        for tenant in list(self._here.values()):
            for request in list(tenant.requests):
                request.end()

    async def of(self, principal: Principal) -> Tenant:
        """Return a caller's part, made now if it is the first request."""
        tenant = self._here.get(principal.key)
        if tenant is None:
            tenant = await self._welcome(principal)
        # Before anything is awaited: from here on it is not idle.
        tenant.used_at = anyio.current_time()
        await tenant.started.wait()
        return tenant

    async def _welcome(self, principal: Principal) -> Tenant:
        if self._group is None:
            raise RuntimeError("the listener has ended")
        tenant = self._here[principal.key] = Tenant(principal, self._servers, self._options)
        tenant.used_at = anyio.current_time()
        try:
            if self._options.transport == "http":
                await self._group.start(tenant.run, self._metrics)
        except BaseException:
            self._here.pop(principal.key, None)
            tenant.ended.set()
            raise
        finally:
            tenant.started.set()
        return tenant

    async def serve(
        self,
        tenant: Tenant,
        handle: Callable[[Scope, Receive, Send], Awaitable[None]],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer one request; it is ended when its caller is no longer let in."""
        stream = is_stream(Request(scope))
        if stream and tenant.streams >= tenant.most:
            refusal = JSONResponse(
                {"error": "too many open streams"}, 503, headers={"Retry-After": "10"}
            )
            await refusal(scope, receive, send)
            return
        request = OpenRequest(send, receive if stream else None)
        tenant.requests.add(request)
        self._count(tenant, stream, 1)
        try:
            with request.cancelling:
                await handle(scope, request.receive if stream else receive, request.send)
        finally:
            tenant.requests.discard(request)
            self._count(tenant, stream, -1)
            tenant.used_at = anyio.current_time()
        if request.ended_early:
            await request.say_so(scope, receive)

    def _count(self, tenant: Tenant, stream: bool, change: int) -> None:
        if stream:
            tenant.streams += change
            self._metrics.streams.inc(change)
        else:
            self.answering += change

    async def _sweep_often(self, on_sweep: Callable[[], Awaitable[None]]) -> None:
        while True:
            with anyio.move_on_after(SWEEP_SECONDS):
                await self._news.wait()
            self._news = anyio.Event()
            self._leave()
            await on_sweep()

    def _leave(self) -> None:
        idle_before = anyio.current_time() - self._options.session_idle_seconds
        for key, tenant in list(self._here.items()):
            if self._auth.still_holds(tenant.principal):
                idle = tenant.used_at < idle_before and tenant.started.is_set()
                if not idle or tenant.requests or tenant.sessions:
                    continue
            del self._here[key]
            self._auth.forget(tenant.principal)
            for request in list(tenant.requests):
                request.end()
            tenant.ended.set()


async def _open(server: MemoryServer) -> None:
    """Open the memory, so that no change is missed between a subscription and the first call."""
    try:
        await anyio.to_thread.run_sync(server.memory)
    except MemoryFault as fault:
        # Each call tries again, and says it to the client.
        logger.error("%s", fault)


def is_stream(request: Request) -> bool:
    """Return whether the answer is a stream that ends only when one side leaves."""
    return request.method == "GET" or request.headers.get(_METHOD_HEADER) == LISTEN
