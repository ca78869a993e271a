"""`mcp-memory load`: everything that was given is there once, whatever came in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from processes import COMMAND, command, environment
from stores import database_of
from talker import Household, until

from mcp_memory.cli.load import load
from mcp_memory.owner.look import look
from mcp_memory.settings import Settings
from mcp_memory.store.duckdb.database import Database
from mcp_memory.values.errors import DatabaseLocked
from mcp_memory.values.records import Kind

Lines = Sequence[dict[str, Any]]


@pytest.fixture
def house(tmp_path: Path, cache_dir: Path) -> Iterator[Household]:
    household = Household(tmp_path, cache_dir)
    yield household
    household.clear()


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("MCP_MEMORY_DB", str(settings.db))
    monkeypatch.setenv("MCP_MEMORY_CACHE_DIR", str(settings.cache_dir))
    monkeypatch.setenv("MCP_MEMORY_OFFLINE", "1")
    monkeypatch.setenv("MCP_MEMORY_OWNER", "off")

    def run_it(*arguments: object, text: str | None = None) -> Result:
        return CliRunner().invoke(load, ["--no-wait", *map(str, arguments)], input=text)

    return run_it


def file_of(path: Path, lines: Lines) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def said(content: str, **more: str) -> dict[str, str]:
    return {"role": "user", "content": content, **more}


def rows(db: Path, sql: str) -> list[Any]:
    database = Database(db)
    try:
        return database.read(sql)
    finally:
        database.close()


def messages(db: Path) -> list[str]:
    found = rows(db, "SELECT content FROM messages ORDER BY conversation, position")
    return [row[0] for row in found]


def test_memories_messages_and_whole_files_are_loaded_once(
    run: Callable[..., Result], settings: Settings, tmp_path: Path
) -> None:
    lines = file_of(
        tmp_path / "all.jsonl",
        [
            {"content": "Ana keeps bees", "tags": ["bees"], "kind": "project"},
            {"content": "The boiler was serviced", "happened_at": "2024-03-02"},
            said("When does the ferry leave?", conversation="trip", name="Ana"),
            {"role": "assistant", "content": "At 18:40.", "conversation": "trip"},
        ],
    )
    (tmp_path / "notes.md").write_text("# Notes\n\nA whole file.", "utf-8")
    given = (lines, tmp_path / "notes.md", "--tag", "old", "--kind", "episode")
    assert run(*given).stdout == "5 loaded, 0 already there\n"
    assert run(*given).stdout == "0 loaded, 5 already there\n"
    memories = rows(settings.db, "SELECT content, kind, tags, version FROM memories ORDER BY 1")
    assert memories == [
        ("# Notes\n\nA whole file.", "episode", ["old"], 1),
        ("Ana keeps bees", "project", ["bees", "old"], 1),
        ("The boiler was serviced", "episode", ["old"], 1),
    ]
    assert messages(settings.db) == ["When does the ferry leave?", "At 18:40."]
    found = rows(settings.db, "SELECT count(*) FROM pending_vectors")
    assert found == [(5,)]


def test_the_same_words_twice_are_two_messages_and_stay_two(
    run: Callable[..., Result], settings: Settings, tmp_path: Path
) -> None:
    one = file_of(tmp_path / "one.jsonl", [said("yes"), said("no"), said("yes")])
    other = file_of(tmp_path / "other.jsonl", [said("yes")])
    run(one, other)
    assert run(other, one).stdout == "0 loaded, 4 already there\n"
    assert messages(settings.db) == ["yes", "no", "yes", "yes"]
    assert rows(settings.db, "SELECT count(DISTINCT id) FROM messages") == [(4,)]


def test_a_message_with_a_date_is_the_same_in_another_file(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    lines = [said("yes", created_at="2024-05-01T10:00:00Z")]
    run(file_of(tmp_path / "one.jsonl", lines))
    again = run(file_of(tmp_path / "copy.jsonl", lines))
    assert again.stdout == "0 loaded, 1 already there\n"


def test_a_message_in_the_form_of_an_agent_is_loaded_once(
    run: Callable[..., Result], settings: Settings, tmp_path: Path
) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    lines: Lines = [
        {"role": "User", "content": [{"type": "text", "text": "hi"}], "timestamp": 1773066600},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "model", "parts": [{"text": "ho"}]},
    ]
    path = file_of(tmp_path / "lines.jsonl", lines)
    assert run(path).stdout == "3 loaded, 0 already there\n"
    assert run(path).stdout == "0 loaded, 3 already there\n"
    assert messages(settings.db) == ["hi", "[tool call: f {}]", "ho"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "it is not JSON"),
        ('["x"]', 'it is not an object with a text "content"'),
        ('{"content": ""}', "content is empty"),
        ('{"content": "x", "kind": "poem"}', "kind 'poem' is unknown"),
        ('{"content": "x", "happened_at": "soon"}', "happened_at: 'soon' is not a date"),
        ('{"role": "judge", "content": "x"}', "role 'judge' is unknown"),
    ],
)
def test_a_bad_line_is_named_and_what_stands_before_is_kept(
    run: Callable[..., Result], settings: Settings, tmp_path: Path, bad: str, reason: str
) -> None:
    path = tmp_path / "lines.jsonl"
    good = [json.dumps(said(f"turn {n}")) for n in range(3)]
    path.write_text("\n".join([good[0], bad, *good[1:]]), "utf-8")
    stopped = run(path)
    assert stopped.exit_code == 1
    assert f"{path}:2: {reason}" in stopped.stderr
    assert messages(settings.db) == ["turn 0"]
    passed = run(path, "--skip-bad")
    assert passed.exit_code == 0
    assert f"{path}:2: {reason}" in passed.stderr
    assert passed.stdout == "2 loaded, 1 already there, 1 bad lines skipped\n"
    assert messages(settings.db) == ["turn 0", "turn 1", "turn 2"]


def test_lines_come_from_stdin_too(run: Callable[..., Result], settings: Settings) -> None:
    text = "\n\n".join(json.dumps(said(f"turn {n}")) for n in range(3))
    assert run("-", text=text).stdout == "3 loaded, 0 already there\n"
    longer = f"{text}\n{json.dumps(said('turn 3'))}"
    assert run("-", text=longer).stdout == "1 loaded, 3 already there\n"
    assert messages(settings.db) == [f"turn {n}" for n in range(4)]


def test_a_memory_that_is_there_gets_the_new_tags(
    run: Callable[..., Result], settings: Settings, tmp_path: Path
) -> None:
    run(file_of(tmp_path / "a.jsonl", [{"content": "tea", "tags": ["a"]}]))
    lines = [{"content": "tea", "tags": [tag]} for tag in "bc"]
    run(file_of(tmp_path / "b.jsonl", [*lines, {"content": "new"}, {"content": "new"}]))
    now = "SELECT content, tags, version FROM memories WHERE retired_at IS NULL ORDER BY 1"
    assert rows(settings.db, now) == [("new", [], 1), ("tea", ["a", "b", "c"], 2)]
    assert rows(settings.db, "SELECT count(*) FROM pending_vectors") == [(2,)]


@pytest.mark.parametrize("name", ["missing.jsonl", "not-utf8.txt"])
def test_a_file_that_cannot_be_read_is_named(
    run: Callable[..., Result], tmp_path: Path, name: str
) -> None:
    (tmp_path / "not-utf8.txt").write_bytes(b"\xff\xfe\xfa")
    done = run(tmp_path / name)
    assert done.exit_code == 1
    assert str(tmp_path / name) in done.stderr


def test_more_than_a_batch_is_loaded_and_found(
    run: Callable[..., Result], tmp_path: Path, open_memory: Callable[..., Any]
) -> None:
    kinds = list(Kind)
    lines: list[dict[str, Any]] = [
        {"content": f"number {n} of the bees", "kind": kinds[n % 6]} for n in range(600)
    ]
    assert "600 loaded" in run(file_of(tmp_path / "a.jsonl", lines)).stdout
    memory = open_memory()
    memory._engine.fill_pending()
    assert memory.archive.count() == 600
    page = memory.archive.search("number 417 of the bees")
    assert (page.items[0].memory.content, page.search) == ("number 417 of the bees", "hybrid")
    assert memory._engine.vectors.pending_count() == 0
    assert database_of(memory._engine.store).read("SELECT count(*) FROM vectors") == [(600,)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGINT to send to a process")
@pytest.mark.parametrize("how", ["killed", "interrupted", "owner killed"])
def test_what_was_cut_short_goes_on_and_nothing_is_lost_or_doubled(
    house: Household, how: str
) -> None:
    house.settings["offline"] = 1
    memories = [{"content": f"the bees number {n}"} for n in range(600)]
    turns = [said(f"turn {n % 300}", conversation="trip") for n in range(600)]
    path = file_of(house.home / "all.jsonl", [*memories, *turns])
    lines = path.read_bytes().splitlines(keepends=True)
    with subprocess.Popen(
        [*COMMAND, "load", "--no-wait", "-"],
        env=environment(house.home, **house.settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.writelines(lines[:1_000])
        process.stdin.flush()
        until(lambda: counted(house) >= 768, "the first batches")
        if how == "owner killed":
            house.kill_owner()
            out, _ = process.communicate(b"".join(lines[1_000:]), timeout=120)
            assert process.returncode == 0
            assert out.endswith(b" already there\n")
        else:
            process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGINT)
            process.stdin.close()
            process.wait(timeout=60)
            assert process.returncode in {-signal.SIGKILL, 130}
    with subprocess.Popen(
        [*COMMAND, "load", "--no-wait", "-"],
        env=environment(house.home, **house.settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        out, _ = process.communicate(b"".join(lines), timeout=120)
        assert process.returncode == 0
    if how == "owner killed":
        assert out == b"0 loaded, 1200 already there\n"
    house.kill_owner()
    until(lambda: opens(house.home / "memory.duckdb"), "the owner's end")
    kept = rows(house.home / "memory.duckdb", "SELECT content FROM memories")
    assert Counter(row[0] for row in kept) == Counter(item["content"] for item in memories)
    assert messages(house.home / "memory.duckdb") == [turn["content"] for turn in turns]


def opens(db: Path) -> bool:
    """Return whether a database can be opened; a process that is ending still has its lock."""
    try:
        Database(db).close()
    except DatabaseLocked:
        return False
    return True


def counted(house: Household) -> int:
    """Return how many texts the owner has."""
    seen = look(house.places, "status", seconds=30).result.get("database", {})
    found = seen.get("rows") or {}
    return int(found.get("memories", 0)) + int(found.get("messages", 0))


@pytest.mark.slow
def test_it_loads_into_the_owner_that_clients_use_and_says_that_the_model_is_missing(
    house: Household,
) -> None:
    client = house.client()
    path = file_of(house.home / "a.jsonl", [{"content": "Zanzibar cloves"}])
    done = command(house.home, "load", str(path), **house.settings)
    assert done.returncode == 0, done.stderr
    assert "found by words alone" in done.stderr
    found = client.call("archival_memory_search", query="zanzibar")
    assert found["results"][0]["text"] == "Zanzibar cloves"
    assert house.owners() == [house.pid()]
    assert not list(Path(house.places.folder).glob("load-*"))
    assert os.path.exists(house.places.db)
