"""An in-memory JSON-RPC connection to a server, which records all that the server sends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from fakes import HashEmbedder
from mcp.server.lowlevel import Server
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from mcp_memory.agent import Memories
from mcp_memory.server.servers import Servers
from mcp_memory.settings import Settings
from mcp_memory.tiers.engine import Engine

LEGACY: Final = "2025-11-25"
MODERN: Final = "2026-07-28"
ERAS: Final = (LEGACY, MODERN)
_PATIENCE_SECONDS: Final = 60
"""By judgement: longer than any step takes on a loaded machine."""

_LISTEN_ID: Final = 1_000_000
"""Request id of the subscription: higher than the ids that are counted up."""


class Wire:
    """The client's end; `received` holds all messages from the server as JSON."""

    def __init__(self, sender: MemoryObjectSendStream[Any], era: str, name: str) -> None:
        self.received: list[str] = []
        self.notices: list[dict[str, Any]] = []
        self.greeting: dict[str, Any] = {}
        self._sender = sender
        self.era = era
        self._name = name
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._news = anyio.Condition()

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request; return `{result: …}` or `{error: …}`."""
        self._number += 1
        number = self._number
        await self._send(method, params or {}, number)
        with anyio.fail_after(_PATIENCE_SECONDS):
            async with self._news:
                while number not in self._answers:
                    await self._news.wait()
        answer = self._answers.pop(number)
        return {key: answer[key] for key in ("result", "error") if key in answer}

    async def watch(self, *uris: str) -> None:
        """Subscribe to resources, and wait until the server has confirmed it."""
        if self.era == LEGACY:
            for uri in uris:
                answer = await self.ask("resources/subscribe", {"uri": uri})
                assert "result" in answer, answer
            return
        wanted = {"notifications": {"resourceSubscriptions": list(uris)}}
        await self._send("subscriptions/listen", wanted, _LISTEN_ID)
        await self.noticed("notifications/subscriptions/acknowledged")

    async def noticed(self, method: str, uri: str | None = None, times: int = 1) -> None:
        """Wait until `times` notifications of a method, and of a resource, have arrived."""
        with anyio.fail_after(_PATIENCE_SECONDS):
            async with self._news:
                while self._count(method, uri) < times:
                    await self._news.wait()

    def _count(self, method: str, uri: str | None) -> int:
        return sum(
            notice["method"] == method and uri in (None, notice["params"].get("uri"))
            for notice in self.notices
        )

    async def _send(self, method: str, params: dict[str, Any], number: int | None) -> None:
        if self.era == MODERN:
            params = params | {
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": MODERN,
                    "io.modelcontextprotocol/clientInfo": {"name": self._name, "version": "1"},
                    "io.modelcontextprotocol/clientCapabilities": {},
                }
            }
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if number is not None:
            message["id"] = number
        parsed = jsonrpc_message_adapter.validate_json(json.dumps(message), by_name=False)
        await self._sender.send(SessionMessage(parsed))

    async def _greet(self) -> None:
        if self.era == MODERN:
            self.greeting = await self.ask("server/discover")
            return
        who = {"name": self._name, "version": "1"}
        hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": who}
        self.greeting = await self.ask("initialize", hello)
        await self._send("notifications/initialized", {}, None)

    async def _read(self, source: MemoryObjectReceiveStream[Any]) -> None:
        async for item in source:
            line = item.message.model_dump_json(by_alias=True, exclude_unset=True)
            message = json.loads(line)
            self.received.append(json.dumps(message, ensure_ascii=False))
            async with self._news:
                if "method" in message:
                    self.notices.append(message)
                else:
                    self._answers[message["id"]] = message
                self._news.notify_all()


class OpenServers(Servers):
    """Servers whose database is open, with the hash embedder as its model."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._open = Memories(Engine(settings, embedder=HashEmbedder()))

    def memories(self, warm_agent: str | None = None) -> Memories:
        return self._open

    def close(self) -> None:
        super().close()
        self._open.close()


@asynccontextmanager
async def wire(server: Server[Any], era: str, name: str = "test") -> AsyncIterator[Wire]:
    """Connect to a server and do the handshake; `received` includes its instructions."""
    to_server, from_client = anyio.create_memory_object_stream[Any](64)
    to_client, from_server = anyio.create_memory_object_stream[Any](64)
    connection = Wire(to_server, era, name)
    async with to_server, from_client, to_client, from_server, anyio.create_task_group() as group:
        group.start_soon(connection._read, from_server)
        group.start_soon(server.run, from_client, to_client, server.create_initialization_options())
        await connection._greet()
        yield connection
        group.cancel_scope.cancel()
