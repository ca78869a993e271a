"""A client that reaches no owner is told why, and an owner is only given up if it has failed."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import psutil
import pytest
from talker import ERAS, LEGACY, MODERN, Household, Talker, content_of, owners_with, until

from mcp_memory.owner import liveness
from mcp_memory.owner.liveness import Silence
from mcp_memory.owner.wire import RETRY_CODE, dial

pytestmark = pytest.mark.slow

posix = pytest.mark.skipif(sys.platform == "win32", reason="a script can't stand for a program")


@pytest.mark.parametrize("era", ERAS)
def test_where_nothing_can_be_written_the_handshake_is_answered_and_each_call_says_why(
    house: Household, tmp_path: Path, era: str
):
    (tmp_path / "in the way").write_text("a file where the folder should be")
    client = house.start(era=era, db=tmp_path / "in the way" / "memory.duckdb")
    greeting = client.greet()
    assert "can't be created or written" in greeting["instructions"]
    if era == LEGACY:
        assert greeting["protocolVersion"] == LEGACY
    else:
        assert MODERN in greeting["supportedVersions"]
    for _ in range(2):
        error = client.answer(client.begin("core_memory_view"))["error"]
        assert "in the way" in error["message"]
        assert "Set MCP_MEMORY_DB" in error["message"]
    assert client.end() == 0
    assert len(client.errors) == 1


def test_a_client_goes_on_and_is_told_of_the_tools_once_the_reason_is_gone(
    house: Household, tmp_path: Path
):
    obstacle = tmp_path / "in the way"
    obstacle.write_text("a file where the folder should be")
    client = house.client(db=obstacle / "memory.duckdb")
    assert "error" in client.answer(client.request("tools/list"))
    obstacle.unlink()
    client.call("core_memory_view")
    client.wait_for("notifications/tools/list_changed")
    assert client.ask("tools/list")["tools"]


@posix
def test_an_owner_that_fails_by_itself_is_not_started_without_end(house: Household, tmp_path: Path):
    broken = owners_with(
        "import sys; print('out of order', file=sys.stderr); sys.exit(7)", tmp_path
    )
    client = house.client(prelude=broken)
    error = client.answer(client.begin("core_memory_view"))["error"]
    assert "ends before it answers" in error["message"]
    assert "out of order" in error["message"]
    # One start for the first request, one for each further one.
    assert house.log().count("out of order") <= 3


def test_owners_that_others_kill_before_they_answer_are_started_again(house: Household):
    client = house.start()
    killed: set[int] = set()

    def kill_five() -> bool:
        for pid in house.owners():
            if pid not in killed and len(killed) < 5:
                killed.add(pid)
                psutil.Process(pid).kill()
        return len(killed) == 5

    until(kill_five, "five owners")
    client.greet()
    client.call("core_memory_view")
    assert client.process.poll() is None


STUCK = """
import threading, mcp_memory.agent.archive as archive
archive.Archive.search = lambda *a, **k: threading.Event().wait()
"""


@posix
def test_a_call_during_which_two_owners_end_is_answered_and_not_repeated(
    house: Household, tmp_path: Path
):
    client = house.client(prelude=owners_with(STUCK, tmp_path))
    client.call("core_memory_view")
    number = client.begin("archival_memory_search", query="word")
    for ended in range(2):
        # A later call is answered: so the owner has the first one too.
        client.call("core_memory_view")
        assert not client.answers(number), ended
        owner = psutil.Process(house.pid())
        owner.kill()
        owner.wait(60)
    error = client.answer(number)["error"]
    assert error["code"] == RETRY_CODE
    assert error["data"] == {"retryable": True}
    client.call("core_memory_view")


IMPATIENT = """
import mcp_memory.owner.connect as connect, mcp_memory.owner.shim as shim
import mcp_memory.owner.liveness as liveness
connect.HELLO_SECONDS = shim._PING_SECONDS = liveness.PING_SECONDS = 0.5
shim.SILENT_SECONDS = liveness.STILL_SECONDS = 1.0
"""
BUSY = """
import mcp_memory.owner.process as process, os, time
def busy(self, hello):
    # The interpreter is held, as by the parser of a long line: no thread of the owner runs.
    while not os.path.exists(os.environ["HOME"] + "/free"):
        sum(range(100_000))
operate = process.Owner._operate
async def wait(self, hello):
    if hello["op"] == "busy":
        busy(self, hello)
    return await operate(self, hello)
process.Owner._operate = wait
"""


def test_a_busy_owner_is_not_taken_for_dead_by_anybody(house: Household):
    owner = house.owner(BUSY)
    connected = house.client(prelude=IMPATIENT)
    connected.call("core_memory_view")
    with dial(house.address(), 20.0) as connection:
        connection.sendall(b'{"mcp_memory": 1, "op": "busy"}\n')
        waiting = connected.begin("core_memory_view")
        coming = house.start(prelude=IMPATIENT)
        came = coming.begin("core_memory_view")
        # Both have looked several times by then, and would have killed it.
        threading.Event().wait(6.0)
        assert owner.poll() is None
        (house.home / "free").touch()
        content_of(connected.answer(waiting))
        coming.answer(came)
    assert house.pid() == owner.pid


def test_an_owner_that_uses_no_processor_time_hangs_and_one_that_works_does_not(
    house: Household, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(liveness, "PING_SECONDS", 0.2)
    monkeypatch.setattr(liveness, "STILL_SECONDS", 1.0)
    house.client()
    process = psutil.Process(house.pid())
    silence = Silence()
    assert not silence.is_final(house.address())
    process.suspend()
    assert not silence.is_final(house.address())
    until(lambda: silence.is_final(house.address()), "the judgement")
    process.resume()
    until(lambda: not silence.is_final(house.address()), "an answer")


def test_an_owner_that_is_stopped_for_a_moment_goes_on(house: Household):
    client = house.client()
    client.call("core_memory_view")
    pid = house.pid()
    process = psutil.Process(pid)
    process.suspend()
    number = client.begin("core_memory_view")
    threading.Event().wait(1.0)
    process.resume()
    content_of(client.answer(number))
    assert house.pid() == pid


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="needs two users")
def test_the_database_folder_of_another_user_is_said_in_each_call(tmp_path: Path):
    """The client runs as `nobody`, the folder belongs to root."""
    home, cache = tmp_path / "home", tmp_path / "cache"
    theirs = tmp_path / "theirs"
    for folder in (home, cache, theirs):
        folder.mkdir()
    theirs.chmod(0o700)
    become = (
        "import runpy, importlib.util, pkgutil, _blake2, mcp_memory.owner.shim, os\n"
        "os.setgid(65534); os.setuid(65534)"
    )
    talker = Talker(
        home,
        prelude=become,
        owner="auto",
        db=theirs / "memory.duckdb",
        cache_dir=cache,
    )
    try:
        talker.greet()
        error = talker.answer(talker.begin("core_memory_view"))["error"]
        assert "theirs" in error["message"]
        assert "Set MCP_MEMORY_DB" in error["message"]
    finally:
        talker.kill()
