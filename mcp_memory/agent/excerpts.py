"""The part of a text that answers a query, for replies and for people."""

from __future__ import annotations

from mcp_memory.search.language.analysis import matches, query_terms
from mcp_memory.search.snippets import snippet


def excerpt(text: str, query: str, max_chars: int) -> tuple[str, list[tuple[int, int]]]:
    """Return the part of a text that answers best, and where it has words of the query.

    Returns:
        At most about `max_chars` characters, and the ranges of characters that match.
    """
    shown = snippet(text, query, lambda part: len(part) <= max_chars)
    return shown, [(start, end) for start, end in matches(shown, frozenset(query_terms(query)))]


__all__ = ["excerpt", "snippet"]
