"""Calls as real hosts make them: understood as they were meant, and stored to the letter."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_memory.server.arguments import validate
from mcp_memory.server.prompts import instructions
from mcp_memory.server.tools import TOOLS
from mcp_memory.values.errors import InvalidInput
from mcp_memory.values.messages import read_messages

pytestmark = pytest.mark.anyio

ADDED = [
    {"toolCallId": "call_1", "sessionId": "s1", "action": "sendMessage", "chatInput": "Hi there"},
    {"tool_call_id": "call_1", "wait_for_previous": True, "random_string": "dummy"},
    {"_meta": {"progressToken": 1}, "userId": "u", "threadId": "t", "messageId": "m", "runId": 7},
    {"metadata": {"tags": "x"}, "context": {"page": "home"}, "reasoning": "To be sure"},
    {"dummy": "", "explanation": "I look it up", "user_role": "admin", "page": {"url": "x"}},
    {str(number): number for number in range(100)},
]

HANDLES = ("label", "conversation", "id", "around", "start_date", "end_date", "happened_at")

NAMES = st.text(max_size=6) | st.sampled_from(
    [
        "tags",
        "tag",
        "limit",
        "text",
        "content",
        "messages",
        "role",
        "excludeTags",
        "arguments",
        "id",
    ]
)
"""Names of arguments: any, and those that are like ours."""

PLAIN: dict[str, list[dict[str, Any]]] = {
    "core_memory_view": [{}, {"conversation": "trip"}],
    "core_memory_append": [{"label": "human", "content": "Name: Ana"}],
    "core_memory_replace": [{"label": "human", "old_content": " a ", "new_content": ""}],
    "rethink_memory": [{"label": "goal", "new_memory": "Ship", "description": "What to do"}],
    "rethink_user_memory": [{"new_memory": "null"}],
    "finish_rethinking_memory": [{}, {"reason": "weekly"}],
    "conversation_append": [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "tool", "content": "[1, 2]"}]},
    ],
    "conversation_search": [
        {"query": "tea", "roles": ["user", "assistant"], "limit": 3},
        {"start_date": "2026-01-01", "end_date": "2026-02-01", "conversation": "trip"},
        {"around": "1bf4sewjyx:20"},
    ],
    "conversation_flush": [{}, {"summary": "All is well."}],
    "store_memories": [
        {"chunks": [{"start_index": 0, "end_index": 3, "context": "Tea", "kind": "episode"}]},
    ],
    "context_budget": [{"context_tokens": 12_000}],
    "archival_memory_insert": [
        {"content": '{"a":1}', "tags": ["home", "heating"], "kind": "preference"},
        {"content": "x", "happened_at": "2026-03-09"},
    ],
    "archival_memory_search": [
        {"query": "tea", "tags": ["home"], "tag_match_mode": "all", "kinds": ["fact"], "top_k": 5},
        {"end_date": "2026-03-09"},
    ],
    "archival_memory_update": [{"id": "1bf4sewjyx", "tags": []}, {"id": "x", "content": "null?"}],
    "archival_memory_delete": [{"id": "1bf4sewjyx"}],
}


def read(tool: str, sent: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments as a handler of the tool gets them."""
    given = validate(tool, TOOLS[tool].arguments, sent)[0].model_dump()
    if "messages" in given:
        given["messages"] = read_messages(given["messages"], zone=ZoneInfo("UTC")).messages
    return given


