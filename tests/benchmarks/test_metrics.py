"""The pure parts of the benchmarks: reading the data, grading, making texts."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import latency
from benchmarks.locomo import (
    DataFault,
    DiaId,
    load,
    parse_dialogue,
    parse_evidence,
    parse_session_time,
)
from benchmarks.metrics import Latency, percentile, quality, recall_at, reciprocal_rank
from benchmarks.texts import MAX_WORDS, MIN_WORDS, memory, query

if TYPE_CHECKING:
    from pathlib import Path

RANKINGS = st.lists(st.integers(0, 40), unique=True, max_size=30)
GOLD = st.frozensets(st.integers(0, 40), min_size=1, max_size=6)


def sample() -> dict[str, Any]:
    return {
        "sample_id": "conv-1",
        "conversation": {
            "speaker_a": "Ann",
            "speaker_b": "Bo",
            "session_10_date_time": "12:06 am on 2 January, 2024",
            "session_10": [{"speaker": "Bo", "dia_id": "D10:1", "text": "Last"}],
            "session_2_date_time": "1:56 pm on 8 May, 2023",
            "session_2": [
                {"speaker": "Ann", "dia_id": "D2:1", "text": "Look!", "blip_caption": "a red kite"},
                {"speaker": "Bo", "dia_id": "D2:2", "text": "Lovely"},
            ],
            # A date without a session stands in the real data, too.
            "session_11_date_time": "1:00 pm on 9 May, 2023",
        },
        "qa": [
            {"question": "Both?", "category": 1, "evidence": ["D2:1; D:10:1", "D7:7"]},
            {"question": "None?", "category": 5, "evidence": ["D7:7"]},
            {"question": "Empty?", "category": 3, "evidence": []},
        ],
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("D1:3", [(1, 3)]),
        ("D:11:26", [(11, 26)]),
        ("D8:6; D9:17", [(8, 6), (9, 17)]),
        ("D9:1 D4:4 D4:6", [(9, 1), (4, 4), (4, 6)]),
        ("D", []),
        ("", []),
    ],
)
def test_every_turn_named_in_an_evidence_text_is_found(text, expected):
    assert list(parse_evidence(text)) == expected


def test_session_dates_are_read_as_utc():
    assert parse_session_time("12:06 am on 2 January, 2024") == datetime(
        2024, 1, 2, 0, 6, tzinfo=UTC
    )
    with pytest.raises(DataFault, match="yesterday"):
        parse_session_time("yesterday")


def test_turns_come_in_the_order_of_their_sessions_numbers():
    turns = parse_dialogue(sample()).turns
    assert [turn.dia_id for turn in turns] == [(2, 1), (2, 2), (10, 1)]
    assert [turn.role for turn in turns] == ["user", "assistant", "assistant"]
    assert turns[0].created_at == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)


def test_a_shared_picture_is_stored_as_its_caption_in_brackets():
    first, second, _ = parse_dialogue(sample()).turns
    assert first.content == "Look! [a red kite]"
    assert second.content == "Lovely"


def test_only_questions_with_evidence_that_exists_count():
    (question,) = parse_dialogue(sample()).questions
    assert question.text == "Both?"
    assert question.gold == {DiaId(2, 1), DiaId(10, 1)}


def test_a_file_that_is_not_the_data_set_is_named_as_such(tmp_path: Path):
    path = tmp_path / "data.json"
    with pytest.raises(DataFault, match="No such file"):
        load(path)
    for text in ("{", "{}", "[]", "[1]", '[{"qa": []}]'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataFault):
            load(path)
    path.write_text(json.dumps([sample()]), encoding="utf-8")
    assert [dialogue.name for dialogue in load(path)] == ["conv-1"]


def test_recall_is_the_share_of_the_gold_among_the_first_k():
    ranking, gold = [9, 1, 8, 2, 3], {1, 2, 3, 4}
    assert recall_at(ranking, gold, 1) == 0
    assert recall_at(ranking, gold, 2) == 0.25
    assert recall_at(ranking, gold, 5) == 0.75
    with pytest.raises(ValueError, match="not defined"):
        recall_at(ranking, frozenset(), 5)


def test_reciprocal_rank_looks_at_the_first_gold_hit_only():
    assert reciprocal_rank([7, 5, 6], {5, 6}) == 0.5
    assert reciprocal_rank([7, 5, 6], {1}) == 0
    assert reciprocal_rank([], {1}) == 0


@given(RANKINGS, GOLD)
def test_recall_never_falls_with_more_hits_and_stays_a_share(ranking, gold):
    shares = [recall_at(ranking, gold, k) for k in range(len(ranking) + 1)]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    assert (reciprocal_rank(ranking, gold) > 0) == (shares[-1] > 0)


def test_quality_is_the_mean_over_questions():
    graded = quality([([1, 2], {1}), ([3, 4], {5}), ([6, 7], {7, 8})])
    assert graded.questions == 3
    assert graded.recall_at_5 == pytest.approx(1.5 / 3)
    assert graded.mrr == pytest.approx((1 + 0 + 0.5) / 3)
    with pytest.raises(ValueError, match="no questions"):
        quality([])


def test_percentiles_are_interpolated_between_neighbours():
    assert percentile([4, 1, 3, 2], 0) == 1
    assert percentile([4, 1, 3, 2], 0.5) == 2.5
    assert percentile([4, 1, 3, 2], 1) == 4
    assert percentile([7], 0.95) == 7
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 0.5)


@given(st.lists(st.floats(0, 1_000), min_size=1, max_size=50), st.floats(0, 1))
def test_a_percentile_lies_between_the_extremes(values, frac):
    assert min(values) <= percentile(values, frac) <= max(values)


def test_latency_is_told_in_milliseconds():
    latency = Latency.of([0.001, 0.002, 0.003])
    assert latency.as_dict() == {"calls": 3, "p50_ms": 2.0, "p95_ms": 2.9, "p99_ms": 2.98}


def test_made_up_texts_are_of_natural_length_and_all_different():
    rng = random.Random(1)
    made = [memory(rng) for _ in range(500)]
    assert len(set(made)) == len(made)
    assert all(MIN_WORDS <= len(text.split()) <= MAX_WORDS for text in made)
    assert len({word for text in made for word in text.split()}) > 1_000


def test_the_same_seed_makes_the_same_texts():
    one, two = random.Random(5), random.Random(5)
    assert [memory(one), query(one)] == [memory(two), query(two)]


def test_the_verdict_is_on_what_remains_without_floor_and_embedding():
    ms = {"refused": 0.5, "floor": 1, "search": 8, "store": 12, "embed_query": 3, "embed_text": 4}
    row = latency.Row.of(10_000, {name: [value / 1_000] for name, value in ms.items()})
    search, store = latency.verdicts([row])
    assert search.endswith("4.00 ms, goal 5 ms: met")
    assert store.endswith("7.00 ms, goal 6 ms: MISSED")
    assert row.as_dict()["tool_ms"] == 0.5


def test_there_is_no_verdict_without_the_size_of_the_goals():
    ms = {name: [0.001] for name in latency.MEASURES.values()}
    (line,) = latency.verdicts([latency.Row.of(100, ms)])
    assert line.startswith("no verdict")
