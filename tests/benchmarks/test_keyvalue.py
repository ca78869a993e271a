"""The pairs of `keyvalue.py`, the loop that follows them, and both with a real server."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import keyvalue
from benchmarks.keyvalue import LEVELS, PAIRS, Asked, PairSet, Question, follow, make_set


def search_in(pairs: PairSet, query: str) -> list[str]:
    """Return what has the query in it, the pairs of which it is the value first."""
    found = [f"{key}: {value}" for key, value in pairs.pairs if query in {key, value}]
    return sorted(found, key=lambda text: text.startswith(query))


def test_a_set_has_chains_of_every_level_and_each_key_once():
    pairs = make_set(random.Random(1), PAIRS, 5)
    held = dict(pairs.pairs)
    assert len(held) == len(pairs.pairs) == PAIRS
    assert [question.level for question in pairs.questions] == [
        level for level in LEVELS for _ in range(5)
    ]
    for question in pairs.questions:
        value, keys = question.key, -1
        while value in held:
            value, keys = held[value], keys + 1
        assert (value, keys) == (question.answer, question.level)
    assert make_set(random.Random(1), PAIRS, 5) == pairs
    with pytest.raises(ValueError, match="need 150 pairs"):
        make_set(random.Random(1), PAIRS, 10)


def test_the_loop_follows_each_answer_to_the_end():
    pairs = make_set(random.Random(2), PAIRS, 5)
    for question in pairs.questions:
        asked = Asked()
        assert follow(lambda query: search_in(pairs, query), question, asked) == question.answer
        assert asked == Asked(
            searches=question.level + 2, keys=question.level + 1, first=question.level + 1
        )


@pytest.mark.parametrize(
    "found", [[], ["x: a"], ["aa: b", "xa: b"], ["a: b", "b: a"]], ids=" ".join
)
def test_the_loop_ends_where_it_finds_no_pair_or_goes_in_circles(found: Sequence[str]):
    asked = Asked()
    assert follow(lambda _: found, Question(1, "a", "z"), asked) == "a"
    assert asked.searches == (keyvalue.MAX_SEARCHES if asked.keys else 1)


@pytest.mark.slow
def test_a_real_server_answers_every_question(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    # By words alone: an exact search must not need the model.
    monkeypatch.setenv("MCP_MEMORY_OFFLINE", "1")
    monkeypatch.setenv("MCP_MEMORY_CACHE_DIR", str(cache_dir))
    assert keyvalue.main(["--samples", "3", "--sets", "1", "--mode", "lexical"]) == 0
    assert "every level: met" in capsys.readouterr().out


def test_a_wrong_answer_is_no_success():
    right, wrong = Asked(questions=2, right=2), Asked(questions=2, right=1)
    assert keyvalue.verdict(keyvalue.Run({0: right})) == "met"
    assert keyvalue.verdict(keyvalue.Run({0: right, 1: wrong})) == "missed: 1 wrong answers"


def test_more_samples_than_the_pairs_have_room_for_are_refused(capsys: pytest.CaptureFixture[str]):
    assert keyvalue.main(["--samples", "100", "--sets", "1"]) == 2
    assert "need 1500 pairs" in capsys.readouterr().err
