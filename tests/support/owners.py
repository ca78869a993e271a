"""An owner process, and a client that connects to it directly, without a shim."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from processes import environment

from mcp_memory.owner.connect import Reached, reach
from mcp_memory.owner.places import Places

START_SECONDS = 60.0
"""By judgement: longer than an owner takes to start on a loaded machine."""


@contextmanager
def running_owner(home: Path, **settings: object) -> Iterator[dict[str, Any]]:
    """Start an owner of the database in `home`; yield its address, and kill it at the end."""
    environ = environment(home, **settings)
    places = Places(environ["MCP_MEMORY_DB"])
    process = subprocess.Popen(
        [sys.executable, "-m", "mcp_memory.owner", places.db],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (address := places.read_address()) or not address.get("ready"):
            assert process.poll() is None, "the owner has ended"
            assert time.monotonic() < deadline, "the owner does not start"
            threading.Event().wait(0.05)
        yield address
    finally:
        process.kill()
        process.wait(timeout=20)


@contextmanager
def stopped(address: dict[str, Any]) -> Iterator[None]:
    """Suspend an owner's process during a `with` block, so that it can't answer."""
    os.kill(address["pid"], signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(address["pid"], signal.SIGCONT)


class OwnersClient:
    """A line-by-line connection to the owner."""

    def __init__(self, home: Path, **settings: object) -> None:
        environ = environment(home, **settings)
        given = {name: text for name, text in environ.items() if name.startswith("MCP_MEMORY_")}
        hello: dict[str, object] = {"settings": given, "since": time.time()}
        self._reached: Reached = reach(
            Places(environ["MCP_MEMORY_DB"]), hello, environ, start=False, seconds=20
        )
        self._lines = self._reached.connection.makefile("rb")

    def ask(self, method: str, params: dict[str, Any], number: int = 1) -> dict[str, Any]:
        """Send a request and return the result."""
        self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        while True:
            message: dict[str, Any] = json.loads(self._lines.readline())
            if message.get("id") == number:
                result: dict[str, Any] = message["result"]
                return result

    def send(self, message: dict[str, Any]) -> None:
        self._reached.connection.sendall(json.dumps(message).encode() + b"\n")

    def initialize(self, name: str) -> None:
        client = {"name": name, "version": "1"}
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        self.ask("initialize", params)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def tool(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return self.ask("tools/call", {"name": name, "arguments": arguments}, 2)

    def close(self) -> None:
        self._lines.close()
        self._reached.connection.close()
