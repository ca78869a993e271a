"""What a question says besides its words."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from mcp_memory.search.queries import parse_query

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "question",
    [
        "2025年4月她说了什么？",
        "四月份聊了什么",
        "昨天发生了什么事情？",
        "在4月27号我们聊了什么话题？",
        "昨天我们聊了很多，聊了哪些话题？",
        "What did she say in April 2025?",
        "What did Ana talk about last week?",
        "What happened yesterday?",
        "Which topics did we talk about on 27 April?",
        "Was ist gestern passiert?",
    ],
)
def test_a_question_for_all_that_was_said_at_a_time_says_nothing_besides(question: str) -> None:
    assert parse_query(question, ["Ana Lopez", "Ben"], NOW, ZoneInfo("UTC")).only_times


@pytest.mark.parametrize(
    "question",
    [
        "2025年4月她租的房子在哪里？",
        "What did she say about the piano in April 2025?",
        "What did Ana talk about?",
        "What did Clara talk about last week?",
        "她说了什么？",
    ],
)
def test_a_question_that_says_more_or_names_no_time_is_not_for_a_time_alone(question: str) -> None:
    assert not parse_query(question, ["Ana Lopez", "Ben"], NOW, ZoneInfo("UTC")).only_times
