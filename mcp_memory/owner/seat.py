"""The seat of the owner: the process that holds its lock listens and may open the database.

It is taken before anything heavy is imported: a client can connect at once and
is answered when the server is loaded.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time

from mcp_memory import __version__
from mcp_memory.owner.locks import ProcessLock, read_note
from mcp_memory.owner.places import Address, Places, place
from mcp_memory.owner.wire import MAX_HELLO_BYTES, Message
from mcp_memory.values.errors import MemoryFault, OwnerFault, StorageFault

BACKLOG = 128
"""Clients that wait to be accepted: Linux's own limit until 2019, and more than one person has."""


class Seat:
    """The lock, the listening socket and the address of one owner.

    Args:
        places: The files of the database's owner.
        kind: `detached` if a client has started it, `serve` if a person has.
    """

    def __init__(self, places: Places, kind: str) -> None:
        self.places = places
        self.kind = kind
        self.listener: socket.socket | None = None
        self.secret: str | None = None
        self._lock = ProcessLock(places.lock)
        self._path: str | None = None
        self._address: Address = {}

    def take(self, seconds: float) -> None:
        """Take the lock and listen.

        Args:
            seconds: How long the present owner may take to leave.

        Raises:
            OwnerFault: Another process still holds the lock then.
            StorageFault: The files can't be written.
        """
        self.places.make()
        deadline = time.monotonic() + seconds
        while not self._lock.acquire():
            if time.monotonic() > deadline:
                holder = read_note(self.places.lock) or "another process"
                raise OwnerFault(
                    f"the database {self.places.db} is in use by {holder}",
                    hint="Wait until it has finished, or end it",
                )
            time.sleep(0.01)
        self._lock.note(f"process {os.getpid()} (owner, {self.kind})")
        self.listener = self._listen()
        self._address |= {
            "pid": os.getpid(),
            "place": place(),
            "version": __version__,
            "kind": self.kind,
            "since": time.time(),
            "ready": False,
        }
        self.places.write_address(self._address)

    def ready(self) -> None:
        """Write into the address that clients are answered from now on."""
        self._address["ready"] = True
        # Clients only wait longer without it: no reason to end on a full disk.
        with contextlib.suppress(StorageFault):
            self.places.write_address(self._address)

    def stop_listening(self) -> None:
        """Remove the address; a client that was not answered yet tries the next owner."""
        self.places.remove_address(os.getpid())
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            self._path = None

    def leave(self) -> None:
        """Release the lock; the database must be closed."""
        self.stop_listening()
        self._lock.release()

    def refuse(self, fault: MemoryFault, seconds: float = 3.0) -> None:
        """Tell the next client why there is no owner."""
        if self.listener is None:
            return
        deadline = time.monotonic() + seconds
        sent = False
        while not sent and time.monotonic() < deadline:
            self.listener.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(1.0)
                connection.recv(MAX_HELLO_BYTES)
                connection.sendall(json.dumps({"error": error_message(fault)}).encode() + b"\n")
                sent = True

    def _listen(self) -> socket.socket:
        if os.name == "posix" and hasattr(socket, "AF_UNIX"):
            for path in self.places.socket_paths():
                listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    # The owner that left it there has ended: we hold the lock.
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)
                    listener.bind(path)
                    os.chmod(path, 0o600)
                    listener.listen(BACKLOG)
                except OSError:
                    # Not every file system supports sockets.
                    listener.close()
                    continue
                self._path = path
                self._address = {"unix": path}
                return listener
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        listener.listen(BACKLOG)
        # Any user of the machine can connect there; the secret is in a private file.
        self.secret = secrets.token_hex(32)
        self._address = {"tcp": listener.getsockname()[1], "secret": self.secret}
        return listener


def error_message(fault: MemoryFault) -> Message:
    """Return a fault as the answer to a hand-shake."""
    return {"type": type(fault).__name__, "message": fault.message, "hint": fault.hint}
