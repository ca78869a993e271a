"""A client of the stdio transport that adds next to nothing: a line out, a line in.

It blocks and speaks the handshake era only. A host has more to do, but a
benchmark with sixteen of them on two processors would measure the hosts.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, cast

from benchmarks import BenchmarkFault

PROTOCOL_VERSION: Final = "2025-11-25"
ENDING_SECONDS: Final = 20.0
EMBEDDING_SECONDS: Final = 900.0
"""What 10,000 texts need on a slow machine, twice over."""

_POLL_SECONDS: Final = 0.1
_LOG_TAIL_CHARS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Command:
    """How a server is started."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path


class RawClient:
    """A server process and the one conversation with it; for one thread at a time.

    Args:
        command: What to start.
    """

    def __init__(self, command: Command) -> None:
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115  # closed by kill
        self._number = 0
        self._process = subprocess.Popen(  # noqa: S603  # our own server and those it is beside
            command.arguments,
            env=dict(command.environment),
            cwd=command.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self._process.pid

    def initialize(self) -> dict[str, Any]:
        """Do the handshake and return what the server says of itself.

        Raises:
            BenchmarkFault: The server has ended or refuses.
        """
        result = self.ask(
            "initialize",
            {
                "protocolVersion": PROTOCOL_VERSION,
                "capabilities": {},
                "clientInfo": {"name": "benchmark", "version": "1"},
            },
        )
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return result

    def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return its result.

        Raises:
            BenchmarkFault: The server has ended, or answers with a protocol error.
        """
        message = self.answer(method, params)
        if "error" in message:
            raise BenchmarkFault(f"{method} was refused: {message['error']['message']}")
        result: dict[str, Any] = message["result"]
        return result

    def answer(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return the answer to it, be it a result or an error.

        Raises:
            BenchmarkFault: The server has ended.
        """
        self._number += 1
        number = self._number
        self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        while line := self._stdout.readline():
            message: dict[str, Any] = json.loads(line)
            if message.get("id") == number and "method" not in message:
                return message
        raise BenchmarkFault(f"the server has ended: {self._log_tail()}")

    def ask_at_once(
        self, method: str, every: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any] | None]:
        """Send several requests without waiting in between; return their results in order.

        One that is refused, or not answered before the server ends, has None.
        """
        numbers = range(self._number + 1, self._number + 1 + len(every))
        self._number += len(every)
        for number, params in zip(numbers, every, strict=True):
            self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        answers: dict[int, dict[str, Any] | None] = {}
        while len(answers) < len(every) and (line := self._stdout.readline()):
            message = json.loads(line)
            if message.get("id") in numbers and "method" not in message:
                answers[message["id"]] = message.get("result")
        return [answers.get(number) for number in numbers]

    def tool(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Call a tool and return its structured content.

        Raises:
            BenchmarkFault: The server has ended, or the tool answers with an error.
        """
        result = self.ask("tools/call", {"name": name, "arguments": arguments})
        if result.get("isError"):
            text = " ".join(part.get("text", "") for part in result["content"])
            raise BenchmarkFault(f"{name} was refused: {text}")
        content: dict[str, Any] = result.get("structuredContent", {})
        return content

    def read(self, uri: str) -> str:
        """Return the text of a resource.

        Raises:
            BenchmarkFault: The server has ended, or there is no such resource.
        """
        text: str = self.ask("resources/read", {"uri": uri})["contents"][0]["text"]
        return text

    def wait_until_embedded(self, *, timeout_seconds: float = EMBEDDING_SECONDS) -> str:
        """Wait until the model is loaded and no text waits for a vector; return the model's name.

        Raises:
            BenchmarkFault: The model is unavailable, or it took too long.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            status = json.loads(self.read("memory://status"))["embedding"]
            pending = status["pending"] + status.get("windows_pending", 0)
            if status["state"] == "ready" and pending == 0:
                return str(status["model"])
            if status["state"] == "unavailable":
                raise BenchmarkFault(
                    "the embedding model is unavailable: run `mcp-memory models fetch` first"
                )
            if time.monotonic() > deadline:
                raise BenchmarkFault(
                    f"{pending} texts have no vector after {timeout_seconds:.0f} s"
                )
            time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Leave as a host does: close the server's stdin and wait until it has ended.

        Raises:
            BenchmarkFault: It does not end.
        """
        with suppress(BrokenPipeError):
            self._stdin.close()
        try:
            self._process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise BenchmarkFault("the server did not end when its client left") from error
        finally:
            self.kill()

    def stop(self) -> None:
        """End the server at once; a thread that waits for its answer sees the end of the stream."""
        self._process.kill()

    def kill(self) -> None:
        """End the server at once and let go of it; nothing happens if that was done."""
        self._process.kill()
        self._process.wait()
        for stream in (self._stdin, self._stdout):
            with suppress(BrokenPipeError):
                stream.close()
        self._log.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._stdin.write(json.dumps(message).encode() + b"\n")
            self._stdin.flush()
        except OSError as error:
            raise BenchmarkFault(f"the server has ended: {self._log_tail()}") from error

    def _log_tail(self) -> str:
        try:
            self._log.seek(0)
            log = self._log.read().decode("utf-8", "replace").strip()
        except ValueError:  # kill has closed it
            return "it was stopped"
        return log[-_LOG_TAIL_CHARS:] or "it said nothing"


class Clients:
    """Clients that all end with the block, or when its time is over.

    Args:
        limit_seconds: All servers are ended then, so that no call waits forever.
    """

    def __init__(self, limit_seconds: float) -> None:
        self._open: list[RawClient] = []
        self._timer = threading.Timer(limit_seconds, self._stop_all)
        self._timer.daemon = True

    def start(self, command: Command) -> RawClient:
        """Start a server and return its client."""
        client = RawClient(command)
        self._open.append(client)
        return client

    def __enter__(self) -> Self:
        """Start the clock."""
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what still runs."""
        self._timer.cancel()
        for client in self._open:
            client.kill()

    def _stop_all(self) -> None:
        for client in list(self._open):
            client.stop()
