"""Reading and writing times: ISO 8601 and what can't be mistaken for something else; UTC inside.

Refuses a text that is not a date, or one that has two readings; it never guesses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from mcp_memory.values.errors import InvalidInput

Clock = Callable[[], datetime]
"""Returns the present moment, aware, in UTC."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Earlier than any record."""

_DAY: Final = timedelta(days=1)
_TICK: Final = timedelta(microseconds=1)
_LAST: Final = datetime.max.replace(tzinfo=UTC)

_YEAR_FIRST: Final = re.compile(
    r"(\d{4})(?:([-/.])(\d{1,2})(?:\2(\d{1,2}))?)?(?:[T ](\d.*))?", re.A
)
_COMPACT: Final = re.compile(r"(\d{8}|\d{4}-?W\d{2}-?\d)", re.A)
_ZONE: Final = re.compile(r" ?(?:(Z|UTC|GMT)|([+-]\d.*))$")
_YEAR_LAST: Final = re.compile(r"(\d{1,2})[-/. ]{1,2}(\d{1,2})[-/. ]{1,2}(\d{4})\b", re.A)
_RFC: Final = re.compile(
    r"(?:[a-z]{3}, ?)?\d{1,2} [a-z]{3} \d{4} \d{2}:\d{2}(?::\d{2})?"
    r"(?: (?:[+-]\d{4}|Z|UT|UTC|GMT|[ECMP][SD]T)(?: \([a-z ]+\))?)?",
    re.A | re.I,
)
_NUMBER: Final = re.compile(r"(\d+)(\.\d+)?", re.A)

_EPOCH_UNITS: Final = {9: 1, 10: 1, 13: 1_000, 16: 1_000_000}
"""By its digits, the parts of a second in which a number counts from 1970: such numbers are from
1973 or 2001 to 2286. Numbers with other lengths could be something else; by judgement."""


class TimeRange(NamedTuple):
    """From `start` up to `end`, both aware and in UTC; a moment lasts a microsecond."""

    start: datetime
    end: datetime


def now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


def parse_moment(text: str, *, zone: ZoneInfo, field: str) -> datetime:
    """Return one moment; a day, month or year is its first midnight in `zone`.

    Raises:
        InvalidInput: `text` is not a date or time, or has two readings.
    """
    return parse_period(text, zone=zone, field=field).start


def parse_range(
    start: str | None,
    end: str | None,
    *,
    zone: ZoneInfo,
    named: Callable[[str], TimeRange | None] = lambda text: None,
) -> tuple[datetime | None, datetime | None]:
    """Return the half-open range `[start, end)` in UTC that a caller means.

    A day, month or year is the whole of it, at both ends. An `end` with a time is
    included, to the microsecond.

    Args:
        named: Returns the time that words such as "yesterday" name, None if they name none.

    Raises:
        InvalidInput: One of them is not a date, or the end is before the start.
    """

    def period(text: str, field: str) -> TimeRange:
        try:
            return parse_period(text, zone=zone, field=field)
        except InvalidInput:
            words = None if _YEAR_LAST.match(text.strip()) else named(text)
            if words is None:
                raise
            return words

    first = None if start is None else period(start, "start_date").start
    last = None if end is None else period(end, "end_date").end
    if first is not None and last is not None and last <= first:
        raise InvalidInput(
            f"end_date {end!r} is before start_date {start!r}",
            field="end_date",
            hint="Swap the two, or omit one of them",
        )
    return first, last


def parse_period(text: str, *, zone: ZoneInfo, field: str) -> TimeRange:
    """Return the moment, day, month or year that a text names.

    It is ISO 8601, with `/` or `.` for `-`, without leading zeros, or with a lower-case `z`;
    seconds, milliseconds or microseconds since 1970; or a date of RFC 2822.

    Raises:
        InvalidInput: It is none of these, or has two readings.
    """
    plain = " ".join(text.split())
    try:
        period = _epoch(plain) or _rfc(plain, zone) or _iso(plain.upper(), zone)
    except (ValueError, OverflowError) as error:
        raise _no_date(text, field) from error
    return period


def show(moment: datetime, zone: ZoneInfo) -> str:
    """Return a time for a reader: ISO 8601 to the second in `zone`, `Z` for UTC."""
    try:
        moment = moment.astimezone(zone)
    except OverflowError:
        moment = moment.astimezone(UTC)  # The first or last day of the calendar, in another zone.
    text = moment.isoformat(timespec="seconds")
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def _epoch(text: str) -> TimeRange | None:
    """Return the moment of a number that counts from 1970."""
    found = _NUMBER.fullmatch(text)
    unit = _EPOCH_UNITS.get(len(found[1])) if found else None
    if not found or unit is None:
        return None
    ticks = int(found[1]) * (1_000_000 // unit)
    ticks += int(float(found[2] or 0) * (1_000_000 // unit))
    return _at(EPOCH + ticks * _TICK)


def _rfc(text: str, zone: ZoneInfo) -> TimeRange | None:
    if not _RFC.fullmatch(text):
        return None
    moment = parsedate_to_datetime(text)
    if moment.tzinfo is None:
        # Without a zone it is a local time; "-0000" is UTC of an unknown place.
        moment = moment.replace(tzinfo=UTC if text.endswith("-0000") else zone)
    return _at(moment.astimezone(UTC))


def _iso(text: str, zone: ZoneInfo) -> TimeRange:
    """Return the period of a date, in upper case, whose year comes first."""
    if _COMPACT.fullmatch(text):
        return _days(date.fromisoformat(text), 0, zone)
    found = _YEAR_FIRST.fullmatch(text)
    if found:
        year, _, month, day, clock = found.groups()
        first = date(int(year), int(month or 1), int(day or 1))
        if clock is None:
            return _days(first, 0 if day else (1 if month else 12), zone)
        if day is None:
            raise ValueError("a time needs a day")
        clock = _ZONE.sub(lambda end: "Z" if end[1] else end[2], clock)
        text = f"{first.isoformat()}T{'0' if clock[1:2] == ':' else ''}{clock}"
    moment = datetime.fromisoformat(text)
    return _at((moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC))


def _at(moment: datetime) -> TimeRange:
    return TimeRange(moment, min(moment, _LAST - _TICK) + _TICK)


def _days(first: date, months: int, zone: ZoneInfo) -> TimeRange:
    """Return the months that begin with a day; with 0 the day itself."""
    years, month = divmod(first.month - 1 + months, 12)
    year = first.year + years
    if year > date.max.year or first == date.max:
        return TimeRange(_midnight(first, zone), _LAST)
    end = date(year, month + 1, 1) if months else first + _DAY
    return TimeRange(_midnight(first, zone), _midnight(end, zone))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time.min, zone).astimezone(UTC)


def _no_date(text: str, field: str) -> InvalidInput:
    shown = text if len(text) <= 40 else text[:40] + "…"
    hint = "Write it as 2026-11-21, or with a time as 2026-11-21T14:30:00+01:00"
    problem = "is not a date"
    if found := _YEAR_LAST.match(text.strip()):
        one, two, year = found.groups()
        problem = "has its year last, so that day and month can be taken for each other"
        forms = {f"{year}-{month:0>2}-{day:0>2}" for month, day in ((one, two), (two, one))}
        readings = " or ".join(sorted(form for form in forms if form[5:7] <= "12"))
        hint = f"Write it as {readings or '2026-11-21'}"
    return InvalidInput(f"{field}: {shown!r} {problem}", field=field, hint=hint)
