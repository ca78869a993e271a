"""What `clients.py` reckons with, and the client of its own that it speaks through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import COMMAND, environment

from benchmarks import clients, procfs, servers, starts
from benchmarks.client import Clients, Command
from benchmarks.harness import BenchmarkFault
from benchmarks.metrics import Latency
from benchmarks.procfs import Usage

REPLY = {"content": [{"type": "text", "text": "hello"}], "structuredContent": {"said": "hello"}}

needs_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc here")


def loaded(**changes: object) -> clients.Load:
    figures: dict[str, object] = {
        "clients": 2,
        "seconds": 2.0,
        "store": Latency.of([0.02] * 10),
        "search": Latency.of([0.01] * 10),
        "refused": 0,
        "acknowledged": 10,
        "kept": 10,
        "total": 10,
        "shims": (Usage(12 * 1_024, 6 * 1_024, 5), Usage(15 * 1_024, 5 * 1_024, 5)),
        "owner": None,
    }
    return clients.Load(**{**figures, **changes})  # type: ignore[arg-type]  # a test's own figures


def started(**ms: float) -> starts.Starts:
    return starts.Starts({kind: Latency.of([value / 1_000]) for kind, value in ms.items()})


def trivial(view_ms: float) -> starts.Trivial:
    one = Latency.of([0.001])
    return starts.Trivial(Latency.of([view_ms / 1_000]), one, one, one)


def test_every_client_gets_texts_and_questions_that_no_other_has():
    jobs = clients.plan(3, 5)
    assert [len(contents) for contents, _ in jobs] == [5, 5, 5]
    for part in (0, 1):
        assert len({text for job in jobs for text in job[part]}) == 15
    assert clients.plan(3, 5) == jobs


def test_the_verdicts_are_ratios_to_the_bare_server_of_the_same_run():
    fast = clients.verdicts([loaded()], started(warm=20, cold=520, bare=400), trivial(0.9))
    assert all(line.endswith(" met") for line in fast)
    slow = clients.verdicts([loaded()], started(warm=41, cold=521, bare=400), trivial(1.1))
    assert [line.endswith("MISSED") for line in slow] == [False, True, True, True, False]
    assert "0.10, goal 0.1" in slow[1]


@pytest.mark.parametrize(
    "changes", [{"kept": 9}, {"total": 11}, {"total": 9, "kept": 9}, {"refused": 1}]
)
def test_a_load_is_whole_only_if_all_was_taken_and_is_there_once(changes):
    assert loaded().is_whole
    assert not loaded(**changes).is_whole


def test_the_largest_shim_counts_and_an_unknown_one_gives_no_verdict():
    assert loaded().shim_mb == 15
    large = loaded(shims=(Usage(17 * 1_024, 0, 5),))
    ratios = started(warm=1, cold=1, bare=100), trivial(0.9)
    assert clients.verdicts([loaded(), large], *ratios)[-1].endswith("MISSED")
    assert "no verdict" in clients.verdicts([loaded(shims=())], *ratios)[-1]


def test_calls_a_second_are_of_all_clients():
    assert loaded().calls_per_second == 10


@needs_proc
def test_what_this_process_holds_is_seen():
    before = procfs.usage(os.getpid())
    assert before is not None
    with Path(os.devnull).open():
        after = procfs.usage(os.getpid())
    assert after is not None
    assert after.descriptors == before.descriptors + 1
    assert 0 < before.pss_kb <= before.rss_kb


@needs_proc
@pytest.mark.slow
def test_a_process_that_has_ended_does_not_run_even_before_it_is_reaped():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert procfs.is_running(child.pid)
        assert child.pid in procfs.children(os.getpid())[0]
        procfs.kill(child.pid)
        assert not procfs.is_running(child.pid)
        running, waiting = procfs.children(os.getpid())
        assert child.pid not in running
        assert waiting >= 1
    finally:
        child.kill()
        child.communicate()
    assert procfs.usage(child.pid) is None


@pytest.mark.slow
def test_the_owner_is_the_running_process_that_the_address_names(tmp_path):
    db = tmp_path / "memory.duckdb"
    assert procfs.owner_pid(db) is None
    folder = tmp_path / "memory.duckdb.owner"
    folder.mkdir()
    (folder / "address.json").write_text(json.dumps({"pid": os.getpid()}))
    assert procfs.owner_pid(db) == os.getpid()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (folder / "address.json").write_text(json.dumps({"pid": gone.pid}))
    assert procfs.owner_pid(db) is None


@pytest.mark.parametrize("found", ["dist/index.js", {"server-memory": "dist/index.js"}])
def test_the_program_of_a_package_is_the_one_it_names(tmp_path, found):
    (tmp_path / "package.json").write_text(json.dumps({"bin": found}))
    assert servers.program(tmp_path) == tmp_path / "dist" / "index.js"
    (tmp_path / "package.json").write_text("{}")
    with pytest.raises(BenchmarkFault, match="no program"):
        servers.program(tmp_path)


@pytest.mark.slow
def test_the_bare_server_gives_the_reply_it_was_made_with(tmp_path):
    command = servers.bare_server(tmp_path, REPLY, environment(tmp_path))
    with Clients(60) as pool:
        client = pool.start(command)
        assert client.initialize()["serverInfo"]["name"] == "bare"
        result = client.ask("tools/call", {"name": servers.BARE_TOOL, "arguments": {}})
        assert result["content"] == REPLY["content"]
        assert client.tool(servers.BARE_TOOL, {}) == REPLY["structuredContent"]
        client.close()


@pytest.mark.slow
def test_what_is_gone_or_changed_is_missed_when_it_is_read_back(tmp_path):
    command = Command(COMMAND, environment(tmp_path), tmp_path)
    with Clients(120) as pool:
        client = pool.start(command)
        client.initialize()
        done = clients.work(client, ["One thing.", "Two things."], ["one?", "two?"])
        client.close()
    assert list(done.stored.values()) == ["One thing.", "Two things."]
    assert not done.refusals
    assert len(done.store_seconds) == len(done.search_seconds) == 2
    assert clients.read_back(command, done.stored) == (2, 2)
    first, second = done.stored
    claimed = {first: "One thing.", second: "Another text.", "0000000000": "Never stored."}
    assert clients.read_back(command, claimed) == (1, 2)


@pytest.mark.slow
def test_a_server_that_never_answers_is_ended_when_the_time_is_over(tmp_path):
    script = "import time; time.sleep(600)"
    command = Command([sys.executable, "-c", script], environment(tmp_path), tmp_path)
    with Clients(1) as pool:
        client = pool.start(command)
        with pytest.raises(BenchmarkFault, match="has ended"):
            client.initialize()


@pytest.mark.slow
def test_a_server_that_says_why_it_ends_is_quoted(tmp_path):
    script = "import sys; sys.exit('no room left')"
    command = Command([sys.executable, "-c", script], environment(tmp_path), tmp_path)
    with Clients(60) as pool:
        client = pool.start(command)
        with pytest.raises(BenchmarkFault, match="no room left"):
            client.initialize()


def test_numbers_of_clients_are_sorted_and_checked():
    assert clients.parse_arguments(["--clients", "16,1,4,4"]).clients == (1, 4, 16)
    for wrong in ("0", "1,", "many"):
        with pytest.raises(SystemExit):
            clients.parse_arguments(["--clients", wrong])
