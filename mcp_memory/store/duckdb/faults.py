"""Translates the driver's errors into ours, each with what to do next."""

from __future__ import annotations

import re
from typing import Final

import duckdb

from mcp_memory.values.errors import (
    DatabaseCorrupt,
    DatabaseLocked,
    DataMissing,
    DiskFull,
    MemoryFault,
    SchemaTooNew,
    StorageFault,
)

_LOCKED: Final = re.compile(
    r"could not set lock|conflicting lock|being used by another process", re.I
)
_PID: Final = re.compile(r"PID (\d+)")
_FULL: Final = re.compile(
    r"no space left|not enough space|disk full|file too large|disk quota", re.I
)
_NEWER: Final = re.compile(r"newer (?:version of )?duckdb|storage version|version number", re.I)
_OTHER: Final = re.compile(r"not a valid duckdb", re.I)
_BROKEN: Final = re.compile(
    r"corrupt|checksum|failed to deserialize|wal file|unexpected end|"
    r"could not read enough bytes|has been invalidated",
    re.I,
)
_FOREIGN_LOG: Final = re.compile(
    r"WAL does not match database|WAL checkpoint iteration does not match", re.I
)
_DENIED: Final = re.compile(r"permission denied|read-only|access is denied|is a directory", re.I)


def translate(error: duckdb.Error, path: str) -> MemoryFault:
    """Return our fault for a driver's error at the database `path`."""
    text = str(error)
    detail = text.splitlines()[0][:300]
    if _LOCKED.search(text):
        found = _PID.search(text)
        return DatabaseLocked(path, pid=int(found[1]) if found else None)
    if _FULL.search(text):
        return DiskFull(path)
    if _FOREIGN_LOG.search(text):
        return DataMissing(
            f"the log {path}.wal belongs to another database than {path}, or to an older copy",
            hint="Put back the one that it belongs to, or move the log aside to use this one;"
            " nothing was changed",
        )
    if _DENIED.search(text):
        return StorageFault(
            f"the database {path} can't be written: {detail}",
            hint="Give this user the right to write there, or set MCP_MEMORY_DB to another file",
        )
    if isinstance(error, duckdb.IOException) and _NEWER.search(text):
        return StorageFault(
            f"the database {path} was written by another version of DuckDB: {detail}",
            hint="Update the duckdb package in this environment",
        )
    if _OTHER.search(text):
        detail = "it is another kind of file than a DuckDB database, or its beginning is damaged"
        return DatabaseCorrupt(path, detail=detail)
    if _BROKEN.search(text) or isinstance(error, duckdb.FatalException | duckdb.InternalException):
        return DatabaseCorrupt(path, detail=detail)
    return StorageFault(
        f"the database {path} reported an error: {detail}", hint="See the log for the whole error"
    )


def too_new(path: str, *, found: int, known: int) -> SchemaTooNew:
    """Return the fault for a database of a later schema."""
    return SchemaTooNew(path, found=found, known=known)
