"""A real server for the demo, and a client connected to it over stdio."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client

from mcp_memory.values.errors import MemoryFault

# No call takes this long unless the server hangs; by judgement.
REPLY_SECONDS = 60.0
SERVER_ARGUMENTS = ("-m", "mcp_memory")
_TRACEBACK = "Traceback "
# Which model, and where its files are. Any other setting would change the story, or call a
# summarizer that costs money.
PASSED_SETTINGS = ("MCP_MEMORY_CACHE_DIR", "MCP_MEMORY_EMBEDDING_MODEL", "MCP_MEMORY_OFFLINE")


def server_environment(folder: Path, window_tokens: int) -> dict[str, str]:
    """Return the server's environment: ours, with another database and window."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("MCP_MEMORY_") or name.upper() in PASSED_SETTINGS
    }
    return inherited | {
        "MCP_MEMORY_DB": str(folder / "demo.duckdb"),
        "MCP_MEMORY_CONTEXT_WINDOW": str(window_tokens),
        "MCP_MEMORY_OWNER": "off",
    }


@dataclass(frozen=True, slots=True)
class Wire:
    """The calls of a client, returning the server's replies unchanged."""

    client: Client

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Call a tool and return its structured reply.

        Raises:
            MemoryFault: If the server refused the call.
        """
        result = await self.client.call_tool(tool, dict(arguments))
        if result.is_error:
            text = " ".join(getattr(part, "text", "") for part in result.content)
            raise MemoryFault(f"{tool} was refused: {text}")
        return dict(result.structured_content or {})

    async def read(self, uri: str) -> str:
        """Return the text of a resource."""
        result = await self.client.read_resource(uri)
        return "".join(getattr(part, "text", "") for part in result.contents)


@asynccontextmanager
async def temporary_server(
    window_tokens: int, *, arguments: Sequence[str] = SERVER_ARGUMENTS
) -> AsyncIterator[Wire]:
    """Start a server on a temporary database; both are removed at the end of the block.

    Args:
        window_tokens: The context window that the server manages.
        arguments: The arguments of this Python that start the server.

    Raises:
        MemoryFault: If the server does not start, stops early or refuses a call.
    """
    with TemporaryDirectory(prefix="mcp-memory-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        log = folder / "server.log"
        server = StdioServerParameters(
            command=sys.executable,
            args=list(arguments),
            env=server_environment(folder, window_tokens),
        )
        # Its log would mix with the output; it is read if the server dies.
        with log.open("w", encoding="utf-8") as errors:
            try:
                async with Client(
                    stdio_client(server, errlog=errors),
                    mode="auto",
                    cache=None,
                    read_timeout_seconds=REPLY_SECONDS,
                ) as client:
                    yield Wire(client)
            except (MCPError, MemoryFault, OSError) as error:
                raise _fault(error, log) from error
            except ExceptionGroup as group:
                # The SDK runs the connection in a task group, which wraps exceptions.
                for leaf in _leaves(group):
                    if isinstance(leaf, (MCPError, MemoryFault, OSError)):
                        raise _fault(leaf, log) from group
                raise


def _leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _fault(error: Exception, log: Path) -> MemoryFault:
    said = _last_words(log.read_text(encoding="utf-8", errors="replace"))
    what = str(error) if isinstance(error, MemoryFault) else f"the server has stopped ({error})"
    return MemoryFault(f"the demo stopped: {what}{said}")


def _last_words(log: str) -> str:
    """Return the end of a server's log: its last traceback or its last line."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    if not lines:
        return ""
    last = f"; last line of the server's log: {lines[-1].strip()}"
    traced = [number for number, line in enumerate(lines) if line.startswith(_TRACEBACK)]
    return "\n".join([last, *lines[traced[-1] : -1]]) if traced else last
