"""Compaction: a smaller file with the same in it, whatever happens on the way."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import database_of

from mcp_memory.store import open_store
from mcp_memory.store.duckdb import compaction as module
from mcp_memory.store.duckdb.compaction import STEPS, compact
from mcp_memory.store.duckdb.database import Database
from mcp_memory.store.duckdb.files import copy_folder
from mcp_memory.store.duckdb.space import space
from mcp_memory.store.ports import ModelRecord, Store
from mcp_memory.values.errors import StorageFault

ROWS = 3_000
DIMENSION = 64
LAST = "before 咖啡"


def fill(path: Path) -> None:
    """Make a database of which two thirds are deleted."""
    store = open_store(path)
    with store.transaction() as unit:
        store.vectors.set_model(unit, ModelRecord("fake/hash", "f", DIMENSION))
    database = database_of(store)
    with database.transaction() as tx:
        tx.run(
            "INSERT INTO vectors (agent, source, id, version, number, first_char, last_char, seq,"
            " embedding) SELECT 'a', 'memory', 'm' || i, 1, 0, 0, 9, 1, list_transform("
            f"range({DIMENSION}), lambda x: hash(x * 1000003 + i) % 1000000 / 7)::float[64]"
            f" FROM range({ROWS}) AS t(i)"
        )
        tx.run(
            "INSERT INTO settings (key, value) SELECT 'key' || i, repeat(md5(i::text), 40)"
            f" FROM range({ROWS}) AS t(i)"
        )
    database.checkpoint()
    with database.transaction() as tx:
        tx.run("DELETE FROM vectors WHERE hash(id) % 3 > 0")
        tx.run("DELETE FROM settings WHERE key LIKE 'key%' AND hash(key) % 3 > 0")
    put(store, "last", LAST)
    store.close()


def put(store: Store, key: str, value: str = "v") -> None:
    with store.transaction() as unit:
        store.values.put(unit, key, value)


def contents(store: Store) -> list[tuple[object, ...]]:
    read = database_of(store).read
    return read("SELECT key, value FROM settings ORDER BY key") + read(
        "SELECT id, hash(embedding) FROM vectors ORDER BY id"
    )


def contents_of(path: Path) -> list[tuple[object, ...]]:
    store = open_store(path)
    try:
        return contents(store)
    finally:
        store.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "memory.duckdb"
    fill(path)
    return path


@pytest.fixture
def path(tmp_path: Path, filled: Path) -> Path:
    copy = tmp_path / "it's" / "memory.duckdb"
    copy.parent.mkdir()
    shutil.copy(filled, copy)
    return copy


@pytest.fixture
def store(path: Path):
    store = open_store(path)
    yield store
    store.close()


def left_over(path: Path) -> list[str]:
    """Return what is beside a database, but for the line that notices a loss."""
    kept = {path.name, f"{path.name}.witness"}
    return sorted(found.name for found in path.parent.iterdir() if found.name not in kept)


def test_a_compacted_file_is_smaller_and_holds_the_same(path: Path):
    before, size = contents_of(path), path.stat().st_size
    steps: list[str] = []
    done = compact(path, on_step=steps.append)
    assert (done.before_bytes, done.after_bytes) == (size, path.stat().st_size)
    assert done.after_bytes < size * 2 / 3
    assert tuple(steps) == STEPS
    assert left_over(path) == []
    store = open_store(path)
    assert contents(store) == before
    assert space(database_of(store).read).dead_frac < 0.1
    store.close()


def test_keys_and_types_stay_as_they_were(store: Store):
    def schema() -> list[tuple[object, ...]]:
        read = database_of(store).read
        return read(
            "SELECT table_name, constraint_type, constraint_text FROM duckdb_constraints()"
            " ORDER BY ALL"
        ) + read("SELECT table_name, sql FROM duckdb_tables() ORDER BY ALL")

    before = schema()
    assert any(row[1] == "PRIMARY KEY" for row in before if len(row) == 3)
    assert store.compact() is not None
    assert schema() == before
    with pytest.raises(StorageFault), database_of(store).transaction() as tx:
        tx.run("INSERT INTO settings (key, value) VALUES ('last', 'again')")


def test_what_is_written_afterwards_is_in_the_new_file(store: Store, path: Path):
    assert store.compact() is not None
    put(store, "after")
    store.close()
    again = open_store(path)
    assert [again.values.get(key) for key in ("last", "after")] == [LAST, "v"]
    again.close()


def test_readers_and_writers_wait_for_a_compaction_and_lose_nothing(store: Store):
    reopened: list[None] = []
    store.on_reopened = lambda: reopened.append(None)
    generation, stop = store.generation, threading.Event()
    started = threading.Barrier(5)
    failures: list[BaseException] = []
    written: list[str] = []

    def read() -> None:
        assert store.values.get("last") == LAST

    def write() -> None:
        put(store, f"new {len(written)}")
        written.append(f"new {len(written)}")

    def repeat(work: Callable[[], None]) -> None:
        started.wait(30)
        try:
            while not stop.is_set():
                work()
            work()  # Once more after the last compaction.
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=repeat, args=(work,)) for work in (read, read, read, write)]
    for thread in threads:
        thread.start()
    started.wait(30)
    try:
        done = [store.compact() for _ in range(2)]
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert all(done)
    assert all(store.values.get(key) == "v" for key in written)
    # What was read before is still valid.
    assert (store.generation, reopened) == (generation, [])


def test_a_writer_waits_until_the_file_is_open_again(store: Store):
    with database_of(store).closed() as closed:
        thread = threading.Thread(target=put, args=(store, "meanwhile"))
        thread.start()
        compact(closed)
    thread.join(60)
    assert store.values.get("meanwhile") == "v"


def test_a_read_that_does_not_end_prevents_the_compaction(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mcp_memory.store.duckdb.database._READS_END_SECONDS", 0.05)
    file, before = path.stat().st_ino, contents(store)
    inside, out = threading.Event(), threading.Event()

    def read_on() -> None:
        with database_of(store)._reading():
            inside.set()
            out.wait(30)

    thread = threading.Thread(target=read_on)
    thread.start()
    inside.wait(30)
    try:
        with pytest.raises(StorageFault, match="read for more than"):
            store.compact()
        assert contents(store) == before
    finally:
        out.set()
        thread.join()
    assert path.stat().st_ino == file
    assert store.compact() is not None
    assert contents(store) == before


def test_a_file_with_few_deleted_rows_is_left_alone_if_that_is_asked(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert store.compact(only_if_wasteful=True) is None  # It is small.
    monkeypatch.setattr("mcp_memory.store.duckdb.space.MIN_FILE_BYTES", 1)
    assert store.compact(only_if_wasteful=True) is not None
    file = path.stat().st_ino
    assert store.compact(only_if_wasteful=True) is None
    assert path.stat().st_ino == file


def test_a_copy_that_differs_is_not_used(path: Path, monkeypatch: pytest.MonkeyPatch):
    file, before = path.stat().st_ino, contents_of(path)
    compare = module._compare

    def damaged(connection, source) -> None:
        connection.execute("DETACH compacted_copy")
        copy = str(copy_folder(path) / path.name).replace("'", "''")
        connection.execute(f"ATTACH '{copy}' AS compacted_copy")
        connection.execute("DELETE FROM compacted_copy.settings WHERE key = 'last'")
        compare(connection, source)

    monkeypatch.setattr(module, "_compare", damaged)
    with pytest.raises(StorageFault, match="settings"):
        compact(path)
    assert path.stat().st_ino == file
    assert left_over(path) == []
    assert contents_of(path) == before


def test_without_room_for_a_copy_nothing_is_begun(path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(path)._replace(free=9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    steps: list[str] = []
    with pytest.raises(StorageFault, match="free"):
        compact(path, on_step=steps.append)
    assert steps == []
    assert left_over(path) == []


def test_after_a_compaction_that_failed_the_store_is_read_and_written(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = shutil.disk_usage(path)._replace(free=9)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(StorageFault, match="free"):
            store.compact()
    put(store, "after")
    assert [store.values.get(key) for key in ("last", "after")] == [LAST, "v"]


@pytest.mark.skipif(os.name != "posix", reason="owners of files are of POSIX")
def test_a_file_of_another_user_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch):
    file, before = path.stat().st_ino, contents_of(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
        with pytest.raises(StorageFault, match="another user"):
            compact(path)
    assert path.stat().st_ino == file
    assert left_over(path) == []
    assert contents_of(path) == before


@pytest.mark.parametrize("step", STEPS)
def test_a_system_that_refuses_leaves_a_whole_database(path: Path, step: str):
    before = contents_of(path)

    def refuse(reached: str) -> None:
        if reached == step:
            raise OSError(28, "No space left on device")

    with pytest.raises(StorageFault, match="No space left"):
        compact(path, on_step=refuse)
    assert left_over(path) == []
    assert contents_of(path) == before


def test_a_store_in_memory_cannot_be_compacted():
    store = open_store(None)
    with pytest.raises(StorageFault):
        store.compact()
    store.close()


@pytest.mark.skipif(os.name != "posix", reason="modes and links are of POSIX")
def test_the_file_has_its_mode_as_before_and_a_link_to_it_stays_a_link(path: Path, tmp_path: Path):
    link = tmp_path / "link.duckdb"
    link.symlink_to(path)
    open_store(link).close()  # It makes the file private.
    seen: list[int] = []

    def look(step: str) -> None:
        if step == "copied":
            seen.append(stat.S_IMODE(copy_folder(link).stat().st_mode))

    compact(link, on_step=look)
    store = open_store(link)
    put(store, "after")
    store.close()
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert seen == [0o700]
    again = open_store(path)
    assert again.values.get("after") == "v"
    again.close()


def test_what_a_crash_has_left_is_deleted_at_the_next_start(path: Path):
    folder = path.with_name(f"{path.name}.compact")
    folder.mkdir()
    (folder / path.name).write_bytes(b"half a copy")
    (folder / f"{path.name}.wal").write_bytes(b"and its log")
    Database(path).close()
    assert left_over(path) == []


def run(script: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


WITHOUT_ROOM = """
    import resource, signal, sys
    from pathlib import Path
    from mcp_memory.values.errors import DiskFull
    from mcp_memory.store import open_store
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    store = open_store(Path(sys.argv[1]))
    try:
        store.compact()
    except DiskFull:
        assert store.values.get("last")
        store.close()
        sys.exit()
    sys.exit("it went through")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of a file's size are of POSIX")
