"""Stdio clients with a server process each, which share the owner of one database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
from processes import environment

from mcp_memory.owner.places import Address, Places

LEGACY: Final = "2025-11-25"
MODERN: Final = "2026-07-28"
ERAS: Final = (LEGACY, MODERN)
PATIENCE_SECONDS: Final = 60.0
"""By judgement: longer than any step takes on a loaded machine."""

CORE: Final = "memory://core"
UPDATED: Final = "notifications/resources/updated"
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"

Message = dict[str, Any]


def until(check: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until `check` returns true; fail the test if it doesn't in time."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        threading.Event().wait(0.02)


def program(module: str, *arguments: str, prelude: str = "") -> list[str]:
    """Return the command that runs a module of the product, after the code in `prelude`."""
    if not prelude:
        return [sys.executable, "-m", module, *arguments]
    run = f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", f"{prelude}\n{run}", *arguments]


def owners_with(prelude: str, folder: Path) -> str:
    """Return a client's prelude that lets it start owners which run another prelude."""
    python = folder / "other-python"
    # It is called as `python -m mcp_memory.owner DATABASE`.
    python.write_text(
        f"#!{sys.executable}\n{prelude}\nimport runpy, sys\ndel sys.argv[:2]\n"
        "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
    )
    python.chmod(0o700)
    return f"import sys; sys.executable = {str(python)!r}"


