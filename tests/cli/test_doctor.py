"""`mcp-memory doctor`: what is whole passes, what is wrong is named with what to do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner
from fakes import HashEmbedder, memory_of
from owners import OwnersClient, running_owner, stopped
from processes import command

from mcp_memory.cli.checks import machine
from mcp_memory.cli.doctor import doctor
from mcp_memory.owner.locks import ProcessLock
from mcp_memory.owner.places import Places
from mcp_memory.settings import Settings
from mcp_memory.tiers.engine import Engine

posix = pytest.mark.skipif(os.name != "posix", reason="it has no such permissions")
needs_sigstop = pytest.mark.skipif(sys.platform == "win32", reason="it can't stop a process")
not_root = pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere"
)
_FOLDERS = ("XDG_CONFIG_HOME", "APPDATA", "LOCALAPPDATA", "CODEX_HOME", "CLAUDE_CONFIG_DIR")

Run = Callable[..., list[dict[str, str]]]


@pytest.fixture
def home(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on it but the database of the settings, if that is made."""
    for name in _FOLDERS:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("MCP_MEMORY_DB", str(settings.db))
    monkeypatch.setenv("MCP_MEMORY_CACHE_DIR", str(settings.cache_dir))
    monkeypatch.setenv("MCP_MEMORY_EMBEDDING_MODEL", settings.embedding_model)
    monkeypatch.chdir(home)
    settings.db.parent.chmod(0o700)
    return home


@pytest.fixture
def run(home: Path) -> Run:
    """Run it and return the checks of a subject, or of all."""

    def run_it(subject: str | None = None, status: int | None = None) -> list[dict[str, str]]:
        done = CliRunner().invoke(doctor, ["--json", "--timeout", "1"])
        report: dict[str, Any] = json.loads(done.stdout)
        checks: list[dict[str, str]] = report["checks"]
        has_problem = any(check["level"] == "problem" for check in checks)
        assert done.exit_code == (1 if has_problem else 0)
        assert report["ok"] is not has_problem
        assert status in {None, done.exit_code}
        return [check for check in checks if subject in {None, check["subject"]}]

    return run_it


@pytest.fixture
def filled(home: Path, settings: Settings) -> Settings:
    memory = memory_of(Engine(settings, embedder=HashEmbedder()))
    memory.archive.insert("Ana likes tea")
    memory.close()
    return settings


def client_of(home: Path, **server: object) -> Path:
    path = home / ".cursor" / "mcp.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"mcpServers": {"memory": server}}), "utf-8")
    return path


def levels(checks: list[dict[str, str]]) -> list[str]:
    return [check["level"] for check in checks]


@pytest.mark.usefixtures("filled")
def test_a_whole_installation_has_no_problem(run: Run, home: Path) -> None:
    client_of(home, command=sys.executable, args=["-m", "mcp_memory"])
    checks = run(status=0)
    assert {check["subject"] for check in checks if check["level"] == "ok"} >= {
        "python",
        "settings",
        "database folder",
        "cache folder",
        "disk",
        "tokenizer",
        "owner",
        "database",
        "Cursor",
    }


@pytest.mark.usefixtures("home")
def test_nothing_is_made_where_nothing_is(run: Run, settings: Settings) -> None:
    (check,) = run("database", status=0)
    assert "does not exist yet" in check["text"]
    assert not settings.db.exists()
    assert not Path(f"{settings.db}.owner").exists()


@pytest.mark.usefixtures("home")
def test_plain_lines_name_level_subject_and_what_to_do() -> None:
    done = CliRunner().invoke(doctor, [])
    lines = done.stdout.splitlines()
    assert any(line.startswith("ok:      python: mcp-virtual-memory ") for line in lines)
    at = next(n for n, line in enumerate(lines) if line.startswith("warning: clients: "))
    assert lines[at + 1].startswith("         -> See the README")
    assert lines[-1].startswith("0 problems, ")


