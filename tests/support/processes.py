"""Starts the product's server and commands as processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

COMMAND = [sys.executable, "-m", "mcp_memory"]
HEAVY = ("duckdb", "onnxruntime", "fastembed", "tiktoken", "numpy")


def environment(home: Path, **settings: object) -> dict[str, str]:
    """Return environment variables for a process that touches nothing outside `home`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MCP_MEMORY_", "XDG_"))
    }
    return kept | {
        "HOME": str(home),
        "MCP_MEMORY_DB": str(home / "memory.duckdb"),
        "MCP_MEMORY_CACHE_DIR": str(home / "cache"),
        "MCP_MEMORY_OFFLINE": "1",
        # Tests that are not about the owner run in one process, and leave none behind.
        "MCP_MEMORY_OWNER": "off",
        "MCP_MEMORY_HTTP_NO_AUTH": "1",
        **{f"MCP_MEMORY_{name.upper()}": str(value) for name, value in settings.items()},
    }


@asynccontextmanager
async def stdio(home: Path, mode: str = "auto", **settings: object) -> AsyncIterator[Client]:
    """Start a server process, and yield an SDK client that is connected to it."""
    parameters = StdioServerParameters(
        command=COMMAND[0], args=COMMAND[1:], env=environment(home, **settings)
    )
    async with Client(stdio_client(parameters), mode=mode) as client:
        yield client


class RawServer:
    """A server process that is driven line by line over stdio."""

    def __init__(self, home: Path, *arguments: str, **settings: object) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=environment(home, **settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()

    def send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def ask(self, method: str, params: dict[str, Any], number: int = 1) -> dict[str, Any]:
        """Send a request and return the message that answers it."""
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        self.send(json.dumps(request).encode())
        return self.answer(number)

    def answer(self, number: int) -> dict[str, Any]:
        """Return the next message with this id; every line must be valid JSON-RPC."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            message: dict[str, Any] = json.loads(line)
            assert message["jsonrpc"] == "2.0"
            if message.get("id") == number:
                return message
        raise AssertionError(f"the server has ended: {''.join(self.errors)}")

    def initialize(self) -> dict[str, Any]:
        answer = self.ask(
            "initialize",
            {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "test", "version": "1"},
            },
        )
        self.send(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
        result: dict[str, Any] = answer["result"]
        return result

    def tool(self, name: str, arguments: dict[str, Any], number: int = 2) -> dict[str, Any]:
        """Return the result of a tool call."""
        answer = self.ask("tools/call", {"name": name, "arguments": arguments}, number)
        result: dict[str, Any] = answer["result"]
        return result

    def end(self) -> int:
        """Close stdin and return the exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        status = self.process.wait(timeout=20)
        self._reader.join(timeout=5)
        return status

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=20)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line.decode("utf-8", "replace"))


@contextmanager
def raw_server(home: Path, *arguments: str, **settings: object) -> Iterator[RawServer]:
    """Start a server process, and kill it at the end."""
    server = RawServer(home, *arguments, **settings)
    try:
        yield server
    finally:
        server.kill()


def listening_url(server: RawServer) -> str:
    """Wait until an HTTP server reports its URL, and return it."""
    assert server.process.stderr is not None
    while not (found := re.search(r"listens on (\S+)", "".join(server.errors))):
        assert server.process.poll() is None, "".join(server.errors)
        threading.Event().wait(0.05)
    return found[1]


def command(home: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run one of the product's commands to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(home, **settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
