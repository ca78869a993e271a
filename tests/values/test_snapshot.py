"""The copy of core memory beside the database: present and right, or absent."""

import json
import os
import subprocess
import sys

import pytest

from mcp_memory.values.snapshot import drop_snapshot, keep_snapshots, read_core, write_snapshot


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "memory.duckdb"
    path.write_bytes(b"a database")
    return path


def copies(database):
    return sorted(database.with_name(f"{database.name}.core").glob("*"))


def test_what_was_written_is_read(database):
    core = '<block label="human">\nlikes 咖啡 & "tea"\n</block>'
    write_snapshot(database, "default", core)
    assert read_core(database, "default") == core


def test_the_copy_is_replaced_and_no_other_file_stays(database):
    write_snapshot(database, "default", "old")
    write_snapshot(database, "default", "new")
    assert read_core(database, "default") == "new"
    assert len(copies(database)) == 1


@pytest.mark.parametrize("agent", ["other", "Default", "../default", "a/b", "猫"])
def test_each_agent_has_a_copy_of_its_own(database, agent):
    write_snapshot(database, "default", "of default")
    assert read_core(database, agent) is None
    write_snapshot(database, agent, "of the other")
    assert read_core(database, "default") == "of default"
    assert read_core(database, agent) == "of the other"
    assert len(copies(database)) == 2


def test_without_a_copy_or_a_database_there_is_nothing(database):
    assert read_core(database, "default") is None
    write_snapshot(database, "default", "core")
    database.unlink()
    assert read_core(database, "default") is None


def test_a_copy_of_another_database_at_the_same_path_is_not_taken(database, tmp_path):
    write_snapshot(database, "default", "core")
    other = tmp_path / "other.duckdb"
    other.write_bytes(b"another database")
    os.replace(other, database)
    assert read_core(database, "default") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"not json", b"\xff\xfe", b"[1]", b"null", b"{}", b'{"core": "x"}', b'"text"'],
)
def test_a_copy_that_cannot_be_read_is_no_copy(database, content):
    write_snapshot(database, "default", "core")
    copies(database)[0].write_bytes(content)
    assert read_core(database, "default") is None


def test_a_copy_that_holds_no_text_is_no_copy(database):
    write_snapshot(database, "default", "core")
    inode = database.stat().st_ino
    copies(database)[0].write_text(json.dumps({"database": inode, "core": 7}))
    assert read_core(database, "default") is None


_WRITE_WITHOUT_ROOM = """
import resource, sys
from pathlib import Path
from mcp_memory.values.snapshot import write_snapshot
resource.setrlimit(resource.RLIMIT_FSIZE, (8, resource.RLIM_INFINITY))
write_snapshot(Path(sys.argv[1]), "default", "new")
"""


def test_a_copy_that_cannot_be_replaced_is_removed_rather_than_stale(database):
    pytest.importorskip("resource")
    write_snapshot(database, "default", "old")
    # In a process of its own: the limit would hold for this one's output too.
    subprocess.run(
        [sys.executable, "-c", _WRITE_WITHOUT_ROOM, str(database)],
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )
    assert read_core(database, "default") is None
    assert copies(database) == []


def test_a_file_where_the_folder_should_be_harms_nobody(database):
    database.with_name(f"{database.name}.core").write_text("in the way")
    write_snapshot(database, "default", "core")
    assert read_core(database, "default") is None


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_only_the_user_may_read_the_copies(database):
    write_snapshot(database, "default", "core")
    folder = database.with_name(f"{database.name}.core")
    assert folder.stat().st_mode & 0o077 == 0
    assert copies(database)[0].stat().st_mode & 0o077 == 0


def test_the_copies_of_a_file_that_was_rewritten_stay_and_no_others(database, tmp_path):
    write_snapshot(database, "default", "old")
    write_snapshot(database, "other", "of the other")
    replaced = database.stat().st_ino
    new = tmp_path / "new.duckdb"
    new.write_bytes(b"the same, rewritten")
    os.replace(new, database)
    write_snapshot(database, "default", "new")
    keep_snapshots(database, replaced)
    assert read_core(database, "default") == "new"
    assert read_core(database, "other") == "of the other"
    keep_snapshots(database, replaced)


def test_a_copy_that_was_dropped_is_gone(database):
    write_snapshot(database, "default", "core")
    drop_snapshot(database, "default")
    drop_snapshot(database, "default")
    assert read_core(database, "default") is None
    assert copies(database) == []
