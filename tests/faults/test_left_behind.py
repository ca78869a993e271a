"""What a dead machine leaves: an address whose number is anybody's by now, a lock of nobody."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from talker import Household

from mcp_memory.owner import connect
from mcp_memory.owner.locks import ProcessLock
from mcp_memory.owner.places import Places, place

IMPATIENT = """
from mcp_memory.owner import connect
connect.HELLO_SECONDS = 2.0
"""


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with us."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    )
    yield process
    process.kill()
    process.communicate(timeout=20)


@contextmanager
def mute_listener() -> Iterator[int]:
    """Give a port that takes connections and says nothing, as another program's may."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def left_behind(places: Places, pid: int, how: dict[str, object], where: str | None = None) -> None:
    """Write what an owner of that number would have left."""
    places.make()
    Path(places.lock).write_text(f"process {pid} (owner, detached)")
    Path(places.election).write_text("")
    address = {"pid": pid, "version": "0.1.0", "kind": "detached", "since": 1.0, "ready": True}
    places.write_address(address | {"place": place() if where is None else where} | how)


@pytest.mark.slow
@pytest.mark.parametrize("listening", ["a mute port", "no port", "no socket", "a plain file"])
def test_files_of_a_dead_machine_are_replaced_and_the_process_of_that_number_lives(
    house: Household, bystander: subprocess.Popen[bytes], listening: str
):
    with mute_listener() as port:
        if listening == "no port":
            with socket.create_server(("127.0.0.1", 0)) as closed:
                port = closed.getsockname()[1]
        listeners: dict[str, dict[str, object]] = {
            "a mute port": {"tcp": port, "secret": "old"},
            "no port": {"tcp": port, "secret": "old"},
            "no socket": {"unix": str(house.home / "nowhere")},
            "a plain file": {"unix": house.places.lock},
        }
        left_behind(house.places, bystander.pid, listeners[listening])
        client = house.client(prelude=IMPATIENT)
        client.call("core_memory_append", label="human", content="a new start")
    assert house.pid() != bystander.pid
    assert house.owners() == [house.pid()]
    assert bystander.poll() is None


@pytest.mark.slow
def test_a_copied_folder_of_a_database_is_a_memory_of_its_own(house: Household, tmp_path: Path):
    client = house.client()
    client.call("core_memory_append", label="human", content="in both")
    original = house.pid()
    # As a backup tool would while the owner runs, but for the database, which is made anew.
    copy = Places(str(house.home / "copied" / "memory.duckdb"))
    copy.make()
    for name in ("lock", "election", "address.json"):
        (Path(copy.folder) / name).write_bytes((Path(house.places.folder) / name).read_bytes())
    second = house.client(db=copy.db)
    second.call("core_memory_append", label="human", content="in the copy alone")
    assert "in the copy alone" not in str(client.call("core_memory_view"))
    assert house.pid() == original
    assert (copy.read_address() or {})["pid"] != original


@pytest.mark.skipif(os.name != "posix", reason="the lock's note can't be taken over there")
@pytest.mark.parametrize(
    ("note", "where", "ended"),
    [
        ("process {pid} (owner, detached)", None, True),
        ("process {pid}1 (owner, detached)", None, False),
        ("process 1 (reembed)", None, False),
        ("process {pid} (owner, detached)", "another boot", False),
    ],
)
def test_only_the_process_that_holds_the_lock_here_is_ever_ended(
    tmp_path: Path,
    bystander: subprocess.Popen[bytes],
    note: str,
    where: str | None,
    ended: bool,
):
    places = Places(str(tmp_path / "memory.duckdb"))
    left_behind(places, bystander.pid, {"tcp": 1}, where)
    lock = ProcessLock(places.lock)
    assert lock.acquire()
    lock.note(note.format(pid=bystander.pid))
    connect.end(places, places.read_address() or {})
    lock.release()
    if ended:
        assert bystander.wait(timeout=20) != 0
    else:
        with pytest.raises(subprocess.TimeoutExpired):
            bystander.wait(timeout=0.2)


def test_an_address_of_nobody_is_removed_and_nobody_is_ended(
    tmp_path: Path, bystander: subprocess.Popen[bytes]
):
    places = Places(str(tmp_path / "memory.duckdb"))
    left_behind(places, bystander.pid, {"tcp": 1})
    connect.end(places, places.read_address() or {})
    assert places.read_address() is None
    with pytest.raises(subprocess.TimeoutExpired):
        bystander.wait(timeout=0.2)


@pytest.mark.slow
def test_an_owner_that_dies_at_every_start_is_not_started_for_ever(house: Household):
    house.expects_trouble = True
    folder = house.home / "broken"
    folder.mkdir()
    starts = house.home / "starts"
    # An installation that is broken: the owner listens, and can't import the rest.
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'mcp_memory.owner' in sys.orig_argv:\n"
        f"    open({str(starts)!r}, 'a').write('x')\n"
        "    sys.modules['anyio'] = None\n"
    )
    prelude = f"import os; os.environ['PYTHONPATH'] = {str(folder)!r}"
    client = house.start(prelude=prelude)
    said = client.answer(client.begin("core_memory_view"))["error"]["message"]
    assert "anyio" in said
    assert house.places.log in said
    assert client.end() == 0
    assert len(client.errors) == 1
    assert 1 <= len(starts.read_text()) <= 3
    assert not house.owners()
    client = house.client()
    assert client.call("core_memory_view")
    assert json.loads(Path(house.places.address).read_text())["ready"]
