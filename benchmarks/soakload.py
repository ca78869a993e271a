"""The clients of a soak, and the server they share: stdio, streamable HTTP and SSE, both eras.

Each client does what a host does and writes down, in its agent's ledger, what it was
promised. The listener is started again whenever it ends, as a supervisor does.
"""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc
import anyio.to_thread
import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.session import MessageHandlerFnT
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from benchmarks import BenchmarkFault, texts
from benchmarks.harness import SERVER, environment, err

PAUSE_SECONDS: Final = 0.4
"""Between two calls of a client: a steady load that two processors carry."""

RECONNECT_SECONDS: Final = 0.5
GIVE_UP_AFTER: Final = 100
"""Failed calls in a row after which a client counts as lost; 40 s at least."""

KEEP_MEMORIES: Final = 40
"""A client with more deletes one, so that the level of memory can be compared."""

REASON_CHARS: Final = 60
"""Of a refusal, what tells it from others: the rest names values."""

WORKING: Final = "working"
RESOURCES: Final = (
    "memory://core",
    "memory://context-budget",
    "memory://events",
    "memory://status",
    "memory://core/human",
)
WATCHED: Final = ("memory://core", "memory://events", "memory://context-budget")
"""What clients of the handshake era subscribe to."""

PROMPTS: Final = ("memory_guide", "resume", "reflect")

Connect = Callable[[MessageHandlerFnT], AbstractAsyncContextManager[Client]]
"""Yields a connected client; its argument is called with each unsolicited message."""


class Refused(Exception):
    """A tool has answered that it can't be done; the message is its text."""


class Lost(Exception):
    """The connection has ended."""


@dataclass(slots=True)
class Tally:
    """What became of the calls of the clients of one kind; seconds are of those answered.

    `by_phase` has those calls again that began and ended in one phase; see `Shared`.
    """

    seconds: list[float] = field(default_factory=list)
    by_phase: dict[str, list[float]] = field(default_factory=dict)
    failed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    connections: int = 0
    lost_clients: int = 0
    notifications: int = 0
    versions: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Shared:
    """What all clients know of each other: the ledgers by agent, and what leaked."""

    ledgers: dict[str, Ledger]
    leaks: list[str] = field(default_factory=list)
    phase: str = ""
    """`calm`, or `hostile` while a hostile client is at work."""
    unsettled: bool = False
    """Whether the owner was killed a moment ago."""

    def look(self, text: str, agent: str, where: str) -> None:
        """Note the marks of other agents in what an agent was shown."""
        marks = [ledger.mark for ledger in self.ledgers.values()]
        self.leaks += [
            f"{agent} saw {mark} in {where}"
            for mark in foreign_marks(text, self.ledgers[agent].mark, marks)
        ]


