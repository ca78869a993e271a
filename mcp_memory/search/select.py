"""The best of many scores, without sorting them all."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_BLOCK: Final = 64
_FEW: Final = 16_384


def best(scores: NDArray[np.float32], limit: int) -> NDArray[np.intp]:
    """Return the places of the highest scores, best first; of equals the later one.

    -inf marks what is no candidate and is never returned.
    """
    if limit < 1 or not len(scores):
        return np.empty(0, dtype=np.intp)
    candidates = np.flatnonzero(scores >= _bound(scores, limit))
    kept = scores[candidates]
    if len(candidates) > limit:
        least = np.partition(kept, len(kept) - limit)[len(kept) - limit]
        better = candidates[kept > least]
        equal = candidates[kept == least]
        missing = limit - len(better)
        candidates = np.concatenate([better, equal[len(equal) - missing :]])
        candidates.sort()
        kept = scores[candidates]
    # Stable on the reversed order: of equals the later one comes first.
    return candidates[::-1][np.argsort(-kept[::-1], kind="stable")]


def _bound(scores: NDArray[np.float32], limit: int) -> float:
    """Return a number that at least `limit` of the scores reach, if there are so many."""
    blocks = len(scores) // _BLOCK
    least = float(np.finfo(np.float32).min)
    if len(scores) < _FEW or blocks <= limit:
        return least
    # So many blocks have a maximum that high, and each of them holds one such score.
    highest = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    return max(float(np.partition(highest, blocks - limit)[blocks - limit]), least)
