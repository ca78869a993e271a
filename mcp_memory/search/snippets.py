"""Cutting the part out of a passage that answers a query."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mcp_memory.search.analysis import query_terms, terms
from mcp_memory.text import sentences


def snippet(text: str, query: str, fits: Callable[[str], bool]) -> str:
    """Return the run of whole sentences around what matches `query` that still fits.

    Args:
        text: The passage that was found.
        query: What was asked; empty for the beginning of the passage.
        fits: Whether a text is short enough.

    Returns:
        The text itself if it fits. Otherwise what matches is kept and `…`
        stands where something was left out; a single sentence that is too long
        is cut around the words of the query.
    """
    if fits(text):
        return text
    parts = sentences(text)
    wanted = set(query_terms(query)) if query else set()
    matches = [len(wanted.intersection(terms(part))) for part in parts]
    best = max(range(len(parts)), key=lambda at: (matches[at], -at))
    first = last = best
    if not fits(_join(parts, first, last)):
        return _cut(parts[best], wanted, fits)
    growing = True
    while growing:
        growing = False
        for low, high in ((first, last + 1), (first - 1, last)):
            if low >= 0 and high < len(parts) and fits(_join(parts, low, high)):
                first, last, growing = low, high, True
                break
    return _join(parts, first, last)


def _join(parts: list[str], first: int, last: int) -> str:
    before = "… " if first > 0 else ""
    after = " …" if last < len(parts) - 1 else ""
    return f"{before}{' '.join(parts[first : last + 1])}{after}"


def _cut(sentence: str, wanted: set[str], fits: Callable[[str], bool]) -> str:
    centre = _centre(sentence, wanted)
    low, high = 0, len(sentence)
    best = ""
    while low <= high:
        width = (low + high) // 2
        start = max(min(centre - width // 2, len(sentence) - width), 0)
        end = start + width
        before, after = "… " if start else "", " …" if end < len(sentence) else ""
        candidate = f"{before}{sentence[start:end].strip()}{after}"
        if fits(candidate):
            best, low = candidate, width + 1
        else:
            high = width - 1
    return best


def _centre(sentence: str, wanted: set[str]) -> int:
    """Return the middle of the words of the query in a sentence, 0 if there are none."""
    places = [at for at, word in _words(sentence) if wanted.intersection(terms(word))]
    return (places[0] + places[-1]) // 2 if places else 0


def _words(sentence: str) -> Iterator[tuple[int, str]]:
    at = 0
    for word in sentence.split(" "):
        for cut in range(0, max(len(word), 1), 24):
            yield at + cut, word[cut : cut + 24]
        at += len(word) + 1
