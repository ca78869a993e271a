"""Two clients on one core memory: an edit that would undo what a client hasn't seen is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import anyio
import pytest
from callers import ERAS, Caller
from fakes import HashEmbedder
from mcp import Client
from mcp_types import Implementation, PromptReference, ResourceTemplateReference

from mcp_memory.agent import AgentMemory, Memories
from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.server.app import MemoryServer
from mcp_memory.settings import Settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.dates import now

pytestmark = pytest.mark.anyio

HANDSHAKES = ("legacy", "auto")
"""How a client of each era asks for the instructions; "auto" ends with 2026-07-28."""


class OpenServer(Protocol):
    def __call__(self, *, since: datetime | None = None, **changes: object) -> MemoryServer: ...


Join = Callable[..., AbstractAsyncContextManager[Caller]]


@pytest.fixture
def memories(settings: Settings) -> Iterator[Memories]:
    opened = Memories(Engine(settings, embedder=HashEmbedder()))
    yield opened
    opened.close()


@pytest.fixture
def user(memories: Memories) -> AgentMemory:
    """Whoever edits outside of any client."""
    return memories.open("default")


@pytest.fixture
def server_of(memories: Memories, settings: Settings, user: AgentMemory) -> Iterator[OpenServer]:
    """Make the server of a connection, its instructions showing core memory as it is now."""
    servers: list[MemoryServer] = []

    def make(*, since: datetime | None = None, **changes: object) -> MemoryServer:
        own = settings.model_copy(update=changes)
        server = MemoryServer(
            lambda surface: memories.open("default", own, surface, since),
            core=user.core.compiled(),
            max_reply_tokens=own.max_reply_tokens,
        )
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def join(server_of: OpenServer) -> Join:
    """Connect a client to a server, to one of its own without."""

    @asynccontextmanager
    async def joined(
        era: str, name: str = "client", server: MemoryServer | None = None, **changes: Any
    ) -> AsyncIterator[Caller]:
        info = Implementation(name=name, version="1")
        async with Client(server or server_of(**changes), mode=era, client_info=info) as client:
            yield Caller(client)

    return joined


@pytest.mark.parametrize("other_era", ERAS)
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("together", [False, True])
async def test_a_rewrite_of_a_block_that_another_client_changed_is_a_conflict(
    join, server_of, era, other_era, together
):
    shared = server_of() if together else None
    async with join(era, "ana", shared) as ana, join(other_era, "ben", shared) as ben:
        await ana("rethink_user_memory", new_memory="Name: Ana")
        await ben("core_memory_append", label="human", content='Says "no"\n<ok>')
        refused = await ana.raw("rethink_user_memory", new_memory="Name: Ana\nLikes tea")
        value = 'Name: Ana\nSays "no"\n<ok>'
        assert refused.is_error
        assert refused.structured_content == {
            "error": "Conflict",
            "message": "the block 'human' was changed by another client since you read it",
            "hint": "Merge your change into its current value, and call again",
            "field": "new_memory",
            "value": value,
        }
        for part in ("message", "hint"):
            assert refused.structured_content[part] in refused.content[0].text
        assert json.dumps(value) in refused.content[0].text
        merged = f"{value}\nLikes tea"
        assert (await ana("rethink_user_memory", new_memory=merged))["version"] == 3
        assert (await ana("rethink_user_memory", new_memory=merged))["version"] == 3
        assert (await ben.refused("rethink_user_memory", new_memory="-"))["value"] == merged


@pytest.mark.parametrize("era", HANDSHAKES)
async def test_what_a_handshake_showed_is_seen_and_what_came_after_it_is_not(join, user, era):
    user.core.append("human", "Name: Ana")
    user.core.append("persona", "Kind")
    async with join(era) as ana:
        user.core.append("persona", "and brief")
        await ana("rethink_user_memory", new_memory="Name: Ana Sousa")
        fault = await ana.refused("rethink_memory", label="persona", new_memory="Brief")
        assert (fault["error"], fault["value"]) == ("Conflict", "Kind\nand brief")


@pytest.mark.parametrize("era", HANDSHAKES)
async def test_a_handshake_without_core_memory_has_shown_nothing(settings, memories, user, era):
    user.core.append("human", "Name: Ana")
    server = MemoryServer(
        lambda surface: memories.open("default", settings, surface),
        core=None,
        max_reply_tokens=2_000,
    )
    async with Client(server, mode=era) as client:
        ana = Caller(client)
        await ana.refused("rethink_user_memory", new_memory="Likes tea")
        await ana("rethink_memory", label="persona", new_memory="Kind")
    async with Client(server, mode=era, client_info=Implementation(name="b", version="1")) as next_:
        await Caller(next_)("rethink_user_memory", new_memory="Name: Ana\nLikes tea")
    server.close()


@pytest.mark.parametrize("era", ERAS)
async def test_after_a_take_over_what_changed_since_the_client_connected_is_unseen(join, user, era):
    user.core.append("persona", "Kind")
    since = now()
    user.core.append("human", "Name: Ana")
    async with join(era, since=since) as ana:
        await ana("rethink_memory", label="persona", new_memory="Brief")
        await ana.refused("rethink_user_memory", new_memory="Likes tea")


async def look(ana: Caller, way: str) -> None:
    kind, _, name = way.partition(" ")
    match kind:
        case "tool":
            await ana(name)
        case "resource":
            await ana.read(name)
        case "prompt":
            await ana.client.get_prompt(name, {})
        case "append":
            await ana("core_memory_append", label="human", content="Likes tea")
        case "refusal":
            await ana.refused("rethink_user_memory", new_memory="Likes tea")


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    "way",
    [
        "tool core_memory_view",
        "resource memory://core",
        "resource memory://core/human",
        "prompt memory_guide",
        "prompt reflect",
        "prompt resume",
        "append",
        "refusal",
    ],
)
async def test_a_client_that_was_shown_the_present_value_may_rewrite_it(join, user, era, way):
    async with join(era) as ana:
        await ana("context_budget")
        user.core.append("human", "Name: Ana")
        await look(ana, way)
        await ana("rethink_user_memory", new_memory="Name: Ana Sousa")


@pytest.mark.parametrize("era", ERAS)
async def test_what_shows_no_value_is_no_leave_to_rewrite(join, user, era):
    async with join(era) as ana:
        await ana("context_budget")
        user.core.append("human", "Name: Ana")
        client = ana.client
        await client.complete(
            ResourceTemplateReference(uri="memory://core/{label}"), {"name": "label", "value": "h"}
        )
        await client.complete(PromptReference(name="resume"), {"name": "conversation", "value": ""})
        await client.get_prompt("summarize_overflow", {})
        for uri in ("memory://status", "memory://events", "memory://core/persona"):
            await ana.read(uri)
        await ana("core_memory_append", label="persona", content="Kind")
        await ana.refused("rethink_user_memory", new_memory="Likes tea")


@pytest.mark.parametrize("era", ERAS)
async def test_one_client_is_not_shown_what_another_looks_at(join, server_of, user, era):
    server = server_of()
    async with join(era, "ana", server) as ana, join(era, "ben", server) as ben:
        await ana("core_memory_view")
        await ben("core_memory_view")
        user.core.append("human", "Name: Ana")
        await ben("core_memory_view")
        await ana.refused("rethink_user_memory", new_memory="Likes tea")
        await ben("rethink_user_memory", new_memory="Name: Ana\nLikes tea")


@pytest.mark.parametrize("era", ERAS)
async def test_a_text_that_another_client_took_away_is_a_conflict(join, era):
    async with join(era, "ana") as ana, join(era, "ben") as ben:
        await ana("rethink_user_memory", new_memory="Lives in Porto\nLikes tea")
        change = {"label": "human", "old_content": "Porto"}
        await ben("core_memory_replace", **change, new_content="Lisbon")
        fault = await ana.refused("core_memory_replace", **change, new_content="Braga")
        assert (fault["error"], fault["field"]) == ("Conflict", "old_content")
        assert fault["value"] == "Lives in Lisbon\nLikes tea"
        fault = await ana.refused("core_memory_replace", **change, new_content="Braga")
        assert fault["error"] == "MatchFault"


@pytest.mark.parametrize("era", ERAS)
async def test_calls_of_one_client_at_the_same_time_do_not_refuse_each_other(join, era):
    async with join(era) as ana, anyio.create_task_group() as group:
        for number in range(6):
            text = f"version {number}"
            group.start_soon(partial(ana, "rethink_user_memory", new_memory=text))


@pytest.mark.parametrize("era", ERAS)
async def test_the_refusal_of_one_call_is_no_leave_for_those_sent_with_it(
    join, memories, user, era, monkeypatch
):
    refused: list[dict[str, Any]] = []
    come_in: list[MemoryServer] = []
    memory = MemoryServer.memory

    def noted(server: MemoryServer) -> AgentMemory:
        come_in.append(server)
        return memory(server)

    async with join(era) as ana:
        await ana("context_budget")
        user.core.append("human", "Name: Ana")

        async def rewrite(text: str) -> None:
            refused.append(await ana.refused("rethink_user_memory", new_memory=text))

        monkeypatch.setattr(MemoryServer, "memory", noted)
        memories.engine.lock.acquire()  # Nobody gets on before all calls have come in.
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(rewrite, f"version {number}")
            try:
                with anyio.fail_after(10):
                    while len(come_in) < 3:
                        await anyio.lowlevel.checkpoint()
            finally:
                memories.engine.lock.release()
    assert [fault["value"] for fault in refused] == ["Name: Ana"] * 3
    assert user.core.get("human").value == "Name: Ana"


@pytest.mark.parametrize("era", ERAS)
async def test_a_long_value_is_cut_in_the_refusal_and_its_pages_show_all(join, user, settings, era):
    count = Tokenizer(cache_dir=settings.cache_dir).count
    long = "\n".join(f'{number}: she said "tea" \\ and 咖啡' for number in range(60))
    async with join(era, max_reply_tokens=300) as ana:
        await ana("context_budget")
        user.core.append("human", long)
        cursor = None
        pages = []
        while True:
            page = await ana("core_memory_view", **({"cursor": cursor} if cursor else {}))
            pages += [block["value"] for block in page["blocks"] if block["label"] == "human"]
            cursor = page.get("next_cursor")
            if cursor is None:
                break
        assert len(pages) > 1
        assert "".join(pages) == long
        await ana("rethink_user_memory", new_memory=f"{long}\nseen")
        user.core.append("human", "unseen")
        first = await ana("core_memory_view")
        assert "next_cursor" in first
        reply = await ana.raw("rethink_user_memory", new_memory="short")
        assert reply.is_error
        assert reply.structured_content["note"] == "cut; core_memory_view shows all of it"
        assert long.startswith(reply.structured_content["value"].removesuffix("…"))
        assert len(reply.structured_content["value"]) > 200
        for text in (
            reply.content[0].text,
            json.dumps(reply.structured_content, ensure_ascii=False),
        ):
            assert count(text) <= 300
        appended = await ana("core_memory_append", label="human", content="mine")
        assert "note" in appended
        user.core.append("human", "unseen again")
        await ana("core_memory_append", label="human", content="cut reply")
        await ana.refused("rethink_user_memory", new_memory="short")


async def test_requests_of_one_name_and_version_are_one_client_where_there_are_no_sessions(
    join, server_of
):
    server = server_of()
    era = "2026-07-28"
    async with join(era, "ana", server) as one, join(era, "ana", server) as two:
        await one("rethink_user_memory", new_memory="Name: Ana")
        await two("rethink_user_memory", new_memory="Likes tea")
