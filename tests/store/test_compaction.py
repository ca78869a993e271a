"""Compaction: a smaller file with the same in it, whatever happens on the way."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from mcp_memory.store.duckdb import compaction as module
from mcp_memory.store.duckdb.compaction import STEPS, compact
from mcp_memory.store.duckdb.database import Database
from mcp_memory.store.duckdb.space import space
from mcp_memory.store.duckdb.vectors import ModelRecord, VectorStore
from mcp_memory.values.errors import StorageFault

ROWS = 3_000
DIMENSION = 64


def fill(path: Path) -> None:
    """Make a database of which two thirds are deleted."""
    database = Database(path)
    VectorStore(database).adopt(ModelRecord("fake/hash", "f", DIMENSION))
    with database.transaction() as tx:
        tx.run(
            "INSERT INTO vectors SELECT 'a', 'memory', 'm' || i, 1, 0, 0, 9, list_transform("
            f"range({DIMENSION}), lambda x: hash(x * 1000003 + i) % 1000000 / 7)::float[64]"
            f" FROM range({ROWS}) AS t(i)"
        )
        tx.run(
            "INSERT INTO settings SELECT 'key' || i, repeat(md5(i::text), 40)"
            f" FROM range({ROWS}) AS t(i)"
        )
    database.checkpoint()
    with database.transaction() as tx:
        tx.run("DELETE FROM vectors WHERE hash(id) % 3 > 0")
        tx.run("DELETE FROM settings WHERE key LIKE 'key%' AND hash(key) % 3 > 0")
    keep(database, "last", "before 咖啡")
    database.close()


def keep(database: Database, key: str, value: str = "v") -> None:
    with database.transaction() as tx:
        tx.run("INSERT INTO settings VALUES ($1, $2)", key, value)


def contents(database: Database) -> list[tuple[object, ...]]:
    return database.read("SELECT * FROM settings ORDER BY key") + database.read(
        "SELECT id, hash(embedding) FROM vectors ORDER BY id"
    )


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
def database(path: Path):
    database = Database(path)
    yield database
    database.close()


def left_over(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.iterdir() if found != path)


def test_a_compacted_file_is_smaller_and_holds_the_same(database: Database, path: Path):
    before, size = contents(database), path.stat().st_size
    steps: list[str] = []
    done = compact(database, on_step=steps.append)
    assert done is not None
    assert (done.before_bytes, done.after_bytes) == (size, path.stat().st_size)
    assert done.after_bytes < size * 2 / 3
    assert contents(database) == before
    assert tuple(steps) == STEPS
    assert left_over(path) == []
    found = space(database.read)
    assert found.dead_frac < 0.1


def test_keys_and_types_are_kept(database: Database):
    def schema() -> list[tuple[object, ...]]:
        return database.read(
            "SELECT table_name, constraint_type, constraint_text FROM duckdb_constraints()"
            " ORDER BY ALL"
        ) + database.read("SELECT table_name, sql FROM duckdb_tables() ORDER BY ALL")

    before = schema()
    assert any(row[1] == "PRIMARY KEY" for row in before if len(row) == 3)
    assert compact(database) is not None
    assert schema() == before
    with pytest.raises(StorageFault):
        keep(database, "last")


def test_what_is_written_afterwards_is_in_the_new_file(database: Database, path: Path):
    assert compact(database) is not None
    keep(database, "after")
    database.close()
    again = Database(path)
    assert again.read("SELECT value FROM settings WHERE key = 'after'") == [("v",)]
    assert again.read("SELECT value FROM settings WHERE key = 'last'") == [("before 咖啡",)]
    again.close()


def test_no_cache_becomes_void_by_compaction(database: Database):
    reopened: list[None] = []
    database.on_reopened = lambda: reopened.append(None)
    generation = database.generation
    assert compact(database) is not None
    assert (database.generation, reopened) == (generation, [])


def test_whoever_reads_meanwhile_is_never_refused(database: Database):
    stop, failures, reads = threading.Event(), [], [0]
    expected = database.read("SELECT count(*) FROM settings")

    def read() -> None:
        while not stop.is_set():
            try:
                assert database.read("SELECT count(*) FROM settings") == expected
                reads[0] += 1
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        done = [compact(database) is not None for _ in range(2)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert reads[0] > 0
    assert any(done)


@pytest.mark.parametrize("step", STEPS[1:6])
def test_what_is_committed_meanwhile_makes_the_copy_worthless_and_is_kept(
    database: Database, path: Path, step: str
):
    file = path.stat().st_ino

    def write(reached: str) -> None:
        if reached == step:
            thread = threading.Thread(target=keep, args=(database, "meanwhile"))
            thread.start()
            thread.join()

    assert compact(database, on_step=write) is None
    assert path.stat().st_ino == file
    assert left_over(path) in ([], ["memory.duckdb.wal"])
    assert database.read("SELECT value FROM settings WHERE key = 'meanwhile'") == [("v",)]


def test_a_writer_waits_for_a_compaction_that_holds_the_place(database: Database):
    threads: list[threading.Thread] = []

    def write(reached: str) -> None:
        if reached == "begun":
            threads.append(threading.Thread(target=keep, args=(database, "meanwhile")))
            threads[0].start()

    assert compact(database, hold=True, on_step=write) is not None
    threads[0].join()
    assert database.read("SELECT value FROM settings WHERE key = 'meanwhile'") == [("v",)]


def test_a_read_that_does_not_end_puts_the_swap_off(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mcp_memory.store.duckdb.database._READS_END_SECONDS", 0.05)
    file, before = path.stat().st_ino, contents(database)
    inside, out = threading.Event(), threading.Event()

    def read_on() -> None:
        with database._reading():
            inside.set()
            out.wait(30)

    thread = threading.Thread(target=read_on)
    thread.start()
    inside.wait(30)
    try:
        assert compact(database) is None
        assert contents(database) == before
    finally:
        out.set()
        thread.join()
    assert path.stat().st_ino == file
    assert compact(database) is not None
    assert contents(database) == before


def test_a_copy_that_differs_is_not_put_to_use(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
):
    file, before = path.stat().st_ino, contents(database)
    compare = module._compare

    def damaged(connection) -> None:
        connection.execute("DETACH compacted_copy")
        copy = database.copy_folder / path.name
        connection.execute(f"ATTACH '{str(copy).replace(chr(39), chr(39) * 2)}' AS compacted_copy")
        connection.execute("DELETE FROM compacted_copy.settings WHERE key = 'last'")
        compare(connection)

    monkeypatch.setattr(module, "_compare", damaged)
    with pytest.raises(StorageFault, match="settings"):
        compact(database)
    assert path.stat().st_ino == file
    assert contents(database) == before
    assert left_over(path) == []


def test_without_room_for_a_copy_nothing_is_begun(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = shutil.disk_usage(path)._replace(free=9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    steps: list[str] = []
    with pytest.raises(StorageFault, match="free"):
        compact(database, on_step=steps.append)
    assert steps == []
    assert left_over(path) == []


@pytest.mark.parametrize("step", ["begun", "checked", "synced", "closed", "renamed"])
def test_a_system_that_refuses_leaves_a_whole_database(database: Database, path: Path, step: str):
    before = contents(database)

    def refuse(reached: str) -> None:
        if reached == step:
            raise OSError(28, "No space left on device")

    with pytest.raises(StorageFault, match="No space left"):
        compact(database, on_step=refuse)
    assert contents(database) == before
    keep(database, "after")
    assert left_over(path) in ([], ["memory.duckdb.wal"])


def test_a_database_in_memory_cannot_be_compacted():
    database = Database(None)
    with pytest.raises(StorageFault):
        compact(database)
    database.close()


@pytest.mark.skipif(os.name != "posix", reason="modes and links are of POSIX")
def test_the_file_keeps_its_mode_and_a_link_to_it_stays_a_link(path: Path, tmp_path: Path):
    link = tmp_path / "link.duckdb"
    link.symlink_to(path)
    database = Database(link)
    seen: list[int] = []

    def look(step: str) -> None:
        if step == "copied":
            seen.append(stat.S_IMODE(database.copy_folder.stat().st_mode))

    assert compact(database, on_step=look) is not None
    keep(database, "after")
    database.close()
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert seen == [0o700]
    again = Database(path)
    assert again.read("SELECT value FROM settings WHERE key = 'after'") == [("v",)]
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
    from mcp_memory.store.duckdb.database import Database
    from mcp_memory.store.duckdb.compaction import compact
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    database = Database(Path(sys.argv[1]))
    try:
        compact(database)
    except DiskFull:
        print(database.read("SELECT value FROM settings WHERE key = 'last'"))
        database.close()
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


def check_whole(path: Path, expected: list[tuple[object, ...]]) -> None:
    database = Database(path)
    assert contents(database) == expected
    keep(database, "after the kill")
    assert left_over(path) == ["memory.duckdb.wal"]
    # And it can be done after all.
    assert compact(database) is not None
    database.close()


KILLED_AT_STEPS = """
    import os, shutil, signal, sys
    from pathlib import Path
    from mcp_memory.store.duckdb.database import Database
    from mcp_memory.store.duckdb.compaction import STEPS, compact
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
            database = Database(copy)
            with database.transaction() as tx:
                tx.run("INSERT INTO settings VALUES ('acknowledged', 'v')")
            compact(database, on_step=die)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the process that dies is a fork")
