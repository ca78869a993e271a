"""The clients of a soak: each does what a host does, and writes down what it was promised."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from mcp import Client
from mcp.client.session import MessageHandlerFnT
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from benchmarks import texts
from benchmarks.harness import err
from benchmarks.soakbook import Ledger, Versions, foreign_marks

PAUSE_SECONDS: Final = 0.4
"""Between two calls of a client: a steady load that two processors carry."""

RECONNECT_SECONDS: Final = 0.5
GIVE_UP_AFTER: Final = 100
"""A client whose calls fail so often in a row, 40 s at least, is taken for lost."""

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
"""Gives a connected client; takes what is called with each message that was not asked for."""


class Refused(Exception):
    """A tool has answered that it can't be done; the message is its text."""


class Lost(Exception):
    """The connection has ended."""


@dataclass(slots=True)
class Tally:
    """What became of the calls of the clients of one kind; seconds are of those answered."""

    seconds: list[float] = field(default_factory=list)
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
        began = time.perf_counter()
        result = await client.call_tool(tool, dict(arguments))
        self.tally.seconds.append(time.perf_counter() - began)
        self.shared.look(result.model_dump_json(), self.agent, tool)
        content = result.structured_content
        if result.is_error or content is None:
            raise Refused(" ".join(getattr(part, "text", "") for part in result.content))
        found: dict[str, Any] = content
        return found

    async def _on_message(self, message: object) -> None:
        self.tally.notifications += 1
        self.shared.look(repr(message), self.agent, "a notification")
