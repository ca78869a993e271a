"""What clients send in URIs, cursors and completions: any text is answered or refused."""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import MCPError
from mcp_types import INVALID_PARAMS, PromptReference, ResourceTemplateReference

from mcp_memory.server import cursors
from mcp_memory.server.cursors import Position, read_cursor, write_cursor
from mcp_memory.server.tools import TOOLS, ArchivalSearch
from mcp_memory.server.uris import read_uri
from mcp_memory.values.errors import BadCursor

NUMBERS = ("9" * 5_000, "-1", "1e3", "inf", "NaN", "0x1", "1.5", "²", "[", "%00")
NO_NUMBER = [
    f"memory://{path}={number}"
    for number in NUMBERS
    for path in (
        "archival/{id}?from",
        "conversations/main/recent?before",
        "conversations/main/resume?max_tokens",
    )
]
NOTHING_THERE = [
    "",
    "memory:",
    "memory://",
    "memory:///",
    "memory:core",
    "memory://[",
    "memory://[::1",
    "memory://]/[",
    "memory://℀",
    "memory://a@b:99999/core",
    "memory://core/%",
    "memory://core/%ff%00",
    "memory://core/" + "x" * 5_000,
    "memory://conversations/%0a/recent",
    "memory://conversations/main/recent/old",
    "memory://context-budget/" + "y" * 5_000,
    "memory://archival/%5B%00",
    "http://core",
]


@pytest.mark.anyio
@pytest.mark.parametrize("uri", [*NOTHING_THERE, *NO_NUMBER], ids=lambda uri: uri[:50])
async def test_a_uri_of_nothing_is_refused_by_what_it_lacks(uri, connect, caplog):
    async with connect() as call:
        key = (await call("archival_memory_insert", content="tea"))["id"]
        with pytest.raises(MCPError) as refused:
            await call.read(uri.replace("{id}", key))
        assert refused.value.error.code == INVALID_PARAMS
        assert len(refused.value.error.message) < 400
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_uri_is_its_parts_and_arguments_and_no_host():
    assert read_uri("memory://Core/a%2Fb/?x=1&x=2&y=%C3%A9&z=#end") == read_uri(
        "MEMORY://Core/a%2Fb?x=1&y=é"
    )
    found = read_uri("memory://[::1]:99999/℀?q=[")
    assert found is not None
    assert found.path == ("[::1]:99999", "℀")
    assert found.arguments == {"q": "["}
    assert read_uri("memory:core") is None


@settings(max_examples=400)
@given(st.text() | st.text().map("memory://".__add__))
def test_any_text_is_a_uri_of_ours_or_none(uri):
    found = read_uri(uri)
    assert found is None or found.path


@pytest.mark.anyio
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    value=st.text(max_size=40),
    argument=st.sampled_from(["label", "conversation", "id", "max_tokens", "x"]) | st.text(),
)
async def test_any_text_completes_to_something_or_nothing(value, argument, open_server):
    from mcp_memory.server.resources import complete_resource

    memory = _memory(open_server)
    found = complete_resource(memory, argument, value)
    assert all(item.lower().startswith(value.lower()) for item in found.values)


def _memory(open_server, kept=[]):  # noqa: B006  one server for all examples
    if not kept:
        kept.append(open_server())
    return kept[0].memory()


FORGED = [
    (float("inf"), 0, None),
    (float("nan"), 0, None),
    (-1, 0, None),
    (0, -1, None),
    (0, float("-inf"), None),
    (1.5, 0, None),
    (True, 0, None),
    ("1", 0, None),
    ([0], 0, None),
    (None, 0, None),
    (10**30, 0, None),
    (0, 10**30, None),
    (0, 0, 7),
    (0, 0, "yesterday"),
    (0, 0, "2026-11-30T00:00:00"),
    (0, 0, "0001-01-01T00:00:00+14:00"),
    (0, 0, "9999-12-31T23:59:59-12:00"),
]
PAGED = ("core_memory_view", "conversation_search", "archival_memory_search")


