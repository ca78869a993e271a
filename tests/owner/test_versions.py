"""A newer version takes the place of an older owner, and no older one takes it back."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
from talker import Household, Talker, owners_with, until

from mcp_memory import __version__

pytestmark = pytest.mark.slow

OLD = "import mcp_memory; mcp_memory.__version__ = '0.0.1'"


def _assert_stable(house: Household, clients: list[Talker], turns: int = 40) -> None:
    pid = house.pid()
    for _ in range(turns):
        for client in clients:
            client.call("core_memory_view")
    assert house.pid() == pid
    assert house.address()["version"] == __version__
    until(lambda: house.owners() == [pid], "the end of other owners")


def test_an_older_owner_is_replaced_and_its_clients_go_on(house: Household):
    owner = house.owner(OLD)
    assert house.address()["version"] == "0.0.1"
    old = house.client(prelude=OLD)
    old.call("core_memory_append", label="human", content="said to the old one")
    assert house.pid() == owner.pid
    new = house.client()
    assert owner.wait(timeout=30) == 0
    assert "said to the old one" in str(new.call("core_memory_view"))
    _assert_stable(house, [old, new])
    # It comes again: an older one takes what it finds.
    _assert_stable(house, [old, new, house.client(prelude=OLD)], turns=5)


@pytest.mark.skipif(sys.platform == "win32", reason="a script can't stand for a program there")
def test_an_older_client_that_starts_an_older_owner_does_not_fight_with_a_newer_one(
    house: Household, tmp_path: Path
):
    old_install = f"{OLD}\n{owners_with(OLD, tmp_path)}"
    old = house.client(prelude=old_install)
    assert house.address()["version"] == "0.0.1"
    first = psutil.Process(house.pid())
    new = house.client()
    until(lambda: not first.is_running(), "the end of the older owner")
    _assert_stable(house, [old, new], turns=5)
    for _ in range(2):
        house.kill_owner()
        # Either of the two may be the first to start one.
        numbers = [(client, client.begin("core_memory_view")) for client in (old, new)]
        for client, number in numbers:
            client.answer(number)
        until(lambda: house.address()["version"] == __version__, "an owner of the newer version")
    _assert_stable(house, [old, new])
