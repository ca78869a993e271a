"""Which times a question names, relative to its own date.

No library does this: dateparser gives moments without saying how long they
last, the others fail in the languages or on the releases of Python that are
needed. False finds cost more than missed ones, so that what is vague ("the
other day") or probably something else ("may", an id, a version) is no time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search import timephrases, timephrases_eastern
from mcp_memory.search.analysis import plain_letters
from mcp_memory.search.languages import FUNCTION_WORDS
from mcp_memory.search.periods import DAY, Named, Period, Reference, part_of, week_of
from mcp_memory.search.timewords import STRONG_WORDS, WORDS

_DAY_SECONDS: Final = 86_400.0
_YEAR_SECONDS: Final = 366 * _DAY_SECONDS
_EASTERN: Final = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")
_WORD: Final = re.compile(r"[^\W\d_]+")
_DIGIT: Final = re.compile(r"[0-9]")
_FULL_WIDTH: Final = str.maketrans("０１２３４５６７８９", "0123456789")

# What stands around times, `Z`, in the classes of words (timewords) or the characters of a text.
_NARROWED: Final = re.compile(r"(?P<third>mo?[tia]?Z)|(?P<part>[LO][Uw]ot?Z)|(?P<week>[Uw]ot?Z)")
_LINKED: Final = re.compile(
    r"(?P<between>K[tioa]{0,2}Z[tioa]{0,2}[JQH][tioa]{0,2}Z"
    r"|[RoC][tioa]{0,2}Z[tioa]{0,2}[QHI][tioa]{0,2}Z|ZHZ)"
    r"|(?P<apart>[N1]U[BVF][otia]{0,2}Z)|(?P<beside>[ZUw][BF][otia]{0,2}Z)"
    r"|(?P<before>[BV][otia]{0,2}Z)|(?P<after>F[otia]{0,2}Z)"
    r"|(?P<since>C[ti]{0,2}Z)|(?P<until>I[tia]{0,2}Z)|(?P<plain>Z)"
)
_LINKED_EASTERN: Final = re.compile(
    r"(?P<between>[从從自在]?Z(?:到|至|から|[-~〜～—–])Z(?:まで|为止|為止|之?[间間])?"
    r"|[从從自在]?Z[和与與跟とや]Zの?之?[间間])"
    r"|(?P<before>Z(?:之前|以前|より前|の?前|前))"
    r"|(?P<since>(?:自从|自從|[自从從])Z(?:以来|以來|开始|開始|起|之?[后後])?|Z(?:以来|以來|以降|から|开始|開始))"
    r"|(?P<after>Z(?:之[后後]|以[后後]|の?[后後]))"
    r"|(?P<until>(?:直到|截至|到)Z|Z(?:为止|為止|まで))"
    r"|(?P<plain>Z)"
)


@dataclass(frozen=True, slots=True)
class Span:
    """A time that a question names: from `start` up to `end`, aware.

    What has no beginning ("before June") begins with the first of all days.
    `text` is what names it, the characters from `first_char` up to `last_char`
    of the question.
    """

    start: datetime
    end: datetime
    text: str
    first_char: int
    last_char: int


def spans(query: str, *, now: datetime, zone: ZoneInfo) -> list[Span]:
    """Return the times that a question names, in order.

    What comes every year or week and is named without one is the latest that
    has begun. A date that can be read in two ways ("05/07/2023") is given in both.

    Args:
        query: A question in English, German, French, Spanish, Chinese or Japanese.
        now: When it is asked, aware.
        zone: Where its days begin.
    """
    languages = _languages(query)
    eastern = _EASTERN.search(query) is not None
    if not languages and not eastern:
        return []
    reference = Reference(now.astimezone(zone).replace(tzinfo=None))
    found: list[Span] = []
    if eastern:
        kinds, parts = timephrases_eastern.read(query.translate(_FULL_WIDTH), reference)
        found = _linked(query, _LINKED_EASTERN, kinds, parts, reference, zone)
    for language in languages:
        kinds, parts = timephrases.read(query, language, reference)
        kinds, parts = _narrowed(kinds, parts, reference)
        western = _linked(query, _LINKED, kinds, parts, reference, zone)
        if western:
            found = sorted([*found, *western], key=lambda span: span.first_char)
            break
    return found


def closeness(spans: Sequence[Span], times: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return how near each time is to the nearest span: 1 inside, towards 0 far away.

    It halves with each length of the span, at least a day and at most a year,
    that lies between them: who remembers a month may be wrong by weeks.

    Args:
        spans: What was named; nothing is near to none.
        times: Seconds since 1970, (n,).

    Returns:
        (n,) float32.
    """
    best = np.zeros(len(times), dtype=np.float64)
    for span in spans:
        start, end = span.start.timestamp(), span.end.timestamp()
        scale = min(max(end - start, _DAY_SECONDS), _YEAR_SECONDS)
        outside = np.maximum(start - times, times - end)
        best = np.maximum(best, np.exp2(-np.maximum(outside, 0.0) / scale))
    return best.astype(np.float32)


