"""Alerts: what they name, who is told, and how often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes import HashEmbedder

from mcp_memory.agent import Memories
from mcp_memory.paging.alerts import MAX_ALERT_TOKENS, MAX_LISTED
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.records import NewMessage

WINDOW = 4_000


@pytest.fixture
def memories(settings) -> Iterator[Memories]:
    changed = settings.model_copy(update={"rethink_every": 0, "context_window": WINDOW})
    memories = Memories(Engine(changed, embedder=HashEmbedder()))
    yield memories
    memories.close()


def say(memory, text, conversation="main", count=1):
    return memory.conversations.append([NewMessage("user", text)] * count, conversation)


def fill_to(memory, level, conversation="main", text="I fly TP-532 on Friday. " * 8):
    for _ in range(200):
        done = say(memory, text, conversation)
        if done.level == level:
            return done
    raise AssertionError(f"level {level!r} was never reached")


def test_an_alert_names_what_leaves_next_by_id_and_line_and_the_calls_that_save_it(memories):
    memory = memories.open("ana")
    first = say(memory, "My allergy: peanuts,\nand " + "walnuts " * 60).ids[0]
    warned = fill_to(memory, "warning")
    assert warned.alert is not None
    head, *lines, rest = warned.alert.splitlines()
    leaving = memory.events(1)[0].data["last"] + 1
    assert f"messages 0 to {leaving - 1} will be evicted next" in head
    for call in ("store_memories", "core_memory_append", "archival_memory_insert"):
        assert call in head
    assert lines[0].startswith(f"[0] {first} user: My allergy: peanuts, and walnuts")
    assert len(lines) == MAX_LISTED
    assert rest == f"and {leaving - MAX_LISTED} more"
    assert memory.count_tokens(warned.alert) <= MAX_ALERT_TOKENS


@pytest.mark.parametrize(
    "text", ["咖啡很贵。" * 60, "ﷺ\U0001f468‍\U0001f469‍\U0001f467" * 30, "a\n" * 300]
)
def test_an_alert_is_short_whatever_was_said(memories, text):
    memory = memories.open("ana")
    name = "ﷺ" * 100
    warned = fill_to(memory, "warning", name, text)
    assert warned.alert is not None
    assert memory.count_tokens(warned.alert) <= MAX_ALERT_TOKENS
    assert "archival_memory_insert" in warned.alert


def test_every_connection_that_uses_a_conversation_is_told_once(memories):
    writer, other, stranger = (memories.open("ana") for _ in range(3))
    say(writer, "hello")
    other.conversations.recent()
    say(stranger, "elsewhere", "side")
    warned = fill_to(writer, "warning").alert
    assert warned is not None
    assert writer.conversations.alert() is None
    assert stranger.conversations.alert() is None
    assert [other.conversations.alert() for _ in range(3)] == [warned, None, None]
    # A warning is still in force for one that comes later, a flush of before is not.
    late = memories.open("ana")
    late.conversations.budget()
    assert [late.conversations.alert() for _ in range(2)] == [warned, None]
    flushed = fill_to(writer, "flush").alert
    assert flushed is not None
    assert "were evicted into the summary" in flushed
    assert other.conversations.alert("side") == flushed
    later = memories.open("ana")
    later.conversations.budget()
    assert later.conversations.alert() is None


def test_an_alert_of_another_conversation_of_the_connection_is_told_after_ones_own(memories):
    one, two = memories.open("ana"), memories.open("ana")
    for name in ("main", "side"):
        two.conversations.budget(name)
        fill_to(one, "warning", name)
    told = [two.conversations.alert("side"), two.conversations.alert("side")]
    assert "'side'" in str(told[0])
    assert "'main'" in str(told[1])
    assert two.conversations.alert("side") is None


def test_agents_are_told_nothing_of_each_other(memories):
    ana, ben = memories.open("ana"), memories.open("ben")
    say(ben, "hello")
    assert fill_to(ana, "warning").alert is not None
    assert ben.conversations.alert() is None


def test_who_asks_for_a_flush_is_not_told_of_it_but_others_are(memories):
    asking, other = memories.open("ana"), memories.open("ana")
    say(asking, "tea and kettles", count=10)
    other.conversations.budget()
    assert asking.conversations.flush().evicted
    assert asking.conversations.alert() is None
    assert "were evicted" in str(other.conversations.alert())


def test_pressure_that_nothing_can_relieve_is_told_once_too(memories):
    memory = memories.open("ana")
    memory.core.define("human", "tea " * 5_000, limit=6_000)
    alerts = [say(memory, f"message {number}").alert for number in range(3)]
    assert "no message can be evicted now" in str(alerts[0])
    assert alerts[1:] == [None, None]


def test_listeners_are_told_of_events_only_if_there_are_some(memories):
    memory = memories.open("ana")
    told: list[frozenset[str]] = []
    memory.listen(told.append)

    def heard() -> set[str]:
        topics = set[str]().union(*told) - {"embedding"}
        told.clear()
        return topics

    memory.conversations.flush()
    assert heard() == set()
    fill_to(memory, "warning")
    assert heard() == {"messages/main", "events"}
    say(memory, "more")
    assert heard() == {"messages/main"}
    memory.conversations.budget(context_tokens=100)
    assert heard() == {"budget/main"}
    fill_to(memory, "flush")
    assert heard() == {"messages/main", "summary/main", "events"}
