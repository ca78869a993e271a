"""The files of a database: their folder, their modes, and their durability.

Only metadata is touched: a plain `open()` of the database file would drop the
lock that keeps other processes out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from mcp_memory.values.errors import DiskFull, StorageFault

# Only the user may read them: they have everything that was said.
DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600

MIN_FREE_BYTES: Final = 1024 * 1024
"""With less free disk space a database counts as not writable; by judgement."""


def address(path: str | Path) -> str:
    """Return what the driver opens as a database of its own format, or not at all.

    A bare path lets it guess from the content: a text in CSV or JSON would be opened as a view
    in memory, where nothing that is written lasts, and a file of SQLite with an extension.
    """
    return str(path) if str(path) == ":memory:" else f"duckdb:{path}"


def prepare_folder(path: Path) -> None:
    """Create the folder of the database, private, if it is missing.

    Raises:
        StorageFault: It can't be created, or `path` is a folder itself.
    """
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        if path.is_dir():
            raise StorageFault(
                f"{path} is a folder, not a database",
                hint="Set MCP_MEMORY_DB to the path of a file",
            )
    except OSError as error:
        raise StorageFault(
            f"the folder {path.parent} can't be created: {error.strerror}",
            hint="Set MCP_MEMORY_DB to a file in a folder that you can write to",
        ) from error


def copy_folder(path: str | Path) -> Path:
    """Return the private folder beside a database in which its compacted copy is made."""
    return Path(f"{os.path.realpath(path)}.compact")


def keep_private(*paths: str) -> None:
    """Make these files, if they exist, unreadable for other users."""
    if os.name != "posix":
        return
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_mode & 0o077:
                os.chmod(path, FILE_MODE)


def identity(path: str) -> tuple[int, int] | None:
    """Return the identity of a file, which a replacement does not have; None if it is missing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_writable(path: Path) -> None:
    """Check that a file and its folder may be written and that its disk has space.

    Raises:
        StorageFault: They may not be written.
        DiskFull: The disk has no space.
    """
    for place in (path, path.parent):
        if not os.access(place, os.W_OK):
            raise StorageFault(
                f"{place} can't be written",
                hint="Give this user write permission there",
            )
    if shutil.disk_usage(path.parent).free < MIN_FREE_BYTES:
        raise DiskFull(str(path))


def size_bytes(path: str | Path) -> int:
    """Return the size of a file, 0 if it is missing."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_size
    return 0


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, if the system can.

    Raises:
        OSError: It can't be written.
    """
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
