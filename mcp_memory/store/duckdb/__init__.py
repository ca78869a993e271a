"""The DuckDB engine: the default, one file and one process that owns it."""

from mcp_memory.store.duckdb.store import DuckDBStore

__all__ = ["DuckDBStore"]
