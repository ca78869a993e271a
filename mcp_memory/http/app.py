"""The ASGI application: routes, access control, and what others than MCP clients are answered.

Probes and metrics are for observers: they write nothing to the database and don't
count as activity, so that maintenance goes on however often they come.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from mcp_types import JSONRPCMessage, JSONRPCRequest
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_memory.agent import AccessScope
from mcp_memory.http.answers import OneDocument
from mcp_memory.http.auth import Authenticator, Principal
from mcp_memory.http.bodies import Bodies, ClientLeft, NoMessage, replay
from mcp_memory.http.metrics import CONTENT_TYPE, Metrics
from mcp_memory.http.options import HttpOptions
from mcp_memory.http.requests import Refused, Wanted, normalized
from mcp_memory.http.tenants import Tenant, Tenants, is_listening
from mcp_memory.server.servers import READ_ONLY_TOOLS, Servers
from mcp_memory.server.tools import TOOLS
from mcp_memory.values.errors import MemoryFault

logger = logging.getLogger(__name__)

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"

_ROUTES: Final = ("/mcp", "/sse", "/messages", "/healthz", "/readyz", "/metrics", WELL_KNOWN)
_UNGUARDED: Final = frozenset({"/healthz", "/readyz"})
"""Probes may come with any Host header; they learn nothing about a memory."""

_READER_BODY_BYTES: Final = 1_000_000
"""The largest body of a token that only reads, by judgement: its longest text is a query."""

_CHARGED_BYTES: Final = 65_536
"""A body counts as a request for each so many bytes: it takes about as long to parse."""

_SETTLED: Final = frozenset({"ready", "unavailable"})
"""Without its model search uses words alone, and everything works: that is ready, too."""

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]
Answering = Callable[[Request], Awaitable[Response]]
Serving = Callable[[Tenant, Scope, Receive, Send], Awaitable[None]]


class HttpApp:
    """One listener's application.

    Args:
        servers: The open database and the servers of its clients.
    """

    def __init__(
        self, servers: Servers, options: HttpOptions, auth: Authenticator, metrics: Metrics
    ) -> None:
        self.tenants = Tenants(servers, options, metrics, auth)
        self.draining = False
        """Whether the listener is about to end: new requests are refused."""
        self._servers = servers
        self._options = options
        self._auth = auth
        self._metrics = metrics
        self._names = options.names()
        self._bodies = Bodies(options.max_body_bytes)
        self._answering: dict[str, Answering] = {
            "/healthz": self._serve_health,
            "/readyz": self._serve_readiness,
            "/metrics": self._serve_metrics,
            WELL_KNOWN: self._serve_metadata,
        }
        self._serving: dict[str, tuple[str, Serving]] = {
            "/mcp": ("GET, POST, DELETE", self._serve_mcp),
        }
        if options.transport == "sse":
            self._serving = {
                "/sse": ("GET", self._serve_sse),
                "/messages": ("POST", self._serve_message),
            }

    def asgi(self) -> ASGIApp:
        """Return the application."""
        app: ASGIApp = self._guard
        if self._options.allowed_origins:
            app = CORSMiddleware(
                app,
                allow_origins=self._options.allowed_origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],
                expose_headers=["Mcp-Session-Id", "WWW-Authenticate", "Retry-After"],
            )

        async def normalize(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                scope, wanted = normalized(scope)
            except Refused as refused:
                self._metrics.answered("other", scope["method"], refused.status)
                await self._refusal(refused, scope)(scope, receive, send)
                return
            scope["mcp_memory.wanted"] = wanted
            await app(scope, receive, send)

        return normalize

    async def _guard(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request, check its Host and Origin, and answer it."""
        path, method = scope["path"], scope["method"]

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.answered(_route(path), method, message["status"])
            await send(message)

        try:
            if path not in _UNGUARDED:
                if self.draining:
                    raise Refused(
                        503, "ending", "the server is shutting down", retry_after_seconds=1
                    )
                self._names.check(scope)
            await self._route(scope, receive, counted)
        except Refused as refused:
            await self._refusal(refused, scope)(scope, receive, counted)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by its path.

        Raises:
            Refused: There is nothing there, or not for this method.
        """
        path, method = scope["path"], scope["method"]
        answering = self._answering.get(path)
        if answering is None and path.startswith(WELL_KNOWN + "/"):
            answering = self._serve_metadata
        if answering is not None:
            if method not in {"GET", "HEAD"}:
                raise Refused(405, "method_not_allowed", f"{path} takes GET", allow="GET, HEAD")
            response = await answering(Request(scope, receive))
            await response(scope, receive, send)
            return
        methods, serving = self._serving.get(path, ("", None))
        if serving is None:
            raise Refused(404, "not_found", f"MCP is served at {self._options.path}")
        if method not in methods.split(", "):
            raise Refused(405, "method_not_allowed", f"{path} takes {methods}", allow=methods)
        await self._admit(serving, scope, receive, send)

    async def _serve_health(self, request: Request) -> Response:
        """Answer that the process is alive."""
        return JSONResponse({"status": "alive"})

    async def _serve_readiness(self, request: Request) -> Response:
        """Answer 200 once the database can be written and the model was looked for, else 503."""
        database, embedding = await anyio.to_thread.run_sync(self._probe)
        ready = database == "writable" and embedding in _SETTLED
        body = {
            "status": "ready" if ready else "not ready",
            "database": database,
            "embedding": embedding,
        }
        return JSONResponse(body, 200 if ready else 503, headers={"Cache-Control": "no-store"})

    def _probe(self) -> tuple[str, str]:
        """Return the states of the database and of the model."""
        memories = self._servers.opened
        if memories is None:
            return "closed", "unknown"
        try:
            memories.probe()
        except MemoryFault as fault:
            logger.warning("the database can't be written: %s", fault)
            return "failing", memories.embedding
        return "writable", memories.embedding

    async def _serve_metrics(self, request: Request) -> Response:
        # Not as a tenant: its memory would be opened, and its token's use stored.
        await self._identify(request.scope, AccessScope.ADMIN, note_use=False)
        self._metrics.http_sessions.set(self.tenants.count_sessions())
        memories = self._servers.opened
        figures = await anyio.to_thread.run_sync(memories.figures) if memories else None
        return Response(self._metrics.text(figures), headers={"Content-Type": CONTENT_TYPE})

    async def _serve_metadata(self, request: Request) -> Response:
        """Serve the protected resource metadata, also at the path of the resource.

        Source: RFC 9728, sections 2 and 3.1.
        """
        resource = self._resource(request.scope)
        path = request.scope["path"].removeprefix(WELL_KNOWN)
        if path and path != urlsplit(resource).path:
            raise Refused(404, "not_found", f"the resource of this server is {resource}")
        prefix = self._options.scope_prefix
        document: dict[str, Any] = {
            "resource": resource,
            "scopes_supported": [prefix + scope.value for scope in AccessScope],
            "bearer_methods_supported": ["header"],
            "resource_name": "mcp-memory",
        }
        if self._options.issuer is not None:
            document["authorization_servers"] = [self._options.issuer]
        headers = {"Cache-Control": "public, max-age=3600", "Access-Control-Allow-Origin": "*"}
        return JSONResponse(document, headers=headers)

    async def _serve_mcp(self, tenant: Tenant, scope: Scope, receive: Receive, send: Send) -> None:
        wanted: Wanted = scope["mcp_memory.wanted"]
        if is_listening(scope):
            if not wanted.stream:
                raise Refused(
                    406, "not_acceptable", "changes are sent as a stream: accept text/event-stream"
                )
        elif wanted.json:
            send = OneDocument(send).send
        await self._with_body(tenant, tenant.streamable_http, scope, receive, send)

    async def _serve_message(
        self, tenant: Tenant, scope: Scope, receive: Receive, send: Send
    ) -> None:
        await self._with_body(tenant, tenant.sse_message, scope, receive, send)

    async def _serve_sse(self, tenant: Tenant, scope: Scope, receive: Receive, send: Send) -> None:
        await tenant.sse_stream(self._metrics, scope, receive, send)

    async def _admit(self, serving: Serving, scope: Scope, receive: Receive, send: Send) -> None:
        """Find out who asks, apply their limits, and answer with their server.

        Raises:
            Refused: They are not let in, or have asked for too much.
        """
        principal = await self._identify(scope, AccessScope.READ)
        tenant = await self.tenants.get(principal)
        if not self._auth.is_valid(principal):
            raise _ended()
        wait = 0.0 if principal.is_open else tenant.rate.wait_seconds(anyio.current_time())
        if wait > 0:
            raise Refused(
                429,
                "too_many_requests",
                "too many requests",
                retry_after_seconds=math.ceil(wait),
            )

        async def answered(scope: Scope, receive: Receive, send: Send) -> None:
            await serving(tenant, scope, receive, send)

        await self.tenants.serve(tenant, answered, scope, receive, send)

    async def _identify(
        self, scope: Scope, needed: AccessScope, *, note_use: bool = True
    ) -> Principal:
        """Return who asks.

        Raises:
            Refused: They are not let in, or their scope is not enough.
        """
        authorization = dict(scope["headers"]).get(b"authorization")
        principal = await self._auth.identify(
            None if authorization is None else authorization.decode("latin-1"), note_use=note_use
        )
        if not principal.scope.covers(needed):
            raise _lacks(needed)
        return principal

    async def _with_body(
        self, tenant: Tenant, handle: Handler, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Read the body of a message and check it, then answer the request.

        Raises:
            Refused: The body is too large, or calls a writing tool with a token that may only read.
        """
        if scope["method"] != "POST":
            await handle(scope, receive, send)
            return
        writes = tenant.principal.scope.covers(AccessScope.WRITE)
        max_bytes = self._options.max_body_bytes if writes else _READER_BODY_BYTES
        with self._bodies.share(tenant) as share:
            try:
                body = await self._bodies.read(scope, receive, share, max_bytes)
                if not tenant.principal.is_open:
                    tenant.rate.charge(len(body) // _CHARGED_BYTES)
                if not writes and _calls_a_writing_tool(await self._bodies.parse(body)):
                    raise _lacks(AccessScope.WRITE)
                if writes:
                    await self._bodies.parse(body)
            except ClientLeft:
                return
            except NoMessage as error:
                await JSONResponse(error.answer, 400)(scope, receive, send)
                return
            receive = replay(body, receive)
            del body  # It takes as much memory again where it is read next.
            await handle(scope, receive, send)

    def _refusal(self, refused: Refused, scope: Scope) -> Response:
        """Return the answer to a request that is not let in.

        Source: MCP 2025-11-25, "Authorization"; RFC 6750, section 3; RFC 9728, section 5.1.
        """
        answer = JSONResponse(
            {
                "error": refused.error or "unauthorized",
                "error_description": refused.description,
            },
            refused.status,
            headers={"Cache-Control": "no-store"},
        )
        if refused.scope is not None:
            self._metrics.refusals.labels(refused.error or "no_token").inc()
            resource = urlsplit(self._resource(scope))
            parts = []
            if refused.error:
                parts.append(f'error="{refused.error}"')
                parts.append(f'error_description="{refused.description}"')
            parts.append(f'scope="{self._options.scope_prefix}{refused.scope.value}"')
            where = f"{resource.scheme}://{resource.netloc}{WELL_KNOWN}{resource.path}"
            parts.append(f'resource_metadata="{where}"')
            answer.headers["WWW-Authenticate"] = f"Bearer {', '.join(parts)}"
        if refused.retry_after_seconds is not None:
            answer.headers["Retry-After"] = str(refused.retry_after_seconds)
        if refused.allow is not None:
            answer.headers["Allow"] = refused.allow
        return answer

    def _resource(self, scope: Scope) -> str:
        # The Host was checked before.
        host = dict(scope["headers"]).get(b"host", b"localhost").decode("latin-1")
        return self._options.resource or f"http://{host}{self._options.path}"


def _lacks(scope: AccessScope) -> Refused:
    return Refused(403, "insufficient_scope", f"the scope {scope.value} is needed", scope=scope)


def _ended() -> Refused:
    return Refused(401, "invalid_token", "the access token has ended", scope=AccessScope.READ)


def _route(path: str) -> str:
    return next(
        (route for route in _ROUTES if path == route or path.startswith(f"{route}/")), "other"
    )


def _calls_a_writing_tool(message: JSONRPCMessage) -> bool:
    if not isinstance(message, JSONRPCRequest) or message.method != "tools/call":
        return False
    name = (message.params or {}).get("name")
    return isinstance(name, str) and name in TOOLS and name not in READ_ONLY_TOOLS
