"""Every resource can be subscribed to, tells of its changes, and of nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fakes import HashEmbedder, memory_of
from wires import ERAS, OpenServers, Wire, wire

from mcp_memory.agent import AgentMemory
from mcp_memory.server.app import MemoryServer
from mcp_memory.server.resources import RESOURCES, TEMPLATES
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.records import NewMessage

pytestmark = pytest.mark.anyio

UPDATED = "notifications/resources/updated"
TRIP = "memory://conversations/trip"


def append(conversation: str) -> Callable[[AgentMemory, str], object]:
    return lambda memory, _: memory.conversations.append([NewMessage("user", "Hi")], conversation)


def flush(memory: AgentMemory, _: str) -> object:
    messages = [NewMessage("user", f"Line {number}") for number in range(9)]
    memory.conversations.append(messages, "trip")
    return memory.conversations.flush("trip", "All is said.")


def edit(label: str, conversation: str = "main") -> Callable[[AgentMemory, str], object]:
    return lambda memory, _: memory.core.append(label, "Name: Ana", conversation)


def insert(memory: AgentMemory, _: str) -> object:
    return memory.archive.insert("Tea is in the cupboard")


def update(memory: AgentMemory, memory_id: str) -> object:
    return memory.archive.update(memory_id, content="The boiler is in the cellar")


def delete(memory: AgentMemory, memory_id: str) -> object:
    return memory.archive.delete(memory_id)


CHANGES: dict[str, list[Callable[[AgentMemory, str], object]]] = {
    "memory://core": [edit("human"), edit("working")],
    "memory://core/{label}": [edit("human")],
    "memory://context-budget": [append("main"), edit("human"), edit("working")],
    "memory://context-budget/{conversation}": [append("trip"), flush, edit("working", "trip")],
    "memory://conversations/{conversation}/recent": [append("trip"), flush],
    "memory://conversations/{conversation}/summary": [flush],
    "memory://conversations/{conversation}/resume": [append("trip"), edit("human"), insert],
    "memory://archival/{id}": [update, delete],
    "memory://events": [flush],
    "memory://status": [append("trip"), insert, update, delete],
}
"""Each resource with what changes it."""

OTHERS: dict[str, list[Callable[[AgentMemory, str], object]]] = {
    "memory://core": [insert, append("main"), edit("working", "trip")],
    "memory://core/{label}": [edit("persona"), flush],
    "memory://context-budget": [append("trip"), insert],
    "memory://conversations/{conversation}/summary": [append("trip"), edit("human")],
    "memory://archival/{id}": [insert, append("trip")],
    "memory://events": [insert, append("trip")],
}
"""Some resources with what doesn't change them."""


@pytest.fixture
def servers(settings) -> Any:
    opened = OpenServers(settings.model_copy(update={"rethink_every": 0}))
    yield opened
    opened.close()


@pytest.fixture
def server(servers) -> MemoryServer:
    found: MemoryServer = servers.server()
    return found


@pytest.fixture(params=ERAS)
async def client(request, server) -> AsyncIterator[Wire]:
    async with wire(server, request.param) as connected:
        yield connected


def filled(template: str, memory_id: str) -> str:
    return template.format(label="Human", conversation="trip", id=memory_id.upper())


def test_every_resource_that_is_listed_is_tried():
    listed = [resource.uri for resource in RESOURCES] + [one.uri_template for one in TEMPLATES]
    assert sorted(CHANGES) == sorted(map(str, listed))


@pytest.mark.parametrize("template", CHANGES)
async def test_a_subscriber_is_told_of_each_change(client, server, template):
    memory = await asyncio.to_thread(server.memory)
    stored = memory.archive.insert("The boiler is in the attic").memory.id
    uri = filled(template, stored)
    await client.watch(uri)
    for times, change in enumerate(CHANGES[template], start=1):
        await asyncio.to_thread(change, memory, stored)
        await client.noticed(UPDATED, uri, times=times)


@pytest.mark.parametrize("template", OTHERS)
async def test_a_subscriber_is_not_told_of_other_changes(client, server, template):
    memory = await asyncio.to_thread(server.memory)
    stored = memory.archive.insert("The boiler is in the attic").memory.id
    uri, last = filled(template, stored), "memory://context-budget/last"
    await client.watch(uri, last)
    for change in OTHERS[template]:
        await asyncio.to_thread(change, memory, stored)
    await asyncio.to_thread(append("last"), memory, stored)
    await client.noticed(UPDATED, last)
    told = {notice["params"]["uri"] for notice in client.notices if notice["method"] == UPDATED}
    assert told == {last}


@pytest.mark.parametrize(
    "uri",
    [
        f"{TRIP}/recent?before=3",
        f"{TRIP}/resume?max_tokens=900",
        "memory://conversations/%74rip/recent",
        "memory://context-budget/trip",
    ],
)
async def test_a_uri_is_told_in_the_spelling_of_its_subscriber(client, server, uri):
    await client.watch(uri)
    memory = await asyncio.to_thread(server.memory)
    await asyncio.to_thread(append("trip"), memory, "")
    await client.noticed(UPDATED, uri)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("memory://nope", "The resources are memory://core, memory://core/{label}"),
        ("https://example.org", "The resources are memory://core"),
        ("memory://conversations/trip", "The resources are memory://core"),
        ("memory://core/nobody", "there are persona, human, working"),
        ("memory://archival/0123456789", "there is no memory '0123456789'"),
        ("memory://conversations/%20/recent", "conversation is empty"),
    ],
)
async def test_a_resource_that_does_not_exist_cannot_be_subscribed_to(client, uri, said):
    legacy = client.era == ERAS[0]
    method = "resources/subscribe" if legacy else "subscriptions/listen"
    asked = {"uri": uri} if legacy else {"notifications": {"resourceSubscriptions": [uri]}}
    answer = await client.ask(method, asked)
    assert said in answer["error"]["message"]
    assert answer["error"]["code"] == -32602


async def test_a_stream_acknowledges_the_resources_that_exist(server):
    async with wire(server, ERAS[1]) as client:
        await client.watch("memory://core", "memory://nope")
        told = [n for n in client.notices if n["method"].endswith("subscriptions/acknowledged")]
        assert told[0]["params"]["notifications"]["resourceSubscriptions"] == ["memory://core"]


async def test_the_status_tells_when_the_model_is_ready(settings):
    engine = Engine(settings)
    memory = memory_of(engine)
    heard: list[frozenset[str]] = []
    memory.listen(heard.append)
    engine.use(HashEmbedder())
    assert heard == [frozenset({"embedding"})]
    memory.close()
