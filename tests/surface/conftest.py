"""A server on a real database, and clients of both protocol eras connected to it in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from callers import ERAS, Caller
from fakes import HashEmbedder, memory_of
from mcp import Client

from mcp_memory.agent import AgentMemory
from mcp_memory.server.app import MemoryServer
from mcp_memory.settings import Settings
from mcp_memory.tiers.engine import Engine

OpenServer = Callable[..., MemoryServer]
Connect = Callable[..., AbstractAsyncContextManager[Caller]]


@pytest.fixture
def open_server(settings: Settings) -> Iterator[OpenServer]:
    servers: list[MemoryServer] = []

    def open_it(agent: str = "default", **changes: object) -> MemoryServer:
        changed = settings.model_copy(update=changes)

        def open_memory(surface: Any) -> AgentMemory:
            return memory_of(Engine(changed, embedder=HashEmbedder()), agent, surface=surface)

        server = MemoryServer(open_memory, core=None, max_reply_tokens=changed.max_reply_tokens)
        servers.append(server)
        return server

    yield open_it
    for server in servers:
        server.close()


@pytest.fixture
def connect(open_server: OpenServer) -> Connect:
    """Connect a client to a new server; `era` and settings can be chosen."""

    @asynccontextmanager
    async def connected(era: str = "2026-07-28", **changes: object) -> AsyncIterator[Caller]:
        async with Client(open_server(**changes), mode=era) as client:
            yield Caller(client)

    return connected


@pytest.fixture(params=ERAS)
async def call(request: pytest.FixtureRequest, connect: Connect) -> AsyncIterator[Caller]:
    """A client of each era in turn."""
    async with connect(request.param) as caller:
        yield caller
