"""A message of too many values is refused before it is parsed; a long text in it is not."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_memory.server.parsing import MAX_DEPTH, MAX_PARTS, check_structure, parsed
from mcp_memory.values.errors import InvalidInput

TEXTS = st.text() | st.sampled_from(
    ['"', "\\", '\\"', '\\\\"', "[" * 99, '{"a":[1,', '"],[', "\\["]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)


def _is_refused(data: bytes) -> bool:
    try:
        check_structure(data)
    except InvalidInput:
        return True
    return False


@given(VALUES, st.booleans())
def test_brackets_and_commas_in_strings_do_not_count(value: Any, escaped: bool):
    line = json.dumps([value, '[{,\\"' * MAX_PARTS], ensure_ascii=escaped).encode()
    check_structure(line)


@given(VALUES, st.booleans())
def test_values_beside_any_strings_are_counted(value: Any, escaped: bool):
    assert _is_refused(json.dumps([value, [0] * MAX_PARTS], ensure_ascii=escaped).encode())
    deep: Any = "[{,\\"
    for _ in range(MAX_DEPTH):
        deep = [value, deep]
    assert _is_refused(json.dumps([deep], ensure_ascii=escaped).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"[" + b"[]," * MAX_PARTS + b"[]]",
        b"[" + b'{"a":{}},' * MAX_PARTS + b"1]",
        b"{" + b'"a":1,' * MAX_PARTS + b'"b":1}',
        b"[" + b'"",' * (4 * MAX_PARTS) + b'""]',
        b'["' + b"\\\\" * 7 + b'",' + b"1," * MAX_PARTS + b"1]",
        b"[" * 100_000,
    ],
    ids=["lists", "objects", "members", "strings", "after a string of backslashes", "deep"],
)
def test_what_is_refused_is_never_parsed(data: bytes):
    with pytest.raises(InvalidInput, match="was not read"):
        check_structure(data)
    assert parsed(data) == {}


def test_checking_a_long_text_takes_no_more_memory_than_copies_of_it():
    text = 'some text, with [brackets], {braces} and "quotes"\\\n' * 500_000
    line = json.dumps({"text": text}).encode()
    tracemalloc.start()
    try:
        check_structure(line)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(line)


def test_what_one_call_may_take_passes():
    part = {"type": "text", "text": "Yes", "annotations": [{"a": [1, 2]}] * 4, "id": "x"}
    message = {"role": "user", "content": [part] * 4, "name": "Ann", "created_at": "2026-11-30"}
    call = {"name": "conversation_append", "arguments": {"messages": [message] * 1_000}}
    check_structure(json.dumps({"jsonrpc": "2.0", "id": 1, "params": call}).encode())
