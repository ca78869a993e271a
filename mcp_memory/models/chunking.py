"""Cutting a long text into overlapping pieces at the ends of lines, sentences and words.

Pure arithmetic over characters and the offsets of tokens, without a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

Offsets = NDArray[np.int64]

OVERLAP_FRAC: Final = 0.15
"""Share of a chunk that is repeated in the next. By judgement."""

WHOLE_FRAC: Final = 1.25
"""A rest of up to this many chunks stays one chunk, to leave no tiny last one. By judgement."""

_SLICE_CHARS: Final = 32_768
_NEAR_CHARS: Final = 1_024
"""Text tokenized at once, and how near its end a break is looked for. By judgement."""

_BREAK_CHARS: Final = 4
"""Longest run of punctuation and space before a place to begin. By judgement."""

_BREAKS: Final = (
    re.compile(r"\n\s*"),
    re.compile(r"[.!?…]+[\"'”’)\]]*\s+|[。！？]+[」』”’）]*"),  # noqa: RUF001  data
    re.compile(r"\s+"),
)
"""Where a chunk should end, best first: after a line, a sentence, a word."""


def chunk_ranges(
    text: str, tokens: Iterable[tuple[Offsets, Offsets]], chunk_tokens: int
) -> list[tuple[int, int]]:
    """Return the character ranges of the chunks of a text, in order.

    They cover it all. Each ends after a line, a sentence or a word, if one
    ends in its last quarter, and the next begins up to 15 % of a chunk before
    that. A text up to a quarter longer than a chunk is one range.

    Args:
        tokens: Where each token of the text starts and where it ends, in characters,
            ascending; in parts, of which few are in memory at once.
        chunk_tokens: Longest chunk.
    """
    overlap = int(chunk_tokens * OVERLAP_FRAC)
    longest = int(chunk_tokens * WHOLE_FRAC)
    ranges = []
    start = 0
    starts, ends = (np.empty(0, np.int64) for _ in range(2))
    for more_starts, more_ends in tokens:
        starts, ends = np.concatenate([starts, more_starts]), np.concatenate([ends, more_ends])
        first = 0
        while len(starts) - first > longest:
            last_quarter = int(starts[first + chunk_tokens * 3 // 4])
            stop = max(int(starts[first + chunk_tokens]), int(ends[first]))
            end = _last_break(text, last_quarter, stop)
            following = int(np.searchsorted(starts, end))
            shared = _first_break(
                text, int(starts[following - overlap]), int(starts[following - overlap // 3])
            )
            ranges.append((start, end))
            # One character may be many tokens; then what would be shared could be all of it.
            start = shared if shared > start else end
            first = int(np.searchsorted(starts, start))
        starts, ends = starts[first:], ends[first:]
    if start < len(text) or not ranges:
        ranges.append((start, len(text)))
    return ranges


def slices(text: str) -> Iterator[tuple[int, int]]:
    """Yield ranges small enough to be tokenized at once, without gap or overlap.

    They end where a line, a sentence or a word does, if one ends near.
    """
    start = 0
    while len(text) - start > _SLICE_CHARS:
        end = start + _SLICE_CHARS
        end = _last_break(text, end - _NEAR_CHARS, end)
        yield start, end
        start = end
    yield start, len(text)


def _last_break(text: str, start: int, stop: int) -> int:
    """Return the last good place to end a chunk after `start`, `stop` if there is none."""
    for kind in _BREAKS:
        last = None
        for found in kind.finditer(text, start, stop):
            last = found.end()
        if last is not None:
            return last
    return stop


def _first_break(text: str, start: int, stop: int) -> int:
    """Return the first good place to begin a chunk from `start` on, `start` if there is none."""
    for kind in _BREAKS:
        # `start` itself may be such a place.
        for found in kind.finditer(text, max(start - _BREAK_CHARS, 0), stop):
            if found.end() >= start:
                return found.end()
    return start
