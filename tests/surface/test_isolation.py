"""No agent is shown anything of another: not a text, an id, a label, a count or a change.

Several agents use one database at random. An agent alone on a database of
its own that does the same must get exactly the same replies, except for ids and
times: so no trace of the others is in any answer, refusal or notice.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import anyio.abc
import anyio.to_thread
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from steps import CONNECTIONS, TEAM, UNKNOWN_ID, Actor, Chooser, Draw, Own, Step, budget_uri, said
from wires import ERAS, OpenServers, Wire, wire

from mcp_memory.settings import Settings
from mcp_memory.values import ids

AGENTS: Final = (("anaquark", "amaranth"), ("bozonic", "burnish"), ("cygnine", "chalcedon"))
"""Each with the word that is in all its texts."""

WATCHED: Final = ("memory://core", "memory://events", "memory://context-budget", "memory://status")
UPDATED: Final = "notifications/resources/updated"

_ID: Final = re.compile(r"(?:\b|(?<=\\n))[0-9a-hjkmnp-tv-z]{10}\b")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?")
_COST: Final = re.compile(
    r'(?<=tokens\\":)[0-9]+(?=\}|,\\"next_cursor)|(?<="tokens": )[0-9]+(?=\n\}|,\n"next_cursor)'
)
_CURSOR: Final = re.compile(r"[\w-]{40,}")
_CUT: Final = re.compile(r"[^\\\n\"]*…")
"""A line that is cut: where, follows from the tokens of the times before it."""


class Connection:
    """One client's connection, in a task of its own so that it can end before others do."""

    def __init__(self) -> None:
        self._stop = anyio.Event()
        self._ended = anyio.Event()
        self.wire: Wire

    async def run(
        self,
        opened: AbstractAsyncContextManager[Wire],
        *,
        task_status: anyio.abc.TaskStatus[None],
    ) -> None:
        async with opened as self.wire:
            task_status.started()
            await self._stop.wait()
        self._ended.set()

    async def end(self) -> None:
        self._stop.set()
        await self._ended.wait()


@dataclass
class Party(Actor):
    """One agent with its connections, what it sent and what came back."""

    steps: list[Step] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    received: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    notices: set[tuple[int, str]] = field(default_factory=set)
    connections: dict[int, Connection] = field(default_factory=dict)

    def join(
        self,
        group: anyio.abc.TaskGroup,
        open_wire: Callable[[str, int], AbstractAsyncContextManager[Wire]],
    ) -> None:
        self._group = group
        self._open_wire = open_wire

    async def connect(self, number: int) -> None:
        """Connect, in the place of a connection that there is."""
        if number in self.connections:
            await self.leave(number)
        connection = self.connections[number] = Connection()
        await self._group.start(connection.run, self._open_wire(self.name, number))
        self.answers.append(connection.wire.greeting)
        await connection.wire.watch(*WATCHED, budget_uri(self.last_conversation))

    async def leave(self, number: int) -> None:
        """End a connection once it was notified of everything before."""
        connection = self.connections.pop(number)
        self.answers.append(await self._last_change(connection.wire))
        self.received += connection.wire.received
        for notice in connection.wire.notices:
            self.notices.add((number, notice["params"].get("uri", notice["method"])))
        await connection.end()

    @property
    def last_conversation(self) -> str:
        return f"{self.name}-last"

    async def take(self, step: Step) -> None:
        self.steps.append(step)
        if step.method is None:
            await self.connect(step.connection)
            return
        params = self._resolved(step.params)
        self.sent.append(json.dumps(params, ensure_ascii=False))
        answer = await self.connections[step.connection].wire.ask(step.method, params)
        self.answers.append(answer if step.compared else None)
        self._note(answer, step)

    async def _last_change(self, connected: Wire) -> dict[str, Any]:
        uri = budget_uri(self.last_conversation)
        before = [notice["params"].get("uri") for notice in connected.notices].count(uri)
        arguments = {"messages": [said("user", "bye", 0)], "conversation": self.last_conversation}
        call = {"name": "conversation_append", "arguments": arguments}
        answer = await connected.ask("tools/call", call)
        await connected.noticed(UPDATED, uri, times=before + 1)
        # The same call may have changed something else, and its notifications come in any order.
        await connected.ask("tools/call", {"name": "core_memory_view", "arguments": {}})
        return answer

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, Own):
            return self.ids[value.number % len(self.ids)] if self.ids else UNKNOWN_ID
        if isinstance(value, dict):
            return {key: self._resolved(item) for key, item in value.items()}
        return [self._resolved(item) for item in value] if isinstance(value, list) else value

    def _note(self, answer: Any, step: Step) -> None:
        if "result" not in answer or step.method != "tools/call" or not step.compared:
            return
        content = answer["result"].get("structuredContent", {})
        named = [*content.get("ids", ()), *(hit["id"] for hit in content.get("results", ()))]
        for found in [*named, content.get("id"), content.get("summary_id")]:
            if found and found not in self.ids:
                self.ids.append(found)
        if "next_cursor" in content:
            self.cursors.append((content["next_cursor"], step.params))


