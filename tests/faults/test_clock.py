"""A clock that jumps: nothing acknowledged is hidden, reordered or overwritten."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from fakes import FakeClock

import mcp_memory.values.dates
from mcp_memory.agent import AgentMemory
from mcp_memory.values.records import NewMessage

TODAY = datetime(2026, 6, 1, 12, tzinfo=UTC)
JUMPS = {
    "back a day": timedelta(days=-1),
    "back to 1970": datetime(1970, 1, 2, tzinfo=UTC) - TODAY,
    "a century on": timedelta(days=36_525),
}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(TODAY, tick=timedelta(seconds=1))


@pytest.fixture
def open_at(open_memory: Callable[..., AgentMemory], clock: FakeClock) -> Callable[[], AgentMemory]:
    """Open the memory with the wrong clock."""
    return lambda: open_memory(clock=clock)


def say(memory: AgentMemory, *texts: str) -> None:
    memory.conversations.append([NewMessage("user", text) for text in texts])


def said(memory: AgentMemory) -> list[str]:
    return [message.content for message in memory.conversations.recent()]


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_recorded_before_a_jump_is_found_and_listed_after_it(
    open_at: Callable[[], AgentMemory], clock: FakeClock, jump: str, restarted: bool
):
    memory = open_at()
    say(memory, "the first pear")
    memory.archive.insert("a pear that is kept")
    clock.moment = clock() + JUMPS[jump]
    if restarted:
        memory.close()
        memory = open_at()
    for query in ("pear", None):
        assert memory.conversations.search(query).total == 1
        assert memory.archive.search(query).total == 1


@pytest.mark.parametrize("jump", JUMPS)
def test_messages_keep_the_order_they_were_acknowledged_in(
    open_at: Callable[[], AgentMemory], clock: FakeClock, jump: str
):
    memory = open_at()
    say(memory, "one", "two")
    clock.moment = clock() + JUMPS[jump]
    say(memory, "three")
    clock.moment = TODAY
    say(memory, "four")
    assert said(memory) == ["one", "two", "three", "four"]
    memory.close()
    memory = open_at()
    assert said(memory) == ["one", "two", "three", "four"]
    assert memory.conversations.search(None).total == 4


@pytest.mark.parametrize("jump", JUMPS)
def test_what_was_corrected_and_deleted_stays_so_after_a_jump(
    open_at: Callable[[], AgentMemory], clock: FakeClock, jump: str
):
    memory = open_at()
    pear = memory.archive.insert("the pear is green").memory
    plum = memory.archive.insert("the plum is blue").memory
    memory.core.append("human", "likes pears")
    clock.moment = clock() + JUMPS[jump]
    memory.archive.update(pear.id, content="the pear is yellow")
    memory.archive.delete(plum.id)
    memory.core.rethink("human", "likes plums")
    for _ in range(2):
        found = memory.archive.search("pear plum")
        assert [hit.memory.content for hit in found.items] == ["the pear is yellow"]
        assert memory.core.get("human").value == "likes plums"
        memory.close()
        memory = open_at()


def test_pages_go_on_to_the_end_though_the_clock_was_set_back(
    open_at: Callable[[], AgentMemory], clock: FakeClock
):
    memory = open_at()
    say(memory, *(f"pear {number}" for number in range(25)))
    clock.moment = clock() - timedelta(days=400)
    for query in ("pear", None):
        seen: list[str] = []
        as_of = None
        while len(seen) < 25:
            page = memory.conversations.search(query, limit=10, offset=len(seen), as_of=as_of)
            assert page.items
            seen += [hit.message.content for hit in page.items]
            as_of = page.as_of
        assert sorted(seen) == sorted(f"pear {number}" for number in range(25))


def test_rows_that_say_they_are_of_the_future_are_found(open_memory: Callable[..., AgentMemory]):
    memory = open_memory()
    memory.conversations.append(
        [NewMessage("user", "a comet comes", created_at=datetime(2999, 1, 1, tzinfo=UTC))]
    )
    memory.archive.insert("the comet of then", happened_at="2999-01-01")
    for query in ("comet", None):
        assert memory.conversations.search(query).total == 1
        assert memory.archive.search(query).total == 1
    assert mcp_memory.values.dates.now() < datetime(2999, 1, 1, tzinfo=UTC)
