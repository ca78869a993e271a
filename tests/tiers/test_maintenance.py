"""What is due, and what is done about it; a heart that beats only if there is news."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fakes import HashEmbedder
from talker import until

from mcp_memory.agent import AgentMemory, Memories
from mcp_memory.settings import Settings
from mcp_memory.store.duckdb.space import MIN_FILE_BYTES, Space
from mcp_memory.tiers import events
from mcp_memory.tiers import maintenance as module
from mcp_memory.tiers.engine import Engine
from mcp_memory.tiers.heartbeat import Heart
from mcp_memory.tiers.maintenance import (
    BIG_LOG_BYTES,
    KEEP_EVENTS,
    Failure,
    Maintenance,
    wants_checkpoint,
    wants_compaction,
)
from mcp_memory.values.dates import now
from mcp_memory.values.errors import StorageFault
from mcp_memory.values.records import NewMessage

MOMENT = datetime(2026, 5, 1, tzinfo=UTC)
THIRD_DEAD = Space(3 * MIN_FILE_BYTES, MIN_FILE_BYTES)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = Engine(settings, embedder=HashEmbedder())
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


def keep(engine: Engine, key: str, value: str = "v") -> None:
    with engine.store.database.transaction() as tx:
        tx.run("INSERT INTO settings VALUES ($1, $2)", key, value)


def log_bytes(engine: Engine) -> int:
    path = Path(f"{engine.store.database.path}.wal")
    return path.stat().st_size if path.exists() else 0


def half_dead(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill the database, and delete nearly all of it."""
    monkeypatch.setattr("mcp_memory.store.duckdb.space.MIN_FILE_BYTES", 1_000_000)
    with engine.store.database.transaction() as tx:
        tx.run(
            "INSERT INTO vectors SELECT 'a', 'memory', 'm' || i, 1, 0, 0, 9, list_transform("
            "range(64), lambda x: hash(x * 1000003 + i) % 1000000 / 7)::float[64]"
            " FROM range(20000) AS t(i)"
        )
    engine.store.database.checkpoint()
    with engine.store.database.transaction() as tx:
        tx.run("DELETE FROM vectors WHERE hash(id) % 10 > 0")


def log_event(engine: Engine, kind: str, at: datetime, conversation: str | None = None) -> None:
    with engine.store.database.transaction() as tx:
        event = engine.events.add(tx, "a", kind, "text", conversation=conversation)
        tx.run("UPDATE events SET created_at = $1 WHERE id = $2", at, event.id)


@pytest.mark.parametrize(
    ("size", "quiet", "wanted"),
    [
        (0, True, False),
        (1, True, True),
        (1, False, False),
        (BIG_LOG_BYTES - 1, False, False),
        (BIG_LOG_BYTES, False, True),
    ],
)
def test_the_log_is_written_back_when_it_is_quiet_or_the_log_is_big(
    size: int, quiet: bool, wanted: bool
):
    assert wants_checkpoint(size, quiet=quiet) is wanted


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (THIRD_DEAD, True),
        (Space(3 * MIN_FILE_BYTES, MIN_FILE_BYTES - 1), False),
        (Space(MIN_FILE_BYTES - 1, MIN_FILE_BYTES - 1), False),
        (Space(0, 0), False),
    ],
)
def test_a_file_of_some_size_is_compacted_once_a_third_of_it_is_dead(found: Space, wanted: bool):
    assert wants_compaction(found, None, MOMENT) is wanted


