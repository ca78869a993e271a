"""Reaching the owner of a database: find it, start it, replace it.

A client that starts an owner holds the election lock until that owner answers:
of many clients at the same moment, one starts it and the others wait.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping

from mcp_memory import __version__
from mcp_memory.owner.liveness import Silence
from mcp_memory.owner.locks import ProcessLock, read_note
from mcp_memory.owner.places import Address, Places, is_same, place, unwritable
from mcp_memory.owner.wire import Gone, Message, Silent, dial, greet
from mcp_memory.values.errors import DiskFull, MemoryFault, OwnerFault

REACH_SECONDS = 60.0
"""How long to try to reach an owner. By judgement: hosts wait at least as long for a server."""

HELLO_SECONDS = 10.0
"""How long an owner may take to answer. By judgement: it takes a millisecond."""

STARTING_SECONDS = 45.0
"""The same while it still starts, which takes a second or two on an idle machine."""

TYPE_CHECKING = False  # As in typing, which takes milliseconds to import.
if TYPE_CHECKING:
    from subprocess import Popen

FULL_STATUS = 4
"""The exit status of an owner that found the disk full: its log has no room for the reason."""

# By judgement, these three: a client doesn't notice 10 ms; the system may be killing one owner
# after the other because its memory is short; a megabyte is weeks of log.
_POLL_SECONDS = 0.01
_MAX_PAUSE_SECONDS = 5.0
_MAX_LOG_BYTES = 1_000_000

_KILLS = [
    -getattr(signal, name)
    for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
    if hasattr(signal, name)
]
"""The exit statuses of a process that others have ended; no fault of its own."""


class Reached:
    """A connection to the owner, its address, and its answer to the first line."""

    def __init__(self, connection: socket.socket, address: Address, answer: Message) -> None:
        self.connection = connection
        self.address = address
        self.answer = answer


def reach(
    places: Places,
    hello: Message,
    environ: Mapping[str, str],
    *,
    start: bool = True,
    seconds: float = REACH_SECONDS,
    silence: Silence | None = None,
) -> Reached:
    """Return a connection to the owner of a database; start the owner if it doesn't run.

    An owner that others end before it answers is started again, after longer and longer pauses.

    Args:
        places: The files of the database's owner.
        hello: What the first line says, beside version and secret.
        environ: The environment of an owner that has to be started.
        start: Whether to start an owner.
        seconds: How long to try.
        silence: What is known of an owner that doesn't answer, from one try to the next.

    Raises:
        OwnerFault: It can't be started, or doesn't answer.
        StorageFault: Its files can't be written.
        MemoryFault: It refuses; the message is its own.
    """
    if start:
        places.make()
    election = ProcessLock(places.election)
    silence = Silence() if silence is None else silence
    deadline = time.monotonic() + seconds
    starting = _Starting(places, environ)
    try:
        while True:
            reached = _try(places, hello, election, silence, start=start)
            if reached is not None:
                return reached
            if not start:
                raise OwnerFault("no owner is running", hint="It starts with the first client")
            if time.monotonic() > deadline:
                starting.kill()
                raise OwnerFault(
                    f"the memory of {places.db} can't be reached: {_holder(places)}",
                    hint=f"Try again; if it stays so, see {places.log}, or run `mcp-memory doctor`",
                )
            if starting.is_running() or not election.acquire():
                time.sleep(_POLL_SECONDS)
                continue
            # Another may have been elected between the look and the lock.
            reached = _try(places, hello, election, silence, start=start)
            if reached is not None:
                return reached
            starting.begin()
    finally:
        election.release()
        starting.leave()


class _Starting:
    """The owner that this process has started, until it answers."""

    def __init__(self, places: Places, environ: Mapping[str, str]) -> None:
        self._places = places
        self._environ = environ
        self._process: Popen[bytes] | None = None
        self._pause = _POLL_SECONDS

    def begin(self) -> None:
        """Start one."""
        self._process = _start(self._places, self._environ)

    def is_running(self) -> bool:
        """Return whether there is one; after one that others have ended, return later and later.

        Raises:
            OwnerFault: It has failed; the message is the last line of its log.
            DiskFull: It found no room to write.
        """
        if self._process is None:
            return False
        status = self._process.poll()
        if status is None:
            return True
        self._process = None
        if status == FULL_STATUS:
            raise DiskFull(self._places.folder)
        if status != 0 and status not in _KILLS:
            raise OwnerFault(
                f"the owner of {self._places.db} ends before it answers:"
                f" {_last_words(self._places)}",
                hint=f"See {self._places.log}, or run `mcp-memory doctor`",
            )
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, _MAX_PAUSE_SECONDS)
        return False

    def kill(self) -> None:
        """End it, if it is there."""
        if self._process is not None:
            self._process.kill()

    def leave(self) -> None:
        """Wait for its end in the background: else it would stay in the system's list."""
        if self._process is not None:
            threading.Thread(target=self._process.wait, name="owner", daemon=True).start()


