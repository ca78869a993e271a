"""How good a ranking is and how long calls took: arithmetic only."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

CUTS: Final = (5, 10, 20)
SHARES: Final = (0.50, 0.95, 0.99)
"""The percentiles of a latency."""


def plain(value: Any) -> Any:
    """Return a value as JSON has it: dataclasses as objects, numbers with four decimals."""
    if is_dataclass(value):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def recall_at(ranking: Sequence[Hashable], gold: AbstractSet[Hashable], k: int) -> float:
    """Return the fraction of `gold` among the first `k` of `ranking`, 0 to 1.

    Args:
        ranking: What was found, best first.
        gold: What should be found.
        k: How many hits count.

    Raises:
        ValueError: `gold` is empty.
    """
    if not gold:
        raise ValueError("the recall of nothing is not defined")
    return len(gold & set(ranking[:k])) / len(gold)


def reciprocal_rank(ranking: Sequence[Hashable], gold: AbstractSet[Hashable]) -> float:
    """Return 1 / rank of the first hit that is in `gold`, or 0 if none is."""
    for rank, found in enumerate(ranking, start=1):
        if found in gold:
            return 1 / rank
    return 0.0


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over `questions` questions; all but that count are 0 to 1."""

    questions: int
    recall_at_5: float
    recall_at_10: float
    recall_at_20: float
    mrr: float

    def percent(self) -> list[str]:
        """Return the shares for a table: R@5, R@10, R@20, MRR."""
        shares = (self.recall_at_5, self.recall_at_10, self.recall_at_20, self.mrr)
        return [f"{100 * share:.1f}" for share in shares]


def quality(
    answers: Iterable[tuple[Sequence[Hashable], AbstractSet[Hashable]]],
) -> Quality:
    """Return the means over questions, each a ranking and its gold.

    Raises:
        ValueError: There are no questions, or one has no gold.
    """
    rows = [
        (*(recall_at(ranking, gold, k) for k in CUTS), reciprocal_rank(ranking, gold))
        for ranking, gold in answers
    ]
    if not rows:
        raise ValueError("there are no questions to take a mean of")
    at_5, at_10, at_20, mrr = (sum(column) / len(rows) for column in zip(*rows, strict=True))
    return Quality(len(rows), at_5, at_10, at_20, mrr)


def percentile(values: Sequence[float], frac: float) -> float:
    """Return the value below which `frac` (0 to 1) of `values` lie, interpolated linearly.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    place = frac * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    between = ordered[low] + (ordered[high] - ordered[low]) * (place - low)
    return min(between, ordered[high])  # rounding may carry it a bit past


def milliseconds(value: float) -> str:
    """Return a time with three digits."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def ratio_of_medians(values: Sequence[float], reference: Sequence[float]) -> float | None:
    """Return the median of `values` by that of `reference`; None if one of them is empty."""
    if not values or not reference:
        return None
    return percentile(values, 0.5) / percentile(reference, 0.5)


@dataclass(frozen=True, slots=True)
class Latency:
    """`calls` calls in milliseconds."""

    calls: int
    p50_ms: float
    p95_ms: float
    p99_ms: float

    def __str__(self) -> str:
        """Return p50 / p95 for a table."""
        return f"{milliseconds(self.p50_ms)} / {milliseconds(self.p95_ms)}"

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Return the latency of calls that took `seconds` each.

        Raises:
            ValueError: There were no calls.
        """
        return cls(len(seconds), *(percentile(seconds, frac) * 1_000 for frac in SHARES))
