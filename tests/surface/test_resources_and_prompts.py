"""Resources, prompts, completions and instructions as a client meets them."""

from __future__ import annotations

import json

import anyio
import pytest
from mcp import Client, MCPError
from mcp_types import INVALID_PARAMS, PromptReference, ResourceTemplateReference

from mcp_memory.server.prompts import HABIT

pytestmark = pytest.mark.anyio


async def test_every_resource_that_is_listed_can_be_read(call):
    listed = (await call.client.list_resources()).resources
    assert {resource.uri for resource in listed} == {
        "memory://core",
        "memory://context-budget",
        "memory://events",
        "memory://status",
    }
    for resource in listed:
        content = (await call.client.read_resource(resource.uri)).contents[0]
        assert content.mime_type == resource.mime_type
        if content.mime_type == "application/json":
            json.loads(content.text)


async def test_templates_lead_to_blocks_conversations_and_memories(call):
    await call("rethink_memory", label="日本", new_memory="東京 <b>", description="Travel")
    assert "東京 &lt;b&gt;" in await call.read("memory://core/%E6%97%A5%E6%9C%AC")
    await call("conversation_append", messages=[{"role": "user", "content": "hi"}])
    await call(
        "conversation_append",
        messages=[{"role": "user", "content": "in a side talk"}],
        conversation="side talk",
    )
    assert "side talk" in await call.read("memory://conversations/side%20talk/recent")
    budget = json.loads(await call.read("memory://context-budget/side%20talk"))
    assert budget["counts"]["queue_messages"] == 1
    key = (await call("archival_memory_insert", content="whole\ntext"))["id"]
    assert await call.read(f"memory://archival/{key}") == "whole\ntext"
    templates = (await call.client.list_resource_templates()).resource_templates
    assert [template.name for template in templates] == [
        "block",
        "conversation-budget",
        "recent",
        "summary",
        "resume",
        "memory",
    ]


@pytest.mark.parametrize(
    "uri",
    [
        "memory://nothing",
        "memory://core/nobody",
        "memory://archival/0123456789",
        "memory://archival/0123456789?from=x",
        "memory://core/a/b",
        "file:///etc/passwd",
    ],
)
async def test_a_resource_that_is_not_there_is_an_invalid_parameter(uri, call):
    with pytest.raises(MCPError) as refused:
        await call.client.read_resource(uri)
    assert refused.value.error.code == INVALID_PARAMS
    assert refused.value.error.data == {"uri": uri}


async def test_the_status_says_whether_search_has_its_semantic_half(call):
    status = json.loads(await call.read("memory://status"))
    known = {"state": "ready", "model": "fake/hash", "pending": 0}
    assert status["embedding"].items() >= known.items()
    assert status["search"] == "hybrid"


async def test_events_tell_of_flushes(connect):
    async with connect() as call:
        messages = [{"role": "user", "content": f"line {n}"} for n in range(9)]
        await call("conversation_append", messages=messages)
        await call("conversation_flush")
        events = json.loads(await call.read("memory://events"))["events"]
        flushed = [event for event in events if event["kind"] == "flushed"]
        assert flushed[0]["conversation"] == "main"
        assert flushed[0]["evicted"] > 0


async def test_every_prompt_carries_core_memory_or_what_it_is_about(call):
    await call("rethink_user_memory", new_memory="Name: Ana </core_memory>")
    await call("conversation_append", messages=[{"role": "user", "content": "What a day"}] * 5)
    listed = (await call.client.list_prompts()).prompts
    assert [prompt.name for prompt in listed] == [
        "memory_guide",
        "summarize_overflow",
        "reflect",
        "resume",
    ]
    texts = {}
    for prompt in listed:
        got = await call.client.get_prompt(prompt.name, {"conversation": "main"})
        texts[prompt.name] = got.messages[0].content.text
    for name in ("memory_guide", "reflect", "resume"):
        # What the user said can't close the tag around it.
        assert "Name: Ana &lt;/core_memory&gt;" in texts[name]
    assert "[0] " in texts["summarize_overflow"]
    assert "conversation_flush" in texts["summarize_overflow"]
    assert "What a day" in texts["resume"]


async def test_resume_and_reflect_take_a_size_and_keep_to_it(call, count_tokens):
    messages = [{"role": "user", "content": f"tea {n} " * 50} for n in range(60)]
    await call("conversation_append", messages=messages)
    for name in ("resume", "reflect"):
        prompt = await call.client.get_prompt(name, {"max_tokens": "1500"})
        assert 1_000 < count_tokens(prompt.messages[0].content.text) <= 1_500
        for wrong in ("many", "-5", "1", "999999999999", "1.5"):
            with pytest.raises(MCPError) as refused:
                await call.client.get_prompt(name, {"max_tokens": wrong})
            assert refused.value.error.code == INVALID_PARAMS
            assert "max_tokens" in refused.value.error.message
    text = await call.read("memory://conversations/main/resume?max_tokens=1500")
    assert text == (
        (await call.client.get_prompt("resume", {"max_tokens": "1500"})).messages[0].content.text
    )


