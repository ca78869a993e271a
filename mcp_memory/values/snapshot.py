"""The compiled core memory as a small file beside the database.

`initialize` must answer, with core memory in its instructions, before the
database driver is even imported, and by a process that only passes lines. So
every change of core memory writes this copy before it is acknowledged. It is a
cache: the database is the truth, and opening it rewrites the copy.

Only light modules are imported at the top: the process that a client starts reads this.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable

TYPE_CHECKING = False  # As in typing, which takes milliseconds to import.
if TYPE_CHECKING:
    from pathlib import Path

# One compiled block with its label; values are escaped, so none can look like the end.
_BLOCK = r'^<block label="([^"]*)" .*?^</block>$'


def read_core(database: str | Path, agent: str, shared: Iterable[str] = ()) -> str | None:
    """Return the compiled blocks in an agent's view, None if this database has no copy.

    Args:
        database: The database file.
        agent: The agent.
        shared: The labels of its shared blocks, which hide its own blocks with these labels.
    """
    from mcp_memory.values.records import SHARED

    return read_files(database, snapshot_name(agent), tuple(shared), snapshot_name(SHARED))


def read_files(database: str | Path, own: str, shared: tuple[str, ...], theirs: str) -> str | None:
    """Return the compiled blocks in the view of an agent, given by the names of its files.

    Args:
        database: The database file.
        own: The `snapshot_name` of the agent.
        shared: The labels of its shared blocks.
        theirs: The `snapshot_name` of those blocks.
    """
    core = _read(database, own)
    if core is None or not shared:
        return core
    pattern = re.compile(_BLOCK, re.DOTALL | re.MULTILINE)
    blocks = {block[1]: block[0] for block in pattern.finditer(core) if block[1] not in shared}
    blocks |= {
        block[1]: block[0]
        for block in pattern.finditer(_read(database, theirs) or "")
        if block[1] in shared
    }
    return "\n".join(blocks.values())


def write_snapshot(database: str | Path, agent: str, core: str) -> None:
    """Replace the copy in one step; if that fails, delete it so that it is never stale."""
    _write(database, snapshot_name(agent), core)


def _write(database: str | Path, name: str, core: str) -> None:
    import tempfile

    path = _path(database, name)
    temporary = None
    try:
        # Only the metadata is read: opening the file itself would drop the driver's lock.
        content = json.dumps({"database": os.stat(database).st_ino, "core": core})
        folder = os.path.dirname(path)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        import logging

        logging.getLogger(__name__).warning(
            "the copy of core memory at %s can't be written: %s", path, error
        )
        for leftover in (path, temporary):
            if leftover is not None:
                with contextlib.suppress(OSError):
                    os.unlink(leftover)


def drop_snapshot(database: str | Path, agent: str) -> None:
    """Delete the copy, before a change that it would not show is committed."""
    with contextlib.suppress(OSError):
        os.unlink(_path(database, snapshot_name(agent)))


def keep_snapshots(database: str | Path, replaced: int) -> None:
    """Keep the copies after the file was replaced by one with the same content.

    Args:
        database: The database file.
        replaced: The inode of the file before.
    """
    folder = os.path.dirname(_path(database, ""))
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        core = _read(database, name, replaced)
        if core is not None:
            _write(database, name, core)


def snapshot_name(agent: str) -> str:
    """Return the name of an agent's file."""
    from hashlib import sha256

    return f"{sha256(agent.encode()).hexdigest()[:16]}.json"


def _read(database: str | Path, name: str, inode: int | None = None) -> str | None:
    try:
        with open(_path(database, name), encoding="utf-8") as file:
            content = json.load(file)
        if inode is None:
            inode = os.stat(database).st_ino
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("database") != inode:
        return None
    core = content.get("core")
    return core if isinstance(core, str) else None


def _path(database: str | Path, name: str) -> str:
    return os.path.join(f"{os.fspath(database)}.core", name)
