"""One hostile client: everything that one program can do to stop the others, all at once.

`python -m benchmarks.hostile DATABASE PORT` goes on until it is killed. It has no token and
may connect as any program of the same user may. Between two attempts of a kind it pauses, so
that the processor is left to what it attacks.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final

from benchmarks.harness import SERVER
from mcp_memory.owner.places import Places
from mcp_memory.owner.wire import Gone, Silent, dial, greet

PAUSE_SECONDS: Final = 1.0
HOLD_SECONDS: Final = 4.0
PATIENCE_SECONDS: Final = 10.0
HUGE_BYTES: Final = 60_000_000
CONNECTIONS: Final = 1_100
"""More than a process may open by default on Linux."""

_HEAD: Final = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"archival_memory_insert",'
    b'"arguments":{"content":'
)


class Hostile:
    """The ways to attack a server.

    Args:
        db: Its database.
        port: Where it listens on HTTP, if it does.
    """

    def __init__(self, db: str, port: int) -> None:
        self._places = Places(db)
        self._port = port
        self._environment = {**os.environ, "MCP_MEMORY_DB": db, "MCP_MEMORY_AGENT": "mallory"}

    def ways(self) -> tuple[Callable[[], None], ...]:
        """Return what it does, each again and again."""
        return (
            self.huge_lines,
            self.half_lines,
            self.flood,
            self.deaf,
            self.flood_http,
            self.endless_headers,
            self.huge_body,
        )

    def huge_lines(self) -> None:
        """Send lines of very many values, and one without an end, as a client on stdio."""
        with subprocess.Popen(  # noqa: S603  # our own command
            SERVER,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as client:
            pipe = client.stdin
            if pipe is not None:
                with suppress(OSError), pipe:
                    pipe.write(_HEAD + b"[" + b"[]," * (HUGE_BYTES // 3) + b"1]}}}\n")
                    pipe.write(_HEAD + b'"' + b"x" * HUGE_BYTES + b'"}}}')

    def half_lines(self) -> None:
        """Begin long lines on several connections, and don't end them."""
        with ExitStack() as stack:
            for _ in range(4):
                connection = stack.enter_context(self._greeted())
                connection.settimeout(1.0)
                with suppress(OSError):
                    connection.sendall(_HEAD + b'"' + b"x" * HUGE_BYTES)
            time.sleep(HOLD_SECONDS)

    def flood(self) -> None:
        """Connect to the owner's socket without a word."""
        address = self._places.read_address() or {}
        with ExitStack() as stack:
            with suppress(Gone, Silent):
                for _ in range(CONNECTIONS):
                    stack.enter_context(dial(address, 1.0))
            time.sleep(HOLD_SECONDS)

    def deaf(self) -> None:
        """Ask without end, and read nothing."""
        with self._greeted() as connection:
            connection.settimeout(HOLD_SECONDS)
            ask = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}\n' * 100
            with suppress(OSError):
                while True:
                    connection.sendall(ask)

    def flood_http(self) -> None:
        """Connect to the listener, and send one byte each."""
        with ExitStack() as stack:
            with suppress(OSError):
                for _ in range(CONNECTIONS):
                    stack.enter_context(self._http()).send(b"G")
            time.sleep(HOLD_SECONDS)

    def endless_headers(self) -> None:
        """Send headers that don't end."""
        with self._http() as connection, suppress(OSError):
            connection.sendall(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            while True:
                connection.sendall(b"X-Header: " + b"x" * 100 + b"\r\n")
                time.sleep(0.05)

    def huge_body(self) -> None:
        """Send a body of very many values."""
        head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {HUGE_BYTES}\r\n"
        with self._http() as connection, suppress(OSError):
            connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n")
            connection.sendall(b"[" + b"[]," * (HUGE_BYTES // 3 - 1) + b"1]")
            connection.recv(1_000)

    def _greeted(self) -> socket.socket:
        address = self._places.read_address() or {}
        connection = dial(address, PATIENCE_SECONDS)
        greet(connection, address, {"settings": {"MCP_MEMORY_AGENT": "mallory"}})
        return connection

    def _http(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), PATIENCE_SECONDS)


def _again_and_again(way: Callable[[], None]) -> None:
    while True:
        with suppress(OSError, Gone, Silent):
            way()
        time.sleep(PAUSE_SECONDS)


def main(db: str, port: str) -> None:
    """Attack until it is killed, or the one who started it has ended."""
    if hasattr(os, "nice"):
        # Any program can take the processor; what is measured is how the server lets it be stopped.
        os.nice(19)
    for way in Hostile(db, int(port)).ways():
        threading.Thread(target=_again_and_again, args=(way,), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
