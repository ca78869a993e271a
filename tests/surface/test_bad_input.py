"""Bad input: each has a clear error, and nothing is changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

import pytest

pytestmark = pytest.mark.anyio

LONE_SURROGATE = "half \ud83d of a pair"
TEN_MB = "All work and no play. " * 480_000


def _search(**arguments: Any) -> tuple[str, dict[str, Any]]:
    return "archival_memory_search", arguments


def _messages(**message: Any) -> tuple[str, dict[str, Any]]:
    return "conversation_append", {"messages": [{"role": "user", **message}]}


CASES: dict[str, tuple[tuple[str, dict[str, Any]], str]] = {
    "an unknown label": (
        ("core_memory_append", {"label": "nobody", "content": "x"}),
        "there is no block 'nobody'; there are persona, human, working",
    ),
    "a label with a slash": (
        ("rethink_memory", {"label": "a/b", "new_memory": "x", "description": "y"}),
        "label 'a/b' can't be used",
    ),
    "a new block without description": (
        ("rethink_memory", {"label": "fresh", "new_memory": "x"}),
        "a new one needs a description",
    ),
    "text that is not there": (
        ("core_memory_replace", {"label": "human", "old_content": "zebra", "new_content": "x"}),
        "old_content is not in block 'human'",
    ),
    "text that is there twice": (
        ("core_memory_replace", {"label": "human", "old_content": "tea", "new_content": "x"}),
        "is in block 'human' 2 times, on lines 1, 2",
    ),
    "an empty text to replace": (
        ("core_memory_replace", {"label": "human", "old_content": "", "new_content": "x"}),
        "old_content is empty",
    ),
    "empty content": (("archival_memory_insert", {"content": " \n "}), "content is empty"),
    "an empty line": (("core_memory_append", {"label": "human", "content": ""}), "is empty"),
    "an empty message": (_messages(content=""), "messages[0]: content is empty"),
    "no messages": (("conversation_append", {"messages": []}), "messages has 0 entries"),
    "an unknown role": (
        ("conversation_append", {"messages": [{"role": "robot", "content": "x"}]}),
        "messages[0]: role 'robot' is unknown",
    ),
    "NUL bytes": (
        ("archival_memory_insert", {"content": "a\x00b"}),
        "content has a NUL character at position 1",
    ),
    "NUL bytes in a query": (_search(query="a\x00b"), "query has a NUL character"),
    "NUL bytes in a tag": (_search(tags=["a\x00b"]), "NUL character"),
    "a 10 MB paste into a block": (
        ("core_memory_append", {"label": "human", "content": TEN_MB}),
        "over the limit of 2000 tokens by",
    ),
    "a 10 MB query": (_search(query=TEN_MB), "query would be over the limit of 8000 characters by"),
    "a 10 MB label": (("core_memory_append", {"label": TEN_MB, "content": "x"}), "label"),
    "a 10 MB summary": (
        ("conversation_flush", {"summary": TEN_MB}),
        "summary would be over the limit of 2000 tokens by",
    ),
    "a date that is none": (_search(start_date="some day"), "'some day' is not a date"),
    "a day that is none": (_search(end_date="2026-02-30"), "'2026-02-30' is not a date"),
    "a moment that is none": (
        ("archival_memory_insert", {"content": "x", "happened_at": "soon"}),
        "happened_at: 'soon' is not a date",
    ),
    "a message's time that is none": (
        _messages(content="x", created_at="noonish"),
        "messages[0]: created_at: 'noonish' is not a date",
    ),
    "an end before its start": (
        _search(start_date="2026-05-02", end_date="2026-05-01"),
        "end_date '2026-05-01' is before start_date '2026-05-02'",
    ),
    "a cursor from elsewhere": (_search(query="x", cursor="bm90LW91cnM"), "cursor can't be used"),
    "top_k of 0": (_search(query="x", top_k=0), "top_k is 0; it must be 1 to 50"),
    "top_k that is no number": (_search(query="x", top_k="many"), "top_k: Input should be"),
    "top_k that is true": (_search(query="x", top_k=True), "top_k: Input should be"),
    "a limit of 0": (("conversation_search", {"limit": 0}), "limit is 0"),
    "tags that are no strings": (_search(tags=[{"name": "x"}]), "tags.0"),
    "tags that are no list after all": (_search(tags="[work, tea]"), "tags: must be a list"),
    "a tag that is too long": (
        ("archival_memory_insert", {"content": "x", "tags": ["ok", "x" * 99]}),
        "can't be used",
    ),
    "an unknown kind": (("archival_memory_insert", {"content": "x", "kind": "gossip"}), "kind"),
    "a filter that doesn't exist": (
        _search(query="x", exclude_tags=["work"]),
        "exclude_tags: unknown argument, perhaps tags is meant",
    ),
    "a misspelt filter": (
        _search(query="x", start_dat="2026-01-01"),
        "start_dat: unknown argument, perhaps start_date is meant",
    ),
    "a date without a side": (
        _search(query="x", date="2026-01-01"),
        "date: unknown argument, perhaps start_date or end_date is meant",
    ),
    "pages by number": (_search(query="x", offset=10), "offset: unknown argument, perhaps cursor"),
    "a missing argument": (("archival_memory_insert", {}), "content: missing"),
    "null for a text that is required": (
        ("archival_memory_insert", {"content": None}),
        "content: missing",
    ),
    "null for the new text": (
        ("core_memory_replace", {"label": "human", "old_content": "more", "new_content": None}),
        "new_content: missing",
    ),
    "an id that is gone": (
        ("archival_memory_update", {"id": "0123456789", "content": "x"}),
        "there is no memory '0123456789'",
    ),
    "an id of no shape": (("archival_memory_delete", {"id": "../etc"}), "there is no memory"),
    "an update of nothing": (("archival_memory_update", {"id": "{stored}"}), "nothing to change"),
    "a range that is not there": (
        (
            "store_memories",
            {"chunks": [{"start_index": 0, "end_index": 99, "context": "x"}]},
        ),
        "messages 0 to 99 are not in conversation 'main', which has 0 to 1",
    ),
    "a range backwards": (
        ("store_memories", {"chunks": [{"start_index": 1, "end_index": 0, "context": "x"}]}),
        "messages 1 to 0",
    ),
    "a range without context": (
        ("store_memories", {"chunks": [{"start_index": 0, "end_index": 0, "context": " "}]}),
        "chunks[0].context is empty",
    ),
    "a conversation of two lines": (
        (
            "conversation_append",
            {"messages": [{"role": "user", "content": "x"}], "conversation": "a\nb"},
        ),
        "conversation has a line break",
    ),
    "an unknown tool": (("archival_memory_destroy", {}), "unknown tool"),
}


async def _state(call: Any) -> dict[str, Any]:
    return {
        "core": await call("core_memory_view"),
        "messages": await call("conversation_search"),
        "memories": await call("archival_memory_search"),
        "budget": await call("context_budget"),
        "summary": await call.read("memory://conversations/main/summary"),
    }


@pytest.mark.parametrize("case", CASES)
async def test_it_is_refused_and_changes_nothing(case, connect):
    (tool, arguments), expected = CASES[case]
    async with connect() as call:
        await call("rethink_user_memory", new_memory="tea\nmore tea")
        await call(
            "conversation_append",
            messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}],
        )
        stored = await call("archival_memory_insert", content="stored", tags=["t"])
        if arguments.get("id") == "{stored}":
            arguments = {**arguments, "id": stored["id"]}
        before = await _state(call)
        refusal = await call.refused(tool, **arguments)
        assert expected in refusal["message"]
        assert len(refusal["message"]) < 1_000
        assert await _state(call) == before


async def test_over_the_limit_says_by_how_much(connect):
    async with connect() as call:
        refusal = await call.refused("rethink_user_memory", new_memory="word " * 2_312)
        assert "over the limit of 2000 tokens by 31" in refusal["message"]
        assert "archival memory" in refusal["hint"]


async def test_a_summary_that_is_too_long_evicts_nothing(connect):
    async with connect() as call:
        messages = [{"role": "user", "content": f"line {n}"} for n in range(9)]
        await call("conversation_append", messages=messages)
        before = await _state(call)
        refusal = await call.refused("conversation_flush", summary="word " * 5_000)
        assert "summary would be over the limit of 2000 tokens by" in refusal["message"]
        assert await _state(call) == before


async def test_a_cursor_of_another_search_is_refused(connect):
    async with connect() as call:
        for number in range(3):
            await call("archival_memory_insert", content=f"note {number}")
        page = await call("archival_memory_search", query="note", top_k=1)
        refusal = await call.refused(
            "archival_memory_search", query="other", cursor=page["next_cursor"]
        )
        assert refusal["error"] == "BadCursor"
        assert "other arguments" in refusal["message"]


async def test_read_only_blocks_are_refused_to_the_agent(open_server):
    from mcp import Client

    server = open_server()
    server.memory().core.define("rules", "Be kind.", description="House rules", read_only=True)
    async with Client(server) as client:
        for tool, arguments in (
            ("core_memory_append", {"content": "x"}),
            ("core_memory_replace", {"old_content": "kind", "new_content": "rude"}),
            ("rethink_memory", {"new_memory": "x"}),
        ):
            result = await client.call_tool(tool, {"label": "rules", **arguments})
            assert result.is_error
            assert result.structured_content["error"] == "ReadOnly"
    assert server.memory().core.get("rules").value == "Be kind."


async def test_an_unexpected_error_is_logged_and_answered_generically(connect, monkeypatch, caplog):
    import mcp_memory.server.tools as tools

    def explode(*_: object) -> NoReturn:
        raise ZeroDivisionError("secret detail")

    spec = tools.TOOLS["context_budget"]
    monkeypatch.setitem(
        tools.TOOLS,
        "context_budget",
        replace(spec, handler=explode),
    )
    async with connect() as call:
        refusal = await call.refused("context_budget")
    assert "secret detail" not in str(refusal)
    assert "secret detail" in caplog.text
