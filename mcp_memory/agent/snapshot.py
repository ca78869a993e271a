"""The compiled core memory as a small file beside the database.

`initialize` must answer, with core memory in its instructions, before the
database driver is even imported. So every change of core memory writes this
copy before it is acknowledged. It is a cache: the database is the truth, and
opening it rewrites the copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mcp_memory.values.records import SHARED

logger = logging.getLogger(__name__)

_BLOCK: Final = re.compile(r'^<block label="([^"]*)" .*?^</block>$', re.DOTALL | re.MULTILINE)
"""One compiled block with its label; values are escaped, so none can look like the end."""


def read_core(database: Path, agent: str, shared: Sequence[str] = ()) -> str | None:
    """Return the compiled blocks in an agent's view, None if this database has no copy.

    Args:
        shared: The labels of its shared blocks, which hide its own blocks with these labels.
    """
    own = read_snapshot(database, agent)
    if own is None or not shared:
        return own
    blocks = {block[1]: block[0] for block in _BLOCK.finditer(own) if block[1] not in shared}
    theirs = _BLOCK.finditer(read_snapshot(database, SHARED) or "")
    blocks |= {block[1]: block[0] for block in theirs if block[1] in shared}
    return "\n".join(blocks.values())


def read_snapshot(database: Path, agent: str) -> str | None:
    """Return the compiled blocks of an agent, None if this database has no copy."""
    try:
        content = json.loads(_path(database, agent).read_text("utf-8"))
        inode = database.stat().st_ino
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("database") != inode:
        return None
    core = content.get("core")
    return core if isinstance(core, str) else None


def write_snapshot(database: Path, agent: str, core: str) -> None:
    """Replace the copy in one step; if that fails, delete it so that it is never stale."""
    path = _path(database, agent)
    temporary = None
    try:
        # Only the metadata is read: opening the file itself would drop the driver's lock.
        content = json.dumps({"database": database.stat().st_ino, "core": core}, ensure_ascii=False)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        logger.warning("the copy of core memory at %s can't be written: %s", path, error)
        for leftover in (path, *([Path(temporary)] if temporary else [])):
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)


def _path(database: Path, agent: str) -> Path:
    name = hashlib.sha256(agent.encode()).hexdigest()[:16]
    return database.with_name(f"{database.name}.core") / f"{name}.json"
