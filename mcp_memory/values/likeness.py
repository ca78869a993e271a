"""Where a text has a part that is like another text.

Two texts are alike if they differ only in what copying changes: composed and decomposed
letters, kinds of line breaks, of blanks, quotes and dashes, how many blanks there are,
blanks at the ends of lines, and invisible characters. Upper and lower case are not alike.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mcp_memory.values.text import LINE_BREAK, sentence_ranges, unescape

_MAX_NEAR_CHARS: Final = 400
"""Of longer texts only the beginnings are compared for the nearest; by judgement."""

_MOST_TIMES: Final = 8
"""A text that is so many times as long can't be like another: `"` becomes at most `&quot;`, and
the rest is blanks. By judgement."""

_LEAST_RATIO: Final = 0.5
"""What is less like a text than this is not near it, by `difflib`; by judgement."""

_SAME: Final = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
    **dict.fromkeys("\u00ad\u200b\u2060\ufeff", ""),
    "\u2026": "...",
    "\t": " ",
}


@dataclass(frozen=True, slots=True)
class _Plain:
    """A text without what copying changes; character n of it is `spans[n]` of the original."""

    text: str
    spans: Sequence[tuple[int, int]]


def alike(value: str, part: str) -> list[tuple[int, int]]:
    """Return the places of `value` that are like `part`, as it is or unescaped, in order.

    Blanks at the ends of `part` are in no place; line breaks are, where the place has them too.
    """
    if len(part) > _MOST_TIMES * len(value) + _MAX_NEAR_CHARS:
        return []
    plain = _plain(value)
    places = {place for form in {part, unescape(part)} for place in _places(value, plain, form)}
    return sorted(places)


def nearest(value: str, part: str) -> tuple[int, str] | None:
    """Return the sentences or lines of `value` that are most like `part`, and where they begin."""
    wanted = _plain(unescape(part[:_MAX_NEAR_CHARS])).text.strip()
    ranges = sentence_ranges(value)
    size = max(len(sentence_ranges(part[:_MAX_NEAR_CHARS])), 1)
    matcher = difflib.SequenceMatcher(b=wanted, autojunk=False)
    best, found = _LEAST_RATIO, None
    for first in range(max(len(ranges) - size + 1, 1) if ranges else 0):
        start, end = ranges[first][0], ranges[min(first + size, len(ranges)) - 1][1]
        matcher.set_seq1(_plain(value[start : min(end, start + _MAX_NEAR_CHARS)]).text)
        if matcher.real_quick_ratio() > best and matcher.quick_ratio() > best:
            ratio = matcher.ratio()
            if ratio > best:
                best, found = ratio, (start, value[start:end])
    return found


def _places(value: str, plain: _Plain, part: str) -> set[tuple[int, int]]:
    whole = _plain(part).text
    wanted = whole.strip()
    before = whole[: len(whole) - len(whole.lstrip())].strip(" ")
    after = whole[len(whole.rstrip()) :].strip(" ")
    found: set[tuple[int, int]] = set()
    at = plain.text.find(wanted) if wanted else -1
    while at >= 0:
        first, end = at, at + len(wanted)
        if _is_boundary(plain, first) and _is_boundary(plain, end):
            first -= len(before) if plain.text[:first].endswith(before) else 0
            end += len(after) if plain.text.startswith(after, end) else 0
            found.add((plain.spans[first][0], plain.spans[end - 1][1]))
        at = plain.text.find(wanted, at + 1)
    return found


def _is_boundary(plain: _Plain, at: int) -> bool:
    """Return whether a letter begins here: no accent of one, and no part of a syllable."""
    if not 0 < at < len(plain.text):
        return True
    char = plain.text[at]
    inside = unicodedata.combining(char) or "\u1160" <= char <= "\u11ff"
    return not inside and plain.spans[at - 1][1] <= plain.spans[at][0]


def _plain(text: str) -> _Plain:
    units: list[tuple[str, int, int]] = []
    end = 0
    for found in LINE_BREAK.finditer(text):
        units += _letters(text, end, found.start())
        units.append(("\n", *found.span()))
        end = found.end()
    units += _letters(text, end, len(text))
    kept: list[tuple[str, int, int]] = []
    for char, start, last in units:
        before = kept[-1][0] if kept else ""
        if char == " " and before == " ":
            kept[-1] = (" ", kept[-1][1], last)
        elif char == " " and before == "\n":
            continue
        else:
            if char == "\n" and before == " ":
                kept.pop()
            kept.append((char, start, last))
    return _Plain("".join(char for char, _, _ in kept), [(start, end) for _, start, end in kept])


def _letters(text: str, start: int, end: int) -> list[tuple[str, int, int]]:
    """Return the decomposed characters of a part of a text, each with its place there."""
    units: list[tuple[str, int, int]] = []
    marks: list[tuple[str, int, int]] = []
    for at in range(start, end):
        for char in unicodedata.normalize("NFD", text[at]):
            if unicodedata.combining(char):
                marks.append((char, at, at + 1))
                continue
            # Marks on one letter have no order of their own.
            units += sorted(marks, key=lambda mark: unicodedata.combining(mark[0]))
            marks = []
            same = " " if unicodedata.category(char) == "Zs" else _SAME.get(char, char)
            units += [(one, at, at + 1) for one in same]
    return units + sorted(marks, key=lambda mark: unicodedata.combining(mark[0]))
