"""The engine below a store, for tests of the engine itself."""

from __future__ import annotations

from mcp_memory.store.duckdb import DuckDBStore
from mcp_memory.store.duckdb.database import Database
from mcp_memory.store.ports import Store


def database_of(store: Store) -> Database:
    """Return the DuckDB database of a store."""
    assert isinstance(store, DuckDBStore)
    return store.database
