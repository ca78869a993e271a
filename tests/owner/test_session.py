"""What the thin process knows of the lines that it passes: ends, answers, what to repeat."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcp_memory.owner.lines import Lines, TooLong
from mcp_memory.owner.session import Session
from mcp_memory.owner.shim import socket_of
from mcp_memory.server.parsing import envelope, parsed, too_long

SPACES = st.text(" \t\r", max_size=2)
TEXTS = st.text(max_size=8) | st.sampled_from(
    ['"', "\\", '\\"', ',"id":7}', '{"id":7,"method":"x"}', "id", "method", "é\u2028", "😀"]
)
"""With words that would mislead who doesn't see where a string begins."""

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXTS | st.sampled_from(["id", "method", "result"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def _request(number: object, method: str, **params: object) -> bytes:
    message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return json.dumps(message).encode() + b"\n"


def _answer(number: object) -> bytes:
    return b'{"jsonrpc":"2.0","id":%s,"result":{}}\n' % json.dumps(number).encode()


@st.composite
def spelled(draw: st.DrawFn, value: Any) -> str:
    """Give JSON of a value, with any white space, escapes and order of keys."""

    def text(value: str) -> str:
        if draw(st.integers(0, 3)):
            return json.dumps(value, ensure_ascii=draw(st.booleans()))
        units = value.encode("utf-16-be", "surrogatepass")
        codes = [units[place : place + 2].hex() for place in range(0, len(units), 2)]
        return '"' + "".join(f"\\u{code}" for code in codes) + '"'

    def write(value: Any) -> str:
        if isinstance(value, str):
            return text(value)
        if isinstance(value, list):
            inner = ",".join(map(around, value))
            return f"[{inner}]"
        if isinstance(value, dict):
            items = draw(st.permutations(list(value.items())))
            inner = ",".join(
                f"{draw(SPACES)}{text(key)}{draw(SPACES)}:{around(item)}" for key, item in items
            )
            return f"{{{inner or draw(SPACES)}}}"
        return json.dumps(value)

    def around(value: Any) -> str:
        return f"{draw(SPACES)}{write(value)}{draw(SPACES)}"

    return around(value)


IDS = st.none() | st.integers() | TEXTS | st.floats(allow_nan=False) | st.booleans()
MESSAGES = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0")},
    optional={"id": IDS, "params": VALUES, "more": VALUES, "_meta": VALUES, '"id"': VALUES},
).flatmap(
    lambda message: (
        st.sampled_from(
            [message | {"method": "tools/call"}, message | {"result": {"id": 3}}, message]
        )
        | st.builds(lambda error: message | {"error": error}, VALUES)
        | st.builds(lambda method: message | {"method": method}, TEXTS)
    )
)
LINES = MESSAGES.flatmap(spelled) | st.lists(MESSAGES, max_size=2).flatmap(spelled)


def _expected(line: bytes) -> tuple[object, object]:
    message = json.loads(line)
    if not isinstance(message, dict):
        return None, None
    number = message.get("id")
    if isinstance(number, bool) or not isinstance(number, (str, int)):
        number = None
    return message.get("method"), number


@given(LINES, st.sampled_from(["", "\n"]))
@example('{"id":1,"method":"x","params":{"id":2,"method":"y"}}', "")
@example('{"method":"x","params":{"id":2},"jsonrpc":"2.0","id":1}', "")
@example('{"params":{"a":"p,"},"method":"x","id":1}', "")
@example('{"method":"x","params":[{"a":1,"id":2}],"\\u0069d":1}', "")
@example('{"method":"x","params":{"a":[]},"a\\"id":2,"id":"1"}', "")
@example('{"jsonrpc":"2.0","method":"x","params":{"id":2}}', "")
@example('{"result":{"method":"x"},"jsonrpc":"2.0","id":1}', "")
@example('{"jsonrpc":"2.0","id":1,"method":""}', "")
@example("{}", "")
def test_method_and_id_of_a_line_are_those_that_a_parser_finds(line: str, end: str):
    encoded = (line + end).encode("utf-8", "surrogatepass")
    expected = _expected(encoded)
    assert envelope(encoded) == expected
    # A long line is read by its ends.
    assert envelope(LONG + encoded) == expected
    assert envelope(LONG + encoded, parse=False) in [expected, (None, None)]


LONG = b" " * 5_000
BIG = {"name": "store", "arguments": {"content": '"id":7, \\ {' * 100_000, "id": 8, "method": "no"}}


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": BIG},
        {"method": "tools/call", "params": BIG, "jsonrpc": "2.0", "id": 1},
        {"params": BIG, "id": 1, "method": "tools/call"},
        {"jsonrpc": "2.0", "method": "tools/call", "params": BIG, "id": 1},
    ],
)
def test_a_request_is_known_by_its_ends_wherever_a_client_puts_its_members(
    message: Mapping[str, object],
):
    assert envelope(json.dumps(message).encode(), parse=False) == ("tools/call", 1)


