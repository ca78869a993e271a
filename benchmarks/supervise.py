"""A server with a listener that is started again whenever it ends, as a supervisor does."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc
import anyio.to_thread

from benchmarks.harness import SERVER, BenchmarkFault

TRANSPORTS: Final = {"http": "/mcp", "sse": "/sse"}
RESTART_SECONDS: Final = 1.0
COMMAND_SECONDS: Final = 120.0
ENDING_SECONDS: Final = 20.0
FAILURES: Final = 3
"""A listener that ends by itself so often in a row doesn't work at all."""

_POLL_SECONDS: Final = 0.05
_LISTENS: Final = re.compile(r"listens on (\S+)")
_LOG_TAIL_CHARS: Final = 2_000


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def create_token(environment: Mapping[str, str], folder: Path, agent: str) -> str:
    """Return a new access token of an agent.

    Raises:
        BenchmarkFault: The command failed.
    """
    done = subprocess.run(  # noqa: S603  # our own command
        [*SERVER, "token", "create", "--agent", agent, "--scope", "write", "--json"],
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if done.returncode:
        raise BenchmarkFault(f"no token can be made: {done.stderr.strip()}")
    made: dict[str, Any] = json.loads(done.stdout)
    return str(made["token"])


class Supervisor:
    """Runs the server, over streamable HTTP and SSE in turn; `log` has what it said.

    Args:
        environment: Of the server.
        folder: Where it runs and logs.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.starts = 0
        self._environment = dict(environment)
        self._folder = folder
        self._port = free_port()
        self.log = folder / "serve.log"
        self._transport = ""
        self._process: anyio.abc.Process | None = None
        self._listens = False
        self._failures = 0

    @property
    def listening(self) -> str | None:
        """The transport that can be reached now."""
        return self._transport if self._listens else None

    @property
    def pid(self) -> int | None:
        """The process that listens, or will soon."""
        return None if self._process is None else self._process.pid

    def url(self, transport: str) -> str:
        """Return where a transport is when it listens."""
        return f"http://127.0.0.1:{self._port}{TRANSPORTS[transport]}"

    async def run(self) -> None:
        """Start the server again and again, until cancelled; then end it as a supervisor would.

        Raises:
            BenchmarkFault: It ends by itself, before it listens.
        """
        for transport in cycle(TRANSPORTS):
            await self._run_once(transport)
            if self._failures >= FAILURES:
                raise BenchmarkFault(
                    f"the server can't be started: {self._said().strip()[-_LOG_TAIL_CHARS:]}"
                )
            await anyio.sleep(RESTART_SECONDS)

    async def _run_once(self, transport: str) -> None:
        self._transport = transport
        arguments = ["serve", "--transport", transport, "--port", str(self._port)]
        with self.log.open("ab") as log:
            start = log.tell()
            self._process = await anyio.open_process(
                [*SERVER, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self._environment,
                cwd=self._folder,
            )
        self.starts += 1
        try:
            while self._process.returncode is None and not self._listens:
                await anyio.sleep(_POLL_SECONDS)
                self._listens = _LISTENS.search(self._said(start)) is not None
            self._failures = 0 if self._listens else self._failures + 1
            await self._process.wait()
        finally:
            self._listens = False
            with anyio.CancelScope(shield=True):
                await _end(self._process)

    def _said(self, start: int = 0) -> str:
        return self.log.read_bytes()[start:].decode("utf-8", "replace")


async def _end(process: anyio.abc.Process) -> None:
    """End a process with SIGTERM, or, if that does nothing, with SIGKILL."""
    if process.returncode is None:
        process.terminate()
        with anyio.move_on_after(ENDING_SECONDS):
            await process.wait()
        if process.returncode is None:
            sys.stderr.write("the server did not end when it was told to\n")
            process.kill()
            await process.wait()
