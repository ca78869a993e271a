"""The owner is killed: every client goes on with the next one, and nothing is lost or doubled."""

from __future__ import annotations

from collections import Counter

import duckdb
import psutil
import pytest
from talker import ERAS, Household, Talker, content_of, until

from mcp_memory.owner.look import look
from mcp_memory.owner.wire import RETRY_CODE

pytestmark = pytest.mark.slow

ROUNDS = 15


def test_calls_in_flight_are_answered_once_and_what_was_acknowledged_is_kept(house: Household):
    clients = [house.client(era=era) for era in ERAS]
    asked: list[tuple[Talker, int]] = []
    said: set[str] = set()
    stored: set[str] = set()
    for turn in range(ROUNDS):
        begun = [
            (client, tool, text, client.begin(tool, **arguments))
            for place, client in enumerate(clients)
            for text in (f"text {turn} of {place}",)
            for tool, arguments in (
                ("core_memory_view", {}),
                ("conversation_append", {"messages": [{"role": "user", "content": text}]}),
                ("archival_memory_insert", {"content": text}),
                ("archival_memory_search", {"query": text}),
            )
        ]
        # Sometimes before anything is answered, sometimes between, sometimes after.
        for client, _, _, number in begun[: turn % (len(begun) + 1)]:
            client.answer(number)
        house.kill_owner()
        for client, tool, text, number in begun:
            answer = client.answer(number)
            asked.append((client, number))
            if tool == "conversation_append" and "error" in answer:
                assert answer["error"]["code"] == RETRY_CODE
                assert answer["error"]["data"] == {"retryable": True}
                continue
            content_of(answer)
            if tool == "conversation_append":
                said.add(text)
            elif tool == "archival_memory_insert":
                stored.add(text)
        # Else the next call may begin with the owner that was just killed.
        for client in clients:
            client.call("core_memory_view")
    for client in clients:
        # The handshake was repeated without the client's knowing.
        assert len(client.answers(1)) == 1
    assert {len(client.answers(number)) for client, number in asked} == {1}
    assert len(stored) == ROUNDS * len(clients)
    assert house.owners() == [house.pid()]

    for client in clients:
        client.kill()
    pid = house.kill_owner()
    until(lambda: not psutil.pid_exists(pid), "the owner's end")
    with duckdb.connect(house.places.db) as database:
        memories = Counter(
            row[0] for row in database.sql("FROM memories SELECT content").fetchall()
        )
        messages = Counter(
            row[0] for row in database.sql("FROM messages SELECT content").fetchall()
        )
    assert memories == Counter(stored)
    assert messages.keys() >= said
    assert set(messages.values()) <= {1}


def test_eight_clients_at_the_same_moment_end_with_one_owner_and_again_after_a_kill(
    house: Household,
):
    clients = [house.start(era=ERAS[place % 2]) for place in range(8)]
    for client in clients:
        client.greet()
    _assert_one_owner_of(house, clients)
    house.kill_owner()
    calls = [(client, client.begin("core_memory_view")) for client in clients]
    for client, number in calls:
        content_of(client.answer(number))
    _assert_one_owner_of(house, clients)


def _assert_one_owner_of(house: Household, clients: list[Talker]) -> None:
    assert house.owners() == [house.pid()]
    assert len(look(house.places, "status", seconds=30).result["clients"]) == len(clients)


def test_a_handshake_in_flight_is_answered_once(house: Household):
    house.client()
    client = house.start()
    number = client.request(
        "initialize",
        {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    )
    house.kill_owner()
    assert client.answer(number)["result"]["protocolVersion"] == "2025-11-25"
    client.notify("notifications/initialized")
    client.call("core_memory_view")
    house.kill_owner()
    client.call("core_memory_view")
    assert len(client.answers(number)) == 1


def test_a_client_waits_for_the_owner_that_it_started(house: Household):
    client = house.client()
    client.call("core_memory_view")
    pid = house.kill_owner()
    # Nobody asks for anything: a dead process must not stay until the next call.
    until(lambda: not psutil.pid_exists(pid), "the end of the dead owner")
    client.call("core_memory_view")
    assert house.pid() != pid