def _languages(query: str) -> list[str]:
    """Return the languages most of the words are of; none if no word of theirs names a time."""
    words = _WORD.findall(query.lower())
    folded = [plain_letters(word) for word in words]
    known = {
        name: sum(
            plain in table or word in FUNCTION_WORDS[name]
            for word, plain in zip(words, folded, strict=True)
        )
        for name, table in WORDS.items()
    }
    most = max(known.values())
    figures = _DIGIT.search(query) is not None
    return [
        name
        for name, count in known.items()
        if count == most and (figures or not STRONG_WORDS[name].isdisjoint(folded))
    ]


def _narrowed(kinds: str, parts: list[Named], reference: Reference) -> tuple[str, list[Named]]:
    """Join "early", "the week of" and "the first weekend of" with the time that they belong to."""
    shown: list[str] = []
    kept: list[Named] = []
    at = 0
    for match in _NARROWED.finditer(kinds):
        first, last = match.span()
        named, word = parts[last - 1], parts[first]
        if match.lastgroup == "third":
            named = replace(named, third=word.values[0])
        elif periods := named.resolved(reference):
            if match.lastgroup == "part":
                number = word.values[0] if kinds[first] == "O" else -1
                part = part_of(periods[0], number, parts[first + 1].unit)
            else:
                part = _around(periods[0], word.unit)
            if part is not None:
                named = replace(named, periods=(part,), yearly=None, third=None)
        shown += [kinds[at:first], "Z"]
        kept += [*parts[at:first], replace(named, first_char=word.first_char)]
        at = last
    return "".join([*shown, kinds[at:]]), [*kept, *parts[at:]]


def _around(period: Period, unit: str) -> Period | None:
    """Return the week or weekend that the beginning of a time lies in."""
    week = week_of(period.start)
    if unit == "weekend":
        return Period(week.start + 5 * DAY, week.end)
    return week if unit == "week" else None


def _linked(
    query: str,
    pattern: re.Pattern[str],
    kinds: str,
    parts: list[Named],
    reference: Reference,
    zone: ZoneInfo,
) -> list[Span]:
    """Return what the times mean together with the words around them."""
    found: list[Span] = []
    for match in pattern.finditer(kinds):
        named = [parts[at] for at in range(*match.span()) if kinds[at] in "ZNU1w"]
        after = "F" in match[0]
        first = parts[match.start()].first_char
        last = parts[match.end() - 1].last_char
        try:
            periods = _meant(str(match.lastgroup), named, reference, after=after)
        except (OverflowError, ValueError):
            continue  # So many years before it that no date can say it.
        for period in periods:
            start, end = _aware(period.start, zone), _aware(period.end, zone)
            if start < end:
                found.append(Span(start, end, query[first:last], first, last))
    return found


def _meant(
    link: str, named: Sequence[Named], reference: Reference, *, after: bool
) -> Sequence[Period]:
    periods = named[-1].resolved(reference)
    if not periods or link == "plain":
        return periods
    if link == "between":
        return _between(named[0], named[1], reference)
    first = periods[0]
    if link == "apart":
        sign = -1 if after else 1
        fewest, most = sorted((sign * named[0].values[0], sign * named[0].values[-1]))
        return [Reference(first.start).ago(fewest, most, named[1].unit)]
    if link == "beside" and named[0].unit:
        weekday = named[0].periods[0].start.weekday() if named[0].periods else 0
        edge = first.end if after else first.start
        if after and named[0].unit == "weekday":
            edge -= DAY
        beside = Reference(edge).beside(named[0].unit, weekday, after=after)
        return [beside] if beside else periods
    if link == "beside":
        own = named[0].resolved(reference)
        return [*own, *_meant("after" if after else "before", named[1:], reference, after=after)]
    if link in {"before", "until"} and named[0].yearly:
        first = reference.nearest(named[0].yearly) or first
    if link in {"before", "until"}:
        return [Period(datetime.min, first.start if link == "before" else first.end)]  # noqa: DTZ901  local
    return [reference.since(first.start if link == "since" else first.end)]


def _between(one: Named, two: Named, reference: Reference) -> Sequence[Period]:
    """Return from the beginning of one to the end of two, in one year if only one names it."""
    begins, ends = one.resolved(reference), two.resolved(reference)
    if not begins or not ends:
        return [*begins, *ends]
    first, last = begins[0], ends[-1]
    if one.yearly:
        years = (last.start.year, last.start.year - 1)
        fitting = [period for year in years if (period := one.in_year(year))]
        first = next((period for period in fitting if period.start <= last.start), first)
    elif two.yearly:
        years = (first.start.year, first.start.year + 1)
        fitting = [period for year in years if (period := two.in_year(year))]
        last = next((period for period in fitting if period.end >= first.end), last)
    if first.start > last.start and first.start - last.start < 7 * DAY:
        # From Monday to Wednesday, asked on a Wednesday.
        last = Period(last.start + 7 * DAY, last.end + 7 * DAY)
    if first.start > last.start:
        first, last = last, first
    return [Period(first.start, max(first.end, last.end))]


def _aware(moment: datetime, zone: ZoneInfo) -> datetime:
    if moment in {datetime.min, datetime.max}:  # noqa: DTZ901 - local
        return moment.replace(tzinfo=UTC)
    return moment.replace(tzinfo=zone).astimezone(UTC)
