"""Notifies clients of both protocol eras that a resource has changed.

Clients of 2026-07-28 have a `subscriptions/listen` stream; older ones have called
`resources/subscribe`. Each URI is known with the topics of the façade that change it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated
from mcp_types import (
    EmptyResult,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from mcp_memory.server.resources import is_changed

logger = logging.getLogger(__name__)

_SEND_SECONDS: Final = 2.0
"""A client that takes longer to read a notification loses its subscription; by judgement."""

_MAX_PER_URI: Final = 256
"""The newest subscribers of a resource that are notified: as many as sessions a token."""

MAX_URIS: Final = 1_000
"""The newest resources that are subscribed to, or in one stream; by judgement."""

Context = ServerRequestContext[Any, Any]


class Subscriptions:
    """The subscribers of each resource."""

    def __init__(self) -> None:
        self.bus = InMemorySubscriptionBus()
        self._listen = ListenHandler(self.bus)
        self._sessions: dict[str, list[ServerSession]] = {}
        self._streams: Counter[str] = Counter()
        self._topics: dict[str, tuple[str, ...]] = {}
        self._changed: deque[frozenset[str]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()

    def changed(self, topics: frozenset[str]) -> None:
        """Queue a change, from any thread; `publish_changes` sends it."""
        loop = self._loop
        if loop is not None and self._topics:
            self._changed.append(topics)
            with suppress(RuntimeError):  # The loop has ended, and every subscriber with it.
                loop.call_soon_threadsafe(self._news.set)

    async def publish_changes(self) -> None:
        """Send queued changes until cancelled; the writers don't wait for it."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                await self._publish()
        finally:
            self._loop = None

    async def _publish(self) -> None:
        topics: set[str] = set()
        while self._changed:
            topics |= self._changed.popleft()
        changed = [uri for uri, own in self._topics.items() if is_changed(own, topics)]
        for uri in changed:
            if self._streams[uri]:
                await self.bus.publish(ResourceUpdated(uri=uri))
            for session in list(self._sessions.get(uri, ())):
                with anyio.move_on_after(_SEND_SECONDS) as scope:
                    try:
                        await session.send_resource_updated(uri)
                    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                        self._drop(uri, session)
                if scope.cancelled_caught:
                    self._drop(uri, session)

    async def subscribe(
        self, ctx: Context, params: SubscribeRequestParams, topics: tuple[str, ...]
    ) -> EmptyResult:
        """Serve `resources/subscribe` to a resource that some topics change."""
        uri = str(params.uri)
        sessions = self._sessions.setdefault(uri, [])
        self._topics[uri] = topics
        if not any(_same_client(session, ctx.session) for session in sessions):
            sessions.append(ctx.session)
            del sessions[:-_MAX_PER_URI]
        while len(self._sessions) > MAX_URIS:
            oldest = next(iter(self._sessions))
            del self._sessions[oldest]
            self._forget(oldest)
        return EmptyResult()

    async def listen(
        self,
        ctx: Context,
        params: SubscriptionsListenRequestParams,
        topics: Mapping[str, tuple[str, ...]],
    ) -> SubscriptionsListenResult:
        """Serve `subscriptions/listen` to resources, each with the topics that change it."""
        self._topics |= topics
        self._streams.update(topics.keys())
        wanted = params.notifications.model_copy(update={"resource_subscriptions": list(topics)})
        try:
            return await self._listen(ctx, params.model_copy(update={"notifications": wanted}))
        finally:
            self._streams.subtract(topics.keys())
            for uri in topics:
                self._forget(uri)

    async def unsubscribe(self, ctx: Context, params: UnsubscribeRequestParams) -> EmptyResult:
        """Serve `resources/unsubscribe`."""
        uri = str(params.uri)
        for session in list(self._sessions.get(uri, ())):
            if _same_client(session, ctx.session):
                self._drop(uri, session)
        return EmptyResult()

    def _drop(self, uri: str, session: ServerSession) -> None:
        sessions = self._sessions.get(uri, [])
        if session in sessions:
            sessions.remove(session)
        if not sessions:
            self._sessions.pop(uri, None)
            self._forget(uri)

    def _forget(self, uri: str) -> None:
        """Forget the topics of a resource without subscribers."""
        if uri not in self._sessions and self._streams[uri] <= 0:
            self._topics.pop(uri, None)
            del self._streams[uri]


def _same_client(one: ServerSession, other: ServerSession) -> bool:
    # The SDK makes a session object for each request; the handshake's parameters are
    # one object for the whole connection.
    return one is other or (
        one.client_params is not None and one.client_params is other.client_params
    )
