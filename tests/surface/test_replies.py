"""No reply of a tool is over the limit, whatever is stored, and nothing is out of reach."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp_types import CallToolResult
from stores import database_of

from mcp_memory.server.replies import Fitter, compact

pytestmark = pytest.mark.anyio

LIMIT = 2_000


def check(memory_or_count: Any, result: CallToolResult, limit: int = LIMIT) -> None:
    count = memory_or_count
    assert not result.is_error, result.content[0].text
    assert count(result.content[0].text) <= limit
    assert count(compact(result.structured_content)) <= limit


@pytest.fixture
def count(memory):
    return memory.count_tokens


async def test_a_10_mb_memory_is_stored_and_every_reply_stays_short(connect, count):
    lines = [
        f"Line {n}: the quick survey of plot {n * 7} found {n % 13} oaks." for n in range(180_000)
    ]
    text = "\n".join([*lines, "The last sentence names the heron."])
    assert len(text.encode()) > 10_000_000
    async with connect() as call:
        inserted = await call.raw("archival_memory_insert", content=text)
        check(count, inserted)
        found = await call.raw("archival_memory_search", query="heron")
        check(count, found)
        hit = found.structured_content["results"][0]
        assert "heron" in hit["text"]
        check(count, await call.raw("archival_memory_search"))
        page = await call.read(f"memory://archival/{hit['id']}")
        assert count(page) <= LIMIT
        assert f"memory://archival/{hit['id']}?from=" in page


async def test_a_long_memory_is_read_page_by_page_to_its_end(connect):
    text = "\n".join(f"{n}: {'word ' * 20}".strip() for n in range(500))
    async with connect() as call:
        key = (await call("archival_memory_insert", content=text))["id"]
        uri, read = f"memory://archival/{key}", ""
        while True:
            page = await call.read(uri)
            body, mark, rest = page.rpartition("\n[")
            if "?from=" not in rest or not mark:
                read += page
                break
            read += body
            uri = rest.rpartition(": ")[2].rstrip("]")
        assert read == text


async def test_the_longest_hits_are_cut_around_what_matched(connect, count):
    filler = "Nothing of note happened in the valley on that day. " * 28
    async with connect() as call:
        for number in range(20):
            await call(
                "archival_memory_insert",
                content=f"{filler}Report {number} mentions the capybara. {filler}",
            )
        result = await call.raw("archival_memory_search", query="capybara", top_k=20)
        check(count, result)
        hits = result.structured_content["results"]
        assert len(hits) == 20
        assert all("capybara" in hit["text"] for hit in hits)


async def test_every_page_of_fifty_is_short_and_all_are_reached(connect, count):
    async with connect() as call:
        messages = [
            {"role": "user", "content": f"Entry {n} 我们在花园里 " + "of the long garden log " * 12}
            for n in range(60)
        ]
        await call("conversation_append", messages=messages)
        seen, cursor = [], None
        while True:
            result = await call.raw(
                "conversation_search", query="garden log", limit=50, cursor=cursor
            )
            check(count, result)
            seen += [hit["index"] for hit in result.structured_content["results"]]
            cursor = result.structured_content.get("next_cursor")
            if cursor is None:
                break
        assert sorted(seen) == list(range(60))


async def test_full_blocks_are_viewed_page_by_page(connect, count):
    async with connect(context_window=200_000) as call:
        values = {}
        for number in range(4):
            label = f"block{number}"
            values[label] = f"{number} " + "lorem ipsum dolor " * 480
            reply = await call.raw(
                "rethink_memory", label=label, new_memory=values[label], description="A full one"
            )
            check(count, reply)
        seen: dict[str, str] = {}
        cursor = None
        while True:
            result = await call.raw("core_memory_view", cursor=cursor)
            check(count, result)
            for block in result.structured_content["blocks"]:
                seen[block["label"]] = seen.get(block["label"], "") + block["value"]
            cursor = result.structured_content.get("next_cursor")
            if cursor is None:
                break
        for label, value in values.items():
            assert seen[label] == value.strip("\n")
        check(count, await call.raw("finish_rethinking_memory"))


async def test_many_ids_are_named_by_their_ends(connect, count):
    async with connect() as call:
        messages = [{"role": "user", "content": f"m{n}"} for n in range(900)]
        result = await call.raw("conversation_append", messages=messages)
        check(count, result)
        reply = result.structured_content
        assert len(reply["ids"]) + reply.get("ids_left_out", 0) == 900


@pytest.mark.slow
async def test_with_100_000_messages_replies_stay_short(connect, open_server, count):
    from mcp import Client

    server = open_server(rethink_every=0)
    memory = server.memory()
    # Filled below the façade: 100,000 turns take minutes.
    database = database_of(memory._engine.store)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with database.transaction() as tx:
        tx.run(
            "INSERT INTO messages (agent, conversation, position, id, role, content, tokens,"
            " searchable, created_at, recorded_at, seq)"
            " SELECT 'default', 'main', i, lpad(i::text, 10, '0'), 'user',"
            " 'Day ' || i || ': we saw ' || (i % 97) || ' swallows over the barn', 16, true,"
            " $1 + to_seconds(i * 60), $1 + to_seconds(i * 60), 1 FROM range(100000) AS t(i)",
            start,
        )
    async with Client(server) as client:
        for tool, arguments in (
            ("conversation_search", {"query": "swallows on day 4711", "limit": 50}),
            ("conversation_search", {"limit": 50}),
            ("conversation_search", {"start_date": "2026-02-01", "end_date": "2026-02-01"}),
            ("context_budget", {}),
            ("conversation_flush", {}),
        ):
            check(count, await client.call_tool(tool, arguments))
        day = await client.call_tool(
            "conversation_search", {"start_date": "2026-02-01", "end_date": "2026-02-01"}
        )
        assert day.structured_content["total"] == 24 * 60
        first = day.structured_content["results"][0]["at"]
        assert datetime.fromisoformat(first) == start + timedelta(days=32, minutes=-1)
        for uri in ("memory://conversations/main/recent", "memory://events", "memory://status"):
            assert count((await client.read_resource(uri)).contents[0].text) <= LIMIT


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    texts=st.lists(st.text(min_size=1, max_size=600), min_size=1, max_size=30),
    limit=st.integers(300, 2_000),
)
def test_a_page_fits_and_counts_on(texts, limit, count, memory):
    fitter = Fitter(count, memory.clip_tokens, limit)
    items = [{"id": str(n), "score": 0.5, "text": text} for n, text in enumerate(texts)]
    page = fitter.page(
        {"total": len(items)},
        items,
        query="",
        cursor=lambda count: f"cursor-{count}" if count < len(items) else None,
    )
    shown = page["results"]
    assert [item["id"] for item in shown] == [str(n) for n in range(len(shown))]
    assert shown
    if len(shown) < len(items):
        assert page["next_cursor"] == f"cursor-{len(shown)}"
    else:
        assert "next_cursor" not in page
    assert count(json.dumps(page, ensure_ascii=False, separators=(",", ":"))) <= limit
