"""An owner that hangs, and clients that don't read: bounded, and the others don't notice."""

from __future__ import annotations

import json
import threading

import psutil
import pytest
from talker import Household, Talker, until

pytestmark = pytest.mark.slow

IMPATIENT = """
import mcp_memory.owner.connect as connect, mcp_memory.owner.shim as shim
import mcp_memory.owner.liveness as liveness
connect.HELLO_SECONDS = shim._PING_SECONDS = liveness.PING_SECONDS = 1.0
shim.SILENT_SECONDS = liveness.STILL_SECONDS = 3.0
"""
"""Only the figures differ from what a client starts: the real ones would be waited for."""


def test_a_stopped_owner_is_replaced_and_nobody_loses_anything(house: Household):
    waiting, other = house.client(prelude=IMPATIENT), house.client()
    other.call("core_memory_append", label="human", content="said before")
    stopped = psutil.Process(house.pid())
    stopped.suspend()
    number = waiting.begin("core_memory_view")
    assert "said before" in str(waiting.answer(number))
    until(lambda: not _lives(stopped), "the end of the stopped owner")
    assert "said before" in str(other.call("core_memory_view"))
    assert house.owners() == [house.pid()]


def test_a_client_that_comes_while_the_owner_is_stopped_is_served(house: Household):
    first = house.client()
    first.call("core_memory_append", label="human", content="said before")
    stopped = psutil.Process(house.pid())
    stopped.suspend()
    late = house.client(prelude=IMPATIENT)
    assert "said before" in str(late.call("core_memory_view"))
    until(lambda: not _lives(stopped), "the end of the stopped owner")
    assert "said before" in str(first.call("core_memory_view"))


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("killed", [False, True])
def test_a_client_that_reads_nothing_holds_up_nobody_and_gets_all_answers_later(
    house: Household, killed: bool
):
    lazy, other = house.client(), house.client()
    lazy.call("archival_memory_insert", content="word " * 1_500)
    lazy.reading.clear()
    numbers = range(1_000, 1_400)
    thread = threading.Thread(target=_ask, args=(lazy, numbers), daemon=True)
    thread.start()
    for _ in range(5):
        assert other.call("archival_memory_search", query="word")["total"] == 1
    if killed:
        house.kill_owner()
        assert other.call("archival_memory_search", query="word")["total"] == 1
    lazy.reading.set()
    for number in numbers:
        assert lazy.answer(number)["result"]["structuredContent"]["total"] == 1
    thread.join(timeout=20)
    assert {len(lazy.answers(number)) for number in numbers} == {1}


def _ask(client: Talker, numbers: range) -> None:
    for number in numbers:
        call = {"name": "archival_memory_search", "arguments": {"query": "word"}}
        request = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call}
        # Long lines: what waits in the buffers is more than one connection's buffer holds.
        client.send(json.dumps(request).encode() + b" " * 4_000)
