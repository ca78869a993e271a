"""Where an owner listens: private files, whatever the machine has, whatever was left there."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from talker import Household

from mcp_memory.owner.locks import ProcessLock
from mcp_memory.owner.places import MAX_SOCKET_PATH, Places
from mcp_memory.owner.wire import Gone, dial, greet

pytestmark = pytest.mark.slow

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes and unix sockets")
NO_UNIX_SOCKETS = """
import socket
pair, unix = socket.socketpair, vars(socket).pop("AF_UNIX", None)
if unix is not None:  # Nor are there event loops without these.
    socket.socketpair = lambda: pair(unix)
"""


def _mode(path: object) -> int:
    return stat.S_IMODE(os.lstat(str(path)).st_mode)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files whose path is short."""
    with tempfile.TemporaryDirectory(prefix="mm") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(folder)
    monkeypatch.setattr(tempfile, "tempdir", None)


def _deep(house: Household) -> Path:
    return house.home / ("d" * MAX_SOCKET_PATH) / "memory.duckdb"


@posix
def test_the_folder_and_all_in_it_are_for_the_user_alone(house: Household):
    before = os.umask(0o022)
    try:
        client = house.client()
        client.call("core_memory_append", label="human", content="private")
    finally:
        os.umask(before)
    assert _mode(house.places.folder) == 0o700
    modes = {path.name: _mode(path) for path in Path(house.places.folder).iterdir()}
    assert modes.keys() >= {"address.json", "lock", "election", "owner.log", "socket"}
    assert set(modes.values()) == {0o600}
    assert {_mode(path) for path in house.home.glob("memory.duckdb*")} == {0o600, 0o700}


@posix
def test_with_a_path_that_is_too_long_the_socket_is_in_a_private_temporary_folder(
    house: Household, temporary: Path
):
    db = _deep(house)
    client = house.client(db=db)
    address = Places(str(db)).read_address() or {}
    path = Path(str(address["unix"]))
    assert path.parent.parent == temporary.resolve()
    assert (_mode(path.parent), _mode(path)) == (0o700, 0o600)
    client.call("core_memory_view")


@posix
@pytest.mark.parametrize("whose", ["open", "anothers", "link", "file"])
def test_a_temporary_folder_that_is_not_private_is_not_used(
    house: Household, temporary: Path, whose: str
):
    path = temporary / f"mcp-memory-{os.getuid()}"
    if whose == "open":
        path.mkdir()
        path.chmod(0o770)
    elif whose == "anothers":
        if os.getuid() != 0:
            pytest.skip("only root can give a folder away")
        path.mkdir(mode=0o700)
        os.chown(path, 12_345, 12_345)
    elif whose == "link":
        (temporary / "other").mkdir(mode=0o700)
        path.symlink_to(temporary / "other")
    else:
        path.touch(0o700)
    assert Places(str(_deep(house))).socket_paths() == []


def test_without_unix_sockets_it_is_loopback_with_a_secret_and_a_wrong_one_gets_nothing(
    house: Household,
):
    house.owner(NO_UNIX_SOCKETS)
    address = house.address()
    assert "unix" not in address
    secret = address["secret"]
    assert isinstance(secret, str)
    assert len(secret) >= 32
    for wrong in (None, "", secret[:-1], "ä" * 64, 5):
        given = {**address, "secret": wrong}
        with dial(address, 20.0) as connection, pytest.raises(Gone):
            greet(connection, given, {"op": "status"})
    with dial(address, 20.0) as connection:
        assert greet(connection, address, {"op": "ping"}) == {"result": {}}
    client = house.client(prelude=NO_UNIX_SOCKETS)
    client.call("core_memory_append", label="human", content="over TCP")
    assert house.owners() == [house.pid()]
    if sys.platform != "win32":
        assert _mode(house.places.address) == 0o600


LEFT: dict[str, bytes] = {
    "garbage": b"\x00{{",
    "a list": b"[1]",
    "no address": b"{}",
    "wrong types": b'{"unix": 5, "tcp": "x", "pid": "y"}',
    "no path": b'{"unix": "a\\u0000b"}',
    "no port": b'{"tcp": 99999999, "secret": "x"}',
}


@pytest.mark.parametrize("left", LEFT)
def test_an_address_that_leads_nowhere_is_gone(left: str, tmp_path: Path):
    places = Places(str(tmp_path / "memory.duckdb"))
    places.make()
    Path(places.address).write_bytes(LEFT[left])
    address = places.read_address()
    if address is not None:
        with pytest.raises(Gone):
            dial(address, 1.0)


@posix
def test_what_a_dead_owner_or_machine_has_left_does_no_harm(house: Household):
    places = house.places
    places.make()
    path = os.path.join(places.folder, "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(path)
    Path(places.lock).write_text("process 1 (owner, detached)")
    Path(places.election).write_text("left over")
    # Process 1 lives, as any number may again: it must not be taken for the owner, nor be killed.
    left = {"pid": 1, "version": "9.9.9", "kind": "serve", "unix": path, "ready": True}
    Path(places.address).write_text(json.dumps(left))
    house.client().call("core_memory_view")
    assert house.pid() != 1

    house.kill_owner()
    Path(places.address).write_bytes(LEFT["wrong types"])
    house.client().call("core_memory_view")
    assert house.owners() == [house.pid()]


def test_a_lock_is_of_one_holder_and_free_when_it_lets_go(tmp_path: Path):
    one, other = ProcessLock(str(tmp_path / "lock")), ProcessLock(str(tmp_path / "lock"))
    assert one.acquire()
    assert not other.acquire()
    one.release()
    assert other.acquire()
    assert not one.acquire()
    other.release()
