"""Notifies clients of both protocol eras that a resource has changed.

Clients of 2026-07-28 have a `subscriptions/listen` stream; older ones have called
`resources/subscribe`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import Any, Final

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated
from mcp_types import EmptyResult, SubscribeRequestParams, UnsubscribeRequestParams

logger = logging.getLogger(__name__)

_SEND_SECONDS: Final = 2.0
"""A client that takes longer to read a notification loses its subscription; by judgement."""

_MAX_PER_URI: Final = 256
"""The newest subscribers of a resource that are notified: as many as sessions a token."""

Context = ServerRequestContext[Any, Any]


class Subscriptions:
    """The subscribers of each resource."""

    def __init__(self) -> None:
        self.bus = InMemorySubscriptionBus()
        self.listen = ListenHandler(self.bus)
        self._sessions: dict[str, list[ServerSession]] = {}
        self._changed: deque[str] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()

    def changed(self, uri: str) -> None:
        """Queue a change, from any thread; `publish_changes` sends it."""
        self._changed.append(uri)
        loop = self._loop
        if loop is not None:
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
        uris: dict[str, None] = {}
        while self._changed:
            uris[self._changed.popleft()] = None
        for uri in uris:
            await self.bus.publish(ResourceUpdated(uri=uri))
            for session in list(self._sessions.get(uri, ())):
                with anyio.move_on_after(_SEND_SECONDS) as scope:
                    try:
                        await session.send_resource_updated(uri)
                    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                        self._drop(uri, session)
                if scope.cancelled_caught:
                    self._drop(uri, session)

    async def subscribe(self, ctx: Context, params: SubscribeRequestParams) -> EmptyResult:
        """Serve `resources/subscribe`."""
        uri = str(params.uri)
        sessions = self._sessions.setdefault(uri, [])
        if not any(_same_client(session, ctx.session) for session in sessions):
            sessions.append(ctx.session)
            del sessions[:-_MAX_PER_URI]
        return EmptyResult()

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


def _same_client(one: ServerSession, other: ServerSession) -> bool:
    # The SDK makes a session object for each request; the handshake's parameters are
    # one object for the whole connection.
    return one is other or (
        one.client_params is not None and one.client_params is other.client_params
    )
