"""Times as callers write them: whole days, zones, the ends of the calendar, and garbage."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcp_memory.values.dates import TimeRange, now, parse_moment, parse_range, show
from mcp_memory.values.errors import InvalidInput

BERLIN = ZoneInfo("Europe/Berlin")
SHANGHAI = ZoneInfo("Asia/Shanghai")
LOS_ANGELES = ZoneInfo("America/Los_Angeles")
ZULU = ZoneInfo("UTC")

zones = st.sampled_from([ZULU, BERLIN, SHANGHAI, LOS_ANGELES, ZoneInfo("Asia/Kathmandu")])
written = st.one_of(
    st.text(max_size=30),
    st.text("0123456789-/.:TZz +", max_size=24),
    st.dates().map(lambda day: day.isoformat()),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
    st.from_regex(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:?\d{2})?)?"),
)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]  # the parts of a time


def test_now_is_aware_and_in_utc():
    assert now().utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-21", utc(2026, 11, 20, 23)),
        (" 2026-11-21 ", utc(2026, 11, 20, 23)),
        ("2026-11-21T14:30", utc(2026, 11, 21, 13, 30)),
        ("2026-11-21 14:30:05", utc(2026, 11, 21, 13, 30, 5)),
        ("2026-11-21T14:30:00Z", utc(2026, 11, 21, 14, 30)),
        ("2026-11-21T14:30:00-05:00", utc(2026, 11, 21, 19, 30)),
        ("2026-07-21T14:30", utc(2026, 7, 21, 12, 30)),
    ],
)
def test_a_time_without_a_zone_is_of_the_zone_that_is_set(text, moment):
    parsed = parse_moment(text, zone=BERLIN, field="happened_at")
    assert parsed == moment
    assert parsed.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "yesterday",
        "2026-13-01",
        "2026-02-30",
        "21.11.2026",
        "03/04/2026",
        "1e30",
        "inf",
        "nan",
        "-1763731805",
        "0",
        "202603091430",
        "12026-01-01",
        "0000-01-01",
        "2026-03 10:00",
        "Mon, 09 Mar 2026 14:30:00 XYZ",
        "25:00",
        "2026-11-21T",
        "2026-11-21T25:00",
        "\x00",
        "\ud800",
        "٢٠٢٦-١١-٢١",
        "2026-11-21" * 20,
    ],
)
def test_what_is_no_date_is_refused_with_the_name_of_its_field(text):
    with pytest.raises(InvalidInput) as fault:
        parse_moment(text, zone=ZULU, field="happened_at")
    assert fault.value.field == "happened_at"
    assert len(fault.value.message) < 120


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-21t14:30:00z", utc(2026, 11, 21, 14, 30)),
        ("  2026-11-21   14:30  +01:00 ", utc(2026, 11, 21, 13, 30)),
        ("2026-11-21 14:30 UTC", utc(2026, 11, 21, 14, 30)),
        ("2026-11-21T14:30:00.1234567Z", utc(2026, 11, 21, 14, 30, 0, 123456)),
        ("2026/11/21 9:05", utc(2026, 11, 21, 8, 5)),
        ("2026/03/09", utc(2026, 3, 8, 23)),
        ("2026-3-9", utc(2026, 3, 8, 23)),
        ("2026.3.9", utc(2026, 3, 8, 23)),
        ("1763731805", utc(2025, 11, 21, 13, 30, 5)),
        ("1763731805.25", utc(2025, 11, 21, 13, 30, 5, 250_000)),
        ("1763731805123", utc(2025, 11, 21, 13, 30, 5, 123_000)),
        ("1763731805123.0", utc(2025, 11, 21, 13, 30, 5, 123_000)),
        ("1763731805123456", utc(2025, 11, 21, 13, 30, 5, 123_456)),
        ("Mon, 09 Mar 2026 14:30:00 +0100", utc(2026, 3, 9, 13, 30)),
        ("9 Mar 2026 14:30 GMT", utc(2026, 3, 9, 14, 30)),
        ("Mon, 9 Mar 2026 14:30:00 -0000", utc(2026, 3, 9, 14, 30)),
        ("Mon, 9 Mar 2026 14:30:00", utc(2026, 3, 9, 13, 30)),
        ("2026-03", utc(2026, 2, 28, 23)),
        ("2026", utc(2025, 12, 31, 23)),
    ],
)
def test_a_date_that_has_one_reading_is_taken_as_it_is_written(text, moment):
    assert parse_moment(text, zone=BERLIN, field="created_at") == moment


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        ("03/04/2026", "2026-03-04 or 2026-04-03"),
        ("3.4.2026 10:00", "2026-03-04 or 2026-04-03"),
        ("21-11-2026", "2026-11-21"),
        ("99/99/2026", "2026-11-21"),
    ],
)
def test_a_date_with_its_year_last_is_refused_with_the_forms_it_may_mean(text, forms):
    with pytest.raises(InvalidInput) as fault:
        parse_range(text, None, zone=ZULU, named=lambda text: TimeRange(now(), now()))
    assert fault.value.hint == f"Write it as {forms}"


@pytest.mark.parametrize(
    ("text", "first", "end"),
    [
        ("2026-03", utc(2026, 3, 1), utc(2026, 4, 1)),
        ("2026/12", utc(2026, 12, 1), utc(2027, 1, 1)),
        ("2026", utc(2026, 1, 1), utc(2027, 1, 1)),
        ("9999", utc(9999, 1, 1), datetime.max.replace(tzinfo=UTC)),
        ("9999-12", utc(9999, 12, 1), datetime.max.replace(tzinfo=UTC)),
    ],
)
def test_a_month_or_year_is_the_whole_of_it_at_both_ends(text, first, end):
    assert parse_range(text, text, zone=ZULU) == (first, end)


def test_words_are_asked_only_for_what_is_no_date():
    day = TimeRange(utc(2026, 11, 20), utc(2026, 11, 21))
    named = {"yesterday": day}.get
    assert parse_range("yesterday", "yesterday", zone=ZULU, named=named) == tuple(day)
    with pytest.raises(InvalidInput):
        parse_range("soon", None, zone=ZULU, named=named)


@pytest.mark.parametrize("which", ["start_date", "end_date"])
def test_a_range_names_the_end_that_is_no_date(which):
    start, end = ("soon", None) if which == "start_date" else (None, "soon")
    with pytest.raises(InvalidInput) as fault:
        parse_range(start, end, zone=ZULU)
    assert fault.value.field == which


def test_the_last_day_of_a_range_is_in_it_as_a_whole():
    start, end = parse_range("2026-11-20", " 2026-11-21\n", zone=SHANGHAI)
    assert start == utc(2026, 11, 19, 16)
    assert end == utc(2026, 11, 21, 16)


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)]
)
def test_a_day_on_which_the_clocks_change_is_as_long_as_it_is(day, hours):
    start, end = parse_range(day, day, zone=BERLIN)
    assert start is not None
    assert end is not None
    assert end - start == timedelta(hours=hours)


def test_a_day_without_a_midnight_begins_when_it_begins():
    # Clocks went from 23:59:59 to 01:00 there.
    start, _ = parse_range("2018-11-04", None, zone=ZoneInfo("America/Sao_Paulo"))
    assert start == utc(2018, 11, 4, 3)


def test_an_end_with_a_time_includes_that_moment():
    _, end = parse_range(None, "2026-11-21T14:30:00Z", zone=BERLIN)
    assert end == utc(2026, 11, 21, 14, 30) + timedelta(microseconds=1)


@pytest.mark.parametrize("text", ["20261121", "2026-W47-6"])
def test_a_date_alone_is_the_whole_day_in_every_iso_spelling(text):
    assert parse_range(text, text, zone=BERLIN) == (utc(2026, 11, 20, 23), utc(2026, 11, 21, 23))


@pytest.mark.parametrize("zone", [ZULU, SHANGHAI, LOS_ANGELES], ids=str)
def test_the_last_day_of_the_calendar_is_a_range_like_any_other(zone):
    start, end = parse_range("9999-12-31", "9999-12-31", zone=zone)
    assert start is not None
    assert end is not None
    assert start < end
    assert end == datetime.max.replace(tzinfo=UTC)


def test_the_last_moment_of_the_calendar_does_not_overflow():
    _, end = parse_range(None, "9999-12-31T23:59:59.999999Z", zone=ZULU)
    assert end == datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-11-22", "2026-11-21"),
        ("2026-11-21T14:30:00Z", "2026-11-21T14:29:59Z"),
        ("2026-11-21T00:00:00-05:00", "2026-11-20"),
    ],
)
def test_an_end_before_the_start_is_refused(start, end):
    with pytest.raises(InvalidInput) as fault:
        parse_range(start, end, zone=ZULU)
    assert fault.value.field == "end_date"


def test_the_same_moment_at_both_ends_is_a_range():
    moment = "2026-11-21T14:30:00Z"
    start, end = parse_range(moment, moment, zone=ZULU)
    assert start is not None
    assert end is not None
    assert start < end


@given(written, zones)
@example("0001-01-01", SHANGHAI)
@example("0001-01-01T00:00:00+14:00", ZULU)
@example("9999-12-31T23:59:59", LOS_ANGELES)
def test_a_moment_is_in_utc_or_refused(text, zone):
    try:
        moment = parse_moment(text, zone=zone, field="happened_at")
    except InvalidInput:
        return
    assert moment.utcoffset() == timedelta(0)


@given(st.none() | written, st.none() | written, zones)
@example("0001-01-01", "0001-01-01", SHANGHAI)
@example(None, "9999-12-31T23:59:59.999999", ZULU)
@example("9999-12-31", "9999-12-31", LOS_ANGELES)
def test_a_range_is_half_open_and_in_utc_or_refused(start, end, zone):
    try:
        first, last = parse_range(start, end, zone=zone)
    except InvalidInput:
        return
    assert (first is None, last is None) == (start is None, end is None)
    assert first is None or first.utcoffset() == timedelta(0)
    assert first is None or last is None or first < last


@given(
    st.dates(min_value=date(2, 1, 1), max_value=date(9998, 12, 31)), zones, st.integers(0, 90_000)
)
def test_every_moment_of_a_day_lies_in_the_range_of_that_day(day, zone, second):
    start, end = parse_range(day.isoformat(), day.isoformat(), zone=zone)
    assert start is not None
    assert end is not None
    moment = start + timedelta(seconds=second)
    assert (moment < end) is (moment.astimezone(zone).date() == day)
    assert (start - timedelta(microseconds=1)).astimezone(zone).date() < day


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        (ZULU, "2026-11-21T14:30:05Z"),
        (BERLIN, "2026-11-21T15:30:05+01:00"),
        (LOS_ANGELES, "2026-11-21T06:30:05-08:00"),
    ],
)
def test_a_time_is_shown_in_the_zone_of_the_reader(zone, text):
    assert show(utc(2026, 11, 21, 14, 30, 5, 999_999), zone) == text


@given(st.datetimes(), zones)
@example(datetime(1, 1, 1), LOS_ANGELES)  # noqa: DTZ001  # the zone is appended in the text
@example(datetime(9999, 12, 31, 23, 59), SHANGHAI)  # noqa: DTZ001  # the same
def test_whatever_is_taken_can_be_shown_and_read_again(naive, zone):
    try:
        moment = parse_moment(f"{naive.isoformat()}Z", zone=zone, field="happened_at")
    except InvalidInput:
        return
    again = parse_moment(show(moment, zone), zone=zone, field="happened_at")
    assert again == moment.replace(microsecond=0)
