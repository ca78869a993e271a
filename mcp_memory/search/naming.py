"""Which words of a question are names, by how they are written."""

from __future__ import annotations

from mcp_memory.search.analysis import query_terms
from mcp_memory.search.speakers import NAME_PART, is_name


def named_terms(query: str) -> frozenset[str]:
    """Return the terms of the words that are written with a capital inside a sentence."""
    if query.islower():
        return frozenset()
    words = [match[0] for match in NAME_PART.finditer(query) if is_name(query, match)]
    return frozenset(term for word in words for term in query_terms(word))
