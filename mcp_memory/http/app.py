"""The ASGI application: routes, access control, and what others than MCP clients are answered.

Probes and metrics are for observers: they write nothing to the database and don't
count as activity, so that maintenance goes on however often they come.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from mcp.server.transport_security import RequestBodyLimitMiddleware, TransportSecurityMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_memory.agent import AccessScope
from mcp_memory.http.auth import Authenticator, Principal, Refused
from mcp_memory.http.metrics import CONTENT_TYPE, Metrics
from mcp_memory.http.options import HttpOptions
from mcp_memory.http.tenants import Tenant, Tenants
from mcp_memory.server.servers import READ_ONLY_TOOLS, Servers
from mcp_memory.server.tools import TOOLS
from mcp_memory.values.errors import MemoryFault

if TYPE_CHECKING:
    from starlette.datastructures import Headers

logger = logging.getLogger(__name__)

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"

_ROUTES: Final = ("/mcp", "/sse", "/messages", "/healthz", "/readyz", "/metrics", WELL_KNOWN)
_UNGUARDED: Final = frozenset({"/healthz", "/readyz"})
"""Probes may come with any Host header; they learn nothing about a memory."""

_SETTLED: Final = frozenset({"ready", "unavailable"})
"""Without its model search uses words alone, and everything works: that is ready, too."""

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


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
        self._security = TransportSecurityMiddleware(options.security())

    def asgi(self) -> ASGIApp:
        """Return the application."""
        routes: list[BaseRoute] = [
            Route("/healthz", self._serve_health),
            Route("/readyz", self._serve_readiness),
            Route("/metrics", self._serve_metrics),
            Route(WELL_KNOWN, self._serve_metadata),
            Route(WELL_KNOWN + "/{path:path}", self._serve_metadata),
        ]
        if self._options.transport == "http":
            routes.append(Route("/mcp", _Endpoint(self._serve_mcp)))
        else:
            routes.append(Route("/sse", _Endpoint(self._serve_sse)))
            routes.append(Mount("/messages", _Endpoint(self._serve_message)))
        middleware = [Middleware(_Guard, app_of=self)]
        if self._options.allowed_origins:
            cors = Middleware(
                CORSMiddleware,
                allow_origins=list(self._options.allowed_origins),
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],
                expose_headers=["Mcp-Session-Id", "WWW-Authenticate", "Retry-After"],
            )
            middleware.insert(0, cors)
        return Starlette(routes=routes, middleware=middleware)

    async def guard(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request, check its Host and Origin, and pass it on."""
        request = Request(scope, receive)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.answered(_route(request), request.method, message["status"])
            await send(message)

        if self.draining and request.url.path not in _UNGUARDED:
            headers = {"Connection": "close", "Retry-After": "1"}
            response: Response | None = JSONResponse(
                {"error": "the server is shutting down"}, 503, headers
            )
        elif request.url.path in _UNGUARDED:
            response = None
        else:
            response = await self._security.validate_request(request)
        await (response or app)(scope, receive, counted)

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
        try:
            # Not as a tenant: its memory would be opened, and its token's use stored.
            await self._identify(request.headers, AccessScope.ADMIN, note_use=False)
        except Refused as refused:
            return self._refusal(refused, request.headers)
        self._metrics.http_sessions.set(self.tenants.count_sessions())
        memories = self._servers.opened
        figures = await anyio.to_thread.run_sync(memories.figures) if memories else None
        return Response(self._metrics.text(figures), headers={"Content-Type": CONTENT_TYPE})

    async def _serve_metadata(self, request: Request) -> Response:
        """Serve the protected resource metadata, also at the path of the resource.

        Source: RFC 9728, sections 2 and 3.1.
        """
        resource = self._resource(request.headers)
        path = request.path_params.get("path")
        if path is not None and f"/{path}" != urlsplit(resource).path:
            return JSONResponse({"error": f"the resource of this server is {resource}"}, 404)
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

    async def _serve_mcp(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def handle(tenant: Tenant, scope: Scope, receive: Receive, send: Send) -> None:
            await self._checked(tenant, tenant.streamable_http, scope, receive, send)

        await self._admit(handle, AccessScope.READ, scope, receive, send)

    async def _serve_message(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def handle(tenant: Tenant, scope: Scope, receive: Receive, send: Send) -> None:
            await self._checked(tenant, tenant.sse_message, scope, receive, send)

        await self._admit(handle, AccessScope.READ, scope, receive, send)

    async def _serve_sse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            await Response(status_code=405, headers={"Allow": "GET"})(scope, receive, send)
            return

        async def handle(tenant: Tenant, scope: Scope, receive: Receive, send: Send) -> None:
            await tenant.sse_stream(self._metrics, scope, receive, send)

        await self._admit(handle, AccessScope.READ, scope, receive, send)

    async def _admit(
        self,
        handle: Callable[[Tenant, Scope, Receive, Send], Awaitable[None]],
        needed: AccessScope,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Find out who asks, apply their limits, and answer with their server."""
        headers = Request(scope).headers
        try:
            principal = await self._identify(headers, needed)
            tenant = await self.tenants.get(principal)
            if not self._auth.is_valid(principal):
                raise Refused(401, "invalid_token", "the access token has ended")
            wait = 0.0 if principal.is_open else tenant.rate.wait_seconds(anyio.current_time())
            if wait > 0:
                seconds = math.ceil(wait)
                raise Refused(
                    429, "too_many_requests", "too many requests", retry_after_seconds=seconds
                )
        except Refused as refused:
            await self._refusal(refused, headers)(scope, receive, send)
            return

        async def answered(scope: Scope, receive: Receive, send: Send) -> None:
            await handle(tenant, scope, receive, send)

        await self.tenants.serve(tenant, answered, scope, receive, send)

    async def _identify(
        self, headers: Headers, needed: AccessScope, *, note_use: bool = True
    ) -> Principal:
        """Return who asks.

        Raises:
            Refused: They are not let in, or their scope is not enough.
        """
        principal = await self._auth.identify(headers.get("authorization"), note_use=note_use)
        if not principal.scope.covers(needed):
            raise _lacks(needed)
        return principal

    async def _checked(
        self, tenant: Tenant, handle: Handler, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Refuse a body that is too large, and a writing tool for a token that may only read."""
        if scope["method"] != "POST" or tenant.principal.scope.covers(AccessScope.WRITE):
            await RequestBodyLimitMiddleware(handle, self._options.max_body_bytes)(
                scope, receive, send
            )
            return

        async def inspect(scope: Scope, receive: Receive, send: Send) -> None:
            message = await receive()
            if _calls_a_writing_tool(message.get("body", b"")):
                refusal = self._refusal(_lacks(AccessScope.WRITE), Request(scope).headers)
                await refusal(scope, receive, send)
                return
            given = [message]

            async def replay() -> Message:
                return given.pop() if given else await receive()

            await handle(scope, replay, send)

        await RequestBodyLimitMiddleware(inspect, self._options.max_body_bytes)(
            scope, receive, send
        )

    def _refusal(self, refused: Refused, headers: Headers) -> Response:
        """Return the answer to a request that is not let in.

        Source: MCP 2025-11-25, "Authorization"; RFC 6750, section 3; RFC 9728, section 5.1.
        """
        self._metrics.refusals.labels(refused.error or "no_token").inc()
        answer = JSONResponse(
            {
                "error": refused.error or "unauthorized",
                "error_description": refused.description,
            },
            refused.status,
            headers={"Cache-Control": "no-store"},
        )
        if refused.status in {401, 403}:
            resource = urlsplit(self._resource(headers))
            parts = []
            if refused.error:
                parts.append(f'error="{refused.error}"')
                parts.append(f'error_description="{refused.description}"')
            if refused.scope is not None:
                parts.append(f'scope="{self._options.scope_prefix}{refused.scope.value}"')
            where = f"{resource.scheme}://{resource.netloc}{WELL_KNOWN}{resource.path}"
            parts.append(f'resource_metadata="{where}"')
            answer.headers["WWW-Authenticate"] = f"Bearer {', '.join(parts)}"
        if refused.retry_after_seconds is not None:
            answer.headers["Retry-After"] = str(refused.retry_after_seconds)
        return answer

    def _resource(self, headers: Headers) -> str:
        # The Host was checked before.
        own = f"http://{headers.get('host', 'localhost')}{self._options.path}"
        return self._options.resource or own


class _Endpoint:
    """An ASGI application: a plain function would get no `send` from its route."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._handle(scope, receive, send)


class _Guard:
    """The middleware that calls `HttpApp.guard`."""

    def __init__(self, app: ASGIApp, app_of: HttpApp) -> None:
        self._app = app
        self._guard = app_of.guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._guard(self._app, scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _lacks(scope: AccessScope) -> Refused:
    return Refused(403, "insufficient_scope", f"the scope {scope.value} is needed", scope=scope)


def _route(request: Request) -> str:
    path = request.url.path
    return next(
        (route for route in _ROUTES if path == route or path.startswith(f"{route}/")), "other"
    )


def _calls_a_writing_tool(body: bytes) -> bool:
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return False  # The SDK answers what is wrong with it.
    for message in decoded if isinstance(decoded, list) else [decoded]:
        if not isinstance(message, dict) or message.get("method") != "tools/call":
            continue
        params = message.get("params")
        name = params.get("name") if isinstance(params, dict) else None
        if isinstance(name, str) and name in TOOLS and name not in READ_ONLY_TOOLS:
            return True
    return False
