"""Times that a question names: asked on Wednesday, 24 May 2023, at 15:00 unless it is said."""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcp_memory.search.times.spans import Span, closeness, spans

ZULU = ZoneInfo("UTC")
BERLIN = ZoneInfo("Europe/Berlin")
SHANGHAI = ZoneInfo("Asia/Shanghai")
NOW = datetime(2023, 5, 24, 15, tzinfo=UTC)
OPEN = "0001-01-01"


def named(query, *, now=NOW, zone=ZULU):
    """Return each time as its first and last moment: days alone, hours where there are any."""
    return [(shown(span.start), shown(span.end)) for span in spans(query, now=now, zone=zone)]


def shown(moment):
    return moment.strftime("%Y-%m-%d %H").removesuffix(" 00").rjust(10, "0")


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("What did we do yesterday?", "2023-05-23", "2023-05-24"),
        ("yesterday's meeting", "2023-05-23", "2023-05-24"),
        ("the day before yesterday", "2023-05-22", "2023-05-23"),
        ("What is new today?", "2023-05-24", "2023-05-25"),
        ("this morning", "2023-05-24 05", "2023-05-24 12"),
        ("last night", "2023-05-23 18", "2023-05-24 06"),
        ("on Tuesday evening", "2023-05-23 17", "2023-05-24"),
        ("What did Ana say last Tuesday?", "2023-05-23", "2023-05-24"),
        ("on Wednesday", "2023-05-17", "2023-05-18"),
        ("this Friday", "2023-05-26", "2023-05-27"),
        ("next Friday", "2023-05-26", "2023-05-27"),
        ("Monday last week", "2023-05-15", "2023-05-16"),
        ("last week", "2023-05-15", "2023-05-22"),
        ("this month", "2023-05-01", "2023-06-01"),
        ("next year", "2024-01-01", "2025-01-01"),
        ("last weekend", "2023-05-20", "2023-05-22"),
        ("over the weekend", "2023-05-20", "2023-05-22"),
        ("three days ago", "2023-05-21", "2023-05-22"),
        ("two weeks ago", "2023-05-07", "2023-05-14"),
        ("a couple of months ago", "2023-03-09", "2023-04-09"),
        ("three years ago", "2020-01-01", "2021-01-01"),
        ("48 hours ago", "2023-05-22 14", "2023-05-22 15"),
        ("a few days ago", "2023-05-19", "2023-05-23"),
        ("in the last two weeks", "2023-05-10", "2023-05-25"),
        ("over the past month", "2023-04-24", "2023-05-25"),
    ],
)
def test_a_time_that_is_relative_to_today_is_found(query, start, end):
    assert named(query) == [(start, end)]


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("What happened in May 2023?", "2023-05-01", "2023-06-01"),
        ("in May", "2023-05-01", "2023-06-01"),
        ("in may", "2023-05-01", "2023-06-01"),
        ("in June", "2022-06-01", "2022-07-01"),
        ("last May", "2022-05-01", "2022-06-01"),
        ("June last year", "2022-06-01", "2022-07-01"),
        ("the October meeting", "2022-10-01", "2022-11-01"),
        ("on 7 May", "2023-05-07", "2023-05-08"),
        ("the 7th of May, 2021", "2021-05-07", "2021-05-08"),
        ("May 7th, 2023", "2023-05-07", "2023-05-08"),
        ("May 7-9", "2023-05-07", "2023-05-10"),
        ("Sept. 5", "2022-09-05", "2022-09-06"),
        ("February 29", "2020-02-29", "2020-03-01"),
        ("Tuesday, 7 May 2019", "2019-05-07", "2019-05-08"),
        ("notes of 2023-05-07", "2023-05-07", "2023-05-08"),
        ("2023-05-07T14:30", "2023-05-07", "2023-05-08"),
        ("in 2023-05", "2023-05-01", "2023-06-01"),
        ("07.05.2023", "2023-05-07", "2023-05-08"),
        ("in 2022", "2022-01-01", "2023-01-01"),
        ("the 2022 trip", "2022-01-01", "2023-01-01"),
        ("in the 1990s", "1990-01-01", "2000-01-01"),
        ("last summer", "2022-06-01", "2022-09-01"),
        ("winter 2021", "2021-12-01", "2022-03-01"),
        ("last Christmas", "2022-12-24", "2022-12-27"),
        ("Q1 2023", "2023-01-01", "2023-04-01"),
        ("at the end of last year", "2022-09-01 08", "2023-01-01"),
        ("early May", "2023-05-01", "2023-05-11 08"),
        ("the week of May 3", "2023-05-01", "2023-05-08"),
        ("the first weekend of October 2022", "2022-10-01", "2022-10-03"),
        ("the last week of August 2022", "2022-08-25", "2022-09-01"),
    ],
)
def test_a_date_is_found_and_lasts_as_long_as_what_is_named(query, start, end):
    assert named(query) == [(start, end)]


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("between March and May 2023", "2023-03-01", "2023-06-01"),
        ("from March to May", "2023-03-01", "2023-06-01"),
        ("between November and February 2023", "2022-11-01", "2023-03-01"),
        ("between August 11 and August 15 2022", "2022-08-11", "2022-08-16"),
        ("from Monday to Wednesday", "2023-05-22", "2023-05-25"),
        ("2019-2021", "2019-01-01", "2022-01-01"),
        ("before June", OPEN, "2023-06-01"),
        ("before December", OPEN, "2022-12-01"),
        ("until last week", OPEN, "2023-05-22"),
        ("since Monday", "2023-05-22", "2023-05-25"),
        ("after 2021", "2022-01-01", "2023-05-25"),
        ("two weeks before August 11, 2022", "2022-07-25", "2022-08-01"),
        ("the week before 16 November 2022", "2022-11-09", "2022-11-16"),
        ("the day after May 7", "2023-05-08", "2023-05-09"),
        ("the Sunday before 10 May 2023", "2023-05-07", "2023-05-08"),
        ("the weekend before April 10, 2023", "2023-04-08", "2023-04-10"),
    ],
)
def test_a_time_that_is_relative_to_others_is_found(query, start, end):
    assert named(query) == [(start, end)]


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("上周我们聊了什么", "2023-05-15", "2023-05-22"),
        ("昨天的会议", "2023-05-23", "2023-05-24"),
        ("前天晚上", "2023-05-22 17", "2023-05-23"),
        ("去年五月去哪儿了", "2022-05-01", "2022-06-01"),
        ("2023年5月7日", "2023-05-07", "2023-05-08"),
        ("２０２３年５月７日", "2023-05-07", "2023-05-08"),
        ("二〇二二年十二月二十五日", "2022-12-25", "2022-12-26"),
        ("三天前", "2023-05-21", "2023-05-22"),
        ("两个星期前", "2023-05-07", "2023-05-14"),
        ("最近三天", "2023-05-21", "2023-05-25"),
        ("上个月", "2023-04-01", "2023-05-01"),
        ("周二", "2023-05-23", "2023-05-24"),
        ("上周二", "2023-05-16", "2023-05-17"),
        ("這個星期", "2023-05-22", "2023-05-29"),
        ("2022年夏天", "2022-06-01", "2022-09-01"),
        ("去年底", "2022-09-01 08", "2023-01-01"),
        ("去年年底", "2022-09-01 08", "2023-01-01"),
        ("2022年 4月她说了什么？", "2022-04-01", "2022-05-01"),
        ("22年4月3号", "2022-04-03", "2022-04-04"),
        ("2022年第二季度", "2022-04-01", "2022-07-01"),
        ("去年下半年", "2022-07-01", "2023-01-01"),
        ("2022年中秋", "2022-01-01", "2023-01-01"),
        ("2022年 我搬家了", "2022-01-01", "2023-01-01"),
        ("从三月到五月", "2023-03-01", "2023-06-01"),
        ("在去年三月和五月之间", "2022-03-01", "2022-06-01"),
        ("六月之前", OPEN, "2023-06-01"),
        ("2023年前", OPEN, "2023-01-01"),
        ("去年以来", "2022-01-01", "2023-05-25"),
        ("先週何を話した？", "2023-05-15", "2023-05-22"),
        ("先週の火曜日", "2023-05-16", "2023-05-17"),
        ("昨日の会議", "2023-05-23", "2023-05-24"),
        ("去年の5月", "2022-05-01", "2022-06-01"),
        ("2週間前", "2023-05-07", "2023-05-14"),
        ("3か月前", "2023-02-09", "2023-03-12"),
        ("月曜日から水曜日まで", "2023-05-22", "2023-05-25"),
    ],
)
def test_a_time_is_found_in_chinese_and_japanese(query, start, end):
    assert named(query) == [(start, end)]


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("Was haben wir gestern besprochen?", "2023-05-23", "2023-05-24"),
        ("letzte Woche", "2023-05-15", "2023-05-22"),
        ("vor zwei Wochen", "2023-05-07", "2023-05-14"),
        ("vor Juni", OPEN, "2023-06-01"),
        ("am 7. Mai", "2023-05-07", "2023-05-08"),
        ("zwischen März und Mai 2023", "2023-03-01", "2023-06-01"),
        ("heute Morgen", "2023-05-24 05", "2023-05-24 12"),
        ("Ende letzten Jahres", "2022-09-01 08", "2023-01-01"),
        ("Qu'est-ce qu'on a dit hier soir ?", "2023-05-23 17", "2023-05-24"),
        ("la semaine dernière", "2023-05-15", "2023-05-22"),
        ("il y a deux semaines", "2023-05-07", "2023-05-14"),
        ("l'été dernier", "2022-06-01", "2022-09-01"),
        ("entre mars et mai 2023", "2023-03-01", "2023-06-01"),
        ("la semana pasada", "2023-05-15", "2023-05-22"),
        ("el 7 de mayo de 2023", "2023-05-07", "2023-05-08"),
        ("hace dos semanas", "2023-05-07", "2023-05-14"),
        ("de marzo a mayo de 2022", "2022-03-01", "2022-06-01"),
        ("los últimos dos meses", "2023-03-24", "2023-05-25"),
    ],
)
def test_a_time_is_found_in_german_french_and_spanish(query, start, end):
    assert named(query) == [(start, end)]


