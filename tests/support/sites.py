"""Runs the HTTP listener on a free port in the test's event loop, with clients for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import httpx
import httpx2
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from mcp_memory.http.listen import listen
from mcp_memory.http.options import HttpOptions
from mcp_memory.owner.admin import OPERATIONS
from mcp_memory.server.servers import Servers

ERAS = ("legacy", "2026-07-28")
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@dataclass(slots=True)
class Site:
    """A running listener."""

    url: str
    stop: anyio.Event
    servers: Servers
    sse: bool

    @property
    def base(self) -> str:
        return self.url.rpartition("/")[0]

    @property
    def port(self) -> int:
        return int(self.base.rpartition(":")[2])

    async def op(self, op: str, /, **params: Any) -> dict[str, Any]:
        """Run an operation of the command line in the listener's process."""
        return await anyio.to_thread.run_sync(OPERATIONS[op], self.servers, params)

    async def token(self, agent: str = "ana", scope: str = "write", **params: Any) -> str:
        """Create an access token and return its text."""
        made = await self.op("token.create", agent=agent, scope=scope, **params)
        text: str = made["token"]
        return text

    @asynccontextmanager
    async def client(self, token: str | None = None, mode: str = "auto") -> AsyncIterator[Client]:
        """Yield a connected SDK client."""
        headers = bearer(token)
        if self.sse:
            async with Client(sse_client(self.url, headers=headers), mode="legacy") as client:
                yield client
            return
        timeout = httpx2.Timeout(30, read=60)
        async with (
            httpx2.AsyncClient(headers=headers, timeout=timeout, trust_env=False) as http,
            Client(streamable_http_client(self.url, http_client=http), mode=mode) as client,
        ):
            yield client

    def raw(self, token: str | None = None, **headers: str) -> httpx.AsyncClient:
        """Return a plain HTTP client."""
        return httpx.AsyncClient(
            base_url=self.base,
            headers={**ACCEPT, **bearer(token), **headers},
            trust_env=False,
            timeout=30,
        )


@asynccontextmanager
async def listening(servers: Servers, **options: Any) -> AsyncIterator[Site]:
    """Run a listener during a `with` block; afterwards it must end by itself."""
    given = HttpOptions(**{"port": 0, **options})
    if "no_auth" not in options and given.is_local and given.issuer is None:
        given = replace(given, no_auth=True)
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        url = await group.start(partial(listen, servers, given, stop=stop))
        try:
            yield Site(url, stop, servers, given.transport == "sse")
        finally:
            stop.set()
            # A listener that hangs fails the test instead of blocking it.
            group.cancel_scope.deadline = anyio.current_time() + 20


def bearer(token: str | None) -> dict[str, str]:
    """Return the header that carries a token."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def call(tool: str, number: int = 2, **arguments: Any) -> dict[str, Any]:
    """Return the message that calls a tool."""
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


async def session(http: httpx.AsyncClient, path: str = "/mcp") -> str:
    """Open a session with the `initialize` handshake; return its id."""
    answer = await http.post(path, json=INITIALIZE)
    assert answer.status_code == 200, answer.text
    number = answer.headers["mcp-session-id"]
    done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    await http.post(path, json=done, headers={"Mcp-Session-Id": number})
    return number


async def sse_session(http: httpx.AsyncClient, lines: AsyncIterator[str]) -> str:
    """Open a session on an SSE stream; return the path to post its messages to."""
    path = await sse_endpoint(lines)
    await http.post(path, json=INITIALIZE)
    done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    await http.post(path, json=done)
    return path


async def sse_endpoint(lines: AsyncIterator[str]) -> str:
    """Return the path to post messages to, which is the first event of an SSE stream."""
    async for line in lines:
        if line.startswith("data: "):
            return line.removeprefix("data: ")
    raise AssertionError("the stream has ended")


async def insert(client: Client, content: str) -> str:
    """Insert a memory; return its id."""
    result = await client.call_tool("archival_memory_insert", {"content": content})
    assert not result.is_error, result.content
    key: str = result.structured_content["id"]
    return key


async def found(client: Client, query: str | None = None) -> list[str]:
    """Return the texts of a search's hits."""
    arguments = {} if query is None else {"query": query}
    result = await client.call_tool("archival_memory_search", arguments)
    assert not result.is_error, result.content
    return [hit["text"] for hit in result.structured_content["results"]]


async def exchange(site: Site, request: bytes) -> bytes:
    """Send bytes over a connection of its own; return all that comes back until it is closed."""
    async with await anyio.connect_tcp("127.0.0.1", site.port) as stream:
        await stream.send(request)
        return b"".join([part async for part in stream])


def http_bytes(target: str, message: Any, *lines: str, method: str = "POST") -> bytes:
    """Return a request with exactly these header lines, and the length of its body."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    head = [f"{method} {target} HTTP/1.1", *lines, f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "Connection: close", "", ""]).encode("latin-1") + body
