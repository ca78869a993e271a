"""Metrics for Prometheus, about requests and tools, never about an agent.

No label or value has an agent's name, texts, ids, labels or counts. Every label
comes from a fixed list.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp_types import CallToolResult
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from mcp_memory.server.tools import TOOLS

if TYPE_CHECKING:
    from mcp_memory.agent import Figures

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LISTEN: Final = "subscriptions/listen"

# By judgement: a call takes milliseconds, one that waits for the model seconds.
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_HTTP_METHODS: Final = frozenset({"GET", "POST", "DELETE", "OPTIONS", "HEAD"})
_MCP_METHODS: Final = frozenset(
    {
        "initialize",
        "ping",
        "server/discover",
        "tools/list",
        "tools/call",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "resources/subscribe",
        "resources/unsubscribe",
        "prompts/list",
        "prompts/get",
        "completion/complete",
        LISTEN,
    }
)


class Metrics:
    """The metrics of one listener, in a registry of their own."""

    def __init__(self) -> None:
        self.running = 0
        """How many MCP requests are being answered; streams of changes don't count."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "mcp_memory_http_requests",
            "HTTP requests answered",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.refusals = Counter(
            "mcp_memory_http_refusals",
            "Requests refused for lack of a valid token or scope",
            ("reason",),
            registry=self.registry,
        )
        sessions = Gauge(
            "mcp_memory_sessions", "Open sessions", ("transport",), registry=self.registry
        )
        self.sessions = sessions.labels("sse")
        self.http_sessions = sessions.labels("http")
        self.streams = Gauge(
            "mcp_memory_streams", "Open streams to clients", registry=self.registry
        )
        self._methods = Histogram(
            "mcp_memory_request_seconds",
            "Time to answer an MCP request",
            ("method",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._tools = Histogram(
            "mcp_memory_tool_seconds",
            "Time to answer a tool call",
            ("tool", "outcome"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._pending = Gauge(
            "mcp_memory_pending_vectors",
            "Texts whose vectors are not computed yet",
            registry=self.registry,
        )
        self._ready = Gauge(
            "mcp_memory_embedding_ready",
            "1 if the embedding model is loaded",
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def answered(self, route: str, method: str, status: int) -> None:
        """Count an HTTP request."""
        verb = method if method in _HTTP_METHODS else "other"
        self.requests.labels(route, verb, str(status)).inc()

    async def observe(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Measure one MCP request, as a middleware of the server."""
        if ctx.method == LISTEN:
            return await call_next(ctx)
        began = time.perf_counter()
        outcome = "error"
        self.running += 1
        try:
            result = await call_next(ctx)
            outcome = "refused" if _is_error(result) else "ok"
            return result
        finally:
            self.running -= 1
            seconds = time.perf_counter() - began
            self._methods.labels(_known(ctx.method)).observe(seconds)
            if ctx.method == "tools/call":
                self._tools.labels(_tool(ctx.params), outcome).observe(seconds)

    def text(self, figures: Figures | None) -> bytes:
        """Return all metrics in Prometheus' text format.

        Args:
            figures: Those of the database; None while it is closed.
        """
        if figures is not None:
            self._pending.set(figures.pending_vectors)
            self._ready.set(figures.embedding == "ready")
        return generate_latest(self.registry)


def _is_error(result: HandlerResult) -> bool:
    if isinstance(result, CallToolResult):
        return bool(result.is_error)
    return isinstance(result, dict) and result.get("isError") is True


def _known(method: str) -> str:
    return method if method in _MCP_METHODS else "other"


def _tool(params: Mapping[str, Any] | None) -> str:
    # The name comes from the client and may be anything.
    name = (params or {}).get("name")
    return name if isinstance(name, str) and name in TOOLS else "unknown"
