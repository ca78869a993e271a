"""An index without its vectors can be copied, stored and restored."""

from datetime import UTC, datetime, timedelta

import pytest

from mcp_memory.search.index import SearchIndex
from mcp_memory.search.kept import KeptIndex
from mcp_memory.search.queries import Filter, Query

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def index():
    index: SearchIndex[str] = SearchIndex()
    for number in range(6):
        index.add(
            f"k{number}",
            f"kettle {number}",
            when=MOMENT + timedelta(days=number),
            recorded=MOMENT + timedelta(hours=number, microseconds=number),
            labels=("tag:even",) if number % 2 == 0 else (),
            speaker="Ana" if number == 3 else None,
        )
    index.remove("k1")
    index.add("k2", "teapot 2", when=MOMENT, recorded=MOMENT + timedelta(days=1))
    return index


def kept_of(index, keys):
    copied = index.copy()
    return copied.kept(keys, copied.words())


def again(index, keys):
    taken: SearchIndex[str] = SearchIndex()
    taken.restore(KeptIndex.of(kept_of(index, keys).arrays()), {})
    return taken


def found(index, query="kettle", **where):
    prepared = index.prepare(Query(query, MOMENT, frozenset(), None), Filter(**where))
    return {hit.key for hit in index.search(prepared, None, offset=0, limit=50).found}


KEYS = ["k0", "k3", "k4", "k5", "k2"]


def test_it_finds_what_the_index_had_by_words_labels_and_times(index):
    taken = again(index, KEYS)
    for one in (index, taken):
        assert len(one) == 5
        assert found(one) == {"k0", "k3", "k4", "k5"}
        assert found(one, "teapot") == {"k2"}
        assert found(one, labels=(("tag:even",),)) == {"k0", "k4"}
        assert found(one, start=MOMENT + timedelta(days=4)) == {"k4", "k5"}
        assert found(one, as_of=MOMENT + timedelta(hours=4, microseconds=4)) == {"k0", "k3", "k4"}
        assert list(one.speakers) == ["Ana"]


def test_a_restored_index_can_grow_and_change(index):
    taken = again(index, KEYS)
    taken.add("k9", "kettle 9", when=MOMENT, recorded=MOMENT, speaker="Ana", labels=("tag:even",))
    taken.remove("k0")
    assert found(taken) == {"k3", "k4", "k5", "k9"}
    assert found(taken, labels=(("tag:even",),)) == {"k4", "k9"}
    assert taken.changes == 5 + 2


def test_some_can_be_left_out_and_what_is_left_is_the_same_again(index):
    kept = kept_of(index, KEYS)
    assert kept.without({"elsewhere"}) is kept
    less = kept.without({"k0", "k3", "elsewhere"})
    assert less.keys == ["k4", "k5", "k2"]
    taken: SearchIndex[str] = SearchIndex()
    taken.restore(less, {})
    assert found(taken) == {"k4", "k5"}
    assert list(taken.speakers) == []


@pytest.mark.parametrize("keys", [KEYS[1:], [*KEYS, "k1"], [*KEYS[1:], "k1"]])
def test_a_copy_of_other_documents_is_refused(index, keys):
    with pytest.raises(ValueError, match="document"):
        kept_of(index, keys)


def test_an_empty_index_can_be_copied():
    assert len(again(SearchIndex(), [])) == 0
