"""The tools as a client meets them."""

from __future__ import annotations

import json

import pytest

from mcp_memory.server.app import tool_list, tools_text
from mcp_memory.server.tools import TOOLS

pytestmark = pytest.mark.anyio

NAMES = [
    "core_memory_view",
    "core_memory_append",
    "core_memory_replace",
    "rethink_memory",
    "rethink_user_memory",
    "finish_rethinking_memory",
    "conversation_append",
    "conversation_search",
    "conversation_flush",
    "store_memories",
    "context_budget",
    "archival_memory_insert",
    "archival_memory_search",
    "archival_memory_update",
    "archival_memory_delete",
]


async def test_the_tools_come_in_a_fixed_order(call):
    for _ in range(2):
        assert [tool.name for tool in (await call.client.list_tools()).tools] == NAMES


async def test_all_definitions_together_stay_under_8_kb_and_2000_tokens(memory):
    listed = tool_list().model_dump_json(by_alias=True, exclude_none=True)
    assert len(listed.encode()) < 8_000
    assert memory.count_tokens(tools_text()) < 2_000


async def test_annotations_say_which_tools_change_something(call):
    listed = {tool.name: tool.annotations for tool in (await call.client.list_tools()).tools}
    readers = {name for name, hints in listed.items() if hints.read_only_hint}
    assert readers == {
        "core_memory_view",
        "conversation_search",
        "context_budget",
        "archival_memory_search",
    }
    destructive = {name for name, hints in listed.items() if hints.destructive_hint}
    assert destructive == {
        "core_memory_replace",
        "rethink_memory",
        "rethink_user_memory",
        "archival_memory_update",
        "archival_memory_delete",
    }


async def test_every_reply_is_complete_as_text_and_as_data(call):
    await call("core_memory_append", label="human", content="Likes <tea> & toast")
    inserted = await call.raw("archival_memory_insert", content="Tea is in the left cupboard")
    assert json.loads(inserted.content[0].text) == inserted.structured_content
    view = await call.raw("core_memory_view")
    assert "Likes &lt;tea&gt; &amp; toast" in view.content[0].text
    assert "Likes <tea> & toast" in view.structured_content["blocks"][1]["value"]


async def test_core_memory_is_edited_step_by_step(call):
    first = await call("core_memory_append", label="human", content="Name: Ana")
    assert (first["value"], first["limit"], first["version"]) == ("Name: Ana", 2000, 1)
    assert first["tokens"] > 0
    await call("core_memory_append", label="human", content="City: Lisbon")
    moved = await call(
        "core_memory_replace", label="human", old_content="Lisbon", new_content="Porto"
    )
    assert moved["value"] == "Name: Ana\nCity: Porto"
    gone = await call(
        "core_memory_replace", label="human", old_content="City: Porto", new_content=""
    )
    assert gone["value"] == "Name: Ana"
    whole = await call("rethink_user_memory", new_memory="Ana, 34")
    assert (whole["label"], whole["value"]) == ("human", "Ana, 34")
    made = await call(
        "rethink_memory", label="project", new_memory="Ship it", description="The project"
    )
    assert made["created"] is True
    done = await call("finish_rethinking_memory")
    # Since it began: what was appended before the first rewrite is no part of it.
    assert [(c["label"], c["before"], c["after"]) for c in done["changed"]] == [
        ("human", "Name: Ana", "Ana, 34"),
        ("project", None, "Ship it"),
    ]
    assert (await call("finish_rethinking_memory"))["changed"] == []


async def test_the_working_block_belongs_to_one_conversation(call):
    await call("core_memory_append", label="working", content="Goal A", conversation="a")
    a = await call("core_memory_view", conversation="a")
    b = await call("core_memory_view", conversation="b")
    assert a["blocks"][2]["value"] == "Goal A"
    assert b["blocks"][2]["value"] == ""
    assert a["blocks"][2]["scope"] == "conversation"


async def test_a_conversation_is_recorded_and_found(call):
    appended = await call(
        "conversation_append",
        messages=[
            {"role": "user", "content": "My locker number is 4711", "name": "Ana"},
            {"role": "assistant", "content": "Noted.", "created_at": "2026-03-01T10:00:00Z"},
        ],
    )
    assert len(appended["ids"]) == 2
    assert appended["level"] == "ok"
    assert 0 < appended["pressure"] < 1
    found = await call("conversation_search", query="locker number")
    assert found["results"][0] | {"score": 0, "at": ""} == {
        "id": appended["ids"][0],
        "score": 0,
        "text": "My locker number is 4711",
        "role": "user",
        "name": "Ana",
        "conversation": "main",
        "index": 0,
        "at": "",
        "why": ["lexical", "semantic"],
    }
    assert found["search"] == "hybrid"


async def test_archival_memories_are_kept_found_corrected_and_deleted(call):
    stored = await call(
        "archival_memory_insert",
        content="The boiler was serviced in May",
        tags=["house"],
        kind="episode",
        happened_at="2026-05-04",
    )
    assert stored["created"] is True
    assert stored["embedding"] == "stored"
    hit = (await call("archival_memory_search", query="boiler"))["results"][0]
    assert (hit["id"], hit["kind"], hit["tags"]) == (stored["id"], "episode", ["house"])
    assert hit["at"] == "2026-05-04T00:00:00Z"
    changed = await call(
        "archival_memory_update", id=stored["id"], content="The boiler was serviced in June"
    )
    assert (changed["id"], changed["version"]) == (stored["id"], 2)
    texts = [r["text"] for r in (await call("archival_memory_search", query="boiler"))["results"]]
    assert texts == ["The boiler was serviced in June"]
    assert (await call("archival_memory_delete", id=stored["id"].upper()))["deleted"] is True
    assert (await call("archival_memory_search", query="boiler"))["total"] == 0
    assert (await call.refused("archival_memory_delete", id=stored["id"]))["error"] == "NotFound"


