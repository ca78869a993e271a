"""MemGPT-style virtual context for any MCP client, kept in DuckDB."""

__version__ = "0.1.0"
