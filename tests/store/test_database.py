"""One DuckDB file: transactions, closing, locks, damage and full disks."""

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import tomllib
from pathlib import Path

import pytest

from mcp_memory.store.duckdb.checks import inspect
from mcp_memory.store.duckdb.database import Database
from mcp_memory.values.errors import DatabaseCorrupt, DatabaseLocked, DataMissing, StorageFault

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def run(script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a script in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def keep(database, key, value="v"):
    with database.transaction() as tx:
        tx.run("INSERT INTO settings (key, value) VALUES ($1, $2)", key, value)


def keys(database):
    return [row[0] for row in database.read("SELECT key FROM settings ORDER BY key")]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.duckdb"


@pytest.fixture
def database(path):
    database = Database(path)
    yield database
    database.close()


def test_what_was_committed_is_read_by_every_thread(database):
    keep(database, "a")
    assert keys(database) == ["a"]
    found = []
    thread = threading.Thread(target=lambda: found.extend(keys(database)))
    thread.start()
    thread.join()
    assert found == ["a"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_transaction_rolls_back_on_any_exception(database, error):
    keep(database, "before")

    def fail():
        with database.transaction() as tx:
            tx.run("INSERT INTO settings (key, value) VALUES ('lost', 'v')")
            tx.run("UPDATE settings SET key = 'changed' WHERE key = 'before'")
            raise error

    with pytest.raises(error):
        fail()
    assert keys(database) == ["before"]
    keep(database, "after")
    assert keys(database) == ["after", "before"]


def test_a_statement_that_fails_rolls_all_of_the_transaction_back(database):
    keep(database, "a")

    def fail():
        with database.transaction() as tx:
            tx.run("INSERT INTO settings (key, value) VALUES ('b', 'v')")
            tx.run("INSERT INTO settings (key, value) VALUES ('a', 'again')")

    with pytest.raises(StorageFault):
        fail()
    assert keys(database) == ["a"]
    assert database.read("SELECT value FROM settings") == [("v",)]


def test_what_is_not_committed_is_read_by_nobody(database):
    with database.transaction() as tx:
        tx.run("INSERT INTO settings (key, value) VALUES ('a', 'v')")
        assert keys(database) == []
        assert tx.run("SELECT key FROM settings") == [("a",)]
    assert keys(database) == ["a"]


def test_many_rows_are_written_by_one_statement_or_none_of_them(database):
    with database.transaction() as tx:
        tx.insert("settings", "key, value", [("a", "1"), ("b", "2")])
        tx.insert("settings", "key, value", [])
    assert keys(database) == ["a", "b"]
    with pytest.raises(StorageFault), database.transaction() as tx:
        tx.insert("settings", "key, value", [("c", "3"), ("a", "4")])
    assert keys(database) == ["a", "b"]


def test_writers_of_several_threads_take_turns(database):
    def write(name):
        for number in range(10):
            keep(database, f"{name}{number}")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys(database)) == 40


def test_a_query_that_cannot_be_read_is_a_storage_fault(database):
    with pytest.raises(StorageFault):
        database.read("SELECT * FROM nowhere")
    with pytest.raises(StorageFault):
        database.read_columns("SELECT * FROM nowhere")
    assert keys(database) == []


def test_columns_are_given_by_name(database):
    keep(database, "a", "1")
    columns = database.read_columns("SELECT key, value FROM settings")
    assert {name: column.tolist() for name, column in columns.items()} == {
        "key": ["a"],
        "value": ["1"],
    }


def test_what_was_committed_survives_closing_and_opening(path):
    first = Database(path)
    keep(first, "a", "咖啡 \U0001f375")
    first.close()
    second = Database(path)
    assert second.read("SELECT * FROM settings") == [("a", "咖啡 \U0001f375")]
    second.close()


def test_a_checkpoint_changes_nothing_that_is_read(database, path):
    keep(database, "a")
    database.checkpoint()
    assert keys(database) == ["a"]
    assert not path.with_name(f"{path.name}.wal").exists()


def test_a_database_may_be_closed_twice_and_then_serves_nobody(database):
    keep(database, "a")
    database.close()
    database.close()
    with pytest.raises(StorageFault):
        database.read("SELECT 1")
    with pytest.raises(StorageFault), database.transaction():
        pass
    with pytest.raises(StorageFault):
        database.checkpoint()


def test_a_database_in_memory_works_like_a_file():
    database = Database(None)
    keep(database, "a")
    assert keys(database) == ["a"]
    assert database.path == ":memory:"
    database.close()


def test_the_folder_of_a_new_database_is_made(tmp_path):
    path = tmp_path / "a" / "b" / "memory.duckdb"
    database = Database(path)
    keep(database, "a")
    database.close()
    assert path.is_file()


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_neither_the_database_nor_its_log_nor_its_folder_is_open_to_others(tmp_path):
    path = tmp_path / "private" / "memory.duckdb"
    database = Database(path)
    keep(database, "a")
    open_to_others = [
        file.name for file in (path.parent, *path.parent.iterdir()) if file.stat().st_mode & 0o077
    ]
    database.close()
    assert open_to_others == []


@pytest.mark.parametrize(
    "content",
    [b"hello", b"\x00" * 50_000, bytes(range(256)) * 400, b"x" * 8 + b"DUCK" + b"y" * 9_000],
    ids=["text", "zeros", "all bytes", "only the magic word"],
)
def test_a_file_of_garbage_is_corrupt_and_left_as_it_is(path, content):
    path.write_bytes(content)
    with pytest.raises(DatabaseCorrupt) as fault:
        Database(path)
    assert fault.value.path == str(path)
    assert fault.value.detail
    assert path.read_bytes() == content


def test_a_file_of_another_database_program_is_refused_and_left_as_it_is(path):
    content = b"SQLite format 3\x00" + bytes(4_080)
    path.write_bytes(content)
    with pytest.raises(StorageFault):
        Database(path)
    assert path.read_bytes() == content


def test_a_changed_byte_is_noticed(path):
    database = Database(path)
    for number in range(200):
        keep(database, f"key{number:03}", "value" * 50)
    database.close()
    content = bytearray(path.read_bytes())
    content[5_000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DatabaseCorrupt):
        Database(path)


def test_a_changed_log_is_noticed(path):
    database = Database(path)
    keep(database, "a", "value" * 500)
    wal, witness = (path.with_name(f"{path.name}.{end}") for end in ("wal", "witness"))
    pieces = {file: bytearray(file.read_bytes()) for file in (path, wal, witness)}
    database.close()
    pieces[wal][len(pieces[wal]) // 2] ^= 0xFF
    for file, content in pieces.items():
        file.write_bytes(content)
    with pytest.raises(DataMissing, match="is damaged"):
        Database(path)
    witness.unlink()
    with pytest.raises(DatabaseCorrupt):
        Database(path)


def test_a_folder_is_no_database(tmp_path):
    with pytest.raises(StorageFault):
        Database(tmp_path)


@pytest.mark.parametrize("below", ["memory.duckdb", "folder/memory.duckdb"])
def test_a_path_below_a_file_is_a_storage_fault(tmp_path, below):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageFault):
        Database(tmp_path / "file" / below)


def test_a_path_that_the_system_does_not_take_is_a_storage_fault(tmp_path):
    with pytest.raises(StorageFault):
        Database(tmp_path / ("a" * 300 + ".duckdb"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_a_folder_without_the_right_to_write_is_a_storage_fault(tmp_path, mode):
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(mode)
    try:
        with pytest.raises(StorageFault):
            Database(folder / "memory.duckdb")
        with pytest.raises(StorageFault):
            Database(folder / "deeper" / "memory.duckdb")
    finally:
        folder.chmod(0o700)


@pytest.mark.slow
def test_a_second_process_is_told_who_holds_the_database(database, path):
    keep(database, "a")
    done = run(
        """
        import sys
        from pathlib import Path
        from mcp_memory.values.errors import DatabaseLocked
        from mcp_memory.store.duckdb.database import Database
        try:
            Database(Path(sys.argv[1]))
        except DatabaseLocked as fault:
            print(fault.pid, fault.path)
        """,
        str(path),
    )
    assert done.stdout.split() == [str(os.getpid()), str(path)], done.stderr
    assert keys(database) == ["a"]


@pytest.mark.slow
def test_after_the_holder_was_killed_all_it_acknowledged_is_there(path):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import sys
                from pathlib import Path
                from mcp_memory.store.duckdb.database import Database
                database = Database(Path(sys.argv[1]))
                for number in range(1_000_000):
                    with database.transaction() as tx:
                        tx.run("INSERT INTO settings (key, value) VALUES ($1, 'v')", f"{number:07}")
                    print(number, flush=True)
                """
            ),
            str(path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    acknowledged = [int(holder.stdout.readline()) for _ in range(50)]
    with pytest.raises(DatabaseLocked) as fault:
        Database(path)
    assert fault.value.pid == holder.pid
    os.kill(holder.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in holder.stdout.read().split()]
    holder.wait(30)
    holder.stdout.close()
    database = Database(path)
    found = [int(key) for key in keys(database)]
    database.close()
    assert found[: len(acknowledged)] == acknowledged
    assert len(found) <= len(acknowledged) + 1


FULL = """
    import os, resource, sys
    from pathlib import Path
    from mcp_memory.values.errors import DiskFull
    from mcp_memory.store.duckdb.database import Database

    path = Path(sys.argv[1])
    database = Database(path)
    acknowledged = 0

    def keep():
        global acknowledged
        with database.transaction() as tx:
            value = os.urandom(2000).hex()
            tx.run("INSERT INTO settings (key, value) VALUES ($1, $2)", str(acknowledged), value)
        acknowledged += 1

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def count():
        return database.read("SELECT count(*) FROM settings")[0][0]
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits of a file's size are of POSIX")
def test_a_full_disk_refuses_a_write_and_loses_none_of_before(path):
    done = run(
        FULL
        + """
    limit(2_000_000)
    try:
        while True:
            keep()
    except DiskFull as fault:
        print(fault.path)
    print(acknowledged, count())
    limit(resource.RLIM_INFINITY)
    keep()
    print(acknowledged, count())
    """,
        str(path),
    )
    assert not done.stderr
    said, before, after = done.stdout.splitlines()
    assert said == str(path)
    acknowledged, found = map(int, before.split())
    assert acknowledged == found > 100
    assert after == f"{acknowledged + 1} {acknowledged + 1}"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits of a file's size are of POSIX")
def test_after_a_fatal_error_the_database_opens_again_by_itself(path):
    # A checkpoint that finds no room is fatal to the driver: all it is asked then fails.
    done = run(
        FULL
        + """
    for _ in range(200):
        keep()
    database.checkpoint()
    limit(path.stat().st_size + 1000)
    for _ in range(150):
        keep()
    try:
        database.checkpoint()
    except DiskFull as fault:
        print(type(fault.__cause__).__name__)
    print(count(), database.generation)
    limit(resource.RLIM_INFINITY)
    keep()
    print(count(), database.generation)
    database.close()
    print(len(Database(path).read("SELECT key FROM settings")))
    """,
        str(path),
    )
    assert not done.stderr
    assert done.stdout.split() == ["FatalException", "350", "1", "351", "1", "351"]


@pytest.mark.slow
def test_reading_a_time_needs_no_package_that_is_not_declared(path):
    done = run(
        """
        import sys
        from pathlib import Path
        from mcp_memory.store.duckdb.database import Database
        before = set(sys.modules)
        Database(Path(sys.argv[1])).read("SELECT applied_at FROM migrations")
        print(*{name.partition(".")[0] for name in set(sys.modules) - before})
        """,
        str(path),
    )
    assert not done.stderr
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    declared = {re.split(r"[^\w-]", needed)[0].lower() for needed in project["dependencies"]}
    loaded = set(done.stdout.split()) - set(sys.stdlib_module_names)
    assert loaded <= declared | {"mcp_memory"}


def _sqlite(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")
        connection.commit()


@pytest.mark.parametrize(
    "write",
    [
        _sqlite,
        lambda path: path.write_text("a,b\n1,2\n"),
        lambda path: path.write_text('{"a": 1}\n'),
        lambda path: path.write_bytes(b"PAR1" + b"x" * 99 + b"PAR1"),
        lambda path: path.write_bytes(b"PK\x03\x04" + b"0" * 5_000),
        lambda path: path.write_bytes(b""),
    ],
    ids=["SQLite", "CSV", "JSON", "Parquet", "zip", "empty"],
)
def test_a_file_of_another_kind_is_refused_by_one_sentence_and_left_as_it_is(write, tmp_path):
    """The driver would guess, and open some of them in memory, where nothing lasts."""
    path = tmp_path / "memory.db"
    write(path)
    before = path.read_bytes()
    for open_it in (Database, inspect):
        with pytest.raises(StorageFault) as refused:
            open_it(path)
        assert re.search("another kind of file|SQLite database", refused.value.message)
        assert "extension" not in str(refused.value)
        assert "MCP_MEMORY_DB" in refused.value.hint
    assert path.read_bytes() == before


def test_a_new_database_may_have_any_ending(tmp_path):
    path = tmp_path / "memory.csv"
    Database(path).close()
    Database(path).close()
    assert path.stat().st_size