def note_of(tool: str, sent: dict[str, Any]) -> str | None:
    return validate(tool, TOOLS[tool].arguments, sent)[1]


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def properties(tool: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = TOOLS[tool].definition().input_schema["properties"]
    return found


def forms(name: str, schema: dict[str, Any], value: Any) -> list[Any]:
    """Return a value as hosts send it."""
    if schema["type"] == "array":
        return [value, *list_forms(schema["items"], value)]
    if schema["type"] == "integer":
        return [value, str(value), float(value), f" {value} "]
    if "enum" in schema:
        return [value, value.upper(), value.capitalize(), f" {value}\n"]
    if name in HANDLES:
        return [value, f" {value} ", [value]]
    return [value]


def list_forms(item: dict[str, Any], value: list[Any]) -> list[Any]:
    found: list[Any] = [json.dumps(value), json.dumps(value, indent=1), repr(value)]
    if len(value) == 1:
        found.append(value[0])
    if item["type"] == "object":
        found.append([json.dumps(one) for one in value])
    elif value:
        found += [[*value, ""], ["null", *value, None], [f" {value[0]} ", *value[1:]]]
    if "enum" in item:
        found += [[one.upper() for one in value], ", ".join(value)]
    return found


@st.composite
def disguised(draw: st.DrawFn) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Give a tool, valid arguments, and the same in the disguise of a host."""
    tool = draw(st.sampled_from(sorted(PLAIN)))
    plain = draw(st.sampled_from(PLAIN[tool]))
    schema = TOOLS[tool].definition().input_schema
    sent: dict[str, Any] = {}
    for name, value in plain.items():
        spelled = [name, camel(name), name.replace("_", "-"), name.upper(), f" {name}"]
        sent[draw(st.sampled_from(spelled))] = draw(
            st.sampled_from(forms(name, schema["properties"][name], value))
        )
    for name, one in schema["properties"].items():
        if name not in plain and name not in schema.get("required", []) and draw(st.booleans()):
            nothing = [None, "", " ", "null", "undefined", "None"]
            lists = [["null"], [""], [None]] if one["type"] == "array" else []
            sent[name] = draw(st.sampled_from([*nothing, *lists]))
    sent |= draw(st.sampled_from([{}, *ADDED]))
    wrap = draw(st.sampled_from(["", "", "arguments", "params", "input"]))
    if wrap and plain:
        return tool, plain, {wrap: draw(st.sampled_from([sent, json.dumps(sent)]))}
    return tool, plain, sent


@settings(max_examples=500, deadline=None)
@given(disguised())
def test_the_disguise_of_a_host_changes_nothing(case):
    tool, plain, sent = case
    assert read(tool, sent) == read(tool, plain)


def test_every_tool_is_tried():
    assert PLAIN.keys() == TOOLS.keys()


@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_host_adds_is_passed_over_without_a_word(tool, added):
    for plain in PLAIN[tool]:
        assert read(tool, plain | added) == read(tool, plain)
        assert note_of(tool, plain | added) is None


EXACT = [
    '{"a":1}',
    '["a", "b"]',
    "123",
    "1e3",
    "null",
    "undefined",
    "true",
    '"quoted"',
    " outer blanks\n",
    "\ttab\r\nand a line",
    "a, b",
    "Pre\u0301fe\u0301re",
    "[1]",
]


@pytest.mark.parametrize("text", EXACT)
@pytest.mark.parametrize(
    ("tool", "name", "rest"),
    [
        ("core_memory_append", "content", {"label": "human"}),
        ("core_memory_replace", "old_content", {"label": "human", "new_content": "x"}),
        ("core_memory_replace", "new_content", {"label": "human", "old_content": "x"}),
        ("rethink_memory", "new_memory", {"label": "human"}),
        ("rethink_user_memory", "new_memory", {}),
        ("archival_memory_insert", "content", {}),
    ],
)
def test_stored_text_is_read_to_the_letter(tool, name, rest, text):
    assert read(tool, {name: text, **rest})[name] == text


@pytest.mark.parametrize("text", EXACT)
async def test_text_is_stored_to_the_letter(connect, text):
    async with connect() as call:
        done = await call("archival_memory_insert", content=text)
        assert await call.read(f"memory://archival/{done['id']}") == text
        block = await call("rethink_user_memory", new_memory=text)
        assert block["value"] == text.rstrip("\n")  # A block ends with its last line.


@pytest.mark.parametrize(
    ("tool", "sent", "plain", "note"),
    [
        ("archival_memory_search", {"tag": "x"}, {"tags": ["x"]}, None),
        ("archival_memory_search", {"tags": "a, b"}, {"tags": ["a", "b"]}, "read as 2"),
        ("archival_memory_search", {"tags": [2026]}, {"tags": ["2026"]}, None),
        ("archival_memory_search", {"limit": 5}, {"top_k": 5}, "limit was read as top_k"),
        ("conversation_search", {"top_k": "5"}, {"limit": 5}, "top_k was read as limit"),
        ("conversation_search", {"query_text": "a"}, {"query": "a"}, "read as query"),
        ("conversation_search", {"query": 4608023173}, {"query": "4608023173"}, None),
        ("conversation_search", {"query": "null"}, {}, "query 'null' was read as not given"),
        ("conversation_search", {"q": "b", "query": "a"}, {"query": "a"}, "q was ignored"),
        ("conversation_search", {"roles": ["Human", "ai"]}, {"roles": ["user", "assistant"]}, None),
        ("conversation_search", {"limit": 51}, {"limit": 50}, "limit was cut to 50"),
        ("archival_memory_search", {"top_k": 10**9}, {"top_k": 50}, "top_k was cut to 50"),
        ("archival_memory_search", {"tag_match_mode": "exact"}, {}, None),
        ("archival_memory_search", {"kinds": "Facts, PROJECT"}, {"kinds": ["fact", "project"]}, ""),
        ("archival_memory_insert", {"text": "a"}, {"content": "a"}, "text was read as content"),
        ("archival_memory_insert", {"content": 12.5}, {"content": "12.5"}, None),
        ("archival_memory_insert", {"content": True}, {"content": "true"}, None),
        ("archival_memory_insert", {"content": {"a": 1}}, {"content": '{"a": 1}'}, "as JSON"),
        ("archival_memory_delete", {"memory_id": "a"}, {"id": "a"}, "memory_id was read as id"),
        (
            "core_memory_replace",
            {"block": "human", "old_str": "a", "new_str": ""},
            {"label": "human", "old_content": "a", "new_content": ""},
            "old_str was read as old_content",
        ),
        (
            "store_memories",
            {"chunks": '{"startIndex": "0", "endIndex": 1, "context": "c", "kind": null}'},
            {"chunks": [{"start_index": 0, "end_index": 1, "context": "c"}]},
            None,
        ),
    ],
)
def test_a_near_miss_is_taken_for_what_is_meant(tool, sent, plain, note):
    assert read(tool, sent) == read(tool, plain)
    found = note_of(tool, sent)
    assert (note or "") in (found or "")
    assert note is not None or found is None


@pytest.mark.parametrize(
    ("tool", "sent", "meant"),
    [
        ("archival_memory_search", {"query": "x", "exclude_tags": ["a"]}, "tags"),
        ("archival_memory_search", {"query": "x", "tags": ["b"], "excludeTags": "a"}, "tags"),
        ("archival_memory_search", {"query": "x", "not_kinds": ["fact"]}, "kinds"),
        ("archival_memory_search", {"query": "x", "filters": {"tag": "a"}}, "tags"),
        ("archival_memory_search", {"query": "x", "before": "2026-01-01"}, "end_date"),
        ("conversation_search", {"query": "x", "min_start_date": "2026-01-01"}, "start_date"),
        ("conversation_search", {"query": "x", "page": 2}, "cursor"),
        ("conversation_search", {"query": "x", "exclude_role": "tool"}, "roles"),
        ("archival_memory_insert", {"content": "x", "category": "work"}, "tags or kind"),
        ("archival_memory_insert", {"contnet": "x"}, "content"),
    ],
)
def test_what_is_doubtful_is_refused_with_the_name_that_may_be_meant(tool, sent, meant):
    with pytest.raises(InvalidInput, match=f"unknown argument, perhaps .*{meant}"):
        read(tool, sent)


def test_an_unknown_argument_is_named_if_one_is_missing():
    with pytest.raises(InvalidInput) as fault:
        read("archival_memory_insert", {"stuff": "x"})
    assert "content: missing" in str(fault.value)
    assert "Unknown: stuff" in str(fault.value)


async def test_a_strict_client_that_sends_null_for_everything_can_search(call):
    await call("archival_memory_insert", content="The boiler is in the attic")
    await call("conversation_append", messages=[{"role": "user", "content": "The boiler hums"}])
    for tool in ("archival_memory_search", "conversation_search"):
        everything: dict[str, Any] = dict.fromkeys(properties(tool)) | {"query": "boiler"}
        assert (await call(tool, **everything))["total"] == 1
        everything = dict.fromkeys(properties(tool), "null") | {"query": "boiler"}
        assert (await call(tool, **everything))["total"] == 1


async def test_a_cut_limit_is_said_as_text_and_as_data(call):
    for number in range(3):
        await call("archival_memory_insert", content=f"Note {number} on tea")
    found = await call.raw("archival_memory_search", query="tea", top_k=500)
    assert found.structured_content["note"] == "top_k was cut to 50, the maximum"
    assert json.loads(found.content[0].text) == found.structured_content
    assert len(found.structured_content["results"]) == 3


async def test_a_note_is_in_a_reply_that_reads_as_text(call):
    view = await call.raw("core_memory_view", conversationName="trip")
    assert view.structured_content["note"] == "conversationName was read as conversation"
    assert view.structured_content["note"] in view.content[0].text


async def test_a_reply_with_a_note_stays_within_the_limit(connect, memory):
    async with connect(max_reply_tokens=300) as call:
        for number in range(9):
            await call("archival_memory_insert", content=f"{number} tea " * 90)
        found = await call.raw("archival_memory_search", q="tea", limit=60)
        note = found.structured_content["note"]
        assert (
            note == "q was read as query; limit was read as top_k; top_k was cut to 50, the maximum"
        )
        assert memory.count_tokens(found.content[0].text) <= found.structured_content["tokens"]
        assert found.structured_content["tokens"] <= 300


async def test_the_next_page_may_come_in_another_disguise(call):
    for number in range(3):
        await call("archival_memory_insert", content=f"Note {number}", tags=["tea"])
    first = await call("archival_memory_search", query="note", tags=["tea"], top_k=1)
    second = await call(
        "archival_memory_search",
        query=" note ",
        tags='["tea"]',
        kinds=[],
        start_date=None,
        topK="2",
        nextCursor=first["next_cursor"],
    )
    assert len(second["results"]) == 2


@pytest.mark.parametrize("label", ["Human", " human ", "HUMAN", ["human"]])
async def test_a_block_is_known_by_its_label_in_any_case(call, label):
    assert (await call("core_memory_append", label=label, content="a"))["label"] == "human"
    replaced = await call("core_memory_replace", label=label, old_content="a", new_content="b")
    assert replaced["label"] == "human"
    assert (await call("rethink_memory", label=label, new_memory="c"))["created"] is False
    assert "human" in await call.read("memory://core/Human")


def test_the_schemas_name_the_blocks_of_a_new_memory(memory):
    labels = [block.label for block in memory.core.all()]
    described = [
        properties(tool)["label"]["description"] for tool in TOOLS if "label" in properties(tool)
    ]
    assert len(described) == 3
    assert all(label in text for text in described for label in labels)


def test_a_client_learns_the_labels_on_its_very_first_connection(memory):
    assert all(block.label in instructions(None) for block in memory.core.all())


async def test_a_prompt_passes_over_what_a_host_adds(call):
    plain = await call.client.get_prompt("resume", {})
    added = {"sessionId": "s", "conversation": "null", "max_tokens": ""}
    assert (await call.client.get_prompt("resume", added)).messages == plain.messages


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(TOOLS)), st.dictionaries(NAMES, JSON | JSON.map(repr), max_size=6))
def test_anything_is_understood_or_refused_in_a_short_text(tool, sent):
    try:
        _, note = validate(tool, TOOLS[tool].arguments, sent)
    except InvalidInput as fault:
        note = str(fault)
    assert len(note or "") < 2_000


def test_many_added_arguments_and_deep_text_are_no_burden():
    """Only some of the names are compared, and no text is parsed beyond what the parser takes."""
    sent: dict[str, Any] = {f"added_{number}": "x" for number in range(50_000)}
    assert read("archival_memory_search", sent | {"query": "x"})["query"] == "x"
    for text in ("[" * 200_000, "{" * 90_000, '[{"a":' * 90_000, "[" * 90_000 + "]" * 90_000):
        with pytest.raises(InvalidInput):
            read("archival_memory_search", {"tags": text, "kinds": text})
