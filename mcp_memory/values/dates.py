"""Reading and writing times: ISO 8601 in, UTC inside, a date alone is the whole day.

Refuses a text that is not a date; it never guesses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from mcp_memory.values.errors import InvalidInput

Clock = Callable[[], datetime]
"""Returns the present moment, aware, in UTC."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Earlier than any record."""

_DATE_ONLY: Final = re.compile(r"\d{4}-\d{2}-\d{2}|\d{8}|\d{4}-?W\d{2}-?\d")
_DAY: Final = timedelta(days=1)
_TICK: Final = timedelta(microseconds=1)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


def now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


def parse_moment(text: str, *, zone: ZoneInfo, field: str) -> datetime:
    """Return one moment; a date alone is its midnight in `zone`.

    Raises:
        InvalidInput: `text` is not an ISO 8601 date or time.
    """
    day = _day(text, field)
    return _moment(text, zone, field) if day is None else _midnight(day, zone, text, field)


def parse_range(
    start: str | None, end: str | None, *, zone: ZoneInfo
) -> tuple[datetime | None, datetime | None]:
    """Return the half-open range `[start, end)` in UTC that a caller means.

    A date without a time is the whole day, at both ends. An `end` with a time
    is included, to the microsecond.

    Raises:
        InvalidInput: One of them is not a date, or the end is before the start.
    """
    first = None if start is None else parse_moment(start, zone=zone, field="start_date")
    last = None
    if end is not None:
        day = _day(end, "end_date")
        if day is not None:
            last = _LAST if day == date.max else _midnight(day + _DAY, zone, end, "end_date")
        else:
            last = min(_moment(end, zone, "end_date"), _LAST - _TICK) + _TICK
    if first is not None and last is not None and last <= first:
        raise InvalidInput(
            f"end_date {end!r} is before start_date {start!r}",
            field="end_date",
            hint="Swap the two, or omit one of them",
        )
    return first, last


def show(moment: datetime, zone: ZoneInfo) -> str:
    """Return a time for a reader: ISO 8601 to the second in `zone`, `Z` for UTC."""
    try:
        moment = moment.astimezone(zone)
    except OverflowError:
        moment = moment.astimezone(UTC)  # The first or last day of the calendar, in another zone.
    text = moment.isoformat(timespec="seconds")
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def _day(text: str, field: str) -> date | None:
    """Return the day of a date without a time, in any of the three forms of ISO 8601."""
    if not _DATE_ONLY.fullmatch(text.strip()):
        return None
    try:
        return date.fromisoformat(text.strip())
    except ValueError as error:
        raise _no_date(text, field) from error


def _midnight(day: date, zone: ZoneInfo, text: str, field: str) -> datetime:
    try:
        return datetime.combine(day, time.min, zone).astimezone(UTC)
    except OverflowError as error:
        raise _no_date(text, field) from error


def _moment(text: str, zone: ZoneInfo, field: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _no_date(text, field) from error


def _no_date(text: str, field: str) -> InvalidInput:
    shown = text if len(text) <= 40 else text[:40] + "…"
    return InvalidInput(
        f"{field}: {shown!r} is not a date",
        field=field,
        hint="Write it as 2026-11-21, or with a time as 2026-11-21T14:30:00+01:00",
    )
