"""Heartbeats in the processes that hold a database, and that an idle one does nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest
from fakes import memory_of
from processes import command, environment, listening_url, raw_server
from talker import Household, until

from mcp_memory.owner.client import ask_owner
from mcp_memory.settings import Settings, settings_of
from mcp_memory.tiers.engine import Engine

pytestmark = pytest.mark.slow

BEAT_SECONDS = 0.05
IDLE_SECONDS = 3.0
IDLE_CPU_SECONDS = 0.05


def settings_in(home: Path) -> Settings:
    return settings_of(environment(home))


def log_bytes(home: Path) -> int:
    path = home / "memory.duckdb.wal"
    return path.stat().st_size if path.exists() else 0


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def beats(home: Path) -> int:
    seen: dict[str, Any] = ask_owner(settings_in(home), "status")
    return int(seen["owner"]["heartbeats"])


def test_an_idle_owner_beats_no_more_and_uses_no_processor(house: Household):
    client = house.client(heartbeat_seconds=BEAT_SECONDS)
    client.call("archival_memory_insert", content="The kettle is blue.")
    until(lambda: log_bytes(house.home) == 0, "a log that is written back")
    counted = -1

    def is_steady() -> bool:
        nonlocal counted
        before, counted = counted, beats(house.home)
        threading.Event().wait(5 * BEAT_SECONDS)
        return counted == before

    until(is_steady, "an owner at rest")
    pid = house.pid()
    used = cpu_seconds(pid)
    threading.Event().wait(IDLE_SECONDS)
    used = cpu_seconds(pid) - used
    assert used <= IDLE_CPU_SECONDS
    assert beats(house.home) == counted
    # It wakes up again.
    client.call("archival_memory_insert", content="The kettle is red.")
    until(lambda: beats(house.home) > counted, "another beat")


def test_an_owner_without_heartbeats_leaves_the_log_to_the_driver(house: Household):
    client = house.client(heartbeat_seconds=0)
    client.call("archival_memory_insert", content="The kettle is blue.")
    assert beats(house.home) == 0
    assert log_bytes(house.home) > 0


def test_one_process_without_an_owner_has_heartbeats(tmp_path: Path):
    with raw_server(tmp_path, heartbeat_seconds=BEAT_SECONDS) as server:
        server.initialize()
        server.tool("archival_memory_insert", {"content": "The kettle is blue."})
        until(lambda: log_bytes(tmp_path) == 0, "a log that is written back")


def test_an_owner_rewrites_a_file_that_is_mostly_dead_once_its_last_client_has_left(
    house: Household, settings: Settings
):
    database = house.home / "memory.duckdb"
    opened = settings.model_copy(update={"db": database})
    memory_of(Engine(opened, check_model=False)).close()
    with duckdb.connect(str(database)) as connection:
        connection.execute("CREATE TABLE waste AS SELECT random() AS x FROM range(4000000)")
        connection.execute("CHECKPOINT")
    memory = memory_of(Engine(opened, check_model=False))
    memory.archive.insert("what stays")
    memory.close()
    with duckdb.connect(str(database)) as connection:
        connection.execute("DROP TABLE waste")
    before = database.stat().st_size
    client = house.client(owner_idle_seconds=1, heartbeat_seconds=0)
    assert client.call("archival_memory_search", top_k=1)["total"] == 1
    client.end()
    until(lambda: not house.owners(), "the end of the idle owner")
    assert database.stat().st_size < before / 3
    assert house.client().call("archival_memory_search", top_k=1)["total"] == 1


def test_a_server_over_http_has_heartbeats(tmp_path: Path):
    arguments = ("serve", "--transport", "http", "--port", "0")
    with raw_server(tmp_path, *arguments, heartbeat_seconds=BEAT_SECONDS) as server:
        listening_url(server)
        until(lambda: beats(tmp_path) > 0, "the first beat")
        params = {"agent": "default", "label": "human", "value": "Drinks tea."}
        ask_owner(settings_in(tmp_path), "block.set", params)
        until(lambda: log_bytes(tmp_path) == 0, "a log that is written back")


def test_the_file_is_compacted_by_command_while_clients_are_connected(house: Household):
    client = house.client(heartbeat_seconds=0)
    for number in range(40):
        done = client.call("archival_memory_insert", content=f"number {number} " + "text " * 400)
        if number % 4:
            client.call("archival_memory_delete", id=done["id"])
    owner = house.pid()
    compacted = command(house.home, "compact", **house.settings)
    assert compacted.returncode == 0, compacted.stderr
    assert "MB before" in compacted.stdout
    assert house.pid() == owner
    assert client.call("archival_memory_search", top_k=1)["total"] == 10
    client.call("archival_memory_insert", content="and after")
    house.kill_owner()
    assert client.call("archival_memory_search", top_k=1)["total"] == 11