def test_a_disk_that_fills_up_meanwhile_leaves_everything_as_it_was(path: Path):
    before = path.read_bytes()
    run(WITHOUT_ROOM, str(path))
    assert path.read_bytes() == before
    assert left_over(path) == []


KILLED_AT_STEPS = """
    import os, shutil, signal, sys
    from pathlib import Path
    from mcp_memory.store.duckdb.compaction import STEPS, compact
    from mcp_memory.store.duckdb.store import DuckDBStore
    path, folder = map(Path, sys.argv[1:])
    for step in STEPS:
        copy = folder / step / path.name
        copy.parent.mkdir()
        shutil.copy(path, copy)
        child = os.fork()
        if child == 0:
            def die(reached):
                if reached == step:
                    os.kill(os.getpid(), signal.SIGKILL)
            store = DuckDBStore(copy)
            with store.transaction() as unit:
                store.values.put(unit, "acknowledged", "v")
            with store.database.closed() as closed:
                compact(closed, on_step=die)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the process that dies is a fork")
def test_a_kill_at_any_step_leaves_a_whole_database(filled: Path, tmp_path: Path):
    copy = tmp_path / filled.name
    shutil.copy(filled, copy)
    store = open_store(copy)
    put(store, "acknowledged")
    expected = contents(store)
    store.close()
    run(KILLED_AT_STEPS, str(filled), str(tmp_path))
    for step in STEPS:
        path = tmp_path / step / filled.name
        store = open_store(path)
        assert contents(store) == expected, step
        put(store, "after the kill")
        assert left_over(path) == ["memory.duckdb.wal"]
        assert store.compact() is not None
        store.close()
