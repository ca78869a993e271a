"""What each caller has of its own: a server, sessions, streams, open requests and limits.

Two callers share nothing: a session id, a subscription or an event of one caller
means nothing to another.
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
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from mcp_memory import __version__
from mcp_memory.agent import AccessScope
from mcp_memory.http.auth import Authenticator, Principal
from mcp_memory.http.metrics import LISTEN, Metrics
from mcp_memory.http.options import HttpOptions
from mcp_memory.http.requests import Refused
from mcp_memory.server.app import MemoryServer
from mcp_memory.server.servers import ConnectionInfo, Servers
from mcp_memory.values.dates import now
from mcp_memory.values.errors import MemoryFault

logger = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 2.0
"""How often idle callers and expired tokens are looked for, by judgement; a change of the
access tokens is looked at without delay."""

_METHOD_HEADER: Final = b"mcp-method"
_MINUTE_SECONDS: Final = 60.0

_LEAVE_SECONDS: Final = 1.0
"""How long a stream may take to end once its client has left, by judgement."""


class Rate:
    """A limit on the requests of one token: a number at once, refilled evenly over a minute.

    The generic cell rate algorithm: one number a token, no thread, and an exact time to wait
    for `Retry-After`. The caller has the clock.

    Args:
        per_minute: How many requests are accepted at once, and a minute on average.
    """

    def __init__(self, per_minute: int) -> None:
        self._interval = _MINUTE_SECONDS / per_minute
        self._paid_until = 0.0

    def wait_seconds(self, now_seconds: float) -> float:
        """Count a request and return 0, or return after how many seconds it would be accepted.

        A request that has to wait is not counted.
        """
        paid_until = max(self._paid_until, now_seconds) + self._interval
        over = paid_until - now_seconds - _MINUTE_SECONDS
        # Less than a microsecond is a rounding error of the sum.
        if over > 1e-6:
            return over
        self._paid_until = paid_until
        return 0.0

    def charge(self, requests: int) -> None:
        """Count more requests that were made already; later ones wait for them."""
        self._paid_until += requests * self._interval


class OpenRequest:
    """A request that is being answered, and how to end it early.

    Args:
        send: Where the answer goes.
        receive: For a stream, where it learns that its client has left.
    """

    def __init__(self, send: Send, receive: Receive | None) -> None:
        self.cancelling = anyio.CancelScope()
        """Entered around the work on the request."""
        self.ended_early = False
        self._send = send
        self._receive = receive
        self._gone = anyio.Event()
        self._started = False
        self._complete = False

    def end(self) -> None:
        """End the request: a stream as if its client had left, anything else by cancelling it."""
        self.ended_early = True
        if self._receive is None:
            self.cancelling.cancel()
            return
        # The SDK cleans up after a client that leaves, but not after a cancellation.
        self._gone.set()
        self.cancelling.deadline = anyio.current_time() + _LEAVE_SECONDS

    async def receive(self) -> Message:
        """Return the next message of a stream's client: a disconnect once the stream is ended."""
        if self._receive is None:
            raise RuntimeError("only a stream is told that its client has left")
        message: Message = {"type": "http.disconnect"}
        async with anyio.create_task_group() as group:

            async def leave() -> None:
                await self._gone.wait()
                group.cancel_scope.cancel()

            group.start_soon(leave)
            message = await self._receive()
            group.cancel_scope.cancel()
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self._started = True
        elif message["type"] == "http.response.body":
            self._complete = not message.get("more_body", False)
        await self._send(message)

    async def finish(self, scope: Scope, receive: Receive) -> None:
        """Complete the answer of a request that was ended early, or answer that it was."""
        if not self._started:
            refusal = Response("the server has ended the request", 503)
            await refusal(scope, receive, self._send)
        elif not self._complete:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


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
        self.max_sessions = options.sessions_per_token
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
        # The session manager has no public count.
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
        """Run the sessions of streamable HTTP until `ended` is set."""
        server = self.server(metrics)
        self._manager = StreamableHTTPSessionManager(
            server,
            session_idle_timeout=self._options.session_idle_seconds,
            max_request_body_size=self._options.max_body_bytes,
            max_sessions=self.max_sessions,
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
        """List this caller as connected in `mcp-memory status`."""
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
            raise RuntimeError("the sessions of this caller have not started")
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
        """Accept a message for one of this caller's SSE streams."""
        await self._sse.handle_post_message(scope, receive, send)


class Tenants:
    """The callers that are connected; a caller is removed once it is idle or its token ends."""

    def __init__(
        self, servers: Servers, options: HttpOptions, metrics: Metrics, auth: Authenticator
    ) -> None:
        self._servers = servers
        self._options = options
        self._metrics = metrics
        self._auth = auth
        self._tenants: dict[tuple[str, ...], Tenant] = {}
        self._group: TaskGroup | None = None
        self._wake = anyio.Event()
        self.answering = 0
        """How many requests are being answered; streams of changes don't count."""

    @asynccontextmanager
    async def running(self, on_sweep: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Serve callers while the body runs.

        Args:
            on_sweep: Called after each sweep.
        """
        async with anyio.create_task_group() as group:
            self._group = group
            group.start_soon(self._sweep_repeatedly, on_sweep)
            try:
                yield
            finally:
                self._group = None
                group.cancel_scope.cancel()

    def sweep_soon(self) -> None:
        """Remove callers whose token has ended now; call it in the event loop."""
        self._wake.set()

    @property
    def busy(self) -> bool:
        """Whether any request is being answered; streams of changes don't count."""
        return self.answering > 0 or self._metrics.running > 0

    def count_sessions(self) -> int:
        """Return how many sessions of streamable HTTP all callers have open."""
        return sum(tenant.sessions for tenant in self._tenants.values())

    def cut(self) -> None:
        """End every open request and stream."""
        for tenant in list(self._tenants.values()):
            for request in list(tenant.requests):
                request.end()

    async def get(self, principal: Principal) -> Tenant:
        """Return a caller's tenant; it is created with the first request."""
        tenant = self._tenants.get(principal.key)
        if tenant is None:
            tenant = await self._add(principal)
        # Before anything is awaited: from here on it is not idle.
        tenant.used_at = anyio.current_time()
        await tenant.started.wait()
        return tenant

    async def _add(self, principal: Principal) -> Tenant:
        if self._group is None:
            raise RuntimeError("the listener has ended")
        tenant = self._tenants[principal.key] = Tenant(principal, self._servers, self._options)
        tenant.used_at = anyio.current_time()
        try:
            if self._options.transport == "http":
                await self._group.start(tenant.run, self._metrics)
        except BaseException:
            self._tenants.pop(principal.key, None)
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
        """Answer one request; it is ended early if its caller's token ends.

        Raises:
            Refused: The caller has too many streams or requests open.
        """
        stream = scope["method"] == "GET" or is_listening(scope)
        others = len(tenant.requests) - tenant.streams
        if (tenant.streams if stream else others) >= tenant.max_sessions:
            raise Refused(
                503,
                "too_many_open",
                f"{tenant.max_sessions} {'streams' if stream else 'requests'} of this token are"
                " open, its limit; close some",
                retry_after_seconds=10,
            )
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
            await request.finish(scope, receive)

    def _count(self, tenant: Tenant, stream: bool, change: int) -> None:
        if stream:
            tenant.streams += change
            self._metrics.streams.inc(change)
        else:
            self.answering += change

    async def _sweep_repeatedly(self, on_sweep: Callable[[], Awaitable[None]]) -> None:
        while True:
            with anyio.move_on_after(SWEEP_SECONDS):
                await self._wake.wait()
            self._wake = anyio.Event()
            self._sweep()
            await on_sweep()

    def _sweep(self) -> None:
        idle_before = anyio.current_time() - self._options.session_idle_seconds
        for key, tenant in list(self._tenants.items()):
            if self._auth.is_valid(tenant.principal):
                idle = tenant.used_at < idle_before and tenant.started.is_set()
                if not idle or tenant.requests or tenant.sessions:
                    continue
            del self._tenants[key]
            self._auth.forget(tenant.principal)
            for request in list(tenant.requests):
                request.end()
            tenant.ended.set()


async def _open(server: MemoryServer) -> None:
    """Open the memory, so that no change is missed between a subscription and the first call."""
    try:
        await anyio.to_thread.run_sync(server.memory)
    except MemoryFault as fault:
        # Each call tries again, and reports it to the client.
        logger.error("%s", fault)


def is_listening(scope: Scope) -> bool:
    """Return whether a request asks for the stream of changes of 2026-07-28."""
    return (_METHOD_HEADER, LISTEN.encode()) in scope["headers"]
