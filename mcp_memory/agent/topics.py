"""What of an agent's memory a change concerns, in the words that listeners know.

`core/{label}`, `working/{conversation}`, `messages/{conversation}`, `summary/{conversation}`,
`memories/{id}`, `budget/{conversation}` (a client has reported its own figure), `events`,
`consolidation`, `embedding`.
"""

from __future__ import annotations

from collections.abc import Callable

from mcp_memory.settings import DEFAULT_CONVERSATION
from mcp_memory.store.ports import Change

Listener = Callable[[frozenset[str]], None]


def topics_of(change: Change) -> frozenset[str]:
    """Return the topics of a change."""
    found: set[str] = set()
    for conversation, block in change.blocks:
        if conversation:
            found.add(f"working/{conversation}")
        if conversation in ("", DEFAULT_CONVERSATION):
            found.add(f"core/{block.label}")
    found |= {f"messages/{message.conversation}" for message in change.messages}
    found |= {f"summary/{summary.conversation}" for summary in change.summaries}
    found |= {f"memories/{memory.id}" for memory in change.memories}
    found |= {f"memories/{memory_id}" for memory_id in change.deleted}
    if change.events:
        found.add("events")
    if change.consolidations:
        found.add("consolidation")
    if change.vectors:
        found.add("embedding")
    return frozenset(found)