def _try(
    places: Places, hello: Message, election: ProcessLock, silence: Silence, *, start: bool
) -> Reached | None:
    """Return a connection to the present owner; None if there is none."""
    address = places.read_address()
    if address is None:
        return None
    try:
        reached = _greeted(address, hello)
    except Gone:
        return None
    except Silent:
        _end_silent(places, address, silence)
        return None
    silence.broken()
    answer = reached.answer
    if start and _is_older(answer.get("version")) and answer.get("kind") == "detached":
        reached.connection.close()
        _replace(places, address, election)
        return None
    error = answer.get("error")
    if error is not None:
        reached.connection.close()
        raise refusal(error)
    return reached


def _greeted(address: Address, hello: Message) -> Reached:
    """Return a connection to an owner that has answered."""
    connection = dial(address, HELLO_SECONDS)
    try:
        connection.settimeout(HELLO_SECONDS if address.get("ready") else STARTING_SECONDS)
        answer = greet(connection, address, hello)
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return Reached(connection, address, answer)


def _replace(places: Places, address: Address, election: ProcessLock) -> None:
    """Tell an owner of an older version to leave.

    It needs the election lock: else an older client would start the older version again.
    """
    while not election.acquire():
        time.sleep(_POLL_SECONDS)
        if not is_same(places.read_address(), address):
            return
    if is_same(places.read_address(), address):
        retire(places, address)


def retire(places: Places, address: Address, seconds: float = 15.0) -> None:
    """Tell an owner to leave, and wait until it has; kill it if it hangs.

    Raises:
        OwnerFault: It can't be ended.
    """
    _ask_to_leave(address)
    lock, silence = ProcessLock(places.lock), Silence()
    deadline = time.monotonic() + seconds
    ended = False
    while not lock.acquire():
        if time.monotonic() > deadline:
            if ended:
                raise OwnerFault(
                    f"the database {places.db} is in use: {_holder(places)}",
                    hint="End that process first",
                )
            if silence.is_final(address):
                end(places, address)
                ended = True
            else:
                _ask_to_leave(address)  # It may have been too busy to hear it.
            deadline = time.monotonic() + seconds
        time.sleep(_POLL_SECONDS)
    lock.release()


def _ask_to_leave(address: Address) -> None:
    with contextlib.suppress(Gone, Silent), dial(address, HELLO_SECONDS) as connection:
        greet(connection, address, {"op": "retire"})


def refusal(error: object) -> MemoryFault:
    """Return the fault in an owner's answer."""
    if isinstance(error, dict):
        return OwnerFault(
            str(error.get("message", "")),
            hint=str(error.get("hint", "")),
            status=2 if error.get("type") == "SettingsFault" else 1,
        )
    return OwnerFault(str(error))


def _end_silent(places: Places, address: Address, silence: Silence) -> None:
    """Kill an owner that hangs, unless a person has started it."""
    if not is_same(places.read_address(), address) or not silence.is_final(address):
        return
    if address.get("kind") != "detached":
        raise OwnerFault(
            f"process {address.get('pid')}, which serves {places.db}, does not answer",
            hint="Continue or end it",
        )
    end(places, address)


def end(places: Places, address: Address) -> None:
    """Kill an owner that does not answer; what it acknowledged is durable.

    An address may be from before the machine's last start, or from a copied folder: another
    process may have its number now. So only the process that holds the lock is killed.
    """
    pid = address.get("pid")
    lock = ProcessLock(places.lock)
    if lock.acquire():
        with contextlib.suppress(OSError):
            os.unlink(places.address)  # A dead owner has left it.
        lock.release()
    elif (
        isinstance(pid, int)
        and pid != os.getpid()
        and address.get("place") == place()
        and read_note(places.lock).startswith(f"process {pid} ")
    ):
        with contextlib.suppress(OSError):
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def _is_older(version: object) -> bool:
    return _numbers(str(version)) < _numbers(__version__)


def _numbers(version: str) -> tuple[int, ...]:
    """Return what a version sorts by: the numbers of its release."""
    numbers: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)


def _start(places: Places, environ: Mapping[str, str]) -> Popen[bytes]:
    """Start an owner; it listens within a moment, or ends."""
    import subprocess

    with _open_log(places) as log:
        # In its own folder, as the client's may be removed; in its own process group.
        return subprocess.Popen(  # noqa: S603  # our own module, by our own interpreter
            [sys.executable, "-m", "mcp_memory.owner", places.db],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=dict(environ),
            cwd=places.folder,
            start_new_session=True,
            creationflags=_DETACHED,
        )


if sys.platform == "win32":
    import subprocess as _subprocess

    _DETACHED = (
        _subprocess.DETACHED_PROCESS
        | _subprocess.CREATE_NEW_PROCESS_GROUP
        | _subprocess.CREATE_NO_WINDOW
    )
else:
    _DETACHED = 0


def _open_log(places: Places):  # type: ignore[no-untyped-def]  # typing is too slow to import here
    try:
        if os.path.getsize(places.log) > _MAX_LOG_BYTES:
            os.replace(places.log, f"{places.log}.1")
    except OSError:
        pass
    try:
        file = os.open(places.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise unwritable(places.folder, error) from error
    return os.fdopen(file, "ab")


def _last_words(places: Places) -> str:
    try:
        with open(places.log, encoding="utf-8", errors="replace") as log:
            lines = [line.strip() for line in log.read()[-4_000:].splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1] if lines else "it said nothing"


def _holder(places: Places) -> str:
    note = read_note(places.lock)
    return f"{note} holds its lock" if note else "no owner answers"
