"""Paging: messages come into the queue, pressure rises, the oldest leave into the summary."""

from mcp_memory.paging.pager import Pager
from mcp_memory.paging.state import Arrival, PagingState

__all__ = ["Arrival", "Pager", "PagingState"]
