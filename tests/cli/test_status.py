"""`mcp-memory status` without an owner, with one, and with one that hangs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fakes import HashEmbedder, memory_of
from owners import OwnersClient, running_owner, stopped
from processes import command

from mcp_memory.cli.status import status
from mcp_memory.owner.locks import ProcessLock
from mcp_memory.owner.places import Places
from mcp_memory.settings import Settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.visible import visible

needs_sigstop = pytest.mark.skipif(sys.platform == "win32", reason="it can't stop a process")


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("MCP_MEMORY_DB", str(settings.db))
    monkeypatch.setenv("MCP_MEMORY_CACHE_DIR", str(settings.cache_dir))

    def run_it(*arguments: str) -> Result:
        done = CliRunner().invoke(status, arguments)
        assert done.exit_code == 0, done.exception
        return done

    return run_it


def test_without_an_owner_and_a_database_it_says_so_and_makes_neither(
    run: Callable[..., Result], settings: Settings
) -> None:
    said = run().stdout
    assert "no owner is running; it starts with the first client" in said
    assert "not there yet" in said
    assert list(settings.db.parent.iterdir()) == []


def test_without_an_owner_only_the_sizes_are_shown(
    run: Callable[..., Result], settings: Settings
) -> None:
    memory_of(Engine(settings, embedder=HashEmbedder())).close()
    before = {path: path.stat().st_mtime_ns for path in settings.db.parent.iterdir()}
    seen = json.loads(run("--json").stdout)
    assert seen["owner"]["state"] == "none"
    assert seen["clients"] == []
    assert seen["database"]["path"] == str(settings.db)
    assert seen["database"]["bytes"] == settings.db.stat().st_size
    assert seen["database"]["rows"] is None
    assert {path: path.stat().st_mtime_ns for path in settings.db.parent.iterdir()} == before


def test_a_command_that_keeps_the_place_of_the_owner_is_named(
    run: Callable[..., Result], settings: Settings
) -> None:
    places = Places(str(settings.db))
    places.make()
    lock = ProcessLock(places.lock)
    assert lock.acquire()
    lock.note("process 1 (reembed)")
    try:
        assert "waiting for a command: process 1 (reembed)" in run().stdout
    finally:
        lock.release()


def test_an_address_of_the_dead_is_told_from_an_owner(
    run: Callable[..., Result], settings: Settings
) -> None:
    places = Places(str(settings.db))
    places.make()
    gone = str(settings.db.parent / "gone")
    places.write_address({"unix": gone, "pid": 1, "version": "0.0.1", "kind": "detached"})
    assert "the address of a dead one is still there" in run().stdout
    assert json.loads(run("--json").stdout)["owner"]["state"] == "stale"


def test_on_a_terminal_there_is_a_table(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[1mowner" in run().stdout


def test_what_would_change_the_terminal_is_not_printed() -> None:
    assert visible("a\x1b[2Jb\nc\u202e咖啡") == r"a\x1b[2Jb\nc\u202e咖啡"


@pytest.mark.slow
def test_a_wrong_setting_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = command(tmp_path, "status", timezone="nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mcp-memory: MCP_MEMORY_TIMEZONE")


@pytest.mark.slow
def test_the_owner_tells_its_clients_its_rows_and_its_model(tmp_path: Path) -> None:
    with (
        running_owner(tmp_path, owner_idle_seconds=77) as address,
        closing(OwnersClient(tmp_path, agent="ana")) as ana,
        closing(OwnersClient(tmp_path, agent="ben")) as ben,
    ):
        ana.initialize("first-client")
        ben.initialize("second-client")
        ana.tool("archival_memory_insert", {"content": "Ana likes tea"})
        ben.tool("archival_memory_insert", {"content": "Ben likes milk"})
        done = command(tmp_path, "status", "--json")
        plain = command(tmp_path, "status").stdout
    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    owner = seen["owner"]
    assert (owner["state"], owner["pid"]) == ("running", address["pid"])
    assert (owner["kind"], owner["idle_seconds"]) == ("detached", 77)
    assert owner["since"] is not None
    clients = {(client["agent"], client["client"]) for client in seen["clients"]}
    assert clients == {("ana", "first-client"), ("ben", "second-client")}
    assert seen["database"]["agents"] == 2
    assert seen["database"]["rows"]["memories"] == 2
    assert seen["database"]["schema"] >= 2
    assert 0 <= seen["database"]["dead_frac"] < 1
    assert owner["heartbeats"] >= 0
    assert seen["embedding"]["pending"] == 2
    assert "secret" not in done.stdout
    assert "agent ana, first-client, since" in plain
    assert "ends 77 s after the last one" in plain
    assert "memories 2" in plain
    assert "% dead), write-ahead log" in plain
    assert "2 texts pending" in plain


@pytest.mark.slow
def test_an_owner_that_was_asked_nothing_is_not_made_to_open_the_database(tmp_path: Path) -> None:
    with running_owner(tmp_path):
        seen = json.loads(command(tmp_path, "status", "--json").stdout)
    assert seen["owner"]["state"] == "running"
    assert (seen["clients"], seen["database"]["rows"]) == ([], None)
    assert not (tmp_path / "memory.duckdb").exists()


@pytest.mark.slow
@needs_sigstop
def test_an_owner_that_hangs_is_reported_and_left_alone(tmp_path: Path) -> None:
    with running_owner(tmp_path) as address:
        with stopped(address):
            done = command(tmp_path, "status", "--timeout", "0.5")
        again = json.loads(command(tmp_path, "status", "--json").stdout)
    assert done.returncode == 0
    assert f"process {address['pid']}" in done.stdout
    assert "does not answer" in done.stdout
    assert (again["owner"]["state"], again["owner"]["pid"]) == ("running", address["pid"])
