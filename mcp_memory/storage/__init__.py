"""The database: opening it, transactions, migrations, and its errors in our words."""

from mcp_memory.storage.database import Database, Transaction
from mcp_memory.storage.migrations import SCHEMA_VERSION

__all__ = ["SCHEMA_VERSION", "Database", "Transaction"]
