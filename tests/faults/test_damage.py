"""Damaged files: each call says which file and the way out; all goes on once it is replaced."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from talker import Household, Talker

from mcp_memory.agent import AgentMemory, Memories
from mcp_memory.settings import Settings, load_settings
from mcp_memory.store.duckdb.database import Database
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import DatabaseCorrupt, StorageFault

AGENTS = ("ana", "bob")
_BLOCK_BYTES = 4_096


def content(agent: str, number: int) -> str:
    return f"{agent} keeps {number}: " + random.Random(number).randbytes(200_000).hex()


def settings_of(house: Household) -> Settings:
    return load_settings(
        db=house.home / "memory.duckdb", cache_dir=house.settings["cache_dir"], offline=True
    )


def make(house: Household, *, with_log: bool) -> tuple[Path, Path]:
    """Leave a memory of two agents, and a log beside it as after a crash if it is wanted."""
    settings = settings_of(house)
    db, log = settings.db, settings.db.with_name("memory.duckdb.wal")
    engine = Engine(settings)
    memories = Memories(engine)
    for agent in AGENTS:
        memories.open(agent).archive.insert(content(agent, 0))
    engine.store.maintain(quiet=True)
    if not with_log:
        memories.close()
        return db, log
    for agent in AGENTS:
        memories.open(agent).archive.insert(content(agent, 1))
    pieces = db.read_bytes(), log.read_bytes()
    memories.close()
    db.write_bytes(pieces[0])
    log.write_bytes(pieces[1])
    return db, log


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
    for path in (db, log):
        if path.exists():
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


def keep(database: Database, key: str) -> None:
    with database.transaction() as tx:
        tx.run("INSERT INTO settings (key, value) VALUES ($1, 'v')", key)


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
    for old in (path, tmp_path / "memory.duckdb.wal"):
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
    for name in ("memory.duckdb", "memory.duckdb.wal"):
        (tmp_path / name).rename(tmp_path / f"old-{name}")
    (tmp_path / "empty.duckdb").rename(tmp_path / "memory.duckdb")
    with pytest.raises(StorageFault):
        memory.archive.insert("in the middle of it")
    memory.archive.insert("after the change")
    found = memory.archive.search("change")
    assert [hit.memory.content for hit in found.items] == ["after the change"]
    assert found.search == "hybrid"
