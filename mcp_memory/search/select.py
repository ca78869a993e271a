"""The best of many scores, without sorting them all."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_BLOCK: Final = 64
_FEW: Final = 16_384


LOWEST: Final = float(np.finfo(np.float32).min)
POSITIVE: Final = float(np.finfo(np.float32).tiny)


def best(scores: NDArray[np.float32], limit: int, *, least: float = LOWEST) -> NDArray[np.intp]:
    """Return the places of the highest scores, best first; of equals the later one.

    Args:
        scores: One for each place; -inf marks what is no candidate.
        limit: How many at most.
        least: The lowest score of a candidate.
    """
    if limit < 1 or not len(scores):
        return np.empty(0, dtype=np.intp)
    candidates = np.flatnonzero(scores >= _bound(scores, limit, least))
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


def _bound(scores: NDArray[np.float32], limit: int, least: float) -> float:
    """Return a number that at least `limit` of the candidates reach, if there are so many."""
    blocks = len(scores) // _BLOCK
    if len(scores) < _FEW or blocks <= limit:
        return least
    # So many blocks have a maximum that high, and each of them holds one such score.
    highest = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    return max(float(np.partition(highest, blocks - limit)[blocks - limit]), least)
