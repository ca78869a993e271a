"""MCP in, calls of the façade, MCP out."""
