"""What a search is asked, and what it answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final, Generic, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.arrays import Scores
from mcp_memory.search.fusion import reasons
from mcp_memory.search.language.analysis import STOP_CHARACTERS, plain_letters
from mcp_memory.search.language.languages import FUNCTION_WORDS
from mcp_memory.search.language.names import speakers_named
from mcp_memory.search.times.spans import Span, closeness, spans

Key = TypeVar("Key", bound=Hashable)

_WORD: Final = re.compile(r"[^\W_]+")

# Words and characters that ask for everything that was said, and for nothing by name.
_EMPTY_WORDS: Final = frozenset().union(*FUNCTION_WORDS.values()) | frozenset(
    _WORD.findall(
        """
        about anything chat chatted discuss discussed everything happen happened happening lot
        mention mentioned on over said say saying something subject subjects talk talked tell thing
        things told topic topics was besprochen gab gesagt geschah passiert passierte thema themen
        dijo hablamos pasó tema temas dit parlé passé sujet sujets
        """
    )
)
_EMPTY_CHARACTERS: Final = STOP_CHARACTERS | frozenset(
    "讲講谈談聊提做干发發生事情些内容话話题題很多"
)


@dataclass(frozen=True, slots=True)
class Filter:
    """What a document must be to be found.

    Attributes:
        labels: Groups of labels; it needs at least one of each group.
        start: The earliest time it can have.
        end: Its time is before this.
        as_of: It was recorded at this moment or before.
    """

    labels: tuple[tuple[str, ...], ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for.

    Attributes:
        text: Its words.
        now: The moment from which ages are counted.
        speakers: The speakers that it names.
        closeness: Gives how well times (n,), in seconds, fit the times that it names, 0 to 1;
            None if it names none.
        only_times: Whether it says nothing else: "what did she say in April?"
    """

    text: str
    now: datetime
    speakers: frozenset[str] = frozenset()
    closeness: Callable[[NDArray[np.float64]], Scores] | None = None
    only_times: bool = False


@dataclass(frozen=True, slots=True)
class Found(Generic[Key]):
    """One result.

    Attributes:
        key: The document.
        score: 0 to 1; higher is better.
        start: The first of the characters that match best.
        end: The last of them, excluded.
        signals: What the score is made of (`fusion`), NaN for what the document lacks.
        place: Its place in the whole ranking, from 0.
        faded: The part of the score that its age leaves.
        crowded: The part that better documents with the same text leave.
        worded: Whether it has a word of the query.
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
        """The reasons why it was found; see `fusion.reasons`."""
        return reasons(self.signals, worded=self.worded)


@dataclass(frozen=True, slots=True)
class Ranking(Generic[Key]):
    """A page of results; `total` counts the results of all pages.

    Later pages follow the order of the first, without documents that were removed since.
    """

    found: tuple[Found[Key], ...] = ()
    total: int = 0


def parse_query(text: str, speakers: Iterable[str], now: datetime, zone: ZoneInfo) -> Query:
    """Return a query with the speakers and times that its words name.

    Args:
        text: Its words.
        speakers: Everyone who has said something.
        now: When it is asked: "yesterday" is the day before.
        zone: Where it is asked.
    """
    named = frozenset(speakers_named(text, speakers))
    times = spans(text, now=now, zone=zone)
    if not times:
        return Query(text, now, named)
    return Query(text, now, named, partial(closeness, times), _only_times(times, text, named))


def _only_times(times: Sequence[Span], text: str, speakers: Iterable[str]) -> bool:
    """Return whether a query says nothing besides times and speakers."""
    rest = list(text)
    for span in times:
        rest[span.first_char : span.last_char] = " " * (span.last_char - span.first_char)
    names = {plain_letters(name) for speaker in speakers for name in _WORD.findall(speaker)}
    return all(
        word in _EMPTY_WORDS or plain_letters(word) in names or _EMPTY_CHARACTERS.issuperset(word)
        for word in _WORD.findall("".join(rest).lower())
    )