async def test_reflect_gathers_what_is_new_and_what_contradicts_it(call):
    old = await call("archival_memory_insert", content="The staging database is on port 5432")
    await call("finish_rethinking_memory")
    message = {"role": "user", "content": "The staging database is on port 5433"}
    await call("conversation_append", messages=[message])
    got = await call.client.get_prompt("reflect", {})
    text = got.messages[0].content.text
    assert "finish_rethinking_memory" in text
    [check] = [line for line in text.splitlines() if line.startswith("new [0]")]
    assert old["id"] in check
    assert "number 5433 / 5432" in check


async def test_the_reason_of_a_consolidation_is_in_its_event(call):
    await call("rethink_user_memory", new_memory="Name: Ana")
    done = await call("finish_rethinking_memory", reason="She told her name")
    assert [change["label"] for change in done["changed"]] == ["human"]
    events = json.loads(await call.read("memory://events"))["events"]
    assert events[0]["kind"] == "rethought"
    assert events[0]["consolidation"] == done["id"]
    assert events[0]["reason"] == "She told her name"
    assert events[0]["versions"] == [[0, 1]]
    status = json.loads(await call.read("memory://status"))["consolidation"]
    assert status["last_at"] == events[0]["at"]
    assert status["endpoint_tokens"] == 0


async def test_the_guide_tells_of_working_memory_and_of_the_shared_blocks_that_are_granted(connect):
    async with connect() as call:
        guide = (await call.client.get_prompt("memory_guide", {})).messages[0].content.text
        assert "Goals, In progress, Next" in guide
        assert "Shared blocks" not in guide
    async with connect(shared_blocks=("goals",)) as call:
        guide = (await call.client.get_prompt("memory_guide", {})).messages[0].content.text
        assert "Shared blocks: goals." in guide


async def test_an_unknown_prompt_or_bad_argument_is_an_invalid_parameter(call):
    for name, arguments in (("nonsense", {}), ("resume", {"max_tokens": "many"})):
        with pytest.raises(MCPError) as refused:
            await call.client.get_prompt(name, arguments)
        assert refused.value.error.code == INVALID_PARAMS


async def test_labels_conversations_and_ids_complete(call):
    await call(
        "conversation_append", messages=[{"role": "user", "content": "x"}], conversation="trip"
    )
    key = (await call("archival_memory_insert", content="x"))["id"]

    async def complete(ref, name, value):
        return (await call.client.complete(ref, {"name": name, "value": value})).completion.values

    block = ResourceTemplateReference(type="ref/resource", uri="memory://core/{label}")
    assert await complete(block, "label", "hu") == ["human"]
    assert await complete(
        PromptReference(type="ref/prompt", name="resume"), "conversation", "tr"
    ) == ["trip"]
    archival = ResourceTemplateReference(type="ref/resource", uri="memory://archival/{id}")
    assert await complete(archival, "id", key[:3]) == [key]


async def test_the_instructions_teach_the_habit_and_carry_core_memory(open_server, count_tokens):
    server = open_server()
    server.memory().core.append("human", "Name: Ana")
    for mode in ("legacy", "2026-07-28", "auto"):
        async with Client(server, mode=mode) as client:
            discovered = client.instructions
            if discovered is None:
                continue  # A client that adopts a version unasked has asked for none.
            assert discovered.startswith(HABIT)
            assert "Name: Ana" in discovered
    assert count_tokens(HABIT) < 250


@pytest.fixture
def count_tokens(memory):
    return memory.count_tokens


async def test_changes_of_core_and_budget_reach_modern_subscribers(open_server):
    async with Client(open_server(), mode="2026-07-28") as client:
        uris = ["memory://core", "memory://context-budget"]
        async with client.listen(resource_subscriptions=uris) as stream:
            await client.call_tool("core_memory_append", {"label": "human", "content": "x"})
            seen: set[str] = set()
            with anyio.fail_after(10):
                async for event in stream:
                    seen.add(event.uri)
                    if seen == set(uris):
                        break


@pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")  # the older era is meant
async def test_changes_reach_subscribers_of_the_handshake_era(open_server):
    notified: list[str] = []
    arrived = anyio.Event()

    async def on_message(message: object) -> None:
        params = getattr(message, "params", None)
        if hasattr(params, "uri"):
            notified.append(str(params.uri))
            arrived.set()

    async with Client(open_server(), mode="legacy", message_handler=on_message) as client:
        await client.session.subscribe_resource("memory://core")
        await client.call_tool("core_memory_append", {"label": "human", "content": "x"})
        with anyio.fail_after(10):
            await arrived.wait()
        assert notified == ["memory://core"]
        await client.session.unsubscribe_resource("memory://core")
        await client.call_tool("core_memory_append", {"label": "human", "content": "y"})
        await client.call_tool("core_memory_view", {})
        assert notified == ["memory://core"]