@pytest.mark.parametrize(
    "query",
    [
        "",
        "May I ask a second question?",
        "He may march on, mark my words.",
        "We march to Rome, march 10 miles",
        "the sun, 10 items, a second",
        "sat on the sun bed",
        "version 2023.1 of the tool",
        "v2.3.1 and 1.2.3",
        "src/app/main.py:42",
        "/logs/2023/05/app.log",
        "CVE-2023-1234",
        "#2022",
        "550e8400-e29b-41d4-a716-446655440000",
        "2023-13-45",
        "call 555-2023",
        "In 2000 words, describe it",
        "a total of 2000 items",
        "is port 2022 open",
        "What did June say to May?",
        "April said that she likes August Strindberg",
        "Spring Boot",
        "a summer dress",
        "the last time",
        "last minute changes",
        "every Monday",
        "one day I will",
        "two months in Rome",
        "the other day",
        "recently",
        "a while ago",
        "9999 years ago",
        "9999 years before 2022",
        "Was ist hier los?",
        "Guten Morgen",
        "il a été malade",
        "los lunes",
        "por la mañana",
        "我一天喝三杯，一周一次",
        "每周二",
        "二分之一",
        "五月天的歌",
        "等了25年4个月",
        "毎週月曜日",
    ],
)
def test_what_only_looks_like_a_time_or_is_vague_is_none(query):
    assert named(query) == []