class Talker:
    """A client that reads its server's messages in the background.

    Args:
        home: The folder of the database.
        era: The protocol version it speaks.
        prelude: Code that its server's process runs first.
    """

    def __init__(
        self, home: Path, *, era: str = LEGACY, prelude: str = "", **settings: object
    ) -> None:
        self.process = subprocess.Popen(
            program("mcp_memory", prelude=prelude),
            env=environment(home, **settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.messages: list[Message] = []
        self.errors: list[str] = []
        self.reading = threading.Event()
        """While it is cleared, the client reads nothing."""
        self.reading.set()
        self._era = era
        self._number = 0
        self._ended = False
        self._news = threading.Condition()
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._read, self._read_errors)
        ]
        for thread in self._threads:
            thread.start()

    def send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def notify(self, method: str, params: Message | None = None) -> None:
        self.send(json.dumps(self._message(method, params)).encode())

    def request(self, method: str, params: Message | None = None) -> int:
        """Send a request and return its id, without waiting for the response."""
        self._number += 1
        message = self._message(method, params) | {"id": self._number}
        self.send(json.dumps(message).encode())
        return self._number

    def begin(self, tool: str, **arguments: object) -> int:
        return self.request("tools/call", {"name": tool, "arguments": arguments})

    def answers(self, number: int) -> list[Message]:
        """Return all responses to a request so far."""
        with self._news:
            return [
                message
                for message in self.messages
                if message.get("id") == number and "method" not in message
            ]

    def answer(self, number: int, seconds: float = PATIENCE_SECONDS) -> Message:
        self._wait(lambda: bool(self.answers(number)), f"an answer to {number}", seconds)
        return self.answers(number)[0]

    def ask(self, method: str, params: Message | None = None) -> Message:
        """Return the result of a request that must succeed."""
        answer = self.answer(self.request(method, params))
        assert "result" in answer, answer
        result: Message = answer["result"]
        return result

    def call(self, tool: str, **arguments: object) -> Message:
        """Return the structured content of a tool call that must succeed."""
        return content_of(self.answer(self.begin(tool, **arguments)))

    def greet(self) -> Message:
        """Do the handshake and return the server's description of itself."""
        if self._era == MODERN:
            return self.ask("server/discover")
        hello = {
            "protocolVersion": LEGACY,
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        }
        answer = self.ask("initialize", hello)
        self.notify("notifications/initialized")
        return answer

    def watch(self, uri: str = CORE) -> None:
        """Subscribe to a resource, and wait until the server has confirmed it."""
        if self._era == LEGACY:
            self.ask("resources/subscribe", {"uri": uri})
            return
        told = self.heard(ACKNOWLEDGED)
        self.request("subscriptions/listen", {"notifications": {"resourceSubscriptions": [uri]}})
        self.wait_for(ACKNOWLEDGED, times=told + 1)

    def heard(self, method: str, uri: str | None = None) -> int:
        """Return how many notifications of a method, and of a resource, have arrived."""
        with self._news:
            return sum(
                message.get("method") == method
                and uri in (None, message.get("params", {}).get("uri"))
                for message in self.messages
            )

    def wait_for(
        self,
        method: str,
        uri: str | None = None,
        times: int = 1,
        seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._wait(lambda: self.heard(method, uri) >= times, f"{times} of {method}", seconds)

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def end(self) -> int:
        """Close stdin and return the exit status; `messages` is then complete."""
        self.close_stdin()
        return self.status()

    def status(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait until the process ends by itself, and return its exit status."""
        status = self.process.wait(timeout=seconds)
        for thread in self._threads:
            thread.join(timeout=10)
        return status

    def kill(self) -> None:
        self.reading.set()
        self.process.kill()
        self.process.wait(timeout=20)
        for thread in self._threads:
            thread.join(timeout=10)
        self.close_stdin()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def _message(self, method: str, params: Message | None) -> Message:
        given = dict(params or {})
        if self._era == MODERN:
            given["_meta"] = {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            }
        return {"jsonrpc": "2.0", "method": method, "params": given}

    def _wait(self, check: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._news:
            while not check():
                left = deadline - time.monotonic()
                said = "".join(self.errors)
                assert not self._ended, f"{what}: the server has ended; {said}"
                assert left > 0, f"{what}: not within {seconds} s; {said}"
                self._news.wait(min(left, 1.0))

    def _read(self) -> None:
        assert self.process.stdout is not None
        file, rest = self.process.stdout.fileno(), b""
        while self.reading.wait() and (chunk := os.read(file, 65_536)):
            *lines, rest = (rest + chunk).split(b"\n")
            with self._news:
                self.messages.extend(json.loads(line) for line in lines)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line.decode("utf-8", "replace"))


def content_of(answer: Message) -> Message:
    """Return the structured content of a tool call's response, which must be a success."""
    assert "result" in answer, answer
    result: Message = answer["result"]
    assert not result.get("isError"), result
    content: Message = result["structuredContent"]
    return content


class Household:
    """The clients and owners of one folder; none of them outlives the test.

    Args:
        home: The folder.
        cache: The folder of model files; it may be empty.
    """

    def __init__(self, home: Path, cache: Path) -> None:
        self.home = home
        self.settings: dict[str, object] = {
            "owner": "auto",
            "owner_idle_seconds": 60,
            "cache_dir": cache,
        }
        self._started: list[Talker] = []
        self._owners: list[subprocess.Popen[bytes]] = []
        self.expects_trouble = False
        """Whether the owners' logs may contain tracebacks."""

    def start(self, *, era: str = LEGACY, prelude: str = "", **settings: object) -> Talker:
        """Start a client that has sent nothing yet."""
        talker = Talker(self.home, era=era, prelude=prelude, **self.settings | settings)
        self._started.append(talker)
        return talker

    def client(self, *, era: str = LEGACY, prelude: str = "", **settings: object) -> Talker:
        """Start a client and do its handshake."""
        talker = self.start(era=era, prelude=prelude, **settings)
        talker.greet()
        return talker

    def owner(self, prelude: str = "", **settings: object) -> subprocess.Popen[bytes]:
        """Start an owner without a client, and wait until it answers."""
        process = subprocess.Popen(
            program("mcp_memory.owner", self.places.db, prelude=prelude),
            env=environment(self.home, **self.settings | settings),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._owners.append(process)

        def answers() -> bool:
            assert process.poll() is None, f"the owner has ended: {self.log()}"
            address = self.places.read_address() or {}
            return address.get("pid") == process.pid and bool(address.get("ready"))

        until(answers, "an owner that answers")
        return process

    @property
    def places(self) -> Places:
        return Places(str(self.home / "memory.duckdb"))

    def address(self) -> Address:
        address = self.places.read_address()
        assert address is not None
        return address

    def pid(self) -> int:
        """Return the process id of the database's owner."""
        pid = self.address()["pid"]
        assert isinstance(pid, int)
        return pid

    def kill_owner(self) -> int:
        """Kill the owner as a crash would, and return its process id."""
        pid = self.pid()
        psutil.Process(pid).kill()
        return pid

    def end_owner(self) -> int:
        """Terminate the owner as the system does, and return its process id."""
        pid = self.pid()
        psutil.Process(pid).terminate()
        return pid

    def processes(self) -> list[psutil.Process]:
        """Return the running processes of this folder, clients and owners."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def owners(self) -> list[int]:
        """Return the process ids of all running owners in this folder."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                # A process that is ending has no arguments.
                if "".join(process.cmdline()[-1:]).startswith(str(self.home)):
                    found.append(process.pid)
        return found

    def log(self) -> str:
        try:
            return Path(self.places.log).read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def clear(self) -> None:
        """Kill every process of this folder; check that none is left and no log has a traceback."""
        for talker in self._started:
            talker.kill()
        left = self.processes()
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        for owner in self._owners:
            owner.wait(timeout=20)
        until(lambda: not self.processes(), "the end of all processes", seconds=20)
        assert self.expects_trouble or "Traceback" not in self.log(), self.log()

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            return bool(process.environ().get("HOME") == str(self.home))
        except psutil.Error:
            return False
