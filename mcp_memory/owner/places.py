"""The files of a database's owner: its lock, its address, its socket, its log.

They stand in a private folder beside the database. Nothing here touches the
database file itself: opening it would drop the lock of whoever holds it.
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
"""Bytes; the shortest limit of any system is 103."""

Address = dict[str, object]

_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


class Places:
    """The paths of one database's owner.

    Args:
        db: The database file.
    """

    def __init__(self, db: str) -> None:
        # One database has one owner, whatever name it is called by.
        self.db = os.path.realpath(db)
        self.folder = f"{self.db}.owner"
        self.lock = os.path.join(self.folder, "lock")
        self.election = os.path.join(self.folder, "election")
        self.address = os.path.join(self.folder, "address.json")
        self.log = os.path.join(self.folder, "owner.log")

    def make(self) -> None:
        """Make the private folder, and that of the database, if they are missing.

        Raises:
            StorageFault: They can't be made or written.
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
        """Return where the owner listens, None if there is none or it can't be read.

        One that was copied with its folder is none: it leads to the owner of the original.
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
        """Tell clients where the owner listens, in one step.

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
        """Return what tells this folder from its copies; it is the same by whatever path."""
        try:
            return os.stat(self.folder).st_ino
        except OSError:
            return None

    def remove_address(self, pid: int) -> None:
        """Take the address away if it is that of process `pid`."""
        address = self.read_address()
        if address is not None and address.get("pid") == pid:
            with contextlib.suppress(OSError):
                os.unlink(self.address)

    def socket_paths(self) -> list[str]:
        """Return where a unix socket may be, the best first; each in a private folder."""
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
    """Return whether two addresses are of one owner, which may have become ready meanwhile."""
    if one is None or other is None:
        return False
    return all(one.get(name) == other.get(name) for name in ("pid", "since"))


def unwritable(folder: str, error: OSError) -> StorageFault:
    """Return the fault that stands for the system's refusal to write into the owner's folder."""
    if error.errno in _FULL:
        return DiskFull(folder)
    return StorageFault(
        f"the folder {folder} can't be made or written: {error.strerror}",
        hint="Set MCP_MEMORY_DB to a file in a folder that you can write to",
    )


def place() -> str:
    """Return in which boot and container this process is; a number of a process means one there.

    It is empty where the system doesn't tell.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _private_temporary_folder() -> str | None:
    """Return a folder for sockets that is this user's alone, None if there can't be one."""
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
