"""Rewriting a database file without deleted rows.

The file must not be open anywhere, so all calls wait meanwhile: an owner does this when its
last client has left, or when `mcp-memory compact` asks for it. After every step the file is
complete, either the old or the new one; a crash leaves at most a folder that the next start
deletes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import duckdb

from mcp_memory.store.duckdb.database import CONFIG, Row
from mcp_memory.store.duckdb.faults import translate
from mcp_memory.store.duckdb.files import (
    DIRECTORY_MODE,
    FILE_MODE,
    address,
    copy_folder,
    size_bytes,
    sync_folder,
)
from mcp_memory.store.duckdb.witness import Witness
from mcp_memory.store.ports import Compacted
from mcp_memory.values.errors import StorageFault

STEPS: Final = ("opened", "copied", "written", "checked", "synced", "renamed")
"""The steps that `on_step` receives, in this order."""

SPARE_BYTES: Final = 16 * 1024 * 1024
"""Free disk space left besides the copy, for the log of the next writes; by judgement."""

_COPY: Final = "compacted_copy"
"""The copy's name in SQL while it is attached."""


def compact(path: Path, *, on_step: Callable[[str], None] = lambda step: None) -> Compacted:
    """Rewrite a closed database file without deleted rows.

    Args:
        path: The file; the caller holds the owner's lock.
        on_step: Called with each of `STEPS` when it is done.

    Raises:
        StorageFault: The disk has no space, or a step failed; nothing was changed.
    """
    place = Path(os.path.realpath(path))
    folder = copy_folder(path)
    try:
        connection = duckdb.connect(address(path), config=CONFIG)
        try:
            connection.execute("CHECKPOINT")
            before = size_bytes(place)
            _check_room(place, before)
            copy = _prepare(folder, place)
            on_step("opened")
            _copy(connection, copy, on_step)
        finally:
            connection.close()
        _check_closed(path)
        _sync(copy, place)
        on_step("synced")
        after = size_bytes(copy)
        Witness(path).expect(copy)
        os.replace(copy, place)
        on_step("renamed")
        sync_folder(place.parent)
    except duckdb.Error as error:
        raise translate(error, str(path)) from error
    except OSError as error:
        raise StorageFault(
            f"the database {place} can't be compacted: {error.strerror or error}",
            hint="Nothing was changed",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Compacted(before, after)


def _check_room(place: Path, file_bytes: int) -> None:
    free = shutil.disk_usage(place.parent).free
    needed = file_bytes + SPARE_BYTES
    if free < needed:
        raise StorageFault(
            f"compacting {place} needs {needed / 1e6:.0f} MB of free disk space beside it;"
            f" there are {free / 1e6:.0f}",
            hint="Free some space; nothing was changed",
        )


def _prepare(folder: Path, place: Path) -> Path:
    """Create the folder of the copy, and return the path of the copy.

    Raises:
        OSError: It can't be created, or the file belongs to another user, who would lose it.
    """
    if os.name == "posix" and place.stat().st_uid != os.geteuid():
        raise PermissionError(1, "it belongs to another user")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=DIRECTORY_MODE)
    return folder / place.name


def _copy(
    connection: duckdb.DuckDBPyConnection, copy: Path, on_step: Callable[[str], None]
) -> None:
    """Write the copy, and compare what its file has with the original."""
    quoted = str(copy).replace("'", "''")
    row = connection.execute("SELECT current_database()").fetchone()
    name = str(row[0]).replace('"', '""') if row else ""
    source = f'"{name}"'
    try:
        # An incomplete copy is deleted anyway: it needs no log of its own.
        connection.execute(f"ATTACH '{quoted}' AS {_COPY} (RECOVERY_MODE no_wal_writes)")
        connection.execute(f"COPY FROM DATABASE {source} TO {_COPY}")
        on_step("copied")
        connection.execute(f"CHECKPOINT {_COPY}")
        connection.execute(f"DETACH {_COPY}")
        on_step("written")
        connection.execute(f"ATTACH '{quoted}' AS {_COPY} (READ_ONLY)")
        _compare(connection, source)
        on_step("checked")
    finally:
        # The driver has the file open until it is detached.
        with contextlib.suppress(duckdb.Error):
            connection.execute(f"DETACH DATABASE IF EXISTS {_COPY}")


def _compare(connection: duckdb.DuckDBPyConnection, source: str) -> None:
    """Check that the copy has the same tables, keys and rows.

    Raises:
        StorageFault: Something differs.
    """
    tables = _tables(connection, "current_database()")
    differs = "its tables" if tables != _tables(connection, f"'{_COPY}'") else None
    for name, _ in tables if differs is None else []:
        if _digest(connection, f'{source}.main."{name}"') != _digest(
            connection, f'{_COPY}.main."{name}"'
        ):
            differs = f"the table {name}"
    if differs is not None:
        raise StorageFault(
            f"the compacted copy is not the same as the database: {differs}",
            hint="Nothing was changed; `mcp-memory doctor` checks the database",
        )


def _tables(connection: duckdb.DuckDBPyConnection, database: str) -> list[Row]:
    return connection.execute(
        "SELECT table_name, sql FROM duckdb_tables()"
        f" WHERE database_name = {database} ORDER BY table_name"
    ).fetchall()


def _digest(connection: duckdb.DuckDBPyConnection, table: str) -> list[Row]:
    """Return the number of rows, and a hash of all values that does not depend on their order."""
    return connection.execute(
        f"SELECT count(*), bit_xor(hash(r)), sum(hash(r) % 1000000007) FROM {table} AS r"
    ).fetchall()


def _check_closed(path: Path) -> None:
    """Check that the file is closed and its log is empty.

    Raises:
        StorageFault: Replacing the file would lose what is written next.
    """
    for name in {str(path), os.path.realpath(path)}:
        if os.path.exists(f"{name}.wal"):
            raise StorageFault(
                f"the log {name}.wal is still there after closing", hint="Nothing was changed"
            )


def _sync(copy: Path, place: Path) -> None:
    """Give the copy the mode of the original, and flush it to the disk."""
    found = place.stat()
    copy.chmod(found.st_mode & 0o777 if os.name == "posix" else FILE_MODE)
    if os.name == "posix" and found.st_gid != copy.stat().st_gid:
        with contextlib.suppress(PermissionError):
            os.chown(copy, -1, found.st_gid)
    # The driver has closed it: closing this handle drops no lock.
    with copy.open("rb+") as file:
        os.fsync(file.fileno())
    sync_folder(copy.parent)
