"""Storage: the ports that the tiers need, and one folder for each engine.

Nothing outside this package has SQL, and only an engine's folder imports its driver.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcp_memory.store.ports import Finding, Store


def open_store(path: Path | None) -> Store:
    """Open the store at a path, created if it is missing.

    Args:
        path: A database file; None for a store in memory.

    Raises:
        StorageFault: It is locked, corrupt, of a newer version or can't be written.
    """
    from mcp_memory.store.duckdb import DuckDBStore

    return DuckDBStore(path)


def check_files(path: Path) -> None:
    """Check that the files of a database are what they were, without opening it.

    Args:
        path: The file. No process has it open.

    Raises:
        StorageFault: Something that was acknowledged isn't there, or it is a file of another kind.
    """
    from mcp_memory.store.duckdb.witness import Witness

    Witness(path).check()


def inspect_file(path: Path, model: str) -> list[Finding]:
    """Check a database file that no process has open, without changing it.

    Args:
        path: The file. The caller holds the lock of the owner.
        model: The embedding model that it will be used with.

    Raises:
        StorageFault: It can't be opened.
    """
    from mcp_memory.store.duckdb.checks import inspect

    return inspect(path, model)
