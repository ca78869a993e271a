"""Cutting the part out of a passage that answers a query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcp_memory.search.analysis import matches, query_terms, terms
from mcp_memory.text import sentences

_CLOSE_CHARS: Final = 120


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
    wanted = frozenset(query_terms(query)) if query else frozenset()
    if not parts:
        return _cut(text, wanted, fits)
    told = [len(wanted.intersection(terms(part))) for part in parts]
    best = max(range(len(parts)), key=lambda at: (told[at], -at))
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


def _cut(sentence: str, wanted: frozenset[str], fits: Callable[[str], bool]) -> str:
    """Return the widest part of a sentence that fits and has the place most was found at."""
    start, end = _anchor(matches(sentence, wanted))
    if not fits(_window(sentence, start, end, end - start)):
        end = start  # The word itself is too long: as much around its beginning as fits.
    low, high = end - start, len(sentence)
    best = _window(sentence, start, end, low)
    while low <= high:
        width = (low + high) // 2
        candidate = _window(sentence, start, end, width)
        if fits(candidate):
            best, low = candidate, width + 1
        else:
            high = width - 1
    return best


def _window(sentence: str, start: int, end: int, width: int) -> str:
    """Return `width` characters of a sentence with those from `start` to `end` in the middle."""
    first = start - (width - (end - start)) // 2
    first = max(min(first, len(sentence) - width), 0)
    before, after = "… " if first else "", " …" if first + width < len(sentence) else ""
    return f"{before}{sentence[first : first + width].strip()}{after}"


def _anchor(found: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the match with the most others close behind it; the beginning if there is none."""
    if not found:
        return 0, 0

    def close(at: int) -> int:
        return sum(start < found[at][0] + _CLOSE_CHARS for start, _ in found[at:])

    return found[max(range(len(found)), key=lambda at: (close(at), -at))]