async def test_pages_of_a_search_join_without_gap_or_repetition(call):
    for number in range(12):
        await call("archival_memory_insert", content=f"Note {number} about the garden")
    seen: list[str] = []
    cursor = None
    while True:
        page = await call("archival_memory_search", query="garden", top_k=5, cursor=cursor)
        assert page["total"] == 12
        seen += [hit["id"] for hit in page["results"]]
        cursor = page.get("next_cursor")
        if cursor is None:
            break
        # What others write meanwhile does not shift the pages.
        await call("archival_memory_insert", content=f"Late garden note {len(seen)}")
    assert len(seen) == len(set(seen)) == 12


async def test_a_flush_moves_the_oldest_messages_into_a_summary(call):
    messages = [
        {"role": "user", "content": f"On day {day} we drove {day * 10} km to stop {day}."}
        for day in range(8)
    ]
    await call("conversation_append", messages=messages)
    flush = await call("conversation_flush")
    assert flush["evicted"] + flush["kept"] == 8
    assert flush["evicted"] >= 1
    assert flush["kept"] >= 3
    assert flush["author"] == "extractive"
    assert "day 0" in flush["summary"]
    found = await call("conversation_search", query="day 0 stop")
    assert found["results"][0]["index"] == 0


async def test_a_client_writes_the_summary_of_what_it_was_shown(call):
    await call(
        "conversation_append",
        messages=[{"role": "user", "content": f"Line {n} of the plan"} for n in range(10)],
    )
    prompt = await call.client.get_prompt("summarize_overflow")
    shown = prompt.messages[0].content.text
    assert "[0] " in shown
    last = max(n for n in range(10) if f"Line {n} of the plan" in shown)
    # More is said before the summary is ready: it must not be evicted unseen.
    await call("conversation_append", messages=[{"role": "user", "content": "Line 10"}])
    flush = await call("conversation_flush", summary="A plan of ten lines.")
    assert flush["evicted"] == last + 1
    assert (flush["summary"], flush["author"]) == ("A plan of ten lines.", "client")
    shown = await call.read("memory://conversations/main/summary")
    assert shown.endswith("\nA plan of ten lines.")
    assert shown.startswith(f"[summary {flush['summary_id']}, version 1, by client: messages 0 to ")


async def test_ranges_of_the_conversation_are_kept_verbatim(call):
    await call(
        "conversation_append",
        messages=[
            {"role": "user", "content": "The port is 5433"},
            {"role": "assistant", "content": "Was 5432 before?"},
            {"role": "user", "content": "Yes, until Monday"},
        ],
    )
    chunk = {"start_index": 0, "end_index": 1, "context": "Database port", "kind": "technical"}
    stored = await call("store_memories", chunks=[chunk])
    hit = (await call("archival_memory_search", query="database port"))["results"][0]
    assert hit["id"] == stored["ids"][0]
    assert hit["text"] == "Database port\n\nuser: The port is 5433\nassistant: Was 5432 before?"
    again = await call("store_memories", chunks=[chunk])
    assert again["ids"] == stored["ids"]
    assert again["stored"][0]["created"] is False


async def test_the_budget_is_the_sum_of_its_parts(call):
    await call("conversation_append", messages=[{"role": "user", "content": "Hello"}])
    budget = await call("context_budget")
    assert budget["used_tokens"] == sum(budget["parts"].values())
    assert budget["free_tokens"] == budget["window_tokens"] - budget["used_tokens"]
    assert budget["counts"]["queue_messages"] == 1
    assert budget["parts"]["tools"] > 1000
    assert json.loads(await call.read("memory://context-budget")) == budget


async def test_past_the_threshold_the_reply_says_what_to_do_once(connect):
    async with connect(context_window=4_000) as call:
        alerts = []
        for number in range(80):
            text = f"Message {number}: " + "a walk along the river and back " * 6
            reply = await call("conversation_append", messages=[{"role": "user", "content": text}])
            alerts.append((reply["level"], "alert" in reply))
            if reply["level"] == "flush":
                break
        warned = [alert for level, alert in alerts if level == "warning"]
        assert warned[0] is True
        assert not any(warned[1:])
        assert alerts[-1] == ("flush", True)
        assert reply["flushed"]["evicted"] > 0
        assert reply["pressure"] < 1


def test_each_tool_has_a_handler_of_its_name():
    assert list(TOOLS) == NAMES


async def test_a_summary_that_comes_after_the_server_had_to_flush_takes_its_place(connect):
    async with connect(context_window=4_000) as call:
        text = "we walked along the river and back "
        messages = [{"role": "user", "content": f"Stop {n}: {text * 6}"} for n in range(10)]
        await call("conversation_append", messages=messages)
        prompt = (await call.client.get_prompt("summarize_overflow")).messages[0].content.text
        assert "Stop 0" in prompt
        reply: dict[str, object] = {}
        number = 10
        while "flushed" not in reply:
            message = {"role": "user", "content": f"Stop {number}: {text * 6}"}
            reply = await call("conversation_append", messages=[message])
            number += 1
        flush = await call("conversation_flush", summary="Many stops by the river.")
        assert flush["evicted"] == 0
        assert flush["author"] == "client"
        # What left unseen by the client follows in extracts; nothing of it is lost.
        assert flush["summary"].startswith("Many stops by the river.\n")