@dataclass
class Forged:
    """A body that only an attacker would write, with a checksum that is right."""

    tool: str
    body: object

    def __str__(self):
        text = base64.urlsafe_b64encode(json.dumps(self.body).encode()).decode().rstrip("=")
        return text + cursors._check(text)


def _call_of(tool):
    return cursors._call(tool, TOOLS[tool].arguments())


@pytest.mark.anyio
@pytest.mark.parametrize("tool", PAGED)
async def test_a_forged_cursor_is_refused_by_every_tool_that_takes_one(tool, connect, caplog):
    bodies: list[object] = [
        [_call_of(tool), offset, part, moment] for offset, part, moment in FORGED
    ]
    bodies += [[_call_of(tool)], "abcd", {"a": 1, "b": 2, "c": 3, "d": 4}, None, 7, [[[[]]]]]
    texts = [str(Forged(tool, body)) for body in bodies]
    texts += ["x", "\u0301", "é" * 50, "A" * 5_000, "=" * 20, "\U0001f600"]
    async with connect() as call:
        await call("archival_memory_insert", content="tea")
        for text in texts:
            refusal = await call.refused(tool, cursor=text)
            assert refusal["error"] == "BadCursor", text
            assert "without a cursor" in refusal["hint"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.anyio
@pytest.mark.parametrize("tool", PAGED)
@pytest.mark.parametrize(
    "position",
    [
        Position(10**12, None, 10**12),
        Position(5, datetime(1970, 1, 1, tzinfo=UTC), 9),
        Position(3, datetime(2999, 12, 31, tzinfo=UTC), 0),
    ],
    ids=["far", "long ago", "some day"],
)
async def test_a_position_behind_the_end_is_an_empty_page(tool, position, connect):
    async with connect() as call:
        await call("archival_memory_insert", content="tea")
        await call("conversation_append", messages=[{"role": "user", "content": "tea"}])
        page = await call(tool, cursor=write_cursor(tool, TOOLS[tool].arguments(), position))
        assert not page.get("results")
        assert not page.get("blocks")


@pytest.mark.anyio
async def test_a_cursor_behind_the_end_of_one_text_is_refused(connect):
    async with connect() as call:
        key = (await call("archival_memory_insert", content="tea"))["id"]
        given = ArchivalSearch(around=f"{key}:0")
        cursor = write_cursor("archival_memory_search", given, Position(0, None, 99))
        refusal = await call.refused("archival_memory_search", around=f"{key}:0", cursor=cursor)
        assert refusal["error"] == "BadCursor"


@pytest.mark.anyio
async def test_the_cursor_of_another_tool_is_refused(connect):
    async with connect() as call:
        cursor = write_cursor(
            "conversation_search", TOOLS["conversation_search"].arguments(), Position(1)
        )
        refusal = await call.refused("archival_memory_search", cursor=cursor)
        assert "other arguments" in refusal["message"]


@given(st.text())
def test_any_text_is_a_cursor_or_refused(text):
    try:
        read_cursor("archival_memory_search", ArchivalSearch(), text)
    except BadCursor:
        return
    raise AssertionError(text)


@pytest.mark.anyio
@pytest.mark.parametrize("size", [*NUMBERS[:8], "\u0301", "0"])
async def test_a_size_that_is_no_number_is_refused_by_every_prompt(size, connect):
    async with connect() as call:
        for name in ("resume", "reflect"):
            with pytest.raises(MCPError) as refused:
                await call.client.get_prompt(name, {"max_tokens": size})
            assert refused.value.error.code == INVALID_PARAMS


@pytest.mark.anyio
@pytest.mark.parametrize("value", ["\u0301", "[", "%", "\x00", "x" * 5_000])
async def test_completion_of_an_odd_text_is_empty(value, call):
    for reference in (
        ResourceTemplateReference(uri="memory://core/{label}"),
        ResourceTemplateReference(uri="memory://["),
        PromptReference(name="resume"),
    ):
        for name in ("label", "conversation", "id"):
            got = await call.client.complete(reference, {"name": name, "value": value})
            assert got.completion.values == []
