"""A server on a real database, and clients of both protocol eras connected to it in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from fakes import HashEmbedder, memory_of
from mcp import Client
from mcp_types import CallToolResult

from mcp_memory.engine import Engine
from mcp_memory.memory import Memory
from mcp_memory.server.app import MemoryServer
from mcp_memory.settings import Settings

ERAS = ("legacy", "2026-07-28")


class Caller:
    """Calls tools and looks at what every reply must be."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Return the structured content of a call that must succeed."""
        result = await self.raw(tool, **arguments)
        assert not result.is_error, result.content[0].text
        return result.structured_content

    async def refused(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Return the structured content of a call that must be refused."""
        result = await self.raw(tool, **arguments)
        assert result.is_error, result.content[0].text
        assert result.structured_content["message"] in result.content[0].text
        return result.structured_content

    async def raw(self, tool: str, **arguments: Any) -> CallToolResult:
        return await self.client.call_tool(tool, arguments)

    async def read(self, uri: str) -> str:
        return (await self.client.read_resource(uri)).contents[0].text


OpenServer = Callable[..., MemoryServer]
Connect = Callable[..., AbstractAsyncContextManager[Caller]]


@pytest.fixture
def open_server(settings: Settings) -> Iterator[OpenServer]:
    servers: list[MemoryServer] = []

    def open_it(agent: str = "default", **changes: object) -> MemoryServer:
        changed = settings.model_copy(update=changes)

        def open_memory(surface: Any) -> Memory:
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
