"""A full disk: a clear refusal, nothing acknowledged is lost, and it goes on once there is room."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable

import psutil
import pytest
from full_disk import FULL_PRELUDE, fill_disk
from talker import Household, Message, Talker, until

from mcp_memory.owner.places import unwritable

pytestmark = pytest.mark.slow

_TEXT_CHARS = 20_000
_ENOUGH = 1_000


def text(seed: int) -> str:
    generator = random.Random(seed)
    return f"number {seed} " + generator.randbytes(_TEXT_CHARS // 2).hex()


def insert(client: Talker, number: int) -> Message:
    answer = client.answer(client.begin("archival_memory_insert", content=text(number)))
    result: Message = answer["result"]
    return result


def kept(client: Talker) -> int:
    return int(client.call("archival_memory_search", top_k=1)["total"])


def write_until_full(house: Household, writer: Talker) -> int:
    """Return how many texts were acknowledged before the disk was full."""
    for number in range(_ENOUGH):
        result = insert(writer, number)
        if result.get("isError"):
            said = str(result["content"])
            assert "no space left" in said
            assert house.places.db in said
            return number
    raise AssertionError("the disk is never full")


def check_goes_on(house: Household, make_room: Callable[[], None]) -> None:
    writer, other = house.client(), house.client(agent="other")
    other.call("core_memory_append", label="human", content="was here before")
    owner = house.pid()
    acknowledged = write_until_full(house, writer)
    assert acknowledged > 10
    # What is there can still be read, by everybody.
    assert kept(writer) == acknowledged
    assert "was here before" in str(other.call("core_memory_view"))
    make_room()
    assert "id" in insert(writer, _ENOUGH)["structuredContent"]
    other.call("core_memory_append", label="human", content="and after")
    assert kept(writer) == acknowledged + 1
    assert house.pid() == owner
    # The next owner finds the same in the file.
    psutil.Process(owner).kill()
    assert kept(writer) == acknowledged + 1
    found = writer.call("archival_memory_search", query=f"number {acknowledged - 1}", top_k=1)
    assert f"number {acknowledged - 1} " in str(found)


def test_a_disk_that_fills_up_refuses_and_loses_nothing(small_house: Household):
    small_house.owner()
    make_room = fill_disk(small_house.home, left_bytes=2_500_000)
    check_goes_on(small_house, make_room)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a file's size are of POSIX")
def test_a_file_that_may_not_grow_refuses_and_loses_nothing(house: Household):
    owner = house.owner(prelude=FULL_PRELUDE)
    check_goes_on(house, lambda: os.kill(owner.pid, signal.SIGUSR1))


def test_an_owner_that_finds_no_room_is_not_started_and_the_client_says_why(
    small_house: Household,
):
    client = small_house.client()
    client.call("core_memory_append", label="human", content="of before")
    # It would start the next owner before the disk is full.
    client.end()
    small_house.kill_owner()
    until(lambda: not small_house.owners(), "the end of the owner")
    make_room = fill_disk(small_house.home)
    refused = small_house.start()
    said = refused.answer(refused.begin("core_memory_view"))["error"]["message"]
    assert "no space left" in said
    assert small_house.places.folder in said
    assert refused.end() == 0
    assert len(refused.errors) == 1
    make_room()
    assert "of before" in str(small_house.client().call("core_memory_view"))


def test_a_client_outlives_a_disk_that_is_full_when_its_owner_dies(small_house: Household):
    client = small_house.client()
    client.call("core_memory_append", label="human", content="of before")
    make_room = fill_disk(small_house.home)
    small_house.kill_owner()
    answer = client.answer(client.begin("core_memory_view"))
    assert "no space left" in answer["error"]["message"]
    make_room()
    assert "of before" in str(client.call("core_memory_view"))


@pytest.mark.parametrize(
    ("number", "full"), [("ENOSPC", True), ("EFBIG", True), ("EDQUOT", True), ("EROFS", False)]
)
def test_the_systems_words_for_no_room_are_known(number: str, full: bool):
    import errno

    if not hasattr(errno, number):
        pytest.skip(f"there is no {number} here")
    code = getattr(errno, number)
    fault = unwritable("/there/memory.duckdb.owner", OSError(code, os.strerror(code)))
    assert ("no space left" in fault.message) == full
    assert "/there/memory.duckdb.owner" in fault.message
