"""Shared blocks: one text for every agent that is granted its label, nothing for the others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from wires import ERAS, LEGACY, MODERN, OpenServers, Wire, wire

from mcp_memory.server.app import MemoryServer
from mcp_memory.settings import Settings

pytestmark = pytest.mark.anyio

TEAM = "team"
UPDATED = "notifications/resources/updated"
CORE = "memory://core"

Join = Callable[..., AbstractAsyncContextManager[Wire]]


@pytest.fixture
def servers(settings: Settings) -> Iterator[OpenServers]:
    opened = OpenServers(settings)
    yield opened
    opened.close()


def server_of(servers: OpenServers, agent: str, *shared: str) -> MemoryServer:
    own = {"agent": agent, "shared_blocks": shared}
    return servers.server(servers.settings.model_copy(update=own))


@pytest.fixture
def join(servers: OpenServers) -> Join:
    """Connect a client of an agent that is granted shared blocks."""

    @asynccontextmanager
    async def joined(agent: str, *shared: str, era: str = MODERN) -> AsyncIterator[Wire]:
        server = server_of(servers, agent, *shared)
        async with wire(server, era, agent) as connection:
            yield connection
        server.close()

    return joined


async def call(client: Wire, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.ask("tools/call", {"name": tool, "arguments": arguments})
    result: dict[str, Any] = answer["result"]
    return result


async def blocks(client: Wire) -> dict[str, dict[str, Any]]:
    shown = await call(client, "core_memory_view")
    return {block["label"]: block for block in shown["structuredContent"]["blocks"]}


async def test_what_one_agent_writes_all_who_are_granted_the_block_see(join):
    async with join("ana", TEAM) as ana, join("bo", TEAM) as bo, join("cy") as cy:
        assert (await blocks(bo))[TEAM]["scope"] == "shared"
        await call(ana, "core_memory_append", label=TEAM, content="The release is on Friday")
        await call(bo, "core_memory_append", label=TEAM, content="Bo reviews")
        for client in (ana, bo):
            assert (await blocks(client))[TEAM]["value"] == "The release is on Friday\nBo reviews"
            read = await client.ask("resources/read", {"uri": CORE})
            assert "The release is on Friday" in json.dumps(read)
        assert TEAM not in await blocks(cy)
        assert "Friday" not in "".join(cy.received)


async def test_a_grant_of_one_block_is_none_of_another(join):
    async with join("ana", TEAM, "plan") as ana, join("bo", TEAM) as bo:
        await call(ana, "rethink_memory", label="plan", new_memory="Ship it")
        await call(ana, "rethink_memory", label=TEAM, new_memory="Be kind")
        assert (await blocks(bo)).keys() == {"persona", "human", "working", TEAM}
        assert "Ship it" not in "".join(bo.received)


@pytest.mark.parametrize("era", ERAS)
async def test_a_change_is_told_to_those_who_are_granted_the_block_alone(join, era):
    async with (
        join("ana", TEAM) as ana,
        join("bo", TEAM, era=era) as bo,
        join("cy", era=era) as cy,
    ):
        for client in (bo, cy):
            await call(client, "context_budget")
            budgets = [f"memory://context-budget{name}" for name in ("", "/affair", "/another")]
            await client.watch(CORE, *budgets)
        arguments = {"label": TEAM, "content": "Tea at five", "conversation": "affair"}
        await call(ana, "core_memory_append", **arguments)
        await bo.noticed(UPDATED, CORE)
        await bo.noticed(UPDATED, "memory://context-budget")
        # A notification to cy would have arrived before the one for its own call.
        said = {"messages": [{"role": "user", "content": "Tea?"}]}
        await call(cy, "conversation_append", **said)
        await cy.noticed(UPDATED, "memory://context-budget")
        assert updated(cy) == ["memory://context-budget"]
        # The block is in each of bo's windows. No other agent learns which conversation ana is in.
        await bo.noticed(UPDATED, "memory://context-budget/affair")
        await bo.noticed(UPDATED, "memory://context-budget/another")


def updated(client: Wire) -> list[str]:
    return [notice["params"]["uri"] for notice in client.notices if notice["method"] == UPDATED]


async def test_another_agents_edit_that_was_not_seen_is_not_undone(join):
    async with join("ana", TEAM) as ana, join("bo", TEAM) as bo:
        await blocks(bo)
        await call(ana, "rethink_memory", label=TEAM, new_memory="Ana's version")
        refused = await call(bo, "rethink_memory", label=TEAM, new_memory="Bo's version")
        assert refused["structuredContent"]["error"] == "Conflict"
        assert (await blocks(ana))[TEAM]["value"] == "Ana's version"


async def test_an_own_block_of_the_label_is_out_of_view_and_kept(join):
    async with join("ana", TEAM) as ana:
        await call(ana, "core_memory_append", label=TEAM, content="Of all")
    async with join("bo") as bo:
        mine = {"label": TEAM, "new_memory": "Mine alone", "description": "My team"}
        await call(bo, "rethink_memory", **mine)
    async with join("bo", TEAM) as bo:
        assert (await blocks(bo))[TEAM]["value"] == "Of all"
        assert "Mine alone" not in "".join(bo.received)
    async with join("bo") as bo:
        assert (await blocks(bo))[TEAM]["value"] == "Mine alone"


async def test_the_handshake_shows_the_block_as_another_agent_left_it(join, servers):
    async with join("bo", TEAM) as bo:
        mine = {"label": "human", "content": "Bo's user"}
        await call(bo, "core_memory_append", **mine)
    async with join("ana", TEAM) as ana:
        await call(ana, "core_memory_append", label=TEAM, content="Tea <at> five")
    # From the copies beside the database: no memory of bo's is open.
    greeting = server_of(servers, "bo", TEAM).instructions or ""
    assert "Tea &lt;at&gt; five" in greeting
    assert "Bo's user" in greeting
    ungranted = server_of(servers, "bo").instructions or ""
    assert "Bo's user" in ungranted
    assert "Tea" not in ungranted


async def test_the_budget_counts_a_shared_block_for_those_who_are_granted_it(join):
    async with join("ana", TEAM) as ana, join("bo", TEAM, era=LEGACY) as bo, join("cy") as cy:
        before = [await core_tokens(client) for client in (bo, cy)]
        await call(ana, "core_memory_append", label=TEAM, content="one two three four five")
        after = [await core_tokens(client) for client in (bo, cy)]
        assert after[0] > before[0]
        assert after[1] == before[1]


async def core_tokens(client: Wire) -> int:
    tokens: int = (await call(client, "context_budget"))["structuredContent"]["parts"]["core"]
    return tokens


async def test_thinking_over_shows_what_others_changed_in_a_granted_block(join):
    async with join("ana", TEAM) as ana, join("bo", TEAM) as bo, join("cy") as cy:
        await call(ana, "core_memory_append", label=TEAM, content="Tea at five")
        changed = (await call(bo, "finish_rethinking_memory"))["structuredContent"]["changed"]
        assert [(change["label"], change["after"]) for change in changed] == [(TEAM, "Tea at five")]
        assert (await call(cy, "finish_rethinking_memory"))["structuredContent"]["changed"] == []