@pytest.mark.parametrize(
    ("ago", "size", "wanted"),
    [
        (timedelta(hours=1), THIRD_DEAD.file_bytes, False),
        (timedelta(days=1), THIRD_DEAD.file_bytes, True),
        (timedelta(hours=1), THIRD_DEAD.file_bytes * 3 // 4, True),
        # The clock was set back.
        (timedelta(days=-3), THIRD_DEAD.file_bytes, True),
    ],
)
def test_after_a_failure_it_waits_a_day_or_until_the_file_has_grown(
    ago: timedelta, size: int, wanted: bool
):
    failure = Failure(MOMENT - ago, size)
    assert wants_compaction(THIRD_DEAD, failure, MOMENT) is wanted


def test_a_quiet_database_has_no_log_afterwards(engine: Engine):
    keep(engine, "a")
    assert log_bytes(engine) > 0
    assert Maintenance(engine).run(quiet=True) is False
    assert log_bytes(engine) == 0


def test_what_would_be_in_somebodys_way_is_put_off(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    keep(engine, "a")
    assert Maintenance(engine).run(quiet=False) is True
    assert log_bytes(engine) > 0
    done: list[bool] = []
    with engine.store.database.held():
        thread = threading.Thread(
            target=lambda: done.append(engine.store.database.checkpoint(wait=False))
        )
        thread.start()
        thread.join()
    assert done == [False]
    half_dead(engine, monkeypatch)
    engine.store.database.checkpoint()
    size = Path(engine.store.database.path).stat().st_size
    assert Maintenance(engine).run(quiet=False) is True
    assert Path(engine.store.database.path).stat().st_size == size


def test_a_file_of_which_much_is_dead_is_compacted(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    half_dead(engine, monkeypatch)
    size = Path(engine.store.database.path).stat().st_size
    assert Maintenance(engine).run(quiet=True) is False
    assert Path(engine.store.database.path).stat().st_size < size / 2
    assert engine.store.database.read("SELECT count(*) > 1000 FROM vectors") == [(True,)]


def test_a_compaction_that_fails_is_not_tried_again_at_the_next_beat(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    tried: list[int] = []

    def fail(*_, **__):
        tried.append(1)
        raise StorageFault("no room")

    monkeypatch.setattr(module, "compact", fail)
    half_dead(engine, monkeypatch)
    for _ in range(3):
        # Another process would know it as well.
        assert Maintenance(engine).run(quiet=True) is False
    assert len(tried) == 1


def test_a_compaction_is_given_up_when_the_process_ends(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    half_dead(engine, monkeypatch)
    file = Path(engine.store.database.path).stat().st_ino
    assert Maintenance(engine, stopped=lambda: True).run(quiet=True) is True
    assert Path(engine.store.database.path).stat().st_ino == file


def test_the_vectors_of_a_deleted_memory_are_gone(open_memory):
    memory = open_memory()
    kept = memory.archive.insert("The kettle is blue.").memory
    gone = memory.archive.insert("The kettle is red.").memory
    memory.archive.update(kept.id, content="The kettle is green.")
    memory.archive.delete(gone.id)
    read = memory._engine.store.database.read
    assert read("SELECT DISTINCT id, version FROM vectors") == [(kept.id, 2)]
    assert read("SELECT count(*) FROM memories WHERE id = $1", kept.id) == [(2,)]


def test_old_events_are_deleted_but_the_newest_and_the_last_of_each_kind(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(events, "KEPT", 3)
    old = now() - KEEP_EVENTS - timedelta(days=9)
    for day in range(5):
        log_event(engine, events.RETHOUGHT, old + timedelta(days=day))
        log_event(engine, events.FLUSHED, old + timedelta(days=day), "one")
    log_event(engine, events.FLUSHED, old, "two")
    for hour in range(3):
        log_event(engine, events.WARNING, now() - timedelta(hours=hour), "one")
    asked = [
        (kinds, conversation)
        for kinds in ((events.RETHOUGHT, events.REMINDER), (events.FLUSHED,), (events.WARNING,))
        for conversation in (None, "one", "two")
    ]
    before = [engine.events.last_at("a", *asking) for asking in asked]
    newest = engine.events.recent("a", 3)
    Maintenance(engine).run(quiet=True)
    assert [engine.events.last_at("a", *asking) for asking in asked] == before
    assert engine.events.recent("a", 3) == newest
    assert len(engine.events.recent("a", 100)) == 6


def test_no_event_of_the_last_month_is_deleted(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "KEPT", 1)
    for day in range(10):
        log_event(engine, events.WARNING, now() - timedelta(days=day), "one")
    Maintenance(engine).run(quiet=True)
    assert len(engine.events.recent("a", 100)) == 10


MEMORY_SCRIPT = """
import numpy as np
from mcp_memory.tiers.maintenance import give_back_memory
def taken():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4_096
# Smaller than what glibc maps by itself; the last one keeps the heap from shrinking.
arrays = [np.ones(12_000) for _ in range(1_000)]
del arrays[:-1]
before = taken()
print(give_back_memory(), before - taken())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems' allocators do it themselves")
def test_memory_that_was_freed_is_given_back_to_the_system():
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    can, given_back = done.stdout.split()
    if can == "False":
        pytest.skip("this is not glibc")
    assert int(given_back) > 50_000_000


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
    assert heard == {"events", "budget/main"}
    memories.close()


def test_a_heart_beats_once_at_the_start_and_then_only_after_something_new(
    engine: Engine, heart_of: Callable[..., Heart]
):
    heart = heart_of()
    until(lambda: heart.beats and not heart.armed, "the first beat")
    beats = heart.beats
    engine.store.database.read("SELECT 1")
    assert not heart.armed
    keep(engine, "a")
    assert heart.armed or heart.beats > beats
    until(lambda: heart.beats > beats and not heart.armed, "the beat after a change")
    assert log_bytes(engine) == 0


def test_what_a_beat_writes_makes_no_other_beat(engine: Engine, heart_of: Callable[..., Heart]):
    written: list[str] = []

    def write() -> None:
        written.append(f"key{len(written)}")
        keep(engine, written[-1])

    heart = heart_of(write)
    until(lambda: heart.beats and not heart.armed, "the first beat")
    assert len(written) == heart.beats
    # It was written back all the same.
    assert log_bytes(engine) == 0


def test_a_beat_that_fails_does_not_stop_the_heart(
    engine: Engine, heart_of: Callable[..., Heart], caplog: pytest.LogCaptureFixture
):
    def fail() -> None:
        raise ValueError("unforeseen")

    heart = heart_of(fail)
    until(lambda: heart.beats and not heart.armed, "the first beat")
    keep(engine, "a")
    until(lambda: heart.beats > 1, "another beat")
    assert "unforeseen" in caplog.text


def test_an_interval_of_0_is_no_heartbeat(engine: Engine, heart_of: Callable[..., Heart]):
    heart = heart_of(seconds=0)
    keep(engine, "a")
    assert heart.beats == 0
    assert "mcp-memory-heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_a_heart_that_is_closed_has_left_no_thread(engine: Engine, heart_of: Callable[..., Heart]):
    heart = heart_of(seconds=1_000)
    heart.close()
    assert "mcp-memory-heartbeat" not in {thread.name for thread in threading.enumerate()}
    assert heart.beats == 0
