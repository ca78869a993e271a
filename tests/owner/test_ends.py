"""How clients and owners end: all answers come first, and no process is left."""

from __future__ import annotations

import os
import threading

import pytest
from processes import command, environment, listening_url, raw_server
from talker import ERAS, Household, content_of, until

from mcp_memory.owner.look import holder_of
from mcp_memory.owner.wire import RETRY_CODE

pytestmark = pytest.mark.slow


def test_an_owner_leaves_after_its_last_client_and_nothing_is_left(house: Household):
    staying = house.client(owner_idle_seconds=1)
    killed = house.client(owner_idle_seconds=1)
    ended = house.client(owner_idle_seconds=1)
    pid, path = house.pid(), house.address().get("unix")
    killed.kill()
    assert ended.end() == 0
    # Longer than the idle time: a client that says nothing is a client.
    threading.Event().wait(2.5)
    staying.call("core_memory_append", label="human", content="still there")
    assert house.owners() == [pid]
    staying.kill()
    until(lambda: not house.processes(), "the end of all processes", seconds=30)
    assert house.places.read_address() is None
    assert path is None or not os.path.exists(str(path))
    assert holder_of(house.places) == ""

    again = house.client()
    assert "still there" in str(again.call("core_memory_view"))


@pytest.mark.parametrize("era", ERAS)
def test_answers_still_come_when_stdin_is_closed(house: Household, era: str):
    client = house.client(era=era)
    client.call("archival_memory_insert", content="word " * 500)
    numbers = [client.begin("archival_memory_search", query="word") for _ in range(150)]
    numbers.append(client.begin("archival_memory_insert", content="the last words"))
    assert client.end() == 0
    for number in numbers:
        content_of(client.answer(number))


def test_an_owner_that_has_to_end_answers_first_and_its_clients_go_on(house: Household):
    clients = [house.client(era=era) for era in ERAS]
    for client in clients:
        client.call("core_memory_view")
    begun = []
    for place, client in enumerate(clients):
        for turn in range(20):
            text = f"text {turn} of {place}"
            messages = [{"role": "user", "content": text}]
            begun.append((client, text, client.begin("conversation_append", messages=messages)))
    clients[0].answer(begun[0][2])
    pid = house.end_owner()
    acknowledged = []
    for client, text, number in begun:
        answer = client.answer(number)
        if "error" in answer:  # It had not been read.
            assert answer["error"]["code"] == RETRY_CODE
        else:
            acknowledged.append(text)
            content_of(answer)
    found = [hit["text"] for place in (0, 25) for hit in _listed(clients[0], place)]
    assert house.pid() != pid
    assert set(acknowledged) <= set(found)
    assert len(found) == len(set(found))
    until(lambda: house.owners() == [house.pid()], "the end of the first owner")


def _listed(client, skip):
    cursor = {}
    if skip:
        cursor = {"cursor": client.call("conversation_search", limit=25)["next_cursor"]}
    return client.call("conversation_search", limit=25, **cursor)["results"]


def test_a_server_of_http_takes_over_and_its_end_is_no_end_for_the_others(house: Household):
    client = house.client()
    client.call("core_memory_append", label="human", content="said before")
    detached = house.pid()
    arguments = ("serve", "--transport", "http", "--port", "0")
    with raw_server(house.home, *arguments, **house.settings) as server:
        assert listening_url(server).endswith("/mcp")
        assert "said before" in str(client.call("core_memory_view"))
        assert house.address()["kind"] == "serve"
        assert house.pid() == server.process.pid != detached
        client.call("core_memory_append", label="human", content="said to the server")

        second = command(house.home, *arguments, **house.settings)
        assert second.returncode == 1
        assert str(server.process.pid) in second.stderr
        assert len(second.stderr.splitlines()) == 1

        server.process.terminate()
        assert server.process.wait(timeout=60) == 0
    assert "said to the server" in str(client.call("core_memory_view"))
    assert house.address()["kind"] == "detached"
    assert house.owners() == [house.pid()]


def test_without_an_owner_there_are_no_files_of_one(house: Household):
    with raw_server(house.home, **house.settings | {"owner": "off"}) as alone:
        alone.initialize()
        alone.tool("core_memory_view", {})
        assert house.owners() == []
    assert not os.path.exists(house.places.folder)
    assert environment(house.home)["MCP_MEMORY_DB"] == house.places.db
    assert os.path.exists(house.places.db)
