"""No client can stop the others: what it may hold of the owner is limited, and the rest goes on."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from owners import OwnersClient
from talker import Household, until

from mcp_memory.owner.connection import MAX_IN_FLIGHT, MAX_STREAMS
from mcp_memory.owner.wire import dial

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="its limits are others"),
]

MB = 1_000_000
FEW_FILES = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (42, 42))"
NO_COUNT = f"""{FEW_FILES}
import mcp_memory.owner.process as process
process.raise_file_limit, process._MAX_OF_PROCESS = lambda: 1_000, 1_000"""
IMPATIENT = "import mcp_memory.owner.connection as it; it._STALLED_SECONDS = 1"


@contextmanager
def flood(house: Household, count: int) -> Iterator[list[socket.socket]]:
    """Connect again and again without a word."""
    with ExitStack() as stack:
        address = house.address()
        yield [stack.enter_context(dial(address, 20.0)) for _ in range(count)]


def peak_mb(pid: int) -> float:
    """Return the most that a process ever held."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1_000


def call(number: object, **arguments: object) -> bytes:
    params = {"name": "archival_memory_insert", "arguments": arguments}
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    return json.dumps(message).encode()


def raw(house: Household) -> tuple[OwnersClient, socket.socket]:
    """Connect and greet, as a process that is no shim."""
    client = OwnersClient(house.home, **house.settings)
    client.initialize("raw")
    connection = client._reached.connection
    connection.settimeout(60.0)
    return client, connection


def test_clients_over_the_limit_of_open_files_are_told_and_those_that_fit_are_served(
    house: Household,
):
    served = [house.client(prelude=FEW_FILES) for _ in range(10)]
    refused = [house.start(prelude=FEW_FILES) for _ in range(3)]
    for client in refused:
        said = client.answer(client.begin("core_memory_view"))["error"]["message"]
        assert "10 clients are connected" in said
        assert "ulimit -n" in said
    for client in served:
        client.call("core_memory_view")
    assert served.pop().end() == 0
    house.client(prelude=FEW_FILES).call("core_memory_view")


def test_a_process_that_connects_without_end_keeps_no_client_out(house: Household):
    owner = house.owner()
    with flood(house, 500) as connections:
        house.client().call("core_memory_view")
        assert b"32 connections to the memory already" in connections[-1].recv(4_096)
    assert house.pid() == owner.pid


def test_an_owner_that_is_out_of_files_tells_clients_so_and_goes_on_afterwards(house: Household):
    owner = house.owner(NO_COUNT)
    with flood(house, 60) as connections:
        connections[-1].settimeout(60.0)
        assert b"ulimit -n" in connections[-1].recv(4_096)
    house.client().call("core_memory_view")
    assert house.pid() == owner.pid


@pytest.mark.parametrize("part", [b"[],", b'{"a":1},', b"[[]],"], ids=["lists", "objects", "deep"])
def test_a_long_line_of_many_values_is_refused_and_takes_no_memory(house: Household, part: bytes):
    other = house.client()
    other.call("core_memory_view")
    before = peak_mb(house.pid())
    client, connection = raw(house)
    head = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x","arguments":{"a":['
    connection.sendall(head + part * (50 * MB // len(part)) + b"1]}}}\n")
    other.call("core_memory_view")
    answer = json.loads(client._lines.readline())
    assert answer["id"] == 7
    assert "more than 100,000 values" in answer["error"]["message"]
    assert peak_mb(house.pid()) < before + 250
    client.close()


def test_a_long_text_of_brackets_is_stored(house: Household):
    client = house.client()
    text = '[{"a": [1, 2]}, "b\\"]\n' * 50_000
    assert client.call("archival_memory_insert", content=text)["id"]


def test_long_lines_without_an_end_take_little_memory_and_keep_nobody_out(house: Household):
    house.owner(IMPATIENT)
    client = house.client()
    client.call("core_memory_view")
    before = peak_mb(house.pid())
    halves = [raw(house) for _ in range(6)]
    for _, connection in halves:
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.sendall(call(1, content="x" * 60 * MB))
    assert client.call("archival_memory_insert", content="a long text " * 80_000)["id"]
    assert peak_mb(house.pid()) < before + 300
    for half, _ in halves:
        half.close()


def test_a_client_that_reads_nothing_keeps_no_room_from_the_others(house: Household):
    house.owner(IMPATIENT)
    client = house.client()
    deaf, connection = raw(house)
    connection.setblocking(False)
    asked = b"".join(
        b'{"jsonrpc":"2.0","id":%d,"method":"tools/list"}\n' % number for number in range(100_000)
    )
    with pytest.raises(BlockingIOError):
        connection.sendall(asked)
    for _ in range(3):
        assert client.call("archival_memory_insert", content="a long text " * 80_000)["id"]
    deaf.close()


def test_many_long_lines_of_several_clients_are_all_answered(house: Household):
    clients = [house.client() for _ in range(4)]
    asked = [
        (client, client.begin("archival_memory_insert", content=f"{place} {again} " * 100_000))
        for place, client in enumerate(clients)
        for again in range(2)
    ]
    for client, number in asked:
        assert "result" in client.answer(number)


def test_ids_that_are_used_twice_or_cancelled_in_odd_ways_block_nothing(house: Household):
    client = house.client()
    for number in (["1"], {"a": 1}, None, 1e300, "1"):
        client.notify("notifications/cancelled", {"requestId": number})
    client.send(b'{"jsonrpc":"2.0","method":"ping","id":5,"params":{"_meta":"text"}}')
    same = b'{"jsonrpc":"2.0","id":6,"method":"tools/list"}'
    for _ in range(3 * MAX_IN_FLIGHT):
        client.send(same)
    until(lambda: len(client.answers(6)) == 3 * MAX_IN_FLIGHT, "all answers")
    for number in range(3 * MAX_IN_FLIGHT):
        client.send(call(f"9{number}", content=f"text {number}"))
        client.notify("notifications/cancelled", {"requestId": int(f"9{number}")})
    client.call("core_memory_view")


def test_a_client_has_a_limit_of_subscriptions_that_are_open_at_once(house: Household):
    client = house.client(era="2026-07-28")
    wanted = {"notifications": {"resourceSubscriptions": ["memory://core"]}}
    numbers = [client.request("subscriptions/listen", wanted) for _ in range(MAX_STREAMS + 1)]
    assert "cancel one first" in client.answer(numbers[-1])["error"]["message"]
    client.wait_for("notifications/subscriptions/acknowledged", times=MAX_STREAMS)
    client.notify("notifications/cancelled", {"requestId": numbers[0]})
    client.watch()
