"""Paging: messages come into the queue, pressure rises, the oldest leave into the summary."""

from mcp_memory.paging.pager import Pager, PagingStates

__all__ = ["Pager", "PagingStates"]
