"""The interface of a summarizer that a flush can call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mcp_memory.values.records import Message


class Summarizer(Protocol):
    """Writes the next summary from the previous one and the messages that leave."""

    def summarize(self, parent: str | None, evicted: Sequence[Message], *, max_tokens: int) -> str:
        """Return a summary of everything so far, at most `max_tokens` long."""
        ...