@pytest.mark.usefixtures("home")
def test_on_a_terminal_it_is_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[32mok" in CliRunner().invoke(doctor, []).stdout


def test_a_wrong_setting_is_a_problem_and_the_clients_are_looked_at_all_the_same(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_MEMORY_CONTEXT_WINDOW", "many")
    client_of(home, command=sys.executable, args=["-m", "mcp_memory"])
    checks = run(status=1)
    problems = [check for check in checks if check["level"] == "problem"]
    assert [check["subject"] for check in problems] == ["settings"]
    assert "MCP_MEMORY_CONTEXT_WINDOW" in problems[0]["text"]
    assert any(check["subject"] == "Cursor" for check in checks)


def test_a_setting_that_nothing_reads_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_MEMORY_DATABASE", "/somewhere")
    (check,) = run("settings", status=0)
    assert check["level"] == "warning"
    assert check["text"].startswith("MCP_MEMORY_DATABASE:")


@posix
def test_files_that_others_may_read_are_named_with_the_command_that_closes_them(
    run: Run, filled: Settings
) -> None:
    assert levels(run("permissions")) == ["ok"]
    filled.db.chmod(0o644)
    Path(f"{filled.db}.core").chmod(0o755)
    checks = run("permissions", status=0)
    assert [check["hint"] for check in checks] == [
        f"Run `chmod 600 {filled.db}`",
        f"Run `chmod 700 {filled.db}.core`",
    ]


@posix
def test_a_folder_that_others_may_write_to_is_named(run: Run, settings: Settings) -> None:
    settings.db.parent.chmod(0o777)
    (check,) = run("database folder", status=0)
    assert (check["level"], check["hint"]) == ("warning", f"Run `chmod go-w {settings.db.parent}`")


@posix
@not_root
def test_a_folder_that_can_not_be_written_is_a_problem(run: Run, settings: Settings) -> None:
    settings.db.parent.chmod(0o500)
    try:
        (check,) = run("database folder", status=1)
    finally:
        settings.db.parent.chmod(0o700)
    assert check["text"].endswith("can't be written")


def test_a_file_in_the_place_of_a_folder_is_a_problem(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").write_text("x")
    monkeypatch.setenv("MCP_MEMORY_DB", str(home / "file" / "memory.duckdb"))
    (check,) = run("database folder", status=1)
    assert check["text"].endswith("is not a folder")


@pytest.mark.parametrize(
    ("limit", "level"), [("PROBLEM_BYTES", "problem"), ("WARNING_BYTES", "warning")]
)
def test_little_free_space_is_named(
    run: Run, limit: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, limit, 1 << 80)
    (check,) = run("disk")
    assert check["level"] == level


def test_a_damaged_model_is_told_from_one_that_is_not_there(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MCP_MEMORY_EMBEDDING_MODEL")
    monkeypatch.setenv("MCP_MEMORY_CACHE_DIR", str(home / "cache"))
    (absent,) = run("model", status=0)
    folder = home / "cache" / "models" / "snowflake--snowflake-arctic-embed-s-int8"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    (damaged,) = run("model", status=0)
    assert (absent["level"], damaged["level"]) == ("warning", "warning")
    assert "its files are missing in" in absent["text"]
    assert "missing or damaged" in damaged["text"]
    assert damaged["hint"] == "Run `mcp-memory models fetch`"


def test_damage_in_the_database_is_a_problem(run: Run, filled: Settings) -> None:
    with duckdb.connect(str(filled.db)) as connection:
        connection.execute(
            "INSERT INTO memories BY NAME SELECT * REPLACE (2 AS version) FROM memories"
        )
    problems = [check for check in run("database", status=1) if check["level"] == "problem"]
    assert ["1 memory with two current" in check["text"] for check in problems] == [True]


@pytest.mark.usefixtures("filled")
def test_a_database_of_another_model_is_a_problem(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_MEMORY_EMBEDDING_MODEL", "another/model")
    problems = [check for check in run("database", status=1) if check["level"] == "problem"]
    assert [check["text"] for check in problems] == [
        "the database was embedded with fake/hash, but the model set is another/model"
    ]


@pytest.mark.usefixtures("filled")
def test_that_there_is_no_owner_by_choice_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_MEMORY_OWNER", "off")
    assert any("one client at a time" in check["text"] for check in run("owner", status=0))


def test_a_file_that_is_no_database_is_a_problem(run: Run, settings: Settings) -> None:
    settings.db.write_bytes(b"something else" * 1_000)
    (check,) = run("database", status=1)
    assert "can't be read" in check["text"]
    assert check["hint"].startswith("Move the file")


def test_a_database_of_a_newer_schema_is_a_problem(run: Run, filled: Settings) -> None:
    with duckdb.connect(str(filled.db)) as connection:
        connection.execute(
            "INSERT INTO migrations (version, name, applied_at) VALUES (999, 'later', now())"
        )
    (check,) = run("database", status=1)
    assert check["text"].startswith("schema 999")
    assert check["hint"].startswith("Update mcp-memory")


def test_while_another_command_has_the_database_it_is_left_alone(
    run: Run, filled: Settings
) -> None:
    places = Places(str(filled.db))
    places.make()
    lock = ProcessLock(places.lock)
    assert lock.acquire()
    lock.note("process 1 (reembed)")
    try:
        checks = run(status=0)
    finally:
        lock.release()
    found = {check["subject"]: check for check in checks}
    assert found["owner"]["text"].startswith("process 1 (reembed) has the lock of the owner")
    assert "was not checked" in found["database"]["text"]


def test_an_address_of_the_dead_does_no_harm(run: Run, filled: Settings) -> None:
    places = Places(str(filled.db))
    places.make()
    places.write_address({"unix": f"{filled.db}.gone", "pid": 1, "kind": "detached"})
    (check,) = run("owner", status=0)
    assert check["level"] == "ok"
    assert "process 1 has died" in check["text"]
    assert set(levels(run("database"))) == {"ok"}


def test_a_client_whose_command_is_gone_is_a_problem(run: Run, home: Path) -> None:
    client_of(home, command=str(home / "gone" / "mcp-memory"))
    (check,) = run("Cursor", status=1)
    assert f"there is no {home / 'gone' / 'mcp-memory'}" in check["text"]
    assert "absolute path" in check["hint"]


def test_a_client_with_a_malformed_file_is_a_warning(run: Run, home: Path) -> None:
    client_of(home).write_text('{"mcpServers": {')
    (check,) = run("Cursor", status=0)
    assert check["level"] == "warning"
    assert "is malformed" in check["text"]


def test_the_secrets_of_other_servers_are_not_shown(run: Run, home: Path) -> None:
    path = client_of(home, command=sys.executable, args=["-m", "mcp_memory"])
    content = json.loads(path.read_text())
    content["mcpServers"]["other"] = {"command": "x", "env": {"KEY": "secret-word"}}
    path.write_text(json.dumps(content))
    assert "secret-word" not in json.dumps(run())


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_it_looks_through_the_owner_while_clients_are_connected(tmp_path: Path) -> None:
    with running_owner(tmp_path) as address, closing(OwnersClient(tmp_path)) as client:
        client.initialize("a-client")
        client.tool("archival_memory_insert", {"content": "Ana likes tea"})
        done = command(tmp_path, "doctor", "--json", owner="auto")
        other = command(tmp_path, "doctor", "--json", embedding_model="fake/hash", owner="off")
        kept = client.tool("archival_memory_search", {"query": "tea"})
    found: dict[str, list[dict[str, str]]] = {}
    for check in json.loads(done.stdout)["checks"]:
        found.setdefault(check["subject"], []).append(check)
    differs = json.loads(other.stdout)["checks"]
    assert (done.returncode, done.stderr) == (0, "")
    assert [check["level"] for check in found["owner"]] == ["ok"]
    assert f"process {address['pid']} answers" in found["owner"][0]["text"]
    assert {check["level"] for check in found["database"]} == {"ok"}
    assert len(found["database"]) == 8
    assert any("1 text pending" in check["text"] for check in found["database"])
    assert any("searches by words alone" in check["text"] for check in found["model"])
    assert any("OWNER is off here" in check["text"] for check in differs)
    assert any("and fake/hash is set here" in check["text"] for check in differs)
    assert kept["structuredContent"]["total"] == 1


@pytest.mark.slow
@needs_sigstop
@pytest.mark.usefixtures("home")
def test_an_owner_that_hangs_is_a_problem_and_left_alone(tmp_path: Path) -> None:
    with running_owner(tmp_path) as address:
        with closing(OwnersClient(tmp_path)) as client:
            client.initialize("a-client")
            client.tool("archival_memory_insert", {"content": "Ana likes tea"})
        with stopped(address):
            done = command(tmp_path, "doctor", "--json", "--timeout", "0.5", owner="auto")
        again = command(tmp_path, "doctor", "--json", owner="auto")
    checks = json.loads(done.stdout)["checks"]
    found = {check["subject"]: check for check in checks}
    assert done.returncode == 1
    assert found["owner"]["level"] == "problem"
    assert str(address["pid"]) in found["owner"]["hint"]
    assert "was not checked" in found["database"]["text"]
    assert again.returncode == 0