def test_a_kill_at_any_step_leaves_a_whole_database(filled: Path, tmp_path: Path):
    database = Database(filled)
    expected = contents(database)
    database.close()
    at = next(number for number, row in enumerate(expected) if str(row[0]) > "acknowledged")
    expected.insert(at, ("acknowledged", "v"))
    run(KILLED_AT_STEPS, str(filled), str(tmp_path))
    for step in STEPS:
        check_whole(tmp_path / step / filled.name, expected)


KILLED_IN_CHECKPOINTS = """
    import os, shutil, signal, sys, threading, time
    from pathlib import Path
    from mcp_memory.store.duckdb.database import Database
    path, folder, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

    def fork(copy, dies_after):
        shutil.copy(path, copy)
        child = os.fork()
        if child == 0:
            database = Database(copy)
            with database.transaction() as tx:
                tx.run("INSERT INTO settings SELECT 'new' || lpad(i::text, 6, '0'),"
                       " repeat(md5(i::text), 60) FROM range(4000) AS t(i)")
            def die():
                threading.Event().wait(dies_after)
                os.kill(os.getpid(), signal.SIGKILL)
            if dies_after is not None:
                threading.Thread(target=die).start()
            began = time.monotonic()
            database.checkpoint()
            took = time.monotonic() - began
            (folder / "took").write_text(str(took))
            os._exit(0)
        os.waitpid(child, 0)

    fork(folder / "timed", None)
    took = float((folder / "took").read_text())
    for number in range(count):
        (folder / str(number)).mkdir()
        fork(folder / str(number) / path.name, took * number / count)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the process that dies is a fork")
def test_a_kill_within_a_checkpoint_loses_nothing(filled: Path, tmp_path: Path):
    count = 5
    run(KILLED_IN_CHECKPOINTS, str(filled), str(tmp_path), str(count))
    for number in range(count):
        database = Database(tmp_path / str(number) / filled.name)
        found = database.read("SELECT count(*) FROM settings WHERE key LIKE 'new%'")
        last = database.read("SELECT value FROM settings WHERE key = 'last'")
        database.close()
        assert (found, last) == ([(4_000,)], [("before 咖啡",)])
