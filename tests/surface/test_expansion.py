"""A hit says why it is there, is opened with what surrounds it, and pages stay whole."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_memory.server.replies import compact
from mcp_memory.server.tools import TOOLS
from mcp_memory.settings import DEFAULT_MODEL, load_settings

pytestmark = pytest.mark.anyio


def said(*contents: str, **more: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content, **more} for content in contents]


async def pages(call, tool: str, between=None, **arguments: Any) -> list[list[dict[str, Any]]]:
    """Return the hits of every page; `between` is awaited after the first."""
    found, cursor = [], None
    while True:
        reply = await call(tool, **arguments, **({"cursor": cursor} if cursor else {}))
        found.append(reply["results"])
        cursor = reply.get("next_cursor")
        if cursor is None:
            return found
        if between is not None:
            await between()
            between = None


async def test_every_hit_says_why_it_is_there(call):
    turns = [f"We watered bed {n} of the garden again" for n in range(30)]
    turns[20] = "The heron stood at the pond for an hour"
    await call("conversation_append", messages=said(*turns, created_at="2026-03-02T10:00"))
    await call(
        "conversation_append",
        messages=said("I liked it a lot", name="Ingrid", created_at="2026-03-09T10:00"),
    )
    hits = (await call("conversation_search", query="heron at the pond"))["results"]
    assert hits[0]["index"] == 20
    assert hits[0]["why"][:2] == ["lexical", "semantic"]
    beside = next(hit for hit in hits if hit["index"] in {19, 21})
    assert "near" in beside["why"]
    hits = (await call("conversation_search", query="what did Ingrid like"))["results"]
    assert hits[0]["name"] == "Ingrid"
    assert "who" in hits[0]["why"]
    hits = (await call("conversation_search", query="what was liked on 9 March 2026"))["results"]
    assert "when" in hits[0]["why"]
    assert not any("why" in hit for hit in (await call("conversation_search"))["results"])


async def test_no_ranked_hit_is_without_a_reason(call):
    for number in range(3):
        await call("archival_memory_insert", content=f"tea number {number}")
    reply = await call("archival_memory_search", query="tea")
    assert len(reply["results"]) == 3
    assert all(hit["why"] for hit in reply["results"])


async def test_a_reply_says_what_it_costs(call, memory):
    for number in range(30):
        await call(
            "archival_memory_insert", content=f"{number}: tea with milk " + "and sugar " * 40
        )
    for arguments in ({"query": "tea"}, {"query": "tea", "top_k": 50}, {"query": "coffee"}):
        reply = await call("archival_memory_search", **arguments)
        assert abs(memory.count_tokens(compact(reply)) - reply["tokens"]) <= 3


async def test_a_message_is_shown_with_what_came_before_and_after_it(call):
    ids = (await call("conversation_append", messages=said(*map(str, range(20)))))["ids"]
    await call("conversation_append", messages=said("elsewhere"), conversation="other")
    reply = await call("conversation_search", around=ids[10], limit=5)
    assert [hit["index"] for hit in reply["results"]] == [8, 9, 10, 11, 12]
    assert reply["total"] == 20
    more = await call("conversation_search", around=ids[10], limit=5, cursor=reply["next_cursor"])
    assert [hit["index"] for hit in more["results"]] == [13, 14, 15, 16, 17]
    for end, shown in ((0, [0, 1, 2]), (19, [17, 18, 19])):
        reply = await call("conversation_search", around=ids[end].upper(), limit=3)
        assert [hit["index"] for hit in reply["results"]] == shown
    assert "next_cursor" not in reply


async def test_a_long_text_is_read_on_from_where_a_hit_was_found(call, memory):
    text = " ".join(f'Sentence {n} of the log, "quoted".\n' for n in range(2_000))
    key = (await call("archival_memory_insert", content=text))["id"]
    turn = (await call("conversation_append", messages=said(text)))["ids"][0]
    hit = (await call("archival_memory_search", query="sentence 1234"))["results"][0]
    char = hit["chars"][0]
    for tool, known in (("archival_memory_search", key), ("conversation_search", turn)):
        reply = await call(tool, around=f"{known}:{char}")
        first = reply["results"][0]
        start, end, total = first["chars"]
        assert total == len(text)
        assert start <= char < end
        assert first["text"].startswith("Sentence")
        assert memory.count_tokens(compact(reply)) <= memory.settings.max_reply_tokens
        read = [hit["text"] for [hit] in await pages(call, tool, around=f"{known}:0")]
        assert "".join(read) == text
        assert all(part.startswith("Sentence") for part in read)
    whole = [hit["text"] for [hit] in await pages(call, "archival_memory_search", around=key)]
    assert "".join(whole) == text


async def test_a_memory_that_is_changed_is_read_on_as_it_was(call):
    text = " ".join(f"Sentence {n} of the log." for n in range(1_000))
    key = (await call("archival_memory_insert", content=text))["id"]

    async def change() -> None:
        await call("archival_memory_update", id=key, content="Nothing is left of the log.")

    read = await pages(call, "archival_memory_search", between=change, around=key)
    assert "".join(hit["text"] for [hit] in read) == text
    [[now]] = await pages(call, "archival_memory_search", around=key)
    assert now["text"] == "Nothing is left of the log."
    reply = await call("archival_memory_search", around=key)
    assert reply["total"] == 1


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("conversation_search", {"query": "tea"}),
        ("conversation_search", {"roles": ["user"]}),
        ("conversation_search", {"conversation": "main"}),
        ("archival_memory_search", {"query": "tea"}),
        ("archival_memory_search", {"tags": ["tea"]}),
    ],
)
async def test_around_goes_with_no_query_and_no_filter(connect, tool, arguments):
    async with connect() as call:
        ids = (await call("conversation_append", messages=said("tea")))["ids"]
        refused = await call.raw(tool, around=ids[0], **arguments)
        assert refused.is_error
        assert refused.structured_content["field"] == "around"


@pytest.mark.parametrize("around", ["0000000000", "no id at all"])
async def test_an_id_that_is_not_there_is_named(connect, around):
    async with connect() as call:
        for tool in ("conversation_search", "archival_memory_search"):
            refused = await call.raw(tool, around=around)
            assert refused.structured_content["error"] == "NotFound"


@pytest.mark.parametrize("char", ["x", "-1", "4", "", "99999999999", "²"])
async def test_a_character_that_is_not_there_is_refused(connect, char):
    async with connect() as call:
        known = (await call("archival_memory_insert", content="tea"))["id"]
        said_id = (await call("conversation_append", messages=said("tea")))["ids"][0]
        for tool, key in (("archival_memory_search", known), ("conversation_search", said_id)):
            refused = await call.raw(tool, around=f"{key}:{char}")
            assert refused.structured_content["error"] == "InvalidInput"


@pytest.mark.parametrize("query", ["tea with milk", None])
async def test_memories_that_come_and_go_between_pages_shift_none(connect, query):
    async with connect() as call:
        ids = []
        for number in range(40):
            text = f"tea with milk, cup {number} " + "and sugar " * (number % 7)
            ids.append((await call("archival_memory_insert", content=text))["id"])
        asked = {"top_k": 7} | ({"query": query} if query else {})
        first = (await call("archival_memory_search", **asked))["results"]
        shown = {hit["id"] for hit in first}
        left = [key for key in ids if key not in shown]
        gone = {first[0]["id"], first[3]["id"], left[0], left[5], *left[-8:]}

        async def write() -> None:
            for key in gone:
                await call("archival_memory_delete", id=key)
            for number in range(30):
                await call("archival_memory_insert", content=f"tea with milk {number}")
            await call("archival_memory_insert", content="milk " * 200)

        found = await pages(call, "archival_memory_search", between=write, **asked)
        seen = [hit["id"] for page in found for hit in page]
        assert [hit["id"] for hit in found[0]] == [hit["id"] for hit in first]
        assert len(seen) == len(set(seen))
        assert set(seen) == set(ids) - (gone - shown)


async def test_messages_that_come_between_pages_shift_none(connect):
    async with connect() as call:
        turns = said(*(f"tea with milk, cup {n} " + "of tea " * (n % 5) for n in range(40)))
        ids = (await call("conversation_append", messages=turns))["ids"]

        async def write() -> None:
            new = said(*["tea with milk"] * 20, "milk " * 100)
            await call("conversation_append", messages=new)

        for query in ("tea with milk", None):
            asked = {"limit": 7} | ({"query": query} if query else {})
            before = (await call("conversation_search", **asked))["total"]
            found = await pages(call, "conversation_search", between=write, **asked)
            seen = [hit["id"] for page in found for hit in page]
            assert len(seen) == len(set(seen)) == before
            assert set(ids) <= set(seen)


async def test_opening_hits_costs_less_than_200_bytes_of_definitions():
    cost = 0
    for name in ("conversation_search", "archival_memory_search"):
        schema = TOOLS[name].definition().input_schema
        cost += len(compact({"around": schema["properties"]["around"]})) - 1
    assert cost < 200


@pytest.mark.slow
def test_ten_copies_of_nearly_the_same_do_not_fill_the_first_five(tmp_path):
    from mcp_memory.agent import Memories
    from mcp_memory.models.embedding import FastEmbedder
    from mcp_memory.models.fetching import fetch_model
    from mcp_memory.tiers.engine import Engine
    from mcp_memory.values.records import NewMessage

    found = load_settings()
    files = fetch_model(DEFAULT_MODEL, found.cache_dir, offline=False)
    settings = found.model_copy(update={"db": tmp_path / "memory.duckdb"})
    memories = Memories(Engine(settings, embedder=FastEmbedder.load(files, threads=1)))
    try:
        memory = memories.open("default")
        copies = [f"Reminder {n}: the dentist is on Friday at nine." for n in range(10)]
        others = [
            "Friday morning is taken: I am at the dentist until ten.",
            "The dentist has moved my check-up to Friday, nine in the morning.",
            "My tooth hurts since the weekend.",
            "We painted the kitchen green.",
            "The heron came back to the pond.",
        ]
        for text in [*copies, *others]:
            # Each in a conversation of its own: they are no neighbours.
            memory.conversations.append([NewMessage("user", text)], text[:20])
        page = memory.conversations.search("When is the dentist on Friday?", limit=5)
        assert page.search == "hybrid"
        shown = [hit.message.content for hit in page.items]
        assert shown[0] in copies
        assert set(others[:2]) <= set(shown)
    finally:
        memories.close()
