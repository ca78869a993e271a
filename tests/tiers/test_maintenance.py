"""What a store needs from time to time; and a heart that beats only if there is news."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from fakes import FakeClock, HashEmbedder
from talker import until

from mcp_memory.agent import AgentMemory, Memories
from mcp_memory.settings import Settings
from mcp_memory.store.duckdb import store as duckdb_store
from mcp_memory.tiers import events
from mcp_memory.tiers.engine import Engine
from mcp_memory.tiers.heartbeat import Heart
from mcp_memory.tiers.maintenance import KEEP_EVENTS, maintain
from mcp_memory.values.records import NewMessage

MOMENT = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(MOMENT, tick=timedelta(microseconds=1))


@pytest.fixture
def engine(settings: Settings, clock: FakeClock) -> Iterator[Engine]:
    engine = Engine(settings, embedder=HashEmbedder(), clock=clock)
    yield engine
    engine.close()


@pytest.fixture
def heart_of(engine: Engine) -> Iterator[Callable[..., Heart]]:
    hearts: list[Heart] = []

    def start(*arguments, seconds: float = 0.02) -> Heart:
        heart = Heart(engine, seconds, *arguments)
        heart.start()
        hearts.append(heart)
        return heart

    yield start
    for heart in hearts:
        heart.close()


def write(engine: Engine, key: str) -> None:
    with engine.transaction() as unit:
        engine.store.values.put(unit, key, "v")


def log_bytes(engine: Engine) -> int:
    return engine.store.statistics().log_bytes


def log_event(engine: Engine, kind: str, conversation: str | None = None) -> None:
    with engine.transaction() as unit:
        engine.events.add(unit, "a", kind, "text", conversation=conversation)


def test_a_quiet_store_has_no_log_afterwards(engine: Engine):
    write(engine, "a")
    assert log_bytes(engine) > 0
    assert maintain(engine, quiet=True) is False
    assert log_bytes(engine) == 0
    assert maintain(engine, quiet=True) is False


def test_while_somebody_is_at_work_only_a_big_log_is_written_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    write(engine, "a")
    size = log_bytes(engine)
    monkeypatch.setattr(duckdb_store, "BIG_LOG_BYTES", size + 1)
    assert maintain(engine, quiet=False) is True
    assert log_bytes(engine) == size
    monkeypatch.setattr(duckdb_store, "BIG_LOG_BYTES", size)
    assert maintain(engine, quiet=False) is False
    assert log_bytes(engine) == 0


def test_the_log_is_not_written_back_while_somebody_writes(engine: Engine):
    write(engine, "a")
    put_off: list[bool] = []
    with engine.store.transaction():
        thread = threading.Thread(target=lambda: put_off.append(engine.store.maintain(quiet=True)))
        thread.start()
        thread.join()
    assert put_off == [True]
    assert log_bytes(engine) > 0


def test_the_vectors_of_a_deleted_memory_are_gone(engine: Engine):
    memory = Memories(engine).open("a")
    changed = memory.archive.insert("The kettle is blue.").memory
    gone = memory.archive.insert("The kettle is red.").memory
    memory.archive.update(changed.id, content="The kettle is green.")
    memory.archive.delete(gone.id)
    [block] = engine.store.vectors.blocks("a", "memory", engine.store.seq("a"))
    assert block.ids == [changed.id]
    assert engine.store.statistics().rows["memories"] == 3


def test_old_events_are_deleted_but_the_newest_and_the_last_of_each_kind(
    engine: Engine, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(events, "MAX_OLD", 3)
    for day in range(5):
        clock.moment = MOMENT + timedelta(days=day)
        log_event(engine, events.RETHOUGHT)
        log_event(engine, events.FLUSHED, "one")
    clock.moment = MOMENT
    log_event(engine, events.FLUSHED, "two")
    present = MOMENT + KEEP_EVENTS + timedelta(days=9)
    for hour in range(3):
        clock.moment = present - timedelta(hours=hour)
        log_event(engine, events.WARNING, "one")
    clock.moment = present
    asked = [
        (kinds, conversation)
        for kinds in ((events.RETHOUGHT, events.REMINDER), (events.FLUSHED,), (events.WARNING,))
        for conversation in (None, "one", "two")
    ]
    before = [engine.events.last_at("a", *asking) for asking in asked]
    newest = engine.events.recent("a", 3)
    maintain(engine, quiet=True)
    assert [engine.events.last_at("a", *asking) for asking in asked] == before
    assert engine.events.recent("a", 3) == newest
    assert len(engine.events.recent("a", 100)) == 6


def test_no_event_of_the_last_month_is_deleted(
    engine: Engine, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(events, "MAX_OLD", 1)
    for day in range(10):
        clock.moment = MOMENT + timedelta(days=day)
        log_event(engine, events.WARNING, "one")
    maintain(engine, quiet=True)
    assert len(engine.events.recent("a", 100)) == 10


def kinds(memory: AgentMemory) -> list[str]:
    return [event.kind for event in memory.events(100)]


def test_a_beat_reminds_a_connected_agent_of_news_once(engine: Engine):
    memories = Memories(engine)
    memory, gone = memories.open("ana"), memories.open("gone")
    for opened in (memory, gone):
        opened.conversations.append([NewMessage("user", "I moved to Oslo.")])
    gone.close()
    heard: list[frozenset[str]] = []
    memory.listen(heard.append)
    for _ in range(2):
        memories.schedule.beat()
    assert kinds(memory) == [events.REMINDER]
    assert kinds(gone) == []
    assert heard == [frozenset({"events"})]
    memory.conversations.append([NewMessage("user", "To Grønland.")])
    memories.schedule.beat()
    assert kinds(memory) == [events.REMINDER] * 2


def test_a_beat_warns_of_a_window_that_a_block_has_filled(settings: Settings):
    changed = settings.model_copy(update={"context_window": 2_000, "rethink_every": 0})
    memories = Memories(Engine(changed, embedder=HashEmbedder()))
    memory, other = memories.open("ana"), memories.open("ana")
    memory.conversations.append([NewMessage("user", "word " * 1_000)])
    memories.schedule.beat()
    assert kinds(memory) == []
    other.core.rethink("human", "fact " * 600)
    heard: set[str] = set()
    memory.listen(heard.update)
    for _ in range(2):
        memories.schedule.beat()
    assert kinds(memory) == [events.WARNING]
    assert heard == {"events"}
    memories.close()


def test_a_heart_beats_once_at_the_start_and_then_only_after_something_new(
    engine: Engine, heart_of: Callable[..., Heart]
):
    heart = heart_of()
    until(lambda: heart.beats, "the first beat")
    engine.events.recent("a", 10)
    write(engine, "a")
    until(lambda: heart.beats > 1, "the beat after a change")
    assert heart.beats == 2
    assert log_bytes(engine) == 0


def test_what_a_beat_writes_makes_no_other_beat(engine: Engine, heart_of: Callable[..., Heart]):
    written: list[str] = []

    def write_event() -> None:
        written.append(f"key{len(written)}")
        write(engine, written[-1])

    heart = heart_of(write_event)
    until(lambda: heart.beats, "the first beat")
    write(engine, "a")
    until(lambda: heart.beats > 1, "the beat after a change")
    assert len(written) == heart.beats == 2
    # It was written back all the same.
    assert log_bytes(engine) == 0


def test_a_beat_that_fails_does_not_stop_the_heart(
    engine: Engine, heart_of: Callable[..., Heart], caplog: pytest.LogCaptureFixture
):
    def fail() -> None:
        raise ValueError("unforeseen")

    heart = heart_of(fail)
    until(lambda: heart.beats, "the first beat")
    write(engine, "a")
    until(lambda: heart.beats > 1, "another beat")
    assert "unforeseen" in caplog.text


def test_an_interval_of_0_is_no_heartbeat(engine: Engine, heart_of: Callable[..., Heart]):
    heart = heart_of(seconds=0)
    write(engine, "a")
    assert heart.beats == 0
    assert "mcp-memory-heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_a_heart_that_is_closed_has_left_no_thread(engine: Engine, heart_of: Callable[..., Heart]):
    heart = heart_of(seconds=1_000)
    heart.close()
    assert "mcp-memory-heartbeat" not in {thread.name for thread in threading.enumerate()}
    assert heart.beats == 0
