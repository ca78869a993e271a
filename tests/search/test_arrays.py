"""Choosing the best of many scores."""

import numpy as np
import pytest

from mcp_memory.search.arrays import POSITIVE, best


def by_sorting(scores, limit):
    """The plain way: best first, of equals the later one, no -inf."""
    order = sorted(range(len(scores)), key=lambda at: (-scores[at], -at))
    return [at for at in order if scores[at] > -np.inf][:limit]


@pytest.mark.parametrize("count", [0, 1, 63, 500, 16_384, 20_001])
@pytest.mark.parametrize("limit", [1, 10, 200])
def test_the_same_are_chosen_as_by_sorting_all(count, limit):
    generator = np.random.default_rng(count + limit)
    scores = generator.standard_normal(count).astype(np.float32)
    assert best(scores, limit).tolist() == by_sorting(scores, limit)


@pytest.mark.parametrize("count", [700, 20_000])
def test_of_equal_scores_the_later_ones_are_chosen(count):
    scores = np.zeros(count, dtype=np.float32)
    scores[[5, 9]] = 1
    assert best(scores, 4).tolist() == [9, 5, count - 1, count - 2]


@pytest.mark.parametrize("count", [700, 20_000])
def test_what_is_no_candidate_is_never_chosen(count):
    scores = np.full(count, -np.inf, dtype=np.float32)
    scores[[3, 400]] = [-7, -8]
    assert best(scores, 100).tolist() == [3, 400]


def test_many_equals_among_many_blocks_are_cut_to_the_limit():
    scores = np.random.default_rng(2).integers(0, 3, 50_000).astype(np.float32)
    assert best(scores, 300).tolist() == by_sorting(scores, 300)


def test_a_limit_of_nothing_chooses_nothing():
    assert best(np.ones(5, dtype=np.float32), 0).tolist() == []


@pytest.mark.parametrize("count", [700, 20_000])
def test_what_is_below_the_least_is_never_chosen(count):
    scores = np.zeros(count, dtype=np.float32)
    scores[[3, 400]] = [7, 8]
    assert best(scores, 100, least=POSITIVE).tolist() == [400, 3]
