"""Cut out the parts of a passage that answer a query."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from mcp_memory.search.language.analysis import matches, query_terms, terms
from mcp_memory.values.text import sentence_ranges

if TYPE_CHECKING:
    # The server needs this module for its first answer, and numpy takes longer to import.
    from mcp_memory.search.arrays import Range

_CLOSE_CHARS: Final = 120
"""Matches within this distance count as close to each other; by judgement."""

_WORD_CHARS: Final = 24
"""How far to move a cut to a space; longer words are cut. By judgement."""

_REFUSALS: Final = 8
"""After as many sentences that are too long, no more are tried; by judgement."""


def snippet(text: str, query: str, fits: Callable[[str], bool]) -> str:
    """Return the sentences that match a query, and those around them, as far as they fit.

    Args:
        text: The passage.
        query: What was searched for; empty for the beginning of the passage.
        fits: Whether a text is short enough.

    Returns:
        The text itself if it fits. Otherwise the sentence with most words of the query,
        then others with more of its words, then sentences around them, with `…` for what
        was left out. A single sentence that is too long is cut around the words of the
        query, never inside one.
    """
    if fits(text):
        return text
    parts = sentence_ranges(text)
    wanted = frozenset(query_terms(query)) if query else frozenset()
    if not parts:
        return _cut(text, wanted, fits)
    covered_by = [wanted.intersection(terms(text[start:end])) for start, end in parts]
    best = max(range(len(parts)), key=lambda at: (len(covered_by[at]), -at))
    if not fits(_join(text, parts, [best])):
        return _cut(text[slice(*parts[best])], wanted, fits)
    chosen = _covering(best, covered_by, lambda some: fits(_join(text, parts, some)))
    chosen = _grown(best, chosen, len(parts), lambda some: fits(_join(text, parts, some)))
    return _join(text, parts, chosen)


def _covering(
    best: int, covered_by: Sequence[frozenset[str]], fits: Callable[[Iterable[int]], bool]
) -> set[int]:
    """Return the best sentence and those that add most words of the query, while they fit."""
    chosen, covered = {best}, covered_by[best]
    open_ = [at for at, found in enumerate(covered_by) if found - covered]
    refusals = 0
    while open_ and refusals < _REFUSALS:
        nearest = max(open_, key=lambda at: (len(covered_by[at] - covered), -abs(at - best)))
        if fits({*chosen, nearest}):
            chosen.add(nearest)
            covered |= covered_by[nearest]
        else:
            refusals += 1
        open_ = [at for at in open_ if at != nearest and covered_by[at] - covered]
    return chosen


def _grown(
    best: int, chosen: set[int], count: int, fits: Callable[[Iterable[int]], bool]
) -> set[int]:
    """Return the sentences with those after and before them that still fit."""
    ends = [(at, step) for at in (best, *sorted(chosen - {best})) for step in (1, -1)]
    while ends:
        growing: list[Range] = []
        for at, step in ends:
            beside = at + step
            if beside in chosen or not 0 <= beside < count:
                continue
            # Too long now is too long later: this end is done.
            if fits({*chosen, beside}):
                chosen = {*chosen, beside}
                growing.append((beside, step))
        ends = growing
    return chosen


def _join(text: str, parts: Sequence[Range], chosen: Iterable[int]) -> str:
    order = sorted(chosen)
    shown = ["… " if order[0] > 0 else "", text[slice(*parts[order[0]])]]
    for before, at in pairwise(order):
        gap = text[parts[before][1] : parts[at][0]]
        blank = "\n" if "\n" in gap else " " if gap else ""
        shown += [blank if at == before + 1 else " … ", text[slice(*parts[at])]]
    shown.append(" …" if order[-1] < len(parts) - 1 else "")
    return "".join(shown)


def _cut(sentence: str, wanted: frozenset[str], fits: Callable[[str], bool]) -> str:
    """Return the widest part of a sentence that fits, around where most words match."""
    found = matches(sentence, wanted)
    start, end = _anchor(found)
    if not fits(_window(sentence, *_centred(sentence, start, end, end - start))):
        end = start  # The word itself is too long: cut around its beginning.
    low = high = end - start
    best = _centred(sentence, start, end, low)
    # From narrow to wide: counting the tokens of a giant sentence takes seconds.
    while high < len(sentence) and fits(_window(sentence, *_centred(sentence, start, end, high))):
        high = min(2 * high + _WORD_CHARS, len(sentence))
    while low <= high:
        width = (low + high) // 2
        candidate = _centred(sentence, start, end, width)
        if fits(_window(sentence, *candidate)):
            best, low = candidate, width + 1
        else:
            high = width - 1
    if start < end:
        whole = _window(sentence, *_at_words(sentence, best, (start, end), found))
        if fits(whole):
            return whole
    return _window(sentence, *best)


def _centred(sentence: str, start: int, end: int, width: int) -> Range:
    """Return a range of `width` characters with `start` to `end` in its middle."""
    first = start - (width - (end - start)) // 2
    first = max(min(first, len(sentence) - width), 0)
    return first, first + width


def _at_words(sentence: str, window: Range, anchor: Range, found: Sequence[Range]) -> Range:
    """Return a window shrunk so that it cuts no match and few words, but has the anchor."""
    first, last = window
    for start, end in found:
        if start < first < end <= anchor[0]:
            first = end
        if anchor[1] <= start < last < end:
            last = start
    if first > 0 and not sentence[first - 1].isspace():
        space = sentence.find(" ", first, min(first + _WORD_CHARS, anchor[0]))
        first = first if space < 0 else space
    if last < len(sentence) and not sentence[last].isspace():
        space = sentence.rfind(" ", max(last - _WORD_CHARS, anchor[1]), last)
        last = last if space < 0 else space
    return first, last


def _window(sentence: str, first: int, last: int) -> str:
    before, after = "… " if first else "", " …" if last < len(sentence) else ""
    return f"{before}{sentence[first:last].strip()}{after}"


def _anchor(found: list[Range]) -> Range:
    """Return the match with the most others close after it; the beginning without any."""
    if not found:
        return 0, 0
    close, behind = [], 0
    for at, (start, _) in enumerate(found):
        while behind < len(found) and found[behind][0] < start + _CLOSE_CHARS:
            behind += 1
        close.append(behind - at)
    return found[max(range(len(found)), key=lambda at: (close[at], -at))]
