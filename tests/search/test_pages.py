"""Pages of one result stay in step while documents come and go."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from fakes import HashEmbedder

from mcp_memory.search.index import Order, Orders, SearchIndex
from mcp_memory.search.queries import Filter, Query

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)
embedder = HashEmbedder(dimension=32)


def put(index, key, text, recorded=MOMENT):
    index.add(key, text, when=MOMENT, recorded=recorded)
    index.add_vectors(key, [(0, len(text))], embedder.embed_passages([text]))


def page(index, offset, *, semantic):
    prepared = index.prepare(Query("green tea", MOMENT), Filter(as_of=MOMENT))
    vector = embedder.embed_query("green tea") if semantic else None
    return index.search(prepared, vector, offset=offset, limit=4)


@pytest.mark.parametrize("semantic", [True, False])
@pytest.mark.parametrize("pinned", [3, 10, 1_000])
def test_every_page_continues_where_the_last_one_ended(semantic, pinned):
    index: SearchIndex[int | str] = SearchIndex(pinned=pinned)
    for number in range(30):
        put(index, number, "tea " * (number % 5 + 1) + "green " * (number % 3) + f"cup{number}")
    ranking = page(index, 0, semantic=semantic)
    shown = [found.key for found in ranking.found]
    seen, gone = list(shown), {shown[1], next(n for n in range(30) if n not in shown)}
    for key in gone:
        index.remove(key)
    if pinned == 1_000:
        # So many keep their places that nothing which is written moves them.
        for number in range(20):
            put(index, f"new {number}", "green tea " * 3, LATER)
    while ranking.found:
        ranking = page(index, ranking.found[-1].place + 1, semantic=semantic)
        assert ranking.total == 30
        seen += [found.key for found in ranking.found]
    assert sorted(seen) == [n for n in range(30) if n in shown or n not in gone]


def test_orders_that_were_used_longest_ago_are_dropped():
    orders = Orders(most=2)
    kept = [Order(documents=None, scores=None, total=n) for n in range(3)]  # type: ignore[arg-type]  # unread
    orders.add("a", kept[0])
    orders.add("b", kept[1])
    assert orders.get("a") is kept[0]
    orders.add("c", kept[2])
    assert orders.get("b") is None
    assert (orders.get("a"), orders.get("c")) == (kept[0], kept[2])
