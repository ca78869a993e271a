"""How the clients of a soak connect: stdio, streamable HTTP, SSE, both protocol eras."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.session import MessageHandlerFnT
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from benchmarks.harness import SERVER, environment
from benchmarks.soakload import Connect
from benchmarks.supervise import Supervisor

CALL_SECONDS: Final = 60.0
STREAM_SECONDS: Final = 300.0
OWNER_IDLE_SECONDS: Final = 10
WINDOW_TOKENS: Final = 16_000
"""Small, so that conversations overflow and are flushed."""

KINDS: Final = {
    "stdio legacy": "legacy",
    "stdio modern": "auto",
    "http legacy": "legacy",
    "http modern": "auto",
    "sse": "legacy",
}
"""The kinds of clients, and how each negotiates the protocol's version."""


def connection(
    kind: str, db: Path, agent: str, token: str, supervisor: Supervisor, log: Any
) -> Connect:
    """Return how a client of a kind connects."""
    mode = KINDS[kind]

    @asynccontextmanager
    async def connect(on_message: MessageHandlerFnT) -> AsyncGenerator[Client]:
        make = partial(
            Client, mode=mode, read_timeout_seconds=CALL_SECONDS, message_handler=on_message
        )
        headers = {"Authorization": f"Bearer {token}"}
        if kind.startswith("stdio"):
            async with make(stdio_client(parameters(db, agent), errlog=log)) as client:
                yield client
        elif kind.startswith("http"):
            timeout = httpx2.Timeout(CALL_SECONDS, read=STREAM_SECONDS)
            async with (
                httpx2.AsyncClient(headers=headers, timeout=timeout) as http,
                make(streamable_http_client(supervisor.url("http"), http_client=http)) as client,
            ):
                yield client
        else:
            sse = sse_client(supervisor.url("sse"), headers=headers, timeout=CALL_SECONDS)
            async with make(sse) as client:
                yield client

    return connect


def parameters(db: Path, agent: str, **settings: object) -> StdioServerParameters:
    """Return how a client on stdio starts our server."""
    return StdioServerParameters(
        command=SERVER[0],
        args=list(SERVER[1:]),
        env=server_environment(db, agent=agent, **settings),
        cwd=db.parent,
    )


def server_environment(db: Path, **settings: object) -> dict[str, str]:
    """Return the environment of a server or command on a database."""
    return environment(
        db,
        **{
            "owner_idle_seconds": OWNER_IDLE_SECONDS,
            "context_window": WINDOW_TOKENS,
            **settings,
        },
    )
