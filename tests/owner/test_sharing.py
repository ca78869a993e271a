"""Several clients of one database share one owner, and each sees what is its own."""

from __future__ import annotations

import os
import sys

import pytest
from talker import CORE, Household

from mcp_memory.owner.places import Places

pytestmark = pytest.mark.slow


def test_clients_with_different_settings_share_an_owner_and_see_only_their_own(house: Household):
    ana = house.client(agent="ana", context_window=50_000, timezone="Asia/Tokyo")
    bob = house.client(agent="bob", context_window=9_000, max_reply_tokens=300)
    assert house.owners() == [house.pid()]

    for client, mark in ((ana, "xanadu"), (bob, "bobbin")):
        client.call("core_memory_append", label="human", content=f"likes {mark}")
        client.call("archival_memory_insert", content=f"{mark} " * 400)
        client.call(
            "conversation_append",
            messages=[
                {"role": "user", "content": f"the {mark}", "created_at": "2026-03-01T23:30:00Z"}
            ],
        )
    for client, mine, other in ((ana, "xanadu", "bobbin"), (bob, "bobbin", "xanadu")):
        seen = str(
            [
                client.call("core_memory_view"),
                client.call("archival_memory_search", query="xanadu bobbin"),
                client.call("conversation_search", query="xanadu bobbin"),
                client.ask("resources/read", {"uri": CORE}),
            ]
        )
        assert mine in seen
        assert other not in seen

    assert ana.call("context_budget")["window_tokens"] == 50_000
    assert bob.call("context_budget")["window_tokens"] == 9_000
    # Half past eleven in London is the next day in Tokyo.
    on = {"start_date": "2026-03-02", "end_date": "2026-03-02"}
    assert ana.call("conversation_search", **on)["total"] == 1
    assert bob.call("conversation_search", **on)["total"] == 0
    # A memory of 800 tokens fits into one's reply and not into the other's.
    whole, cut = (
        str(client.call("archival_memory_search", query=mark)).count(mark)
        for client, mark in ((ana, "xanadu"), (bob, "bobbin"))
    )
    assert cut < whole


def test_two_databases_have_two_owners(house: Household):
    one = house.client()
    other = house.client(db=house.home / "other.duckdb")
    one.call("core_memory_append", label="human", content="of the first")
    assert "of the first" not in str(other.call("core_memory_view"))
    second = Places(str(house.home / "other.duckdb")).read_address() or {}
    assert set(house.owners()) == {house.pid(), second["pid"]}


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_database_named_through_a_link_has_the_same_owner(house: Household):
    os.symlink(house.home, house.home / "linked")
    one = house.client()
    other = house.client(db=house.home / "linked" / "memory.duckdb")
    one.call("core_memory_append", label="human", content="of both")
    assert "of both" in str(other.call("core_memory_view"))
    assert house.owners() == [house.pid()]
