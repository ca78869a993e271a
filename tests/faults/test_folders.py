"""Folders that can't be written: each call and the log name the folder, and no owner is left."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from talker import Household, until

pytestmark = pytest.mark.slow


def check_refused(house: Household, db: Path, named: Path) -> None:
    client = house.start(db=db)
    said = client.answer(client.begin("core_memory_view"))["error"]["message"]
    assert client.end() == 0
    assert len(client.errors) == 1, client.errors
    for message in (said, client.errors[0]):
        assert str(named) in message
        assert "MCP_MEMORY_DB" in message
    assert not house.owners()


def remount(disk: Path, how: str) -> None:
    def done() -> bool:
        command = ["mount", "-o", f"remount,{how}", str(disk)]
        return subprocess.run(command, check=False).returncode == 0

    # A process that has ended may have a file open for a moment longer.
    until(done, f"the disk's remount as {how}")


def test_an_empty_read_only_disk_is_named(house: Household, disk: Path):
    remount(disk, "ro")
    check_refused(house, disk / "memory.duckdb", disk / "memory.duckdb.owner")


def test_a_memory_on_a_disk_that_has_become_read_only_is_back_once_it_can_be_written(
    house: Household, disk: Path
):
    db = disk / "memory.duckdb"
    client = house.client(db=db, owner_idle_seconds=0)
    client.call("core_memory_append", label="human", content="of before")
    client.end()
    until(lambda: not house.owners(), "the end of the owner")
    remount(disk, "ro")
    check_refused(house, db, disk / "memory.duckdb.owner")
    remount(disk, "rw")
    assert "of before" in str(house.client(db=db).call("core_memory_view"))


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="root may write into every folder"
)
def test_a_folder_without_the_right_to_write_is_named(house: Household):
    closed = house.home / "closed"
    closed.mkdir(mode=0o500)
    check_refused(house, closed / "memory.duckdb", closed / "memory.duckdb.owner")


def test_a_path_below_a_file_is_named(house: Household):
    below = house.home / "file" / "memory.duckdb"
    below.parent.write_text("in the way")
    check_refused(house, below, house.home / "file" / "memory.duckdb.owner")


def test_a_file_in_the_place_of_the_owners_folder_is_named(house: Household):
    folder = house.home / "other.duckdb.owner"
    folder.write_text("in the way")
    check_refused(house, house.home / "other.duckdb", folder)
    assert folder.read_text() == "in the way"


def test_a_folder_in_the_place_of_the_database_is_said_to_each_call(house: Household):
    (house.home / "memory.duckdb").mkdir()
    client = house.client()
    for _ in range(2):
        result = client.answer(client.begin("core_memory_view"))["result"]
        assert result["isError"]
        assert "is a folder" in str(result["content"])
    (house.home / "memory.duckdb").rmdir()
    assert client.call("core_memory_view")
