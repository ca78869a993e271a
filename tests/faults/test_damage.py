"""Damaged files: each call says which file and the way out; all goes on once it is replaced."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import psutil
import pytest
from click.testing import CliRunner
from talker import Household, Talker

from mcp_memory.agent import AgentMemory, Memories
from mcp_memory.cli.doctor import doctor
from mcp_memory.cli.status import status
from mcp_memory.settings import Settings, load_settings
from mcp_memory.store import inspect_file
from mcp_memory.store.duckdb.database import Database
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import DatabaseCorrupt, DataMissing, StorageFault

AGENTS = ("ana", "bob")
_BLOCK_BYTES = 4_096


def content(agent: str, number: int) -> str:
    return f"{agent} keeps {number}: " + random.Random(number).randbytes(200_000).hex()


def settings_of(house: Household) -> Settings:
    return load_settings(
        db=house.home / "memory.duckdb", cache_dir=house.settings["cache_dir"], offline=True
    )


def make(house: Household, *, with_log: bool) -> tuple[Path, Path]:
    """Leave a memory of two agents, and a log beside it as after a crash if it is wanted.

    The last memory in the log is one that was not acknowledged yet.
    """
    settings = settings_of(house)
    db, log, witness = files(settings.db.parent)
    engine = Engine(settings)
    memories = Memories(engine)
    for agent in AGENTS:
        memories.open(agent).archive.insert(content(agent, 0))
    engine.store.maintain(quiet=True)
    if not with_log:
        memories.close()
        return db, log
    line = b""
    for agent in AGENTS:
        line = witness.read_bytes()
        memories.open(agent).archive.insert(content(agent, 1))
    pieces = {db: db.read_bytes(), log: log.read_bytes(), witness: line}
    memories.close()
    put(pieces)
    return db, log


def files(folder: Path) -> tuple[Path, Path, Path]:
    """Return the paths of a database, its log and its witness."""
    db = folder / "memory.duckdb"
    return db, db.with_name(f"{db.name}.wal"), db.with_name(f"{db.name}.witness")


Pieces = dict[Path, bytes]


def snapshot(folder: Path) -> Pieces:
    """Return what a kill would leave at this moment."""
    return {path: path.read_bytes() for path in files(folder) if path.exists()}


def put(pieces: Pieces) -> None:
    """Write these files, and delete those that are missing among them."""
    for path in files(next(iter(pieces)).parent):
        if path in pieces:
            path.write_bytes(pieces[path])
        else:
            path.unlink(missing_ok=True)


def garbage_in_the_header(db: Path, log: Path) -> None:
    whole = bytearray(db.read_bytes())
    whole[:_BLOCK_BYTES] = random.Random(1).randbytes(_BLOCK_BYTES)
    db.write_bytes(whole)


def garbage_in_the_data(db: Path, log: Path) -> None:
    whole = db.read_bytes()
    for at in range(3 * _BLOCK_BYTES, len(whole), 64 * 1_024):
        db.write_bytes(whole[:at] + random.Random(at).randbytes(64) + whole[at + 64 :])
        # Where a block of the file is free or describes others, it makes no or another difference.
        if opens_and_fails(db):
            return
    raise AssertionError("no such place")


def opens_and_fails(db: Path) -> bool:
    """Return whether a database can be opened and the texts of no agent be read."""
    try:
        database = Database(db)
    except DatabaseCorrupt:
        return False
    with closing(database):
        for agent in AGENTS:
            try:
                database.read("SELECT hash(content) FROM memories WHERE agent = $1", agent)
            except DatabaseCorrupt:
                continue
            return False
    return True


def a_changed_bit_in_the_log(db: Path, log: Path) -> None:
    whole = bytearray(log.read_bytes())
    whole[len(whole) // 4] ^= 1  # In a text, not in the length of an entry.
    log.write_bytes(whole)


def cut_short(db: Path, log: Path) -> None:
    os.truncate(db, db.stat().st_size // 2)


def a_newer_schema(db: Path, log: Path) -> None:
    with duckdb.connect(str(db)) as connection:
        connection.execute("INSERT INTO migrations VALUES (999, 'of the future', now())")


def refused(client: Talker) -> str:
    """Return what a search that must fail says."""
    result = client.answer(client.begin("archival_memory_search"))["result"]
    assert result["isError"], result
    return str(result["content"])


DAMAGE = {
    "garbage in the header": (garbage_in_the_header, False, "restore a backup"),
    "garbage in the data": (garbage_in_the_data, False, "restore a backup"),
    "a file cut short": (cut_short, False, "restore a backup"),
    "a changed bit in the log": (a_changed_bit_in_the_log, True, "restore a backup"),
    "a newer schema": (a_newer_schema, False, "Update mcp-memory"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_database_is_named_to_every_client_until_it_is_replaced(
    house: Household, kind: str
):
    damage, with_log, hint = DAMAGE[kind]
    db, log = make(house, with_log=with_log)
    backup = house.home / "backup"
    backup.mkdir()
    for path in snapshot(house.home):
        shutil.copy(path, backup)
    damage(db, log)

    clients = [house.client(agent=agent) for agent in AGENTS]
    owner = house.pid()
    for client in (*clients, *clients):
        said = refused(client)
        assert str(db) in said
        assert hint in said
    assert house.pid() == owner

    for path in (db, log):
        path.rename(path.with_name(f"{path.name}.damaged")) if path.exists() else None
    for path in backup.iterdir():
        os.replace(path, db.parent / path.name)
    for agent, client in zip(AGENTS, clients, strict=True):
        assert client.call("archival_memory_search")["total"] == 1 + with_log
        client.call("archival_memory_insert", content=f"{agent} goes on")
    assert house.pid() == owner
    house.kill_owner()
    for client in clients:
        assert client.call("archival_memory_search")["total"] == 2 + with_log


@pytest.mark.slow
@pytest.mark.parametrize("tail", ["torn", "garbage behind"])
def test_of_a_log_with_a_bad_end_all_that_is_whole_is_there(house: Household, tail: str):
    _, log = make(house, with_log=True)
    if tail == "torn":
        os.truncate(log, log.stat().st_size - 100)
    else:
        with log.open("ab") as file:
            file.write(random.Random(1).randbytes(64))
    # The last transaction is bob's second memory; a torn one was never acknowledged.
    for agent, count in zip(AGENTS, (2, 1 if tail == "torn" else 2), strict=True):
        client = house.client(agent=agent)
        assert client.call("archival_memory_search")["total"] == count
        client.call("archival_memory_insert", content="goes on")


@pytest.fixture
def database(tmp_path: Path):
    opened = Database(tmp_path / "memory.duckdb")
    keep(opened, "of before")
    yield opened
    opened.close()


def keep(database: Database, key: str, value: str = "v") -> None:
    with database.transaction() as tx:
        tx.run("INSERT INTO settings (key, value) VALUES ($1, $2)", key, value)


def keys(database: Database) -> list[str]:
    return [row[0] for row in database.read("SELECT key FROM settings ORDER BY key")]


def test_nothing_is_written_into_a_database_that_was_moved_away(database: Database, tmp_path: Path):
    path, away = tmp_path / "memory.duckdb", tmp_path / "away.duckdb"
    path.rename(away)
    with pytest.raises(StorageFault) as fault:
        keep(database, "lost")
    assert str(path) in fault.value.message
    assert not path.exists()
    away.rename(path)
    keep(database, "of after")
    assert keys(database) == ["of after", "of before"]


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_database_that_was_replaced_is_opened_anew(database: Database, tmp_path: Path, how: str):
    path = tmp_path / "memory.duckdb"
    other = Database(tmp_path / "other.duckdb")
    keep(other, "of the other")
    other.close()
    for old in files(tmp_path):
        old.rename(old.with_name(f"old-{old.name}")) if how == "moved" else old.unlink()
    (tmp_path / "other.duckdb").rename(path)
    with pytest.raises(StorageFault) as fault:
        keep(database, "of nobody")
    assert "Repeat the call" in fault.value.hint
    keep(database, "of after")
    assert keys(database) == ["of after", "of the other"]
    database.close()
    assert keys(Database(path)) == ["of after", "of the other"]
    if how == "moved":
        # Nothing of the old one is lost either.
        assert keys(Database(tmp_path / "old-memory.duckdb")) == ["of before"]


def test_a_restored_database_is_embedded_by_the_model_that_is_loaded(
    open_memory: Callable[..., AgentMemory], tmp_path: Path
):
    Database(tmp_path / "empty.duckdb").close()
    memory = open_memory()
    memory.archive.insert("before the change")
    for path in files(tmp_path):
        path.rename(tmp_path / f"old-{path.name}")
    (tmp_path / "empty.duckdb").rename(tmp_path / "memory.duckdb")
    with pytest.raises(StorageFault):
        memory.archive.insert("in the middle of it")
    memory.archive.insert("after the change")
    found = memory.archive.search("change")
    assert [hit.memory.content for hit in found.items] == ["after the change"]
    assert found.search == "hybrid"


# What was acknowledged and is not there any more, while no process has it open


def filled(folder: Path, count: int = 20) -> Pieces:
    """Return a database with as many keys, the last half of them in its log."""
    path = files(folder)[0]
    with closing(Database(path)) as database:
        for number in range(count):
            if number == count // 2:
                database.checkpoint()
            keep(database, f"{number:03}")
        pieces = snapshot(folder)
    for left in files(folder):
        left.unlink(missing_ok=True)
    return pieces


def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def the_log_is_gone(pieces: Pieces, tmp_path: Path) -> Pieces:
    db, _, witness = files(tmp_path)
    return {db: pieces[db], witness: pieces[witness]}


def the_log_is_cut_short(pieces: Pieces, tmp_path: Path) -> Pieces:
    _, log, _ = files(tmp_path)
    return pieces | {log: pieces[log][:-1]}


def the_log_is_empty(pieces: Pieces, tmp_path: Path) -> Pieces:
    return pieces | {files(tmp_path)[1]: b""}


def a_length_in_the_log_is_wrong(pieces: Pieces, tmp_path: Path) -> Pieces:
    _, log, _ = files(tmp_path)
    # The driver takes an entry that seems to go beyond the end for one that was torn.
    entry = pieces[log].index(b"013") // 2
    start = pieces[log].index(b"\x00" * 6, entry) - 2
    return pieces | {log: pieces[log][:start] + b"\xff\xff\xff" + pieces[log][start + 3 :]}


def the_log_is_that_of_another_database(pieces: Pieces, tmp_path: Path) -> Pieces:
    folder = elsewhere(tmp_path)
    other = filled(folder, 40)  # Of a log that is too short, only that is said.
    return pieces | {files(tmp_path)[1]: other[files(folder)[1]]}


def the_file_is_another_database(pieces: Pieces, tmp_path: Path) -> Pieces:
    folder = elsewhere(tmp_path)
    other = filled(folder)
    return pieces | {files(tmp_path)[0]: other[files(folder)[0]]}


def the_file_is_another_database_without_a_log(pieces: Pieces, tmp_path: Path) -> Pieces:
    db, _, witness = files(tmp_path)
    return {db: the_file_is_another_database(pieces, tmp_path)[db], witness: pieces[witness]}


def the_file_is_an_older_copy(pieces: Pieces, tmp_path: Path) -> Pieces:
    put(pieces)
    with closing(Database(files(tmp_path)[0])) as database:
        keep(database, "of later")
        database.checkpoint()
    return snapshot(tmp_path) | {files(tmp_path)[0]: pieces[files(tmp_path)[0]]}


def the_file_is_cut_short(pieces: Pieces, tmp_path: Path) -> Pieces:
    db = files(tmp_path)[0]
    return pieces | {db: pieces[db][:-1]}


def the_file_is_gone(pieces: Pieces, tmp_path: Path) -> Pieces:
    _, log, witness = files(tmp_path)
    return {log: pieces[log], witness: pieces[witness]}


def the_file_and_the_log_are_gone(pieces: Pieces, tmp_path: Path) -> Pieces:
    witness = files(tmp_path)[2]
    return {witness: pieces[witness]}


def only_the_log_is_there(pieces: Pieces, tmp_path: Path) -> Pieces:
    log = files(tmp_path)[1]
    return {log: pieces[log]}


LOST: dict[str, tuple[Callable[[Pieces, Path], Pieces], str]] = {
    "the log is gone": (the_log_is_gone, "is gone"),
    "the log is cut short": (the_log_is_cut_short, "is cut short"),
    "the log is empty": (the_log_is_empty, "is cut short"),
    "a length in the log is wrong": (a_length_in_the_log_is_wrong, "is damaged"),
    "the log of another database": (the_log_is_that_of_another_database, "another database"),
    "another database": (the_file_is_another_database, "was replaced by another one"),
    "another one without a log": (
        the_file_is_another_database_without_a_log,
        "was replaced by another one",
    ),
    "an older copy": (the_file_is_an_older_copy, "was replaced by an older copy"),
    "the file is cut short": (the_file_is_cut_short, "is cut short"),
    "the file is gone": (the_file_is_gone, "is gone"),
    "the file and the log are gone": (the_file_and_the_log_are_gone, "is gone"),
    "only the log is there": (only_the_log_is_there, "is gone"),
}


@pytest.mark.parametrize("kind", LOST)
def test_a_database_that_lacks_what_was_acknowledged_is_refused_and_not_changed(
    tmp_path: Path, kind: str
):
    lose, said = LOST[kind]
    damaged = lose(filled(tmp_path), tmp_path)
    put(damaged)
    for _ in range(2):
        with pytest.raises(DataMissing) as fault:
            Database(files(tmp_path)[0])
        assert said in fault.value.message
        assert str(files(tmp_path)[0]) in fault.value.message
        assert fault.value.hint
        assert "\n" not in str(fault.value)
        assert snapshot(tmp_path) == damaged
    with pytest.raises(DataMissing) as seen:
        inspect_file(files(tmp_path)[0], "any")
    assert str(seen.value) == str(fault.value)
    assert snapshot(tmp_path) == damaged


@pytest.mark.parametrize("kind", LOST)
def test_what_is_put_back_is_complete(tmp_path: Path, kind: str):
    pieces = filled(tmp_path)
    put(LOST[kind][0](pieces, tmp_path))
    with pytest.raises(DataMissing):
        Database(files(tmp_path)[0])
    put(pieces)
    with closing(Database(files(tmp_path)[0])) as database:
        assert len(keys(database)) == 20


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("the log is gone", 10),
        ("the log of another database", 10),
        ("another database", None),
        ("another one without a log", 10),
        ("the file and the log are gone", 0),
        ("only the log is there", 0),
    ],
)
def test_the_way_out_that_is_named_leads_out(tmp_path: Path, kind: str, found: int | None):
    put(LOST[kind][0](filled(tmp_path), tmp_path))
    path, log, witness = files(tmp_path)
    with pytest.raises(DataMissing) as fault:
        Database(path)
    if str(witness) in fault.value.hint:
        witness.unlink()
    if "aside" in fault.value.hint or "move the log" in fault.value.hint:
        log.unlink(missing_ok=True)
    if found is None:
        # The log beside it is still that of the first one, which the driver would not take.
        with pytest.raises(DataMissing, match=r"memory\.duckdb\.wal belongs to another") as second:
            Database(path)
        assert "move the log aside" in second.value.hint
        log.unlink()
        found = 10
    with closing(Database(path)) as database:
        assert len(keys(database)) == found


def test_a_database_is_moved_and_copied_with_or_without_its_witness(tmp_path: Path):
    pieces = filled(tmp_path)
    for name, count in (("with", 3), ("without", 2)):
        folder = tmp_path / name
        folder.mkdir()
        for old, new in list(zip(files(tmp_path), files(folder), strict=True))[:count]:
            new.write_bytes(pieces[old])
        with closing(Database(files(folder)[0])) as database:
            keep(database, "of later")
            assert len(keys(database)) == 21


def test_what_was_committed_and_not_acknowledged_yet_is_kept(tmp_path: Path):
    """A kill between the commit and its line in the witness is no loss."""
    path, _, witness = files(tmp_path)
    with closing(Database(path)) as database:
        keep(database, "first")
        line = witness.read_bytes()
        keep(database, "second")
        in_the_log = snapshot(tmp_path) | {witness: line}
        database.checkpoint()
        in_the_file = snapshot(tmp_path) | {witness: line}
    for pieces in (in_the_log, in_the_file):
        put(pieces)
        with closing(Database(path)) as database:
            assert keys(database) == ["first", "second"]


def test_the_torn_end_of_a_log_is_dropped_once_and_all_later_kills_find_the_rest(tmp_path: Path):
    pieces = filled(tmp_path)
    path, log, _ = files(tmp_path)
    put(pieces | {log: pieces[log] + pieces[log][-200:-3]})
    database = Database(path)
    with database.transaction():
        pass  # Writes nothing, so the driver does not cut the log yet.
    left = [snapshot(tmp_path)]
    for name in "ab":
        keep(database, name)
        left.append(snapshot(tmp_path))
    database.close()
    for number, pieces in enumerate(left):
        put(pieces)
        with closing(Database(path)) as database:
            assert len(keys(database)) == 20 + number


def test_a_witness_that_is_damaged_or_of_another_version_is_written_again(tmp_path: Path):
    path, _, witness = files(tmp_path)
    pieces = filled(tmp_path)
    for line in (b"", b"of another version", pieces[witness][:-9], b"\xff" * 256):
        put(pieces | {witness: line})
        with closing(Database(path)) as database:
            assert len(keys(database)) == 20
        assert witness.stat().st_size == len(pieces[witness])


def test_a_witness_that_cannot_be_written_stops_no_commit(tmp_path: Path):
    path, _, witness = files(tmp_path)
    with closing(Database(path)) as database:
        witness.unlink()
        witness.mkdir()
        keep(database, "kept")
    witness.rmdir()
    with closing(Database(path)) as database:
        assert keys(database) == ["kept"]


@pytest.mark.parametrize("in_force", [True, False])
def test_a_database_of_another_kind_is_named_and_not_changed(tmp_path: Path, in_force: bool):
    path = files(tmp_path)[0]
    if in_force:
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE notes (text)")
        connection.commit()
        connection.close()
    else:
        with duckdb.connect(str(path)) as other:
            other.execute("CREATE TABLE notes (text text)")
    before = path.read_bytes()
    with pytest.raises(StorageFault, match="SQLite" if in_force else "another program") as fault:
        Database(path)
    assert "extension" not in str(fault.value)
    assert "MCP_MEMORY_DB" in fault.value.hint
    assert path.read_bytes() == before


# Damage at random


DAMAGES = int(os.environ.get("MCP_MEMORY_DAMAGES", "60"))
"""How many files and logs are damaged; 1,000 by hand."""


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return the content of a file with one damage of any kind."""
    at = chance.randrange(len(content))
    few = min(chance.choice([1, 8, 64, 512, 5_000]), len(content) - at)
    match chance.choice(["flip", "cut", "noise", "zeros", "removed", "repeated", "empty"]):
        case "flip":
            byte = content[at] ^ (1 << chance.randrange(8))
            return content[:at] + bytes([byte]) + content[at + 1 :]
        case "cut":
            return content[:at]
        case "noise":
            return content[:at] + chance.randbytes(few) + content[at + few :]
        case "zeros":
            return content[:at] + bytes(few) + content[at + few :]
        case "removed":
            return content[:at] + content[at + few :]
        case "repeated":
            return content[: at + few] + content[at : at + few] + content[at + few :]
    return b""


