"""Calendar arithmetic: weeks, months, seasons and years around a moment.

Times are naive and local, periods half-open. Weeks start on Monday; seasons are the
northern ones.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from mcp_memory.search.times.vocabulary import WordClass

DAY: Final = timedelta(days=1)

_EARLIEST_YEAR: Final = 1900
_LATEST_YEAR: Final = 2100
"""Other numbers of four digits are no years; by judgement."""

_YEARS_AROUND: Final = 8
"""How far to look for a yearly date: even 29 February comes within 8 years."""


class Period(NamedTuple):
    """From `start` up to `end`."""

    start: datetime
    end: datetime

    def third(self, number: int) -> Period:
        """Return its beginning (0), middle (1) or end (2)."""
        length = (self.end - self.start) / 3
        if length < 2 * DAY:
            return self
        return Period(self.start + number * length, self.start + (number + 1) * length)


class Yearly(NamedTuple):
    """A date or season of every year, some months or days long."""

    month: int
    day: int = 1
    months: int = 0
    days: int = 0

    def of(self, year: int) -> Period | None:
        """Return it in that year; None if the year has no such day."""
        if not _EARLIEST_YEAR <= year <= _LATEST_YEAR or not 1 <= self.month <= 12:
            return None
        if not 1 <= self.day <= calendar.monthrange(year, self.month)[1]:
            return None
        start = datetime(year, self.month, self.day)  # noqa: DTZ001 - local on purpose
        return Period(start, _shifted(start, self.months) + self.days * DAY)


SEASONS: Final = (
    Yearly(3, months=3),
    Yearly(6, months=3),
    Yearly(9, months=3),
    Yearly(12, months=3),
    Yearly(12, 24, days=3),
    *(Yearly(first, months=3) for first in (1, 4, 7, 10)),
)
"""Spring, summer, autumn, winter, Christmas and the four quarters."""

Meaning = Period | Yearly | tuple[Period, ...]
"""What a phrase can mean; a tuple where it can be read in several ways."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A time that a text names, or a word beside it: `first_char` up to `last_char` of the text.

    A time has the class `TIME` and either `periods`, several if it can be read in
    several ways, or `yearly` if it comes every year and no year is named.
    `third` narrows it to its beginning (0), middle (1) or end (2). A word has its own
    class, values and unit; a time has a unit if it can stand in "the Sunday before".
    """

    word_class: WordClass
    first_char: int
    last_char: int
    periods: tuple[Period, ...] = ()
    yearly: Yearly | None = None
    third: int | None = None
    values: tuple[int, ...] = ()
    unit: str = ""

    @classmethod
    def of(cls, meaning: Meaning, first_char: int, last_char: int, *, unit: str = "") -> Mention:
        """Return the mention of a time."""
        if isinstance(meaning, Yearly):
            return cls(WordClass.TIME, first_char, last_char, yearly=meaning, unit=unit)
        periods = (meaning,) if isinstance(meaning, Period) else meaning
        return cls(WordClass.TIME, first_char, last_char, periods, unit=unit)

    def resolved(self, reference: Reference) -> tuple[Period, ...]:
        """Return the periods that are meant; of what comes every year, the latest begun."""
        return self._narrowed(self.periods or (self.yearly and reference.yearly(self.yearly),))

    def in_year(self, number: int) -> Period | None:
        """Return what comes every year in that year; None if a year is named."""
        return next(iter(self._narrowed((self.yearly and self.yearly.of(number),))), None)

    def _narrowed(self, periods: tuple[Period | None, ...]) -> tuple[Period, ...]:
        number = self.third
        return tuple(
            period if number is None else period.third(number) for period in periods if period
        )


def month(number: int) -> Yearly:
    """Return a month by its number."""
    return Yearly(number, months=1)


def date(month_number: int, day: int, *, last: int | None = None) -> Yearly:
    """Return a day of a month, or the days up to `last`."""
    return Yearly(month_number, day, days=max((last or day) - day, 0) + 1)


def year(number: int) -> Period | None:
    """Return a whole year; None for one that people rarely talk about."""
    return Yearly(1, months=12).of(number)


def week_of(moment: datetime) -> Period:
    """Return the week that a moment lies in."""
    monday = _midnight(moment) - moment.weekday() * DAY
    return Period(monday, monday + 7 * DAY)


def part_of(period: Period, number: int, unit: str) -> Period | None:
    """Return the first (1), second or last (-1) week, weekend or month of a longer time."""
    if unit == "weekend":
        first = Reference(period.start - DAY).weekday(5, 1).start
        last = Reference(period.end).weekday(5).start
        saturday = last if number < 0 else first + 7 * (number - 1) * DAY
        return Period(saturday, saturday + 2 * DAY)
    if unit == "week":
        start = period.end - 7 * DAY if number < 0 else period.start + 7 * (number - 1) * DAY
        return Period(start, start + 7 * DAY)
    if unit == "month":
        start = _shifted(period.end, -1) if number < 0 else _shifted(period.start, number - 1)
        return Period(start, _shifted(start, 1))
    if unit == "day":
        return Period(period.end - DAY, period.end) if number < 0 else None
    return None


class Reference:
    """The moment that relative times refer to.

    Args:
        now: Naive and local.
    """

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.today = _midnight(now)

    def day(self, offset: int, hours: tuple[int, ...] = (0, 24)) -> Period:
        """Return the day that is `offset` days from today, or some hours of it."""
        midnight = self.today + offset * DAY
        return Period(midnight + timedelta(hours=hours[0]), midnight + timedelta(hours=hours[1]))

    def unit(self, unit: str, offset: int) -> Period | None:
        """Return this (0), the last (-1) or the next (1) week, month, quarter, year or hour."""
        if unit == "week":
            monday = week_of(self.now).start + 7 * offset * DAY
            return Period(monday, monday + 7 * DAY)
        if unit == "hour" and offset:
            ends = sorted((self.now, self.now + timedelta(hours=offset)))
            return Period(*ends)
        lasts = {"month": 1, "quarter": 3, "year": 12}.get(unit)
        if lasts is None:
            return None
        first = (self.today.month - 1) // lasts * lasts + 1
        start = _shifted(self.today.replace(day=1, month=first), offset * lasts)
        return Period(start, _shifted(start, lasts))

    def ago(self, fewest: int, most: int, unit: str) -> Period:
        """Return the time between `fewest` and `most` units ago, about one unit wide.

        The margins are by judgement: half a unit on each side, 5 minutes for minutes.
        """
        if unit in {"hour", "minute"}:
            step, slack = (
                (timedelta(hours=1), timedelta(minutes=30))
                if unit == "hour"
                else (timedelta(minutes=1), timedelta(minutes=5))
            )
            return Period(self.now - most * step - slack, self.now - fewest * step + slack)
        if unit == "year":
            first = self.today.replace(month=1, day=1)
            return Period(_shifted(first, -12 * most), _shifted(first, 12 - 12 * fewest))
        before, after = {"day": (0, 1), "week": (3, 4), "month": (15, 16), "quarter": (45, 46)}[
            unit
        ]
        return Period(self._back(most, unit) - before * DAY, self._back(fewest, unit) + after * DAY)

    def rolling(self, count: int, unit: str) -> Period:
        """Return the last `count` units including today; below 0, the next ones."""
        if unit in {"hour", "minute"}:
            step = timedelta(hours=count) if unit == "hour" else timedelta(minutes=count)
            return Period(*sorted((self.now - step, self.now)))
        if count < 0:
            return Period(self.today, self._back(count, unit) + DAY)
        return Period(self._back(count, unit), self.today + DAY)

    def weekday(self, weekday: int, offset: int | None = None) -> Period:
        """Return the last one before today (None, -1), this week's (0) or the next one (1)."""
        if offset == 0:
            return self.weekday_in(weekday, 0)
        if offset == 1:
            return self.day((weekday - self.today.weekday() - 1) % 7 + 1)
        return self.day(-((self.today.weekday() - weekday - 1) % 7 + 1))

    def weekday_in(self, weekday: int, weeks: int) -> Period:
        """Return a weekday of this (0), the last (-1) or the next week."""
        return self.day(7 * weeks + weekday - self.today.weekday())

    def weekend(self, offset: int | None = None) -> Period:
        """Return that of the last (-1), this (0) or next (1) week; the latest one for None."""
        if offset is None:
            offset = 0 if self.today.weekday() >= 5 else -1
        saturday = self.weekday_in(5, offset).start
        return Period(saturday, saturday + 2 * DAY)

    def yearly(self, what: Yearly, offset: int | None = None) -> Period | None:
        """Return the latest begun (None) or over (-1), this year's (0) or the next (1)."""
        years = range(self.now.year - _YEARS_AROUND, self.now.year + _YEARS_AROUND + 1)
        known = [period for number in years if (period := what.of(number))]
        if offset == 0:
            return what.of(self.now.year)
        if offset == 1:
            return next((period for period in known if period.start > self.now), None)
        if offset == -1:
            past = [period for period in known if period.end <= self.now]
        else:
            past = [period for period in known if period.start <= self.now]
        return past[-1] if past else None

    def beside(self, unit: str, weekday: int, *, after: bool) -> Period | None:
        """Return the weekday, weekend, week or other unit just before or after this moment."""
        if unit == "weekday":
            return self.weekday(weekday, 1 if after else -1)
        if unit == "weekend":
            saturday = self.weekday(5, 1 if after else -1).start
            return Period(saturday, saturday + 2 * DAY)
        if unit == "day":
            return self.day(0 if after else -1)
        if unit not in {"week", "month", "quarter", "year"}:
            return None
        return Period(*sorted((self.today, self._back(-1 if after else 1, unit))))

    def nearest(self, what: Yearly) -> Period | None:
        """Return the one that begins nearest to now, in the past or future."""
        near = range(self.now.year - 1, self.now.year + 2)
        known = [period for number in near if (period := what.of(number))]
        return min(known, key=lambda period: abs(period.start - self.now), default=None)

    def since(self, start: datetime) -> Period:
        """Return the time from `start` to the end of today, without end if it is later."""
        end = self.today + DAY
        return Period(start, end if start < end else datetime.max)  # noqa: DTZ901 - local

    def _back(self, count: int, unit: str) -> datetime:
        if unit in {"day", "week"}:
            return self.today - count * (7 if unit == "week" else 1) * DAY
        return _shifted(self.today, -count * {"month": 1, "quarter": 3, "year": 12}[unit])


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _shifted(moment: datetime, months: int) -> datetime:
    """Return the same day some months later, or the last day of a shorter month.

    Raises:
        ValueError: A date can't have that year.
    """
    years, month_before = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    if not 1 <= years <= 9999:
        raise ValueError("no such year")
    last = calendar.monthrange(years, month_before + 1)[1]
    return moment.replace(year=years, month=month_before + 1, day=min(moment.day, last))
