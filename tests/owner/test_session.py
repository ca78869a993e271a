"""What the thin process knows of the lines that it passes: ends, answers, what to repeat."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_memory.owner import lines as lines_module
from mcp_memory.owner.lines import lines, parsed
from mcp_memory.owner.session import Session, answered_id


def _request(number: object, method: str, **params: object) -> bytes:
    message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return json.dumps(message).encode()


@given(st.lists(st.binary().map(lambda line: line.replace(b"\n", b""))), st.integers(1, 9))
def test_lines_are_the_same_however_they_come_in_pieces(whole: list[bytes], size: int):
    text = b"".join(line + b"\n" for line in whole)
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert list(lines(iter([*pieces, b""]).__next__)) == whole


def test_half_a_line_of_an_owner_is_dropped_and_of_a_client_is_passed_on():
    assert list(lines(iter([b"one\nha", b"lf", b""]).__next__)) == [b"one"]
    refused: list[bytes] = []
    assert list(lines(iter([b"one\nha", b"lf", b""]).__next__, refused.append)) == [b"one", b"half"]
    assert refused == []


def test_a_line_that_is_too_long_is_refused_once_and_the_next_is_read(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 10)
    refused: list[bytes] = []
    pieces = iter([b"short\nlong lo", b"ng long", b" long", b"\nnext\n", b""])
    assert list(lines(pieces.__next__, refused.append)) == [b"short", b"next"]
    assert refused == [b"long long long"]


@pytest.mark.parametrize("line", [b"[" * 100_000, b"\xff", b"[]", b'"x"', b"1", b"9" * 5_000, b""])
def test_a_line_that_is_no_message_is_none(line: bytes):
    assert parsed(line) == {}


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (b'{"jsonrpc":"2.0","id":7,"result":{"text":"\\"method\\""}}', 7),
        (b'{"jsonrpc":"2.0","id":"a\\"b","error":{"code":1,"message":"m"}}', 'a"b'),
        (b'{"id": 7, "jsonrpc": "2.0", "result": {}}', 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"sampling/createMessage"}', None),
        (b'{"jsonrpc":"2.0","method":"notifications/message","params":{"id":7}}', None),
        (b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"m"}}', None),
    ],
)
def test_answers_are_told_from_what_the_owner_asks_and_says(line: bytes, number: object):
    assert answered_id(line) == number


def test_calls_that_may_have_been_done_are_lost_and_all_others_can_be_repeated():
    session = Session()
    session.repeatable = frozenset({"look"})
    for number, method, tool in (
        (1, "tools/call", "write"),
        (2, "tools/call", "look"),
        (3, "resources/read", None),
        ("4", "tools/call", "write"),
    ):
        request = session.note(_request(number, method, name=tool))
        assert request is not None
        request.sent = number != "4"
    assert session.take_lost() == [1]
    assert list(session.pending) == [2, 3, "4"]


def test_only_what_was_answered_and_still_holds_is_repeated_beforehand():
    session = Session()
    hello = _request(1, "initialize")
    one, two, three = (_request(n, "resources/subscribe", uri=f"memory://{n}") for n in (2, 3, 4))
    for line in (hello, one, two, three, _request(5, "resources/unsubscribe", uri="memory://3")):
        session.note(line)
    for number in (1, 2, 3, 5):
        session.answered(number)
    assert session.repeated() == [hello, one]
    assert list(session.pending) == [4]