def outcome(path: Path, expected: list[tuple[str, str]]) -> str:
    """Open a damaged database and read all of it: `refused`, `unreadable` or `whole`."""
    before = snapshot(path.parent)
    said: StorageFault | None = None
    try:
        database = Database(path)
    except StorageFault as fault:
        said = fault
    if said is not None:
        assert said.hint
        assert "\n" not in str(said)
        assert snapshot(path.parent) == before
        return "refused"
    with closing(database):
        try:
            found = database.read("SELECT key, value FROM settings ORDER BY key")
        except StorageFault:
            return "unreadable"
    assert found == expected
    return "whole"


@pytest.mark.parametrize("which", ["log", "file"])
def test_no_damage_makes_a_row_disappear_without_a_word(tmp_path: Path, which: str):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    path, log, _ = files(tmp_path)
    with closing(Database(path)) as database:
        for number in range(40):
            if number == 20:
                database.checkpoint()
            keep(database, f"{number:03}", chance.randbytes(chance.choice([10, 900])).hex())
        expected = database.read("SELECT key, value FROM settings ORDER BY key")
        pieces = snapshot(tmp_path)
    target = log if which == "log" else path
    outcomes: Counter[str] = Counter()
    for number in range(DAMAGES // 2):
        broken = damaged(pieces[target], chance)
        put(pieces | {target: broken})
        try:
            outcomes[outcome(path, expected)] += 1
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, damage {number}") from error
    print(dict(outcomes))
    assert outcomes["refused"]


# While it is open


def log_deleted(log: Path) -> None:
    log.unlink()


def log_cut_short(log: Path) -> None:
    os.truncate(log, 40)


def log_moved_away(log: Path) -> None:
    log.rename(log.with_name("moved"))


def log_of_another_database(log: Path) -> None:
    log.rename(log.with_name("moved"))
    log.write_bytes(b"of another database " * 500)


@pytest.mark.skipif(os.name != "posix", reason="nobody can change an open file there")
@pytest.mark.parametrize(
    "lose", [log_deleted, log_cut_short, log_moved_away, log_of_another_database]
)
def test_without_its_log_an_open_database_loses_nothing(
    database: Database, tmp_path: Path, lose: Callable[[Path], None]
):
    """What only the log had is moved from memory into the file before the next acknowledgement."""
    log = files(tmp_path)[1]
    lose(log)
    foreign = log.read_bytes() if lose is log_of_another_database else None
    with database.transaction() as tx:
        tx.run("INSERT INTO settings (key, value) VALUES ('of after', $1)", "long" * 5_000)
    left = [snapshot(tmp_path)]
    keep(database, "of later")
    with database.transaction() as tx:
        tx.run("INSERT INTO settings (key, value) VALUES ('z', 'v')")
        lose(log) if foreign is None else None
    left.append(snapshot(tmp_path))
    if foreign is not None:
        assert log.with_name(f"{log.name}.aside").read_bytes() == foreign
    database.close()
    for pieces, names in zip(
        left, (["of after", "of before"], ["of after", "of before", "of later", "z"]), strict=True
    ):
        put(pieces)
        with closing(Database(files(tmp_path)[0])) as again:
            assert keys(again) == names


def cut_in_place(path: Path, tmp_path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def emptied(path: Path, tmp_path: Path) -> None:
    os.truncate(path, 0)


def overwritten_by_another(path: Path, tmp_path: Path) -> None:
    folder = elsewhere(tmp_path)
    path.write_bytes(filled(folder)[files(folder)[0]])


def replaced_by_another(path: Path, tmp_path: Path) -> None:
    folder = elsewhere(tmp_path)
    (folder / "new").write_bytes(filled(folder)[files(folder)[0]])
    os.replace(folder / "new", path)


@pytest.mark.skipif(os.name != "posix", reason="nobody can change an open file there")
@pytest.mark.parametrize(
    "change", [cut_in_place, emptied, overwritten_by_another, replaced_by_another]
)
@pytest.mark.parametrize("when", ["before a call", "in the middle of one"])
def test_an_open_file_that_was_changed_is_refused_until_it_is_put_back(
    tmp_path: Path, change: Callable[[Path, Path], None], when: str
):
    path = files(tmp_path)[0]
    database = Database(path)
    database.checkpoint()
    keep(database, "of before")
    whole = path.read_bytes()
    names = ["of before"]
    if when == "before a call":
        change(path, tmp_path)
    else:
        with database.transaction() as tx:
            tx.run("INSERT INTO settings (key, value) VALUES ('meanwhile', 'v')")
            change(path, tmp_path)
        names = ["meanwhile", "of before"]  # Acknowledged: the log has it.
    left = snapshot(tmp_path)
    for _ in range(3):
        with pytest.raises(StorageFault) as fault:
            keep(database, "lost")
        assert str(path) in fault.value.message
        assert fault.value.hint
    database.close()
    assert snapshot(tmp_path) == left
    path.write_bytes(whole)
    with closing(Database(path)) as again:
        assert keys(again) == names
        keep(again, "of after")


@pytest.mark.skipif(os.name != "posix", reason="nobody can change an open file there")
def test_an_open_database_goes_on_when_what_was_changed_is_put_back(tmp_path: Path):
    path = files(tmp_path)[0]
    with closing(Database(path)) as database:
        keep(database, "of before")
        pieces = snapshot(tmp_path)
        os.truncate(path, 20_000)
        with pytest.raises(DataMissing):
            keep(database, "lost")
        with pytest.raises(DataMissing):
            database.verify()
        put(pieces)
        keep(database, "of after")
        assert keys(database) == ["of after", "of before"]


# As clients and people see it


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["the log is gone", "the file is gone", "an older copy"])
def test_every_client_and_both_commands_say_the_same_line(
    house: Household, kind: str, monkeypatch: pytest.MonkeyPatch
):
    client = house.client()
    client.call("archival_memory_insert", content="it must not be lost")
    client.end()  # It would start another owner.
    owner = psutil.Process(house.kill_owner())
    owner.wait(timeout=20)
    lost = LOST[kind][0](snapshot(house.home), house.home)
    put(lost)
    clients = [house.client(agent=agent) for agent in AGENTS]
    lines = {refused(client) for client in (*clients, *clients)}
    assert len(lines) == 1
    assert snapshot(house.home) == lost
    for client in clients:
        client.end()
    owner = psutil.Process(house.end_owner())
    owner.wait(timeout=20)

    monkeypatch.setenv("MCP_MEMORY_DB", str(house.home / "memory.duckdb"))
    monkeypatch.setenv("HOME", str(house.home))
    with pytest.raises(DataMissing) as fault:
        Database(house.home / "memory.duckdb")
    assert str(fault.value) in lines.pop()
    found = CliRunner().invoke(doctor, ["--json"])
    assert found.exit_code == 1
    checks = json.loads(found.output)["checks"]
    [problem] = [check for check in checks if check["subject"] == "database"]
    assert problem["level"] == "problem"
    assert problem["text"] == fault.value.message
    assert problem["hint"] == fault.value.hint
    shown = CliRunner().invoke(status, ["--json"])
    assert json.loads(shown.output)["database"]["problems"] == [str(fault.value)]
    assert snapshot(house.home) == lost
