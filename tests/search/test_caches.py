"""Indexes within a budget of memory."""

from dataclasses import dataclass

import pytest

from mcp_memory.search.caches import MEASURED_EVERY, IndexCache


@dataclass
class Block:
    nbytes: int


def loaded(cache, *keys, size=10):
    for key in keys:
        cache.get(key, lambda: Block(size))


def held(cache, *keys):
    return [key for key in keys if key in cache]


def test_an_index_is_loaded_once():
    cache: IndexCache[str, Block] = IndexCache(100)
    first = cache.get("a", lambda: Block(10))
    assert cache.get("a", lambda: Block(10)) is first
    assert cache.state().loaded == 1


def test_the_one_used_longest_ago_leaves_first():
    cache: IndexCache[str, Block] = IndexCache(30)
    loaded(cache, "a", "b", "c", "a", "d")
    assert held(cache, "a", "b", "c", "d") == ["a", "c", "d"]
    assert cache.state().evicted == 1


def test_bringing_an_index_up_to_date_is_no_use_of_it():
    cache: IndexCache[str, Block] = IndexCache(20)
    loaded(cache, "a", "b")
    assert cache.peek("a") is not None
    assert cache.peek("z") is None
    loaded(cache, "c")
    assert held(cache, "a", "b", "c") == ["b", "c"]


def test_the_one_asked_for_stays_even_if_it_is_over_the_budget():
    cache: IndexCache[str, Block] = IndexCache(30)
    loaded(cache, "a", "b")
    loaded(cache, "big", size=1_000)
    assert held(cache, "a", "b", "big") == ["big"]
    assert cache.state().used_bytes == 1_000


def test_an_index_that_has_grown_makes_others_leave_when_it_is_used_on():
    cache: IndexCache[str, Block] = IndexCache(30)
    loaded(cache, "a", "b", "c")
    grown = cache.peek("c")
    grown.nbytes = 25
    loaded(cache, *"c" * MEASURED_EVERY)
    assert held(cache, "a", "b", "c") == ["c"]
    assert cache.state().used_bytes == 25


def test_an_index_that_could_not_be_loaded_is_not_cached():
    cache: IndexCache[str, Block] = IndexCache(10)

    def fails():
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        cache.get("a", fails)
    assert "a" not in cache
    assert cache.state().used_bytes == 0


def test_forgetting_gives_the_room_back():
    cache: IndexCache[str, Block] = IndexCache(30)
    loaded(cache, "a", "b", "c")
    cache.drop("a")
    cache.drop("a")
    assert cache.state().used_bytes == 20
    cache.clear()
    assert (cache.state().indexes, cache.state().used_bytes) == (0, 0)
    loaded(cache, "a")
    assert cache.state().used_bytes == 10


def test_a_budget_of_zero_leaves_room_for_the_last_index_alone():
    cache: IndexCache[str, Block] = IndexCache(0)
    loaded(cache, "a", "b")
    assert held(cache, "a", "b") == ["b"]
