"""Reciprocal rank fusion against a plain dictionary."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_memory.search.fusion import K, reciprocal_rank_fusion

rankings = st.lists(st.lists(st.integers(0, 30), unique=True, max_size=15), max_size=4)


def fuse(*ranked):
    items, scores = reciprocal_rank_fusion([np.array(items, dtype=np.intp) for items in ranked])
    return items.tolist(), scores.tolist()


def naive(ranked):
    scores: dict[int, float] = {}
    for items in ranked:
        for rank, item in enumerate(items, start=1):
            scores[item] = scores.get(item, 0.0) + 1 / (K + rank)
    return {item: score * (K + 1) / len(ranked) for item, score in scores.items()}


@given(rankings)
def test_scores_are_those_of_the_plain_sum(ranked):
    items, scores = fuse(*ranked)
    assert dict(zip(items, scores, strict=True)) == pytest.approx(naive(ranked))


@given(rankings)
def test_the_best_stand_first_and_no_item_twice(ranked):
    items, scores = fuse(*ranked)
    assert scores == sorted(scores, reverse=True)
    assert sorted(items) == sorted({item for ranking in ranked for item in ranking})
    assert all(0 < score <= 1 + 1e-9 for score in scores)


def test_what_is_first_everywhere_scores_one():
    assert fuse([4, 1], [4, 2], [4]) == ([4, 1, 2], pytest.approx([1, 11 / 36, 11 / 36]))


def test_of_equal_scores_the_lower_number_is_first():
    assert fuse([7, 3], [3, 7])[0] == [3, 7]


def test_what_both_rankings_have_beats_what_one_has_higher():
    assert fuse([1, 2, 3], [4, 3, 5])[0][0] == 3


@pytest.mark.parametrize("ranked", [(), ([],), ([], [])])
def test_nothing_ranked_is_nothing(ranked):
    assert fuse(*ranked) == ([], [])


def test_an_empty_ranking_halves_the_scores_of_the_other():
    assert fuse([2, 9], []) == ([2, 9], pytest.approx([0.5, 11 / 24]))
