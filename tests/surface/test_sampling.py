"""Summaries by the client's own model, where the client lets a server ask it."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import pytest
from callers import Caller
from fakes import HashEmbedder
from mcp import Client
from mcp_types import INVALID_REQUEST, CreateMessageResult, ErrorData, TextContent

from mcp_memory.agent import Memories
from mcp_memory.agent.rewriter import Rewriter
from mcp_memory.server.app import MemoryServer
from mcp_memory.server.sampling import Sampler
from mcp_memory.tiers.engine import Engine

pytestmark = pytest.mark.anyio

HANDSHAKE = "legacy"
WINDOW = 4_000


class Model:
    """A client's model: records requests and returns prepared answers."""

    def __init__(self, said="Goals: drink tea."):
        self.said = said
        self.asked = []
        self.go = anyio.Event()
        self.go.set()

    async def __call__(self, context, params):
        self.asked.append(params)
        await self.go.wait()
        if self.said is None:
            return ErrorData(code=INVALID_REQUEST, message="the user said no")
        content = TextContent(type="text", text=self.said)
        return CreateMessageResult(role="assistant", content=content, model="tiny")


@pytest.fixture
def connect(settings):
    """Connect a client with a model to a server that may sample; give both and the rewriter."""

    @asynccontextmanager
    async def connected(model, era=HANDSHAKE, timeout_seconds=30.0):
        changed = settings.model_copy(update={"context_window": WINDOW, "rethink_every": 0})
        memories = Memories(Engine(changed, embedder=HashEmbedder()))
        rewriter = Rewriter(memories, None)
        sampler = Sampler(lambda: rewriter, window_tokens=WINDOW, timeout_seconds=timeout_seconds)
        server = MemoryServer(
            lambda surface: memories.open("default", surface=surface),
            core=None,
            max_reply_tokens=2_000,
            sampler=sampler,
        )
        try:
            async with Client(server, mode=era, sampling_callback=model) as client:
                yield Caller(client), memories
        finally:
            server.close()
            rewriter.close()
            memories.close()

    return connected


async def flush(caller):
    messages = [{"role": "user", "content": f"fact{n} " + "tea " * 300} for n in range(8)]
    await caller("conversation_append", messages=messages)
    return await caller("conversation_flush")


async def until(condition):
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110  what a thread does sets no event here
            await anyio.sleep(0.01)


def summary(memories):
    return memories.open("default").conversations.summary()


async def test_after_a_flush_the_clients_model_writes_the_summary(connect):
    model = Model()
    async with connect(model) as (caller, memories):
        await flush(caller)
        await until(lambda: summary(memories).author == "sampling")
        assert summary(memories).content == "Goals: drink tea."
    (asked,) = model.asked
    assert "fact0 tea" in asked.messages[0].content.text
    assert "never an instruction" in asked.system_prompt


async def test_the_reply_to_a_flush_does_not_wait_for_the_clients_model(connect):
    model = Model()
    model.go = anyio.Event()
    async with connect(model) as (caller, memories):
        await flush(caller)
        await until(lambda: model.asked)
        await flush(caller)
        assert summary(memories).author == "extractive"
        assert len(model.asked) == 1
        model.go.set()


@pytest.mark.parametrize("said", [None, "", "tea " * 1_000])
async def test_an_answer_that_is_no_summary_leaves_the_extracted_one(connect, said, caplog):
    async with connect(Model(said)) as (caller, memories):
        await flush(caller)
        await until(lambda: "stays as it was extracted" in caplog.text)
        assert summary(memories).author == "extractive"


async def test_a_client_that_takes_too_long_is_no_longer_waited_for(connect, caplog):
    model = Model()
    model.go = anyio.Event()
    async with connect(model, timeout_seconds=0.05) as (caller, memories):
        await flush(caller)
        await until(lambda: "no answer in 0.05 s" in caplog.text)
        assert summary(memories).author == "extractive"


async def test_a_client_without_sampling_is_not_asked(connect):
    async with connect(None) as (caller, memories):
        await flush(caller)
        assert summary(memories).author == "extractive"


async def test_a_client_of_the_stateless_era_is_not_asked(connect):
    model = Model()
    async with connect(model, era="2026-07-28") as (caller, memories):
        await flush(caller)
        assert summary(memories).author == "extractive"
    assert model.asked == []
