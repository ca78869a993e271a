"""The orders of results that are being read page by page.

What is written meanwhile changes what is usual, and so the order: without
them the next page would repeat some of the first, or leave some out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_KEPT: Final = 64

PINNED: Final = 1_000
"""So many of the best keep their places; what follows is ranked anew for each page."""


@dataclass(frozen=True, slots=True)
class Order:
    """The best documents of a result as it was first asked for, of `total` in all."""

    documents: NDArray[np.int32]
    scores: NDArray[np.float32]
    total: int


class Orders:
    """Orders by what was asked; those used last are kept."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Order] = OrderedDict()

    def keep(self, asked: Hashable, order: Order) -> None:
        """Keep an order for the pages that follow."""
        self._kept[asked] = order
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def get(self, asked: Hashable) -> Order | None:
        """Return the order of a result, None if it is kept no more."""
        order = self._kept.get(asked)
        if order is not None:
            self._kept.move_to_end(asked)
        return order
