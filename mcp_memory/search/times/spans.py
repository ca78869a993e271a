"""Find the times that a question names, relative to the date of the question.

No library does this: dateparser gives moments but not how long they last, others
lack some of the languages or Python releases we support. A time found by mistake
costs more than a missed one, so vague words ("the other day") and words that
probably mean something else ("may", an id, a version) name no time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.language.analysis import plain_letters
from mcp_memory.search.language.languages import FUNCTION_WORDS
from mcp_memory.search.times import eastern, western
from mcp_memory.search.times.patterns import classes, encode, pattern
from mcp_memory.search.times.periods import (
    DAY,
    Mention,
    Period,
    Reference,
    part_of,
    week_of,
)
from mcp_memory.search.times.vocabulary import NAMING_WORDS, WORDS, WordClass

_DAY_SECONDS: Final = 86_400.0
_YEAR_SECONDS: Final = 366 * _DAY_SECONDS
_EASTERN: Final = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")
_WORD: Final = re.compile(r"[^\W\d_]+")
_DIGIT: Final = re.compile(r"[0-9]")
_FULL_WIDTH: Final = str.maketrans("０１２３４５６７８９", "0123456789")

_SMALL_WORDS: Final = "[THE IN ON OF]{0,2}"

_NARROWED: Final = pattern(
    """
    (?P<third> THIRD OF? [THE ON IN]? TIME )
    | (?P<part> [LAST ORDINAL] [UNIT WEEKEND] OF THE? TIME )
    | (?P<week> [UNIT WEEKEND] OF THE? TIME )
    """
)
_LINKED: Final = pattern(
    f"""
    (?P<between>
        BETWEEN {_SMALL_WORDS} TIME {_SMALL_WORDS} [AND TO DASH] {_SMALL_WORDS} TIME
        | [FROM OF SINCE] {_SMALL_WORDS} TIME {_SMALL_WORDS} [TO DASH UNTIL] {_SMALL_WORDS} TIME
        | TIME DASH TIME
    )
    | (?P<apart> [NUMBER ONE] UNIT [BEFORE BEFORE_OR_AGO AFTER] {_SMALL_WORDS} TIME )
    | (?P<beside> [TIME UNIT WEEKEND] [BEFORE AFTER] {_SMALL_WORDS} TIME )
    | (?P<before> [BEFORE BEFORE_OR_AGO] {_SMALL_WORDS} TIME )
    | (?P<after> AFTER {_SMALL_WORDS} TIME )
    | (?P<since> SINCE [THE IN]{{0,2}} TIME )
    | (?P<until> UNTIL [THE IN ON]{{0,2}} TIME )
    | (?P<plain> TIME )
    """
)
# The same for languages without spaces: times among the characters of the text.
_LINKED_EASTERN: Final = pattern(
    """
    (?P<between>
        [从從自在]? TIME (?:到|至|から|[-~〜～—–]) TIME (?:まで|为止|為止|之?[间間])?
        | [从從自在]? TIME [和与與跟とや] TIME の? 之? [间間]
    )
    | (?P<before> TIME (?:之前|以前|より前|の?前|前) )
    | (?P<since>
        (?:自从|自從|[自从從]) TIME (?:以来|以來|开始|開始|起|之?[后後])?
        | TIME (?:以来|以來|以降|から|开始|開始)
    )
    | (?P<after> TIME (?:之[后後]|以[后後]|の?[后後]) )
    | (?P<until> (?:直到|截至|到) TIME | TIME (?:为止|為止|まで) )
    | (?P<plain> TIME )
    """
)
_OPERANDS: Final = classes("TIME NUMBER UNIT ONE WEEKEND")
"""What the words that link times refer to."""


@dataclass(frozen=True, slots=True)
class Span:
    """A time that a question names: from `start` up to `end`, both aware.

    "Before June" starts at `datetime.min`. `text` is the part of the question that
    names it, from `first_char` up to `last_char`.
    """

    start: datetime
    end: datetime
    text: str
    first_char: int
    last_char: int


def spans(query: str, *, now: datetime, zone: ZoneInfo) -> list[Span]:
    """Return the times that a question names, in order.

    A month or weekday without a year or week is the latest that has begun. A date
    that can be read in two ways ("05/07/2023") gives two spans.

    Args:
        query: A question in English, German, French, Spanish, Chinese or Japanese.
        now: When it is asked, aware.
        zone: Where its days begin.
    """
    languages = _languages(query)
    has_eastern = _EASTERN.search(query) is not None
    if not languages and not has_eastern:
        return []
    reference = Reference(now.astimezone(zone).replace(tzinfo=None))
    found: list[Span] = []
    if has_eastern:
        symbols, mentions = eastern.read(query.translate(_FULL_WIDTH), reference)
        found = _linked(query, _LINKED_EASTERN.finditer(symbols), mentions, reference, zone)
    for language in languages:
        mentions = _narrowed(western.read(query, language, reference), reference)
        symbols = encode(mention.word_class for mention in mentions)
        in_language = _linked(query, _LINKED.finditer(symbols), mentions, reference, zone)
        if in_language:
            return sorted([*found, *in_language], key=lambda span: span.first_char)
    return found


def closeness(spans: Sequence[Span], times: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return how near each time is to the nearest span: 1 inside, towards 0 far away.

    It halves with each length of the span between them, taken as at least a day and
    at most a year: someone who remembers a month may be wrong by weeks. By judgement.

    Args:
        spans: The named times; without any, all is 0.
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
    """Return the languages that know most of the words; none if no word can name a time."""
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
        if count == most and (figures or not NAMING_WORDS[name].isdisjoint(folded))
    ]


def _narrowed(mentions: list[Mention], reference: Reference) -> list[Mention]:
    """Join "early", "the week of" and "the first weekend of" with the time they narrow."""
    narrowed: list[Mention] = []
    end = 0
    for match in _NARROWED.finditer(encode(mention.word_class for mention in mentions)):
        first, last = match.span()
        time, word = mentions[last - 1], mentions[first]
        if match.lastgroup == "third":
            time = replace(time, third=word.values[0])
        elif periods := time.resolved(reference):
            if match.lastgroup == "part":
                number = word.values[0] if word.word_class is WordClass.ORDINAL else -1
                part = part_of(periods[0], number, mentions[first + 1].unit)
            else:
                part = _around(periods[0], word.unit)
            if part is not None:
                time = replace(time, periods=(part,), yearly=None, third=None)
        narrowed += [*mentions[end:first], replace(time, first_char=word.first_char)]
        end = last
    return [*narrowed, *mentions[end:]]


def _around(period: Period, unit: str) -> Period | None:
    """Return the week or weekend that the beginning of a time lies in."""
    week = week_of(period.start)
    if unit == "weekend":
        return Period(week.start + 5 * DAY, week.end)
    return week if unit == "week" else None


def _linked(
    query: str,
    matches: Iterable[re.Match[str]],
    mentions: Sequence[Mention],
    reference: Reference,
    zone: ZoneInfo,
) -> list[Span]:
    """Return what times mean together with the words around them."""
    found: list[Span] = []
    for match in matches:
        matched = mentions[match.start() : match.end()]
        operands = [mention for mention in matched if mention.word_class in _OPERANDS]
        after = any(mention.word_class is WordClass.AFTER for mention in matched)
        first, last = matched[0].first_char, matched[-1].last_char
        try:
            periods = _meant(str(match.lastgroup), operands, reference, after=after)
        except (OverflowError, ValueError):
            continue  # Too many years before it for a date.
        for period in periods:
            start, end = _aware(period.start, zone), _aware(period.end, zone)
            if start < end:
                found.append(Span(start, end, query[first:last], first, last))
    return found


def _meant(
    link: str, named: Sequence[Mention], reference: Reference, *, after: bool
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


def _between(one: Mention, two: Mention, reference: Reference) -> Sequence[Period]:
    """Return from the start of one to the end of two; a year that one names counts for both."""
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