def test_a_combining_mark_alone_is_no_word():
    assert named("What did we do yesterday \u0301 ?") == [("2023-05-23", "2023-05-24")]


def test_a_date_that_can_be_read_in_two_ways_is_given_in_both():
    assert named("05/07/2023") == [("2023-05-07", "2023-05-08"), ("2023-07-05", "2023-07-06")]
    assert named("25/07/2023") == [("2023-07-25", "2023-07-26")]


def test_several_times_are_found_in_order_each_with_the_characters_that_name_it():
    query = "Was it yesterday, 上周 or before June?"
    found = spans(query, now=NOW, zone=ZULU)
    assert [span.text for span in found] == ["yesterday", "上周", "before June"]
    assert all(query[span.first_char : span.last_char] == span.text for span in found)


def test_a_day_begins_at_midnight_where_the_question_is_asked():
    late = datetime(2023, 5, 24, 23, tzinfo=UTC)
    assert named("yesterday", now=late) == [("2023-05-23", "2023-05-24")]
    assert named("yesterday", now=late, zone=SHANGHAI) == [("2023-05-23 16", "2023-05-24 16")]


def test_a_day_on_which_clocks_change_is_as_long_as_it_is():
    (span,) = spans("on 26 March 2023", now=NOW, zone=BERLIN)
    assert span.end - span.start == timedelta(hours=23)


