"""What a client may send or leave out: the owner lives, and serves the others."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from processes import raw_server
from talker import Household

from mcp_memory.owner.wire import PROTOCOL, dial

pytestmark = pytest.mark.slow

HASTY = "import mcp_memory.owner.process as process; process._HELLO_SECONDS = 1.0"


def test_lines_that_are_no_messages_are_answered_and_the_connection_goes_on(house: Household):
    client = house.client()
    for line in (b"garbage", b"[" * 100_000, b"\xff\xfe\x00", b"{}", b"[1, 2]", b'"text"', b" "):
        client.send(line)
        client.call("core_memory_view")
    codes = [message["error"]["code"] for message in client.messages if "error" in message]
    assert len(codes) == 6
    assert set(codes) <= {-32_700, -32_600}


def test_a_line_of_a_hundred_megabytes_is_answered_with_an_error(house: Household):
    client, other = house.client(), house.client()
    head = b'{"jsonrpc":"2.0","id":777,"method":"tools/call","params":{"name":"'
    client.send(head + b"x" * 100_000_000 + b'"}}')
    other.call("core_memory_view")
    assert "longer than" in client.answer(777)["error"]["message"]
    client.call("core_memory_view")


def test_clients_that_leave_in_the_middle_of_a_line_are_let_go(house: Household):
    staying = house.client()
    pid = house.pid()
    for how in ("closes", "is killed", "says nothing"):
        leaving = house.start()
        if how != "says nothing":
            assert leaving.process.stdin is not None
            leaving.process.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "meth')
            leaving.process.stdin.flush()
        if how == "is killed":
            leaving.kill()
        else:
            assert leaving.end() == 0
    staying.call("core_memory_view")
    assert house.pid() == pid


def test_a_client_that_closes_its_stdout_is_left(house: Household):
    with raw_server(house.home, **house.settings) as leaving:
        leaving.initialize()
        assert leaving.process.stdout is not None
        leaving.process.stdout.close()
        leaving.send(b'{"jsonrpc": "2.0", "id": 2, "method": "tools/list"}')
        assert leaving.process.wait(timeout=30) == 0


def _hellos() -> Iterator[bytes]:
    yield b"garbage\n"
    yield b"\xff\xfe\n"
    yield b"[" * 100_000 + b"\n"
    yield b"x" * 3_000_000
    yield b"x" * 3_000_000 + b"\n"
    yield b'{"mcp_memory": 999}\n'
    yield b'{"mcp_memory": %d, "settings": 5}' % PROTOCOL
    yield b'{"half of a'
    yield b""


def test_connections_that_say_no_hello_are_closed_and_the_owner_lives(house: Household):
    owner = house.owner(HASTY)
    client = house.client()
    for hello in _hellos():
        with dial(house.address(), 20.0) as connection:
            # It may be closed before all was said.
            with _ignored_reset():
                connection.sendall(hello)
            assert _rest(connection) == b"", hello[:40]
    client.call("core_memory_view")
    assert house.pid() == owner.pid
    assert owner.poll() is None


def test_connections_that_ask_for_what_there_is_not_are_refused(house: Household):
    client = house.client()
    for hello, answer in (
        ('"op": "nonsense"', b"has no operation"),
        ('"op": 5', b"has no operation"),
        (f'"settings": {{"MCP_MEMORY_AGENT": "{"a" * 500}"}}', b"MCP_MEMORY_AGENT"),
        ('"settings": 5, "since": "never"', b'"pid"'),
        ('"since": 1e300', b'"pid"'),
        ('"op": "block.set", "params": 5', b""),
    ):
        with dial(house.address(), 20.0) as connection:
            connection.sendall(b'{"mcp_memory": %d, %s}\n' % (PROTOCOL, hello.encode()))
            connection.shutdown(socket.SHUT_WR)
            assert answer in _rest(connection), hello
    client.call("core_memory_view")
    # That parameters are no object is a mistake of the program's own, and logged as one.
    house.expects_trouble = True


class _ignored_reset:  # reads as a clause of its sentence
    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, OSError)


def _rest(connection: socket.socket) -> bytes:
    """Return what comes until the other end has closed the connection."""
    connection.settimeout(30.0)
    said, started = b"", time.monotonic()
    with _ignored_reset():
        while piece := connection.recv(65_536):
            said += piece
    assert time.monotonic() - started < 30.0, "it was not closed"
    return said
