"""The files of a database's owner: its lock, its address, its socket, its log.

They are in a private folder beside the database. Nothing here opens the database
file itself: closing it again would drop the lock that this process has on it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat

from mcp_memory.values.errors import DiskFull, StorageFault

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
MAX_SOCKET_PATH = 100
"""In bytes; the shortest limit of any system is 103, that of macOS."""

Address = dict[str, object]

_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


class Places:
    """The paths of one database's owner.

    Args:
        db: The database file.
    """

    def __init__(self, db: str) -> None:
        # One database has one owner, by whatever path it is opened.
        self.db = os.path.realpath(db)
        self.folder = f"{self.db}.owner"
        self.lock = os.path.join(self.folder, "lock")
        self.election = os.path.join(self.folder, "election")
        self.address = os.path.join(self.folder, "address.json")
        self.log = os.path.join(self.folder, "owner.log")

    def make(self) -> None:
        """Create the private folder, and that of the database, if they are missing.

        Raises:
            StorageFault: They can't be created or written.
        """
        try:
            os.makedirs(os.path.dirname(self.folder), mode=DIRECTORY_MODE, exist_ok=True)
            os.makedirs(self.folder, mode=DIRECTORY_MODE, exist_ok=True)
            if os.name == "posix" and os.stat(self.folder).st_mode & 0o077:
                os.chmod(self.folder, DIRECTORY_MODE)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(13, "it is not writable")
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def read_address(self) -> Address | None:
        """Return where the owner listens; None if the file is missing or can't be read.

        An address in a copied folder doesn't count: it leads to the owner of the original.
        """
        try:
            with open(self.address, encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError):
            return None
        if not isinstance(found, dict) or found.get("folder") not in {None, self._identity()}:
            return None
        return found

    def write_address(self, address: Address) -> None:
        """Write where the owner listens, in one step.

        Raises:
            StorageFault: It can't be written.
        """
        temporary = f"{self.address}.{os.getpid()}"
        try:
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
            with os.fdopen(file, "w", encoding="utf-8") as out:
                json.dump({**address, "folder": self._identity()}, out)
            os.replace(temporary, self.address)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise unwritable(self.folder, error) from error

    def _identity(self) -> int | None:
        """Return what distinguishes this folder from its copies, the same by every path."""
        try:
            return os.stat(self.folder).st_ino
        except OSError:
            return None

    def remove_address(self, pid: int) -> None:
        """Remove the address if it is that of process `pid`."""
        address = self.read_address()
        if address is not None and address.get("pid") == pid:
            with contextlib.suppress(OSError):
                os.unlink(self.address)

    def socket_paths(self) -> list[str]:
        """Return the paths a unix socket may have, the best first; each in a private folder."""
        beside = os.path.join(self.folder, "socket")
        paths = [beside] if len(os.fsencode(beside)) <= MAX_SOCKET_PATH else []
        other = _private_temporary_folder()
        if other is not None:
            from hashlib import sha256

            name = sha256(os.fsencode(self.db)).hexdigest()[:20]
            path = os.path.join(other, name)
            if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
                paths.append(path)
        return paths


def is_same(one: Address | None, other: Address | None) -> bool:
    """Return whether two addresses are of one owner, ready or not."""
    if one is None or other is None:
        return False
    return all(one.get(name) == other.get(name) for name in ("pid", "since"))


def unwritable(folder: str, error: OSError) -> StorageFault:
    """Return the fault for an error of the system in the owner's folder."""
    if error.errno in _FULL:
        return DiskFull(folder)
    return StorageFault(
        f"the folder {folder} can't be created or written: {error.strerror}",
        hint="Set MCP_MEMORY_DB to a file in a folder that you can write to",
    )


def place() -> str:
    """Return in which boot and container this process runs; a process id is valid only there.

    It is empty if the system doesn't say.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _private_temporary_folder() -> str | None:
    """Return a folder for sockets that only this user can open; None if that fails."""
    if not hasattr(os, "getuid"):
        return None
    import tempfile

    path = os.path.join(tempfile.gettempdir(), f"mcp-memory-{os.getuid()}")
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, DIRECTORY_MODE)
        found = os.lstat(path)
    except OSError:
        return None
    private = (
        stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    )
    return path if private else None
