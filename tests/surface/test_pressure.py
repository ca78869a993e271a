"""The window as clients of both eras meet it: counted as sent, reported, alerted, announced."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from wires import ERAS, OpenServers, Wire, wire

from mcp_memory.values.records import NewMessage

pytestmark = pytest.mark.anyio

WINDOW = 6_000
BUDGET = "memory://context-budget"
EVENTS = "memory://events"
UPDATED = "notifications/resources/updated"
LINE = re.compile(r"^\[(\d+)\] \d{4}-\d\d-\d\d \d\d:\d\d ", re.MULTILINE)
"""Where a message begins in `recent`."""


@pytest.fixture
def servers(settings):
    changed = settings.model_copy(
        update={"context_window": WINDOW, "rethink_every": 0, "max_reply_tokens": 20_000}
    )
    servers = OpenServers(changed)
    yield servers
    servers.close()


@pytest.fixture(params=ERAS)
async def client(request, servers) -> AsyncIterator[Wire]:
    async with wire(servers.server(), request.param) as connected:
        yield connected


async def call(client: Wire, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.ask("tools/call", {"name": tool, "arguments": arguments})
    result = answer["result"]
    assert not result.get("isError"), result
    found: dict[str, Any] = result["structuredContent"]
    return found


async def read(client: Wire, uri: str) -> str:
    answer = await client.ask("resources/read", {"uri": uri})
    return str(answer["result"]["contents"][0]["text"])


async def say(client: Wire, text: str, count: int = 1, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"{text} {number}\n"} for number in range(count)]
    return await call(client, "conversation_append", messages=messages, **more)


async def say_until(client: Wire, level: str) -> dict[str, Any]:
    for _ in range(100):
        done = await say(client, "I fly TP-532 on Friday. " * 10)
        if done["level"] == level:
            return done
    raise AssertionError(f"level {level!r} was never reached")


async def test_the_parts_of_a_budget_are_the_tokens_of_what_the_server_really_sends(
    client, servers
):
    """All of it read as a client reads it, each text and each message counted by itself."""
    await call(client, "core_memory_append", label="human", content="Name: <Ana>")
    await call(client, "core_memory_append", label="working", content="Plan the trip.")
    await say_until(client, "flush")
    await say(client, "Obrigada, 谢谢!\n\n")
    count = servers.memories().engine.tokenizer.count
    tools = (await client.ask("tools/list"))["result"]["tools"]
    instructions = client.greeting["result"]["instructions"]
    frame = re.sub(r"(?<=<core_memory>\n).*(?=\n</core_memory>)", "", instructions, flags=re.S)
    shown = await call(client, "core_memory_view")
    labels = [block["label"] for block in shown["blocks"]]
    blocks = {label: await read(client, f"memory://core/{label}") for label in labels}
    working = blocks.pop("working")
    summary = await read(client, "memory://conversations/main/summary")
    recent = await read(client, "memory://conversations/main/recent")
    # Each ends with its line break; the marks of further lines are no part of a window.
    messages = LINE.split(f"{recent}\n".replace("\n| ", "\n"))[2::2]
    counted = {
        "instructions": count(frame),
        "tools": count(json.dumps(tools, ensure_ascii=False, separators=(",", ":"))),
        "core": count("\n".join(blocks.values())),
        "working": count(working),
        "summary": count(summary.partition("\n")[2]),
        "queue": sum(map(count, messages)),
    }
    budget = await call(client, "context_budget")
    assert budget["parts"] == counted
    assert budget["used_tokens"] == sum(counted.values())
    assert budget["counts"]["queue_messages"] == len(messages)
    assert budget["source"] == "counted"
    assert budget == json.loads(await read(client, BUDGET))


async def test_one_server_counts_for_each_era_what_it_sends_to_it(servers):
    """The same definitions, in another order: a few tokens more or less."""
    server = servers.server()
    count, counted = servers.memories().engine.tokenizer.count, set()
    for era in (*ERAS, *ERAS):
        async with wire(server, era) as client:
            tools = (await client.ask("tools/list"))["result"]["tools"]
            sent = count(json.dumps(tools, ensure_ascii=False, separators=(",", ":")))
            assert (await call(client, "context_budget"))["parts"]["tools"] == sent
            counted.add(sent)
    assert len(counted) == 2


async def test_a_client_says_what_is_really_in_its_window(client):
    done = await say(client, "hello", context_tokens=4_800)
    assert (done["used_tokens"], done["level"]) == (4_800, "warning")
    budget = json.loads(await read(client, BUDGET))
    assert (budget["source"], budget["reported_tokens"]) == ("reported", 4_800)
    assert budget["counted_tokens"] + budget["parts"]["other"] == 4_800 == budget["used_tokens"]
    budget = await call(client, "context_budget", context_tokens=100)
    assert (budget["source"], budget["reported_tokens"]) == ("counted", 100)
    assert budget["used_tokens"] == budget["counted_tokens"] == sum(budget["parts"].values())


@pytest.mark.parametrize("figure", [-5, 60_001])
async def test_a_figure_that_makes_no_sense_is_a_clear_error(client, figure):
    calls: dict[str, dict[str, Any]] = {
        "context_budget": {},
        "conversation_append": {"messages": []},
    }
    for tool, more in calls.items():
        arguments = {"context_tokens": figure} | more
        answer = await client.ask("tools/call", {"name": tool, "arguments": arguments})
        refusal = answer["result"]["structuredContent"]
        assert refusal["field"] == "context_tokens"
        assert f"{figure}; the window has {WINDOW} tokens" in refusal["message"]


async def test_an_alert_comes_once_with_the_next_reply_about_conversations(client, servers):
    writer = servers.memories().open("default", servers.settings)
    await say(client, "hello")
    for tool, arguments in (
        ("context_budget", {}),
        ("conversation_search", {"query": "kettle"}),
        ("store_memories", {"chunks": [{"start_index": 0, "end_index": 0, "context": "Hi."}]}),
    ):
        writer.conversations.flush()
        while writer.conversations.alert() is None:
            text = "tea and kettles " * 30
            if writer.conversations.append([NewMessage("user", text)]).alert:
                break
        replies = [await call(client, tool, **arguments) for _ in range(2)]
        assert "store_memories" in replies[0]["alert"]
        assert "alert" not in replies[1]
        assert "alert" not in await call(client, "archival_memory_search", query="kettle")


async def test_subscribers_are_told_of_the_budget_and_of_events_on_a_warning_and_a_flush(client):
    await client.watch(BUDGET, EVENTS)
    for times, level in enumerate(("warning", "flush"), start=1):
        done = await say_until(client, level)
        assert done["alert"]
        await client.noticed(UPDATED, EVENTS, times=times)
        newest = json.loads(await read(client, EVENTS))["events"][0]
        assert newest["kind"] == {"warning": "pressure_warning", "flush": "flushed"}[level]
    await client.noticed(UPDATED, BUDGET, times=2)


async def test_the_summary_says_which_it_is(client, servers):
    await say(client, "I fly TP-532 on Friday.", 10)
    first = await call(client, "conversation_flush", summary="Ana flies.")
    await say(client, "The kettle whistles.", 10)
    second = await call(client, "conversation_flush")
    shown = await read(client, "memory://conversations/main/summary")
    head, _, text = shown.partition("\n")
    for part in (
        second["summary_id"],
        "version 1",
        f"after {first['summary_id']}",
        "by extractive",
        f"messages {first['evicted']} to ",
    ):
        assert part in head
    assert text == second["summary"]


async def test_older_messages_of_a_long_queue_are_a_page_further(settings):
    servers = OpenServers(settings.model_copy(update={"max_reply_tokens": 400}))
    async with wire(servers.server(), ERAS[0]) as client:
        await say(client, "tea and kettles " * 5, 30)
        uri, seen = "memory://conversations/main/recent", list[int]()
        for _ in range(30):
            page = await read(client, uri)
            seen = [int(index) for index in LINE.findall(page)] + seen
            more = re.search(r"memory://conversations/main/recent\?before=\d+", page)
            if more is None:
                break
            uri = more[0]
        assert seen == list(range(30))
        for wrong in ("x", "-1", "9" * 5_000):
            answer = await client.ask(
                "resources/read", {"uri": f"memory://conversations/main/recent?before={wrong}"}
            )
            assert "before" in answer["error"]["message"]
    servers.close()
