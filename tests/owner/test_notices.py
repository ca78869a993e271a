"""What passes unasked: changes of resources, cancellation; before and after a take-over."""

from __future__ import annotations

import pytest
from talker import ACKNOWLEDGED, CORE, ERAS, LEGACY, MODERN, UPDATED, Household

pytestmark = pytest.mark.slow

BUDGET = "memory://context-budget"


def test_a_change_is_announced_to_subscribers_of_its_agent_and_to_nobody_else(house: Household):
    listeners = [house.client(era=era, agent="ana") for era in ERAS]
    stranger = house.client(agent="bob")
    writer = house.client(agent="ana")
    for client in (*listeners, stranger):
        client.watch()
    writer.call("core_memory_append", label="human", content="something new")
    for listener in listeners:
        listener.wait_for(UPDATED, CORE)
    # The notice of its own edit comes after any notice of the other one.
    stranger.call("core_memory_append", label="human", content="something of his own")
    stranger.wait_for(UPDATED, CORE)
    assert stranger.heard(UPDATED, CORE) == 1


def test_subscriptions_go_on_after_the_owner_was_killed(house: Household):
    legacy, modern = (house.client(era=era) for era in (LEGACY, MODERN))
    ended, writer = house.client(), house.client()
    for client in (legacy, modern, ended):
        client.watch()
    ended.ask("resources/unsubscribe", {"uri": CORE})
    house.kill_owner()
    for client in (legacy, ended, writer):
        client.call("core_memory_view")
    modern.wait_for(ACKNOWLEDGED, times=2)

    writer.call("core_memory_append", label="human", content="something new")
    for client in (legacy, modern):
        client.wait_for(UPDATED, CORE)
    # Its other subscription tells of a later change: what it would have heard came before.
    ended.watch(BUDGET)
    writer.call("core_memory_append", label="persona", content="something else")
    ended.wait_for(UPDATED, BUDGET)
    assert ended.heard(UPDATED, CORE) == 0


def test_subscriptions_go_on_after_the_owner_had_to_end(house: Household):
    legacy, modern = (house.client(era=era) for era in (LEGACY, MODERN))
    for client in (legacy, modern):
        client.watch()
    house.end_owner()
    legacy.call("core_memory_view")
    modern.wait_for(ACKNOWLEDGED, times=2)
    legacy.call("core_memory_append", label="human", content="something new")
    for client in (legacy, modern):
        client.wait_for(UPDATED, CORE)


@pytest.mark.parametrize("era", ERAS)
def test_cancelled_calls_leave_room_for_others_and_are_not_asked_again(house: Household, era: str):
    client = house.client(era=era)
    client.call("archival_memory_insert", content="word " * 500)
    cancelled = []
    # More than are worked on at once: those that are not answered would fill the room.
    for _ in range(150):
        number = client.begin("archival_memory_search", query="word")
        client.notify("notifications/cancelled", {"requestId": number})
        cancelled.append(number)
    assert client.call("archival_memory_search", query="word")["total"] == 1
    before = [len(client.answers(number)) for number in cancelled]
    assert max(before) <= 1
    house.kill_owner()
    assert client.call("archival_memory_search", query="word")["total"] == 1
    client.call("core_memory_view")
    assert [len(client.answers(number)) for number in cancelled] == before
