"""What every summarizer has to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mcp_memory.values.records import Message


class Summarizer(Protocol):
    """Writes the next summary from its parent and the messages that leave."""

    def summarize(self, parent: str | None, evicted: Sequence[Message], *, max_tokens: int) -> str:
        """Return the digest of all that went before, `max_tokens` at most."""
        ...
