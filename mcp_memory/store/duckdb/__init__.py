"""The database: opening it, transactions, migrations, and its errors in our words."""

from mcp_memory.store.duckdb.database import Database, Transaction
from mcp_memory.store.duckdb.migrations import SCHEMA_VERSION

__all__ = ["SCHEMA_VERSION", "Database", "Transaction"]
