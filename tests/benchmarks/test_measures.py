"""The arithmetic and the verdicts that a reader of the results relies on."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import clients, compare, keyvalue, latency, recall, scale
from benchmarks.harness import Texts
from benchmarks.keyvalue import LEVELS, PAIRS, Asked, PairSet, Question, follow, make_set
from benchmarks.loaders import Question as Asking
from benchmarks.metrics import Latency, percentile, plain, quality, recall_at, reciprocal_rank
from benchmarks.procfs import Usage
from benchmarks.texts import MAX_WORDS, MIN_WORDS, memory

RANKINGS = st.lists(st.integers(0, 40), unique=True, max_size=30)
GOLD = st.frozensets(st.integers(0, 40), min_size=1, max_size=6)


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


def test_a_latency_is_in_milliseconds():
    taken = Latency.of([0.001, 0.002, 0.003])
    assert plain(taken) == {"calls": 3, "p50_ms": 2.0, "p95_ms": 2.9, "p99_ms": 2.98}


def test_made_up_texts_are_of_natural_length_and_all_different():
    rng = random.Random(1)
    made = [memory(rng) for _ in range(500)]
    assert len(set(made)) == len(made)
    assert all(MIN_WORDS <= len(text.split()) <= MAX_WORDS for text in made)
    assert len({word for text in made for word in text.split()}) > 1_000


def test_the_same_seed_makes_the_same_texts_and_none_twice():
    one, two = Texts(), Texts()
    made = [*one.contents(300), *one.contents(300), *one.queries(300)]
    assert made == [*two.contents(300), *two.contents(300), *two.queries(300)]
    assert len(set(made)) == len(made)


def test_a_call_is_judged_by_what_remains_without_floor_and_embedding():
    ms = {"refused": 0.5, "floor": 1, "search": 8, "store": 12, "embed_query": 3, "embed_text": 4}
    row = latency.Row.of(10_000, {name: [value / 1_000] for name, value in ms.items()})
    search, store = latency.verdicts([row])
    assert search.endswith("4.00 ms, goal 5 ms: met")
    assert store.endswith("7.00 ms, goal 6 ms: MISSED")
    (line,) = latency.verdicts([latency.Row.of(100, {name: [0.001] for name in ms})])
    assert line.startswith("no verdict")


def question(kind: str, *gold: str, sessions: tuple[str, ...] = ()) -> Asking:
    return Asking("?", kind, frozenset(gold), frozenset(sessions))


def found(share: float, kind: str, of: int = 100) -> recall.Answers:
    right = round(share * of)
    return [(question(kind, "a"), ["a"] if number < right else []) for number in range(of)]


def test_turns_and_sessions_are_graded_by_their_own_gold():
    answers = [
        (question("x", "t1", sessions=("s1",)), ["t2", "t1"]),
        (question("y", sessions=("s1",)), ["s2", "s1"]),
    ]
    turns = recall.grade(answers, sessions=False)
    assert list(turns) == [recall.ALL, "x"]
    assert turns[recall.ALL].mrr == 0.5
    sessions = recall.grade(answers, sessions=True)
    assert sessions[recall.ALL].questions == 2
    assert sessions["y"].mrr == 0.5


def test_recall_has_a_goal_for_each_metric_and_for_multi_hop_questions():
    lines = recall.verdicts(found(0.86, "single-hop", 900) + found(0.53, "multi-hop", 100))
    # All hits are first, so that every metric is the same share: 82.7 % of all.
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["met", "met", "MISSED", "met", "met"]
    assert lines[2].startswith("R@20, all: 82.7 %")


def load(**changes: object) -> clients.Load:
    figures: dict[str, Any] = {
        "clients": 2,
        "seconds": 2.0,
        "store": Latency.of([0.02] * 10),
        "search": Latency.of([0.01] * 10),
        "refused": 0,
        "acknowledged": 10,
        "kept": 10,
        "total": 10,
        "shims": (Usage(12 * 1_024, 6 * 1_024, 5), Usage(15 * 1_024, 5 * 1_024, 5)),
        "owner": None,
    }
    return clients.Load(**{**figures, **changes})


def started(**ms: float) -> clients.Starts:
    kinds = {kind: Latency.of([value / 1_000]) for kind, value in ms.items()}
    return clients.Starts(kinds, {**kinds, "warm": Latency.of([ms["warm"] / 990])})


def trivial(view_ms: float) -> clients.Trivial:
    one = Latency.of([0.001])
    return clients.Trivial(Latency.of([view_ms / 1_000]), one, one, one)


def test_starts_and_trivial_calls_are_judged_by_the_bare_server_of_the_same_run():
    fast = clients.verdicts([load()], started(warm=23, cold=59, bare=400), trivial(0.9))
    assert all(line.endswith(" met") for line in fast)
    slow = clients.verdicts([load()], started(warm=23.9, cold=61, bare=400), trivial(1.1))
    assert [line.endswith("MISSED") for line in slow] == [
        False,
        False,
        True,
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "changes", [{"kept": 9}, {"total": 11}, {"total": 9, "kept": 9}, {"refused": 1}]
)
def test_a_load_is_whole_only_if_all_was_stored_and_is_there_once(changes):
    assert load().is_whole
    assert not load(**changes).is_whole


def test_the_largest_shim_counts():
    assert load().shim_mb == 15
    assert load().calls_per_second == 10
    large = load(shims=(Usage(17 * 1_024, 0, 5),))
    lines = clients.verdicts([load(), large], started(warm=1, cold=1, bare=100), trivial(0.9))
    assert lines[-1].endswith("MISSED")


def compared(this_ms: float, this_kb: int, *ratios: float) -> list[str]:
    other = compare.Memory(Usage(1_000, 900, 9), Usage(100, 90, 9))
    this = compare.Memory(Usage(this_kb, 900, 9), Usage(100, 90, 9))
    seconds = {"insert": {"this": [this_ms / 1_000] * 15, "other": [0.010] * 15}}
    pairs = [{"this": ratio, "other": 2.0} for ratio in ratios]
    return compare.verdicts(seconds, {"this": this, "other": other}, pairs)


def test_a_version_may_be_five_percent_slower_than_the_other_and_not_larger():
    assert all(line.endswith(": met") for line in compared(10.5, 1_000, 0.9, 0.8))
    missed = compared(10.6, 1_001, 0.9, 0.91)
    assert [line.endswith("MISSED") for line in missed] == [True, True, False, True]
    assert "in 1 of 2 pairs" in missed[-1]


def test_rounds_are_compared_one_by_one():
    block = compare.BLOCK_CALLS
    assert compare.by_round([1.0] * block + [3.0] * block, [2.0] * 2 * block) == [0.5, 1.5]


def test_agents_share_the_memories_where_each_has_enough():
    made = scale.cases([1_000, 10_000], 100)
    assert made == [scale.Case(1_000, 1), scale.Case(10_000, 1), scale.Case(10_000, 100)]


@pytest.mark.parametrize(("p50_ms", "ratio", "word"), [(3.0, 1.3, "met"), (3.01, 1.31, "MISSED")])
def test_searches_and_inserts_of_scale_have_their_goals(p50_ms, ratio, word):
    row = {"size": 10_000, "agents": 1, "search": {"p50_ms": p50_ms}}
    lines = scale.verdicts([row], {"inserts": 100, "ratio": ratio})
    assert [line.rsplit(" ", 1)[1] for line in lines] == [word, word]


def search_in(pairs: PairSet, query: str) -> list[str]:
    """Return what has the query in it, the pairs of which it is the value first."""
    there = [f"{key}: {value}" for key, value in pairs.pairs if query in {key, value}]
    return sorted(there, key=lambda text: text.startswith(query))


def test_a_set_of_pairs_has_chains_of_every_level_and_each_key_once():
    pairs = make_set(random.Random(1), PAIRS, 5)
    by_key = dict(pairs.pairs)
    assert len(by_key) == len(pairs.pairs) == PAIRS
    assert [one.level for one in pairs.questions] == [level for level in LEVELS for _ in range(5)]
    for one in pairs.questions:
        value, keys = one.key, -1
        while value in by_key:
            value, keys = by_key[value], keys + 1
        assert (value, keys) == (one.answer, one.level)
    with pytest.raises(ValueError, match="need 150 pairs"):
        make_set(random.Random(1), PAIRS, 10)


def test_the_loop_follows_each_answer_to_the_end():
    pairs = make_set(random.Random(2), PAIRS, 5)
    for one in pairs.questions:
        asked = Asked()
        assert follow(lambda query: search_in(pairs, query), one, asked) == one.answer
        steps = one.level + 1
        assert asked == Asked(searches=steps + 1, keys=steps, first=steps)


@pytest.mark.parametrize("hits", [[], ["x: a"], ["aa: b", "xa: b"], ["a: b", "b: a"]], ids=" ".join)
def test_the_loop_ends_where_it_finds_no_pair_or_goes_in_circles(hits):
    asked = Asked()
    assert follow(lambda _: hits, Question(1, "a", "z"), asked) == "a"
    assert asked.searches == (keyvalue.MAX_SEARCHES if asked.keys else 1)