@pytest.mark.parametrize("line", [b"[" * 100_000, b"\xff", b"[]", b'"x"', b"1", b"9" * 5_000, b""])
def test_a_line_that_is_no_message_is_none(line: bytes):
    assert parsed(line) == {}
    assert envelope(line) == (None, None)


@given(st.lists(st.binary().map(lambda line: line.replace(b"\n", b"") + b"\n")), st.integers(1, 9))
def test_lines_are_the_same_however_they_come_in_pieces(whole: list[bytes], size: int):
    text, lines = b"".join(whole), Lines()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert [line for piece in pieces for line in lines.feed(piece)] == whole
    assert lines.rest() == b""


def test_half_a_line_at_the_end_is_no_line():
    lines = Lines()
    assert lines.feed(b"one\nha") == [b"one\n"]
    assert lines.feed(b"lf") == []
    assert lines.rest() == b"half"


@pytest.mark.parametrize("size", [1, 7, 3_000, 100_000])
def test_a_line_that_is_too_long_is_refused_by_its_id_and_the_next_is_read(size: int):
    message = {"method": "tools/call", "params": BIG, "jsonrpc": "2.0", "id": 1}
    text = b"short\n" + json.dumps(message).encode() + b"\nnext\n"
    lines = Lines(20_000)
    found = [line for at in range(0, len(text), size) for line in lines.feed(text[at : at + size])]
    refused = found.pop(1)
    assert found == [b"short\n", b"next\n"]
    assert isinstance(refused, TooLong)
    assert len(refused.ends) < 10_000
    answer = too_long(refused.ends, 72 * 2**20)
    assert answer["id"] == 1
    assert "longer than 72 MB" in str(answer["error"])


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
def test_answers_differ_from_what_the_owner_asks_and_says(line: bytes, number: object):
    session = Session()
    for asked in (7, 'a"b'):
        session.note(_request(asked, "ping"))
    session.answered(line)
    assert session.pending.keys() == {7, 'a"b'} - {number}


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


def test_a_request_that_the_client_cancels_is_forgotten():
    session = Session()
    session.note(_request(1, "tools/call", name="look"))
    session.note(_request(2, "tools/call", name="look"))
    cancelled = {"method": "notifications/cancelled", "params": {"requestId": 1}}
    session.note(json.dumps({"jsonrpc": "2.0", **cancelled}).encode())
    assert list(session.pending) == [2]


def test_only_what_was_answered_and_still_holds_is_repeated_beforehand():
    session = Session()
    hello = _request(1, "initialize")
    one, two, three = (_request(n, "resources/subscribe", uri=f"memory://{n}") for n in (2, 3, 4))
    for line in (hello, one, two, three, _request(5, "resources/unsubscribe", uri="memory://3")):
        session.note(line)
    for number in (1, 2, 3, 5):
        session.answered(_answer(number))
    assert [session.handshake(), *session.subscribed()] == [hello, one]
    assert list(session.pending) == [4]


def test_what_a_file_gives_comes_out_of_a_socket_where_only_sockets_can_be_waited_for():
    reading, writing = os.pipe()
    with socket_of(reading) as stdin, open(reading, "rb"):
        stdin.settimeout(20)
        os.write(writing, b"one\n")
        assert stdin.recv(100) == b"one\n"
        os.close(writing)
        assert stdin.recv(100) == b""
