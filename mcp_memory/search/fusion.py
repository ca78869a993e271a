"""One ranking from several.

Source: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms
Condorcet and individual Rank Learning Methods", SIGIR 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

K: Final = 10
"""How slowly a rank's worth falls: 1 ÷ (K + rank). The paper's 60 is meant for
many rankings; with two, 10 found 71.3 % of the gold in ten hits, 60 found 67.1
(benchmarks/README.md)."""


def reciprocal_rank_fusion(
    rankings: Sequence[NDArray[np.intp]],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Fuse rankings, each of item numbers, best first.

    Returns:
        The items of all rankings, best first, and their scores, 1 for an item
        that is first everywhere. Equal scores keep the lower number first.
    """
    items = np.unique(np.concatenate(rankings)) if rankings else np.empty(0, dtype=np.intp)
    scores = np.zeros(len(items))
    for ranking in rankings:
        places = np.searchsorted(items, ranking)
        scores[places] += 1.0 / (K + 1 + np.arange(len(ranking)))
    if rankings:
        scores *= (K + 1) / len(rankings)
    order = np.argsort(-scores, kind="stable")
    return items[order], scores[order]
