"""What a server answers to a client's first requests, asked before the client does.

The owner keeps it for the next start: see `answers`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    PROTOCOL_VERSION_META_KEY,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from mcp_memory.owner.answers import ANY_VERSION, CORE, LISTS, keep_answers
from mcp_memory.owner.connection import MessageStream, initialization_options
from mcp_memory.owner.places import Places
from mcp_memory.server.prompts import instructions
from mcp_memory.server.servers import Servers
from mcp_memory.settings import Settings
from mcp_memory.values.records import SHARED
from mcp_memory.values.snapshot import snapshot_name

_CLIENT: Final = {"name": "mcp-memory", "version": "0"}


def rehearse(
    servers: Servers, places: Places, given: Mapping[str, str], settings: Settings
) -> None:
    """Keep the answers for clients with these settings. Blocks: call it in a worker thread.

    Args:
        servers: Those of the owner.
        places: The owner's files.
        given: The settings of a client as it gave them.
        settings: The same, read.
    """
    results = anyio.run(_results, servers, settings)
    view = {
        "own": snapshot_name(settings.agent),
        "shared": list(settings.shared_blocks),
        "theirs": snapshot_name(SHARED),
    }
    keep_answers(places, given, view, results)


async def _results(servers: Servers, settings: Settings) -> list[tuple[str, str, dict[str, Any]]]:
    """Return method, protocol version and result of each request."""
    results = []
    for version in (*HANDSHAKE_PROTOCOL_VERSIONS, ANY_VERSION):
        hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": _CLIENT}
        for method, result in (await _answers(servers, settings, "initialize", hello)).items():
            if version != ANY_VERSION or method == "initialize":
                results.append((method, version, result))
    for version in MODERN_PROTOCOL_VERSIONS:
        meta = {
            PROTOCOL_VERSION_META_KEY: version,
            CLIENT_INFO_META_KEY: _CLIENT,
            CLIENT_CAPABILITIES_META_KEY: {},
        }
        answers = await _answers(servers, settings, "server/discover", {}, {"_meta": meta})
        results += [(method, version, result) for method, result in answers.items()]
    return results


async def _answers(
    servers: Servers,
    settings: Settings,
    handshake: str,
    hello: Mapping[str, Any],
    always: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the results of the handshake and of each list, by method."""
    server = servers.server(settings)
    server.instructions = instructions(CORE)
    requests = [(handshake, {**hello, **(always or {})}), *((name, always) for name in LISTS)]
    script = _Script(requests)
    try:
        await server.run(script, script, initialization_options(server))
    finally:
        server.close()
    return script.results


class _Script(MessageStream):
    """A client that asks one thing after the other and notes the results; both streams in one."""

    def __init__(self, requests: list[tuple[str, Mapping[str, Any] | None]]) -> None:
        self.results: dict[str, dict[str, Any]] = {}
        self._requests = requests
        self._messages = self._sent()
        self._answered = anyio.Event()
        self._answered.set()

    async def receive(self) -> SessionMessage:
        await self._answered.wait()
        message = next(self._messages, None)
        if message is None:
            raise anyio.EndOfStream
        if "id" in message:
            self._answered = anyio.Event()
        line = json.dumps({"jsonrpc": "2.0", **message})
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))

    async def send(self, item: SessionMessage) -> None:
        message = item.message
        if isinstance(message, JSONRPCResponse):
            method = self._requests[int(message.id)][0]
            self.results[method] = json.loads(
                message.model_dump_json(by_alias=True, exclude_unset=True)
            )["result"]
        self._answered.set()

    def _sent(self) -> Iterator[dict[str, Any]]:
        for number, (method, params) in enumerate(self._requests):
            yield {"id": number, "method": method, "params": params or {}}
            if method == "initialize":
                yield {"method": "notifications/initialized"}