words = st.sampled_from(
    re.findall(
        r"\S+",
        """
    last next this past two 7 7th 2022 31 12 0 may May march Monday Sun week weeks months year ago
    yesterday before after since until between and from to the of in on early end , - . 2023-05-07
    summer vor zwei Wochen seit il y a semaine dernière hace dos meses 上周 三天前 五月 之前 到 9999
    weekend first quarter morning tonight q1 1990s 5/6/2021 l'année
    """,
    )
)
moments = st.integers(100_000, 4_000_000_000).map(
    lambda seconds: datetime.fromtimestamp(seconds, UTC)
)


@given(
    st.lists(words, max_size=12).map(" ".join) | st.text(max_size=60),
    moments,
    st.sampled_from([ZULU, BERLIN, SHANGHAI, ZoneInfo("Pacific/Apia")]),
)
@example("the weekend before the weekend of May 6", NOW, ZULU)
@example("9999 weeks before 1900 and 12 months after 2100", NOW, ZULU)
def test_any_text_gives_times_that_are_aware_in_order_and_named_in_it(query, now, zone):
    found = spans(query, now=now, zone=zone)
    assert [span.first_char for span in found] == sorted(span.first_char for span in found)
    for span in found:
        assert span.start.utcoffset() == span.end.utcoffset() == timedelta(0)
        assert span.start < span.end
        assert span.text == query[span.first_char : span.last_char] != ""


def span(start, end):
    return Span(start, end, "", 0, 0)


def near(given, *times):
    return closeness(given, np.array([time.timestamp() for time in times])).tolist()


def test_what_lies_inside_is_closest_and_closeness_falls_with_distance():
    day = span(NOW, NOW + timedelta(days=1))
    times = [NOW + timedelta(days=days) for days in (0, 0.5, 2, 3, 40)]
    assert near([day], *times) == pytest.approx([1, 1, 0.5, 0.25, 0], abs=1e-6)
    assert near([day], NOW - timedelta(days=1)) == [0.5]


def test_the_longer_the_time_that_is_named_the_farther_away_is_still_close():
    month = span(NOW, NOW + timedelta(days=30))
    assert near([month], NOW + timedelta(days=60)) == [0.5]
    minute = span(NOW, NOW + timedelta(minutes=1))
    assert near([minute], NOW - timedelta(days=1)) == [0.5]


def test_of_several_times_the_nearest_counts_and_nothing_is_near_to_none():
    first, second = span(NOW, NOW + timedelta(days=1)), span(datetime.min.replace(tzinfo=UTC), NOW)
    assert near([first, second], NOW - timedelta(days=900)) == [1]
    assert near([], NOW) == [0]
    assert closeness([first], np.empty(0)).dtype == np.float32
