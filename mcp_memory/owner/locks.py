"""A lock that the operating system releases when its holder dies.

The library filelock is not used: its import takes longer than all else that a shim does.
"""

from __future__ import annotations

import os
import sys

from mcp_memory.owner.places import unwritable


class ProcessLock:
    """An exclusive lock on a file of its own, for one process at a time.

    The file stays on disk; one left by a machine that crashed is not locked.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self) -> bool:
        """Take the lock if it is free, without waiting; return whether this process has it.

        Raises:
            StorageFault: The file can't be created or opened.
        """
        if self._file is not None:
            return True
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        try:
            file = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise unwritable(os.path.dirname(self.path), error) from error
        if not _lock(file):
            os.close(file)
            return False
        self._file = file
        return True

    def note(self, text: str) -> None:
        """Write into the file who holds the lock and for what; for people and error messages.

        Raises:
            StorageFault: It can't be written.
        """
        if self._file is not None:
            try:
                os.ftruncate(self._file, 0)
                os.lseek(self._file, 0, os.SEEK_SET)
                os.write(self._file, text.encode())
            except OSError as error:
                raise unwritable(os.path.dirname(self.path), error) from error

    def release(self) -> None:
        """Release the lock, if this process has it."""
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)


def read_note(path: str) -> str:
    """Return what the last holder of a lock wrote into its file; empty if nothing can be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1_000)
    except OSError:
        return ""


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> bool:
        # After the note, so that others can read that.
        os.lseek(file, 10_000, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
