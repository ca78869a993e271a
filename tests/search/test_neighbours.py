"""What stands around a text is weighed as if it were one text with it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_memory.search import lexical
from mcp_memory.search.arrays import NONE
from mcp_memory.search.lexical import K1, B, LexicalIndex
from mcp_memory.search.neighbours import SITTING_SECONDS, Neighbours

words = st.sampled_from(["tea", "cup", "咖啡"])
turns = st.lists(
    st.tuples(
        st.lists(words, max_size=4),
        st.sampled_from([None, "a", "b"]),
        st.sampled_from([0.0, 60.0, 2 * SITTING_SECONDS]),
    ),
    max_size=14,
)


def windows(said, steps):
    """Give of each turn the turns up to so many places before and after it in its sitting."""
    places: dict[str, list[int]] = {}
    around = []
    for number, (_, thread, _) in enumerate(said):
        if thread is not None:
            places.setdefault(thread, []).append(number)
    for number, (_, thread, _) in enumerate(said):
        found = [number]
        for side in (-1, 1):
            at = number
            for _ in range(steps if thread is not None else 0):
                line = places[thread]
                place = line.index(at) + side
                if not 0 <= place < len(line):
                    break
                if abs(said[line[place]][2] - said[at][2]) > SITTING_SECONDS:
                    break
                at = line[place]
                found.append(at)
        around.append(found)
    return around


def expected(said, query, steps):
    around = windows(said, steps)
    total = len(said)
    own = max(sum(len(turn[0]) for turn in said) / total, 1.0)
    average = own * sum(map(len, around)) / total
    scores = []
    for window in around:
        score = 0.0
        length = sum(len(said[at][0]) for at in window)
        for term in query:
            having = sum(term in turn[0] for turn in said)
            idf = np.log1p((total - having + 0.5) / (having + 0.5))
            count = sum(said[at][0].count(term) for at in window)
            norm = K1 * (1 - B + B * length / average)
            score += idf * count * (K1 + 1) / (count + norm) if count else 0.0
        scores.append(score)
    return scores


def index_of(said, asked_after=()):
    index, neighbours = LexicalIndex(), Neighbours()
    for number, (terms, thread, when) in enumerate(said):
        index.add(terms)
        neighbours.add(thread, when)
        if number in asked_after:
            index.scores_around(index.idf(["tea"]), neighbours)
    return index, neighbours


@given(turns, st.lists(words, unique=True), st.sets(st.integers(0, 13)), st.booleans())
def test_windows_score_as_if_each_were_one_text(said, query, asked_after, common):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lexical, "COMMON_PART", 1_000 if common else 0)
        index, neighbours = index_of(said, asked_after)
        weighed = index.scores_around(index.idf(query), neighbours)
        again = index.scores_around(index.idf(query), neighbours)
    if not neighbours.any:
        assert weighed.three is None
        return
    for scores, steps in ((weighed.three, 1), (weighed.five, 2)):
        assert scores.tolist() == pytest.approx(expected(said, query, steps), rel=1e-4)
    assert np.array_equal(weighed.three, again.three)


@given(turns)
def test_restored_neighbours_are_those_that_were_added(said):
    _, added = index_of(said)
    names, threads = added.threads
    taken = Neighbours()
    taken.restore(names, threads, np.array([when for _, _, when in said]))
    for more in [("a", 0.0), ("b", 60.0), (None, 0.0)]:
        for one in (added, taken):
            one.add(*more)
    assert taken.links_before.tolist() == added.links_before.tolist()
    assert taken.links_after.tolist() == added.links_after.tolist()
    assert (taken.any, taken.sizes) == (added.any, added.sizes)


def test_what_belongs_to_nothing_has_no_neighbour():
    _, neighbours = index_of([(["tea"], None, 0.0), (["cup"], None, 0.0)])
    assert neighbours.links_before.tolist() == [NONE, NONE]
