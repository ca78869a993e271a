"""A copy of the database without what is dead, checked, put in the place of the file.

It is made apart while everybody goes on; what somebody commits meanwhile makes
it worthless, and it is thrown away. At every step the file is whole, the old
one or the new one; a crash leaves at most a folder that the next start deletes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from mcp_memory.store.duckdb.database import Database, Row
from mcp_memory.store.duckdb.files import DIRECTORY_MODE, FILE_MODE, size_bytes, sync_folder
from mcp_memory.values.errors import StorageFault

STEPS: Final = (
    "checkpointed",
    "begun",
    "copied",
    "written",
    "checked",
    "synced",
    "closed",
    "renamed",
    "reopened",
)
"""What `on_step` is told, in this order."""

SPARE_BYTES: Final = 16 * 1024 * 1024
"""So much room has to be left beside the copy: the log of the next writes may need it."""

_COPY: Final = "compacted_copy"
"""The copy's name in SQL while it is attached."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """The size of the file before and after."""

    before_bytes: int
    after_bytes: int


class _Differs(StorageFault):
    """A copy that does not hold the same."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the compacted copy is not the same as the database: {what}",
            hint="Nothing was changed; `mcp-memory doctor` checks the database",
        )


def compact(
    database: Database,
    *,
    hold: bool = False,
    on_step: Callable[[str], None] = lambda step: None,
) -> Compacted | None:
    """Make the file as small as what is in it.

    Args:
        hold: Whether to keep writers waiting, so that it is sure to be done. A thread that
            has not read before waits as well.
        on_step: Told each of `STEPS` once it is done; an `InterruptedError` of it gives up.

    Returns:
        None if somebody wrote meanwhile, or still reads: nothing was changed.

    Raises:
        StorageFault: There is no room, or it can't be done; nothing was changed.
    """
    if database.path == ":memory:":
        raise StorageFault("a database in memory has no file", hint="Nothing was changed")
    place = Path(os.path.realpath(database.path))
    folder = database.copy_folder
    with database.held() if hold else contextlib.nullcontext():
        database.checkpoint()
        commits = database.commits
        before = size_bytes(place)
        _check_room(place, before)
        try:
            on_step("checkpointed")
            copy = _begin(folder, place)
            on_step("begun")
            _copy(database, copy, on_step)
            _sync(copy, place)
            on_step("synced")
            after = size_bytes(copy)
            if not database.swap(copy, commits, on_step):
                return None
            on_step("reopened")
        except InterruptedError:
            return None
        except _Differs:
            if database.commits != commits:
                return None
            raise
        except OSError as error:
            raise StorageFault(
                f"the database {place} can't be compacted: {error.strerror or error}",
                hint="Nothing was changed",
            ) from error
        finally:
            database.clear_copy()
    return Compacted(before, after)


def _check_room(place: Path, file_bytes: int) -> None:
    free = shutil.disk_usage(place.parent).free
    needed = file_bytes + SPARE_BYTES
    if free < needed:
        raise StorageFault(
            f"to compact {place}, {needed / 1e6:.0f} MB have to be free beside it,"
            f" and there are {free / 1e6:.0f}",
            hint="Free some space; nothing was changed",
        )


def _begin(folder: Path, place: Path) -> Path:
    """Make the folder of the copy, and return the path of the copy.

    Raises:
        OSError: It can't be made, or the file is another user's, who would lose it.
    """
    if os.name == "posix" and place.stat().st_uid != os.geteuid():
        raise PermissionError(1, "it belongs to another user")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=DIRECTORY_MODE)
    return folder / place.name


def _copy(database: Database, copy: Path, on_step: Callable[[str], None]) -> None:
    """Write the copy, close it, and compare what is read from its file with the original."""
    quoted = str(copy).replace("'", "''")
    with database.apart() as connection:
        try:
            # A copy that is not whole is thrown away: it needs no log of its own.
            connection.execute(f"ATTACH '{quoted}' AS {_COPY} (RECOVERY_MODE no_wal_writes)")
            connection.execute(f"COPY FROM DATABASE {_source(connection)} TO {_COPY}")
            on_step("copied")
            connection.execute(f"CHECKPOINT {_COPY}")
            connection.execute(f"DETACH {_COPY}")
            on_step("written")
            connection.execute(f"ATTACH '{quoted}' AS {_COPY} (READ_ONLY)")
            _compare(connection)
            on_step("checked")
        finally:
            # Until it is detached the driver has the file open.
            with contextlib.suppress(duckdb.Error):
                connection.execute(f"DETACH DATABASE IF EXISTS {_COPY}")


def _compare(connection: duckdb.DuckDBPyConnection) -> None:
    """Check that the copy has the same tables, keys and rows.

    Raises:
        _Differs: It hasn't, or somebody has written meanwhile.
    """
    source = _source(connection)
    tables = _tables(connection, "current_database()")
    if tables != _tables(connection, f"'{_COPY}'"):
        raise _Differs("its tables")
    for name, _ in tables:
        if _digest(connection, f'{source}.main."{name}"') != _digest(
            connection, f'{_COPY}.main."{name}"'
        ):
            raise _Differs(f"the table {name}")


def _tables(connection: duckdb.DuckDBPyConnection, database: str) -> list[Row]:
    return connection.execute(
        "SELECT table_name, sql FROM duckdb_tables()"  # noqa: S608  constants only
        f" WHERE database_name = {database} ORDER BY table_name"
    ).fetchall()


def _digest(connection: duckdb.DuckDBPyConnection, table: str) -> list[Row]:
    """Return the number of rows and what changes with any value of them, whatever the order."""
    return connection.execute(
        "SELECT count(*), bit_xor(hash(r)), sum(hash(r) % 1000000007)"  # noqa: S608  own names
        f" FROM {table} AS r"
    ).fetchall()


def _source(connection: duckdb.DuckDBPyConnection) -> str:
    row = connection.execute("SELECT current_database()").fetchone()
    name = str(row[0]).replace('"', '""') if row else ""
    return f'"{name}"'


def _sync(copy: Path, place: Path) -> None:
    """Give the copy the rights of the original, and make sure that it is on the disk."""
    found = place.stat()
    copy.chmod(found.st_mode & 0o777 if os.name == "posix" else FILE_MODE)
    if os.name == "posix" and found.st_gid != copy.stat().st_gid:
        with contextlib.suppress(PermissionError):
            os.chown(copy, -1, found.st_gid)
    # The driver has closed it: no lock is dropped with this handle.
    with copy.open("rb+") as file:
        os.fsync(file.fileno())
    sync_folder(copy.parent)