@asynccontextmanager
async def gathering(
    settings: Settings, *agents: tuple[str, str], granted: Sequence[str] = ()
) -> AsyncIterator[list[Party]]:
    """Connect agents to one new database, each with a client of either era.

    Args:
        granted: The agents that share the block `TEAM`.
    """
    settings.db.parent.mkdir(parents=True)
    servers = OpenServers(settings)
    greeted: set[tuple[str, int]] = set()

    @asynccontextmanager
    async def open_wire(name: str, number: int) -> AsyncIterator[Wire]:
        shared = (TEAM,) if name in granted else ()
        own = {"agent": name, "shared_blocks": shared}
        server = servers.server(settings.model_copy(update=own))
        if (name, number) not in greeted:
            # Later the copy beside the database is there, and greets in its place.
            await anyio.to_thread.run_sync(server.memory)
            greeted.add((name, number))
        async with wire(server, ERAS[number], f"client {number}") as opened:
            yield opened
        server.close()

    parties = [Party(name, secret) for name, secret in agents]
    try:
        async with anyio.create_task_group() as group:
            for party in parties:
                party.join(group, open_wire)
                for number in range(CONNECTIONS):
                    await party.connect(number)
            yield parties
            for party in parties:
                for number in range(CONNECTIONS):
                    await party.leave(number)
    finally:
        await anyio.to_thread.run_sync(servers.close)


async def play(
    settings: Settings,
    draw: Draw,
    *,
    steps: int,
    at_once: bool = False,
    granted: Sequence[str] = (),
) -> None:
    """Let the agents use one database; then let each that shares nothing be alone, and compare."""
    root = settings.db.parent
    together = settings.model_copy(update={"db": root / "together" / "memory.duckdb"})
    async with gathering(together, *AGENTS, granted=granted) as parties:
        chooser = Chooser(parties)

        async def act(party: Party) -> None:
            await party.take(chooser.step(party, draw))

        async def act_on(party: Party) -> None:
            for _ in range(steps // len(parties)):
                await act(party)

        if at_once:
            async with anyio.create_task_group() as group:
                for party in parties:
                    group.start_soon(act_on, party)
        else:
            for _ in range(steps):
                await act(parties[draw(len(parties))])
    private = [party for party in parties if party.name not in granted]
    for party in private:
        assert_nothing_foreign(party, [other for other in parties if other is not party])
    for party in private:
        alone = settings.model_copy(update={"db": root / party.name / "memory.duckdb"})
        async with gathering(alone, (party.name, party.secret)) as (solitary,):
            for step in party.steps:
                await solitary.take(step)
        assert_told_the_same(party, solitary)


def assert_nothing_foreign(party: Party, others: Sequence[Party]) -> None:
    """Nothing of the others was received, but for names that the party itself has said."""
    said_itself = "".join(party.sent)
    foreign = {other.secret for other in others}
    for other in others:
        names = {*other.ids, other.name, f"{other.name}chat", f"{other.name}block"}
        foreign |= {name for name in names if name not in said_itself}
    assert [
        (word, line) for line in party.received for word in sorted(foreign) if word in line.lower()
    ] == []


def assert_told_the_same(party: Party, alone: Party) -> None:
    """Both got the same replies and the same notifications."""
    assert len(party.answers) == len(alone.answers)
    for number, (one, other) in enumerate(zip(party.answers, alone.answers, strict=True)):
        assert (number, comparable(one)) == (number, comparable(other))
    assert party.notices == alone.notices


def comparable(answer: Any) -> str:
    """Return an answer with no id, time or cursor in it, nor what follows from their tokens."""
    text = _COST.sub("COST", json.dumps(answer, ensure_ascii=False, indent=0))
    text = _ID.sub("ID", _CURSOR.sub("CURSOR", _TIME.sub("TIME", text)))
    return _CUT.sub("…", text)


@pytest.fixture
def small(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Windows that overflow, and replies that no random id can cut at another place.

    Every id has as many tokens as any other: else the window of one is full a message earlier.
    """
    monkeypatch.setattr(ids, "_spelled", lambda bits: f"{bits % 10**ids.LENGTH:0{ids.LENGTH}}")
    # The vector of a window comes when there is time: in one run before a search, in the other
    # after it, and the scores differ.
    update = {"context_window": 5_000, "max_reply_tokens": 100_000, "window_vectors": False}
    return settings.model_copy(update=update)


@pytest.mark.anyio
async def test_agents_that_take_turns_are_each_as_if_alone(small):
    rng = random.Random(3)
    await play(small, rng.randrange, steps=60)


@pytest.mark.slow
@pytest.mark.anyio
async def test_agents_that_call_at_once_are_each_as_if_alone(small):
    rng = random.Random(4)
    await play(small, rng.randrange, steps=300, at_once=True)


@pytest.mark.slow
@pytest.mark.anyio
async def test_who_is_not_granted_a_shared_block_is_as_if_alone_beside_those_who_are(small):
    rng = random.Random(5)
    await play(small, rng.randrange, steps=150, granted=[name for name, _ in AGENTS[:2]])


@pytest.mark.slow
@hypothesis_settings(
    max_examples=5,
    phases=[Phase.generate],  # To make an example smaller takes minutes.
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_whatever_agents_do_each_is_as_if_alone(small, data):
    folder = small.db.parent / str(next(_numbers))
    settings = small.model_copy(update={"db": folder / "memory.duckdb"})

    def draw(below: int) -> int:
        return data.draw(st.integers(0, below - 1))

    anyio.run(lambda: play(settings, draw, steps=40))


_numbers = itertools.count()
