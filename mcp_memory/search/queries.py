"""What is asked of the search, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.lexical import Weighed
from mcp_memory.search.passages import Asked
from mcp_memory.search.signals import Scores, reasons
from mcp_memory.search.vectors import Mask

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Filter:
    """What a text must be to be a candidate at all.

    Every group of `labels` needs one of its labels; times are a half-open range.
    """

    labels: tuple[tuple[str, ...], ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Args:
        text: In words.
        speakers: Who is named in it, of those who have said something.
        closeness: Gives how well times (n,), in seconds, fit the times that it names, 0 to 1.
        only_times: Whether it says nothing besides: "what did she say in April?"
        now: The moment from which ages are counted.
    """

    text: str
    now: datetime
    speakers: frozenset[str] = frozenset()
    closeness: Callable[[NDArray[np.float64]], Scores] | None = None
    only_times: bool = False


@dataclass(frozen=True, slots=True)
class Found(Generic[Key]):
    """One candidate: `start` to `end` are the characters that answer best.

    `signals` are the parts of its standing by name, NaN for what it lacks. `place` counts
    from the first of the whole ranking; `faded` and `crowded` are what age, and others
    that say the same, have left of the score; `worded` is whether it has a word of the question.
    """

    key: Key
    score: float
    start: int
    end: int
    signals: Mapping[str, float] = field(default_factory=dict)
    place: int = -1
    faded: float = 1.0
    crowded: float = 1.0
    worded: bool = False

    @property
    def why(self) -> tuple[str, ...]:
        """The reasons why it is there; see `signals.reasons`."""
        return reasons(self.signals, worded=self.worded)


@dataclass(frozen=True, slots=True)
class Ranking(Generic[Key]):
    """A part of the ranking; `total` counts all candidates that it orders.

    A later page goes on with the order that the first had, without what is gone.
    """

    found: tuple[Found[Key], ...] = ()
    total: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A search up to where it needs the question's vector."""

    question: Question
    where: Filter
    mask: Mask
    asked: Asked | None
    weighed: Weighed | None