@dataclass(slots=True)
class Worker:
    """One client that works until it is cancelled.

    Args:
        name: Its own name, the conversation it writes to.
        agent: Whose memory it works on.
        connect: How it connects.
        stays: Whether its connection outlives the owner; if not, it connects again.
        shared: What all clients know.
        tally: Where its calls are counted.
        seed: Of what it does.
    """

    name: str
    agent: str
    connect: Connect
    stays: bool
    shared: Shared
    tally: Tally
    seed: int
    _rng: random.Random = field(init=False)
    _own: list[str] = field(init=False, default_factory=list)
    _count: int = field(init=False, default=0)
    _failures: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        """Begin at the beginning of what the seed makes."""
        self._rng = random.Random(self.seed)

    @property
    def ledger(self) -> Ledger:
        """What the worker's agent was promised."""
        return self.shared.ledgers[self.agent]

    async def run(self, may_connect: Callable[[], bool]) -> None:
        """Connect and work, again and again.

        Args:
            may_connect: Whether there is something to connect to now.
        """
        while True:
            if may_connect():
                try:
                    await self._live(may_connect)
                except Exception as error:  # whatever it is, a host would connect again
                    self._note_end(error)
            await anyio.sleep(RECONNECT_SECONDS)

    async def _live(self, may_connect: Callable[[], bool]) -> None:
        async with self.connect(self._on_message) as client:
            self.tally.connections += 1
            self.tally.versions.add(client.protocol_version)
            self._failures = 0
            if client.protocol_version in HANDSHAKE_PROTOCOL_VERSIONS:
                for uri in WATCHED:
                    await client.subscribe_resource(uri)
            steps = self._steps(client)
            while self.stays or may_connect():
                step = self._rng.choices(*zip(*steps, strict=True))[0]
                await self._try(step)
                await anyio.sleep(PAUSE_SECONDS)

    def _note_end(self, error: Exception) -> None:
        self.shared.look(str(error), self.agent, "an error")
        self.tally.failed += 1
        if self.stays:
            self.tally.lost_clients += 1
            err.print(f"{self.name} has lost its server: {error!r}", markup=False)

    async def _try(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except Refused as refusal:
            self.tally.refused[" ".join(str(refusal).split())[:REASON_CHARS]] += 1
        except MCPError as error:
            self.shared.look(str(error), self.agent, "an error")
            if error.code == REQUEST_TIMEOUT:
                self.tally.unanswered += 1
            self.tally.failed += 1
            self._failures += 1
            closed = error.code == CONNECTION_CLOSED and error.message == "Connection closed"
            if closed or not self.stays or self._failures > GIVE_UP_AFTER:
                raise Lost(str(error)) from error
        else:
            self._failures = 0

    def _steps(self, client: Client) -> list[tuple[Callable[[], Awaitable[None]], int]]:
        """Return what the worker may do next, each with its weight."""
        return [
            (lambda: self._store(client), 4),
            (lambda: self._search(client), 3),
            (lambda: self._update(client), 1),
            (lambda: self._delete(client), 3),
            (lambda: self._append(client), 3),
            (lambda: self._ask(client), 1),
            (lambda: self._rethink(client), 1),
            (lambda: self._look_around(client), 2),
            (lambda: self._pry(client), 1),
        ]

    def _text(self) -> str:
        self._count += 1
        return f"{self.ledger.mark} {self.name} {self._count}: {texts.memory(self._rng)}"

    async def _store(self, client: Client) -> None:
        """Store a text, again if need be: the same text makes no second memory."""
        content = self._text()
        self.ledger.unsure.add(content)
        try:
            stored = await self._call(client, "archival_memory_insert", {"content": content})
        except MCPError as error:
            if error.code == REQUEST_TIMEOUT or not self.stays:
                raise
            self.tally.failed += 1
            await anyio.sleep(PAUSE_SECONDS)
            stored = await self._call(client, "archival_memory_insert", {"content": content})
        versions = Versions()
        versions.attempt(content)
        versions.acknowledge()
        self.ledger.memories[stored["id"]] = versions
        self.ledger.unsure.discard(content)
        self._own.append(stored["id"])

    async def _search(self, client: Client) -> None:
        await self._call(client, "archival_memory_search", {"query": texts.query(self._rng)})

    async def _update(self, client: Client) -> None:
        if not self._own:
            return
        memory, content = self._rng.choice(self._own), self._text()
        versions = self.ledger.memories[memory]
        versions.attempt(content)
        await self._call(client, "archival_memory_update", {"id": memory, "content": content})
        versions.acknowledge()

    async def _delete(self, client: Client) -> None:
        if len(self._own) <= KEEP_MEMORIES:
            return
        memory = self._own.pop(0)
        self.ledger.leaving.add(memory)
        await self._call(client, "archival_memory_delete", {"id": memory})
        self.ledger.deleted.add(memory)

    async def _append(self, client: Client) -> None:
        message = {"role": self._rng.choice(("user", "assistant")), "content": self._text()}
        reply = await self._call(
            client, "conversation_append", {"messages": [message], "conversation": self.name}
        )
        self.ledger.messages.setdefault(self.name, set()).update(reply["ids"])

    async def _ask(self, client: Client) -> None:
        await self._call(client, "conversation_search", {"query": texts.query(self._rng)})

    async def _rethink(self, client: Client) -> None:
        value = self._text()
        versions = self.ledger.blocks.setdefault(self.name, Versions())
        versions.attempt(value)
        await self._call(
            client,
            "rethink_memory",
            {"label": WORKING, "new_memory": value, "conversation": self.name},
        )
        versions.acknowledge()

    async def _look_around(self, client: Client) -> None:
        """Read what a host shows or hands to the model by itself."""
        uri = self._rng.choice(RESOURCES)
        resource = await client.read_resource(uri, cache_mode="bypass")
        self.shared.look(resource.model_dump_json(), self.agent, uri)
        prompt = self._rng.choice(PROMPTS)
        got = await client.get_prompt(prompt, {})
        self.shared.look(got.model_dump_json(), self.agent, prompt)
        await self._call(client, "core_memory_view", {"conversation": self.name})

    async def _pry(self, client: Client) -> None:
        """Ask for what belongs to another agent."""
        agent = self._rng.choice([name for name in self.shared.ledgers if name != self.agent])
        other = self.shared.ledgers[agent]
        if other.memories:
            uri = f"memory://archival/{self._rng.choice(list(other.memories))}"
            try:
                resource = await client.read_resource(uri, cache_mode="bypass")
            except MCPError as error:
                self.shared.look(str(error), self.agent, uri)
                if error.code in {CONNECTION_CLOSED, REQUEST_TIMEOUT}:
                    raise
            else:
                self.shared.look(resource.model_dump_json(), self.agent, uri)
        if other.messages:
            where = {"conversation": self._rng.choice(list(other.messages))}
            await self._call(client, "conversation_search", where)

    async def _call(
        self, client: Client, tool: str, arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        phase, unsettled = self.shared.phase, self.shared.unsettled
        began = time.perf_counter()
        result = await client.call_tool(tool, dict(arguments))
        seconds = time.perf_counter() - began
        self.tally.seconds.append(seconds)
        if not unsettled and not self.shared.unsettled and phase == self.shared.phase:
            self.tally.by_phase.setdefault(phase, []).append(seconds)
        self.shared.look(result.model_dump_json(), self.agent, tool)
        content = result.structured_content
        if result.is_error or content is None:
            raise Refused(" ".join(getattr(part, "text", "") for part in result.content))
        found: dict[str, Any] = content
        return found

    async def _on_message(self, message: object) -> None:
        self.tally.notifications += 1
        self.shared.look(repr(message), self.agent, "a notification")


@dataclass(slots=True)
class Versions:
    """The values that something was to have, one after the other, and which was acknowledged.

    A value whose call was cut short may or may not have been taken.
    """

    attempted: list[str] = field(default_factory=list)
    acknowledged: int = -1

    def attempt(self, value: str) -> None:
        """Note that the value is asked for."""
        self.attempted.append(value)

    def acknowledge(self) -> None:
        """Note that the last value asked for was taken."""
        self.acknowledged = len(self.attempted) - 1

    def allows(self, value: str) -> bool:
        """Return whether it may have this value now."""
        return self.acknowledged < 0 or value in self.attempted[self.acknowledged :]


@dataclass(slots=True)
class Ledger:
    """What one agent's clients asked for.

    `memories` are by id, `blocks` by conversation; `unsure` are texts of stores that were given
    up, `leaving` ids whose deletion was asked for, `deleted` those where it was acknowledged.
    """

    mark: str
    memories: dict[str, Versions] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    leaving: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    messages: dict[str, set[str]] = field(default_factory=dict)
    blocks: dict[str, Versions] = field(default_factory=dict)

    @property
    def promised(self) -> int:
        """How many things were acknowledged and can be looked for."""
        written = sum(versions.acknowledged >= 0 for versions in self.blocks.values())
        return len(self.memories) + written + sum(map(len, self.messages.values()))

    def wrong_memories(self, found: Mapping[str, str]) -> list[str]:
        """Return what is wrong with the memories that are there, `found`: texts by their ids."""
        problems: list[str] = []
        for memory, versions in self.memories.items():
            if memory in self.deleted:
                if memory in found:
                    problems.append(f"memory {memory} was deleted and is there")
            elif memory not in found:
                if memory not in self.leaving:
                    problems.append(f"memory {memory} was acknowledged and is lost")
            elif not versions.allows(found[memory]):
                problems.append(f"memory {memory} has lost an edit that was acknowledged")
        return problems

    def doubled_memories(self, found: Mapping[str, str]) -> list[str]:
        """Return the memories that were never acknowledged, or that are there twice."""
        strange = {
            memory: text
            for memory, text in found.items()
            if memory not in self.memories and text not in self.unsure
        }
        twice = len(found) - len(set(found.values()))
        return [f"memory {memory} was never acknowledged" for memory in strange] + (
            [f"{twice} texts are there twice"] if twice else []
        )

    def lost_messages(self, conversation: str, found: Iterable[str]) -> list[str]:
        """Return the acknowledged messages of a conversation whose ids are not in `found`."""
        missing = self.messages.get(conversation, set()).difference(found)
        return [f"message {message} of {conversation} is lost" for message in sorted(missing)]

    def wrong_block(self, conversation: str, value: str) -> list[str]:
        """Return what is wrong with the working memory of a conversation."""
        if self.blocks.get(conversation, Versions()).allows(value):
            return []
        return [f"the working memory of {conversation} has lost an edit that was acknowledged"]


def foreign_marks(text: str, own: str, marks: Iterable[str]) -> list[str]:
    """Return the marks of others in a text, in upper or lower case."""
    lowered = text.lower()
    return [mark for mark in marks if mark != own and mark.lower() in lowered]


TRANSPORTS: Final = {"http": "/mcp", "sse": "/sse"}
RESTART_SECONDS: Final = 1.0
COMMAND_SECONDS: Final = 120.0
STOP_SECONDS: Final = 20.0
FAILURES: Final = 3
"""Ends in a row, without having listened, after which the listener counts as broken."""

_POLL_SECONDS: Final = 0.05
_LISTENS: Final = re.compile(r"listens on (\S+)")
_LOG_TAIL_CHARS: Final = 2_000


def free_port() -> int:
    """Return a free port of the loopback address."""
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
        self.port = free_port()
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
        return f"http://127.0.0.1:{self.port}{TRANSPORTS[transport]}"

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
        arguments = ["serve", "--transport", transport, "--port", str(self.port)]
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
        with anyio.move_on_after(STOP_SECONDS):
            await process.wait()
        if process.returncode is None:
            err.print("the server did not end on SIGTERM")
            process.kill()
            await process.wait()


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
