"""What a client learns about kinds: in the overflow prompt and in the reply of store_memories."""

from __future__ import annotations

import json

import pytest

from mcp_memory.values.kinds import DEFAULTS
from mcp_memory.values.records import Kind

pytestmark = pytest.mark.anyio


def messages(count: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Line {number}"} for number in range(count)]


async def test_the_overflow_prompt_tells_how_each_kind_is_meant(connect):
    mine = DEFAULTS[Kind.FACT].model_copy(update={"guidance": "Facts are short."})
    async with connect(kinds={**DEFAULTS, Kind.FACT: mine}) as call:
        await call("conversation_append", messages=messages(6))
        prompt = await call.client.get_prompt("summarize_overflow")
        text = prompt.messages[0].content.text
    for kind, policy in DEFAULTS.items():
        guidance = "Facts are short." if kind is Kind.FACT else policy.guidance
        assert f"  - {kind.value}: {guidance}\n" in text


async def test_a_reply_tells_how_the_kinds_that_were_stored_are_meant(call):
    await call("conversation_append", messages=messages(2))
    chunks = [
        {"start_index": 0, "end_index": 0, "context": "One.", "kind": "project"},
        {"start_index": 1, "end_index": 1, "context": "Two."},
    ]
    stored = await call("store_memories", chunks=chunks)
    assert stored["kinds"] == {
        kind.value: DEFAULTS[kind].guidance for kind in (Kind.PROJECT, Kind.EPISODE)
    }


async def test_near_duplicates_of_what_is_stored_are_named(call):
    words = " ".join(f"word{number}" for number in range(40))
    first = await call("archival_memory_insert", content=f"{words} end.")
    await call("conversation_append", messages=messages(1))
    chunk = {"start_index": 0, "end_index": 0, "context": f"{words} ended.", "kind": "reflection"}
    stored = await call("store_memories", chunks=[chunk])
    assert stored["stored"][0]["near_duplicates"] == [first["id"]]


async def test_a_reply_about_many_ranges_names_all_ids_and_keeps_to_its_limit(connect, memory):
    async with connect(max_reply_tokens=1_000) as call:
        await call("conversation_append", messages=messages(100))
        chunks = [
            {"start_index": number, "end_index": number, "context": f"Number {number}."}
            for number in range(100)
        ]
        result = await call.client.call_tool("store_memories", {"chunks": chunks})
        reply = json.loads(result.content[0].text)
        budget = await call("context_budget")
    assert len(set(reply["ids"])) == 100
    assert budget["counts"]["memories"] == 100
    assert memory.count_tokens(result.content[0].text) <= 1_000
