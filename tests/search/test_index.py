"""The search index: filters first, then the ranking, then the page."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from fakes import HashEmbedder
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_memory.search.index import SearchIndex
from mcp_memory.search.lexical import PASSAGE_CHARS, PASSAGE_OVERLAP_CHARS, passages
from mcp_memory.search.queries import Filter, Query

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
EVERYTHING = Filter()
embedder = HashEmbedder(dimension=32)


def put(index, key, text, *, day=0, recorded=0, labels=(), prefix="", embedded=False, **more):
    index.add(
        key,
        text,
        when=MOMENT + timedelta(days=day),
        recorded=MOMENT + timedelta(seconds=recorded),
        labels=labels,
        prefix=prefix,
        **more,
    )
    if embedded:
        embed(index, key, text)


def embed(index, key, text):
    ranges = embedder.chunk(text)
    index.add_vectors(key, ranges, embedder.embed_passages([text[a:b] for a, b in ranges]))


def ask(
    index,
    query,
    where=EVERYTHING,
    *,
    vector=None,
    offset=0,
    limit=50,
    lexical=True,
    speakers=(),
    closeness=None,
):
    question = Query(query, MOMENT, frozenset(speakers), closeness)
    prepared = index.prepare(question, where, lexical=lexical)
    return index.search(prepared, vector, offset=offset, limit=limit)


def keys(ranking):
    return [found.key for found in ranking.found]


@pytest.fixture
def index():
    return SearchIndex()


@pytest.fixture
def teas(index):
    for number, (text, labels) in enumerate(
        [
            ("green tea", ("kind:fact", "tag:tea")),
            ("black tea", ("kind:fact", "tag:work")),
            ("tea with milk", ("kind:project", "tag:tea", "tag:work")),
            ("coffee", ("kind:fact", "tag:coffee")),
        ]
    ):
        put(index, number, text, day=number, recorded=number, labels=labels, embedded=True)
    return index


@pytest.mark.parametrize("vector", [None, np.eye(1, 32, dtype=np.float32)[0]])
def test_an_empty_index_finds_nothing(index, vector):
    ranking = ask(index, "tea", vector=vector)
    assert (ranking.found, ranking.total) == ((), 0)
    assert len(index) == 0
    assert index.nearest(np.eye(1, 32, dtype=np.float32)[0], at_least=0, limit=3) == []


def test_a_document_is_found_as_soon_as_it_is_added(index):
    put(index, "a", "green tea")
    assert keys(ask(index, "tea")) == ["a"]
    put(index, "b", "tea tea")
    assert set(keys(ask(index, "tea"))) == {"a", "b"}
    assert "a" in index
    assert len(index) == 2


def test_a_chinese_word_is_found_in_another_that_shares_a_character(index):
    put(index, "film", "这是一部影片")
    put(index, "book", "这是一本小说")
    assert keys(ask(index, "电影")) == ["film"]
    put(index, "cinema", "他去看电影")
    assert keys(ask(index, "电影"))[0] == "cinema"


def test_what_a_term_counts_in_a_query_is_beside_how_rare_it_is(index):
    put(index, "cat", "我的猫和 teapot")
    put(index, "dog", "狗")
    idf = index.prepare(Query("我的猫在哪 teapot", MOMENT), EVERYTHING).words.idf
    assert idf["的猫"] == pytest.approx(idf["teapot"] / 2)


def test_by_words_alone_only_what_has_one_of_them_counts(teas):
    ranking = ask(teas, "green tea")
    assert keys(ranking)[0] == 0
    assert set(keys(ranking)) == {0, 1, 2}
    assert ranking.total == 3


def test_with_vectors_every_document_is_a_candidate(teas):
    ranking = ask(teas, "green tea", vector=embedder.embed_query("green tea"))
    assert keys(ranking)[0] == 0
    assert 0.5 < ranking.found[0].score <= 1
    assert ranking.total == 4


def test_a_query_without_words_finds_nothing_by_words(teas):
    assert ask(teas, "?!").total == 0


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (Filter(labels=(("tag:tea",),)), {0, 2}),
        (Filter(labels=(("tag:tea", "tag:work"),)), {0, 1, 2}),
        (Filter(labels=(("tag:tea",), ("tag:work",))), {2}),
        (Filter(labels=(("kind:fact",), ("tag:tea", "tag:coffee"))), {0, 3}),
        (Filter(labels=(("tag:nothing",),)), set()),
        (Filter(start=MOMENT + timedelta(days=1)), {1, 2, 3}),
        (Filter(end=MOMENT + timedelta(days=2)), {0, 1}),
        (Filter(start=MOMENT + timedelta(days=1), end=MOMENT + timedelta(days=2)), {1}),
        (Filter(as_of=MOMENT + timedelta(seconds=1)), {0, 1}),
        (Filter(as_of=MOMENT - timedelta(seconds=1)), set()),
    ],
)
def test_only_what_passes_the_filter_is_found_and_counted(teas, where, found):
    ranking = ask(teas, "tea", where, vector=embedder.embed_query("tea"))
    assert set(keys(ranking)) == found
    assert ranking.total == len(found)
    words = ask(teas, "tea", where)
    assert set(keys(words)) == found - {3}
    assert words.total == len(found - {3})


def test_a_filter_applies_before_the_limit(index):
    for number in range(300):
        put(index, number, "tea " * 5, labels=("common",), embedded=True)
    put(index, "wanted", "a pot of tea that is a longer text", labels=("rare",), embedded=True)
    where = Filter(labels=(("rare",),))
    ranking = ask(index, "tea", where, vector=embedder.embed_query("tea"), limit=1)
    assert (keys(ranking), ranking.total) == (["wanted"], 1)
    assert keys(ask(index, "tea", where, limit=1)) == ["wanted"]


def test_what_is_removed_is_found_no_more_and_the_rest_is(teas):
    teas.remove(1)
    teas.remove(1)
    teas.remove("never there")
    ranking = ask(teas, "tea", vector=embedder.embed_query("black tea"))
    assert set(keys(ranking)) == {0, 2, 3}
    assert ranking.total == 3
    assert 1 not in teas
    assert len(teas) == 3


def test_a_key_that_is_added_again_is_replaced_with_all_it_had(teas):
    put(teas, 0, "a kettle", day=9, labels=("tag:kitchen",))
    assert 0 not in keys(ask(teas, "green"))
    assert keys(ask(teas, "kettle")) == [0]
    assert 0 not in keys(ask(teas, "kettle", Filter(labels=(("tag:tea",),))))
    assert keys(ask(teas, "kettle", Filter(labels=(("tag:kitchen",),)))) == [0]
    assert keys(ask(teas, "kettle", Filter(end=MOMENT + timedelta(days=5)))) == []
    assert 0 not in keys(ask(teas, "", vector=embedder.embed_query("green tea"), lexical=False))
    assert len(teas) == 4


def test_a_prefix_finds_a_document_but_is_no_part_of_its_range(index):
    put(index, "a", "green tea", prefix="Marta")
    (found,) = ask(index, "marta").found
    assert (found.start, found.end) == (0, 9)


def test_the_passage_that_has_the_words_is_the_one_that_is_shown(index):
    text = "green tea. " + "filler words. " * 400 + "The last sentence is about kettles."
    put(index, "a", text)
    (found,) = ask(index, "kettle").found
    assert "kettles" in text[found.start : found.end]
    (found,) = ask(index, "green").found
    assert text[found.start : found.end].startswith("green tea")
    assert found.end - found.start <= PASSAGE_CHARS


def test_the_vector_that_is_nearest_tells_the_passage_of_a_long_document(index):
    text = " ".join(f"word{number}" for number in range(200)) + " kettle pot leaf"
    put(index, "a", text, embedded=True)
    (found,) = ask(index, "", vector=embedder.embed_query("kettle pot leaf"), lexical=False).found
    assert text[found.start : found.end].endswith("kettle pot leaf")


def test_vectors_may_come_later_and_for_some_documents_only(index):
    put(index, "a", "green tea")
    put(index, "b", "red wine")
    vector = embedder.embed_query("wine")
    assert ask(index, "grapes", vector=vector).total == 0
    embed(index, "b", "red wine")
    assert keys(ask(index, "grapes", vector=vector)) == ["b"]
    assert set(keys(ask(index, "tea", vector=vector))) == {"a", "b"}


def test_the_only_text_with_the_word_is_first_while_its_vectors_are_still_to_come(index):
    for number in range(5):
        put(index, number, f"something else {number}", embedded=True)
    put(index, "wanted", "the kettle costs 30 euros")
    ranking = ask(index, "kettle", vector=embedder.embed_query("kettle"))
    assert keys(ranking)[0] == "wanted"


def test_vectors_of_an_unknown_key_are_ignored(index):
    embed(index, "gone", "green tea")
    assert ask(index, "tea", vector=embedder.embed_query("tea")).total == 0


@pytest.mark.parametrize("mode", ["words", "vectors", "both"])
@pytest.mark.parametrize("page", [7, 50, 200])
def test_paging_through_everything_gives_each_document_once(index, mode, page):
    count = 437
    for number in range(count):
        text = "tea " * (number % 9 + 1) + f"leaf{number % 31}"
        # The vectors of some are still to come.
        put(index, number, text, embedded=mode != "words" and number % 5 > 0)
    vector = None if mode == "words" else embedder.embed_query("tea leaf3")
    lexical = mode != "vectors"
    whole = ask(index, "tea leaf3", vector=vector, limit=10_000, lexical=lexical)
    seen = []
    for offset in range(0, whole.total, page):
        ranking = ask(index, "tea leaf3", vector=vector, offset=offset, limit=page, lexical=lexical)
        assert ranking.total == whole.total
        seen += keys(ranking)
    expected = set(range(count)) if lexical else {n for n in range(count) if n % 5}
    assert len(seen) == len(expected)
    assert set(seen) == expected
    assert seen == keys(whole)


def test_what_lies_deeper_than_the_fusion_never_scores_higher(index):
    for number in range(250):
        put(index, number, "tea " * (number % 7 + 1), embedded=True)
    scores = [f.score for f in ask(index, "tea", limit=10_000).found]
    assert scores == sorted(scores, reverse=True)


def test_a_page_behind_the_end_is_empty_but_counts(teas):
    ranking = ask(teas, "tea", offset=3)
    assert (ranking.found, ranking.total) == ((), 3)


@pytest.mark.parametrize("count", [5, 201, 1_000])
def test_of_equal_documents_the_newer_is_first(index, count):
    for number in range(count):
        put(index, number, "tea tea" if number % 3 == 0 else "tea milk")
    better = [number for number in range(count) if number % 3 == 0]
    equal = [number for number in range(count) if number % 3]
    assert keys(ask(index, "tea", limit=200)) == [*better[::-1], *equal[::-1]][:200]


def test_the_nearest_are_those_of_a_cosine_at_least(index):
    put(index, "same", "green tea with milk", embedded=True)
    put(index, "near", "green tea with milk today", embedded=True)
    put(index, "far", "a bicycle", embedded=True)
    vector = embedder.embed_query("green tea with milk")
    nearest = index.nearest(vector, at_least=0.8, limit=5)
    assert [found.key for found in nearest] == ["same", "near"]
    assert nearest[0].score == pytest.approx(1, abs=1e-5)
    assert [found.key for found in index.nearest(vector, at_least=0.8, limit=1)] == ["same"]
    index.remove("same")
    assert [found.key for found in index.nearest(vector, at_least=0.8, limit=1)] == ["near"]


WORDS = ["tea", "milk", "kettle", "shanghai", "咖啡", "ERR-42"]
changes = st.lists(
    st.tuples(
        st.sampled_from(["put", "remove"]),
        st.integers(0, 6),
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join),
        st.sets(st.sampled_from(["x", "y", "z"])),
        st.integers(0, 5),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(changes, st.sampled_from(WORDS), st.sets(st.sampled_from(["x", "y"])), st.integers(0, 6))
def test_after_any_changes_words_find_what_a_scan_finds(steps, word, group, end):
    index: SearchIndex[int] = SearchIndex()
    model = {}
    for action, key, text, labels, day in steps:
        if action == "put":
            put(index, key, text, day=day, labels=labels, embedded=day % 2 == 0)
            model[key] = (text, labels, day)
        else:
            index.remove(key)
            model.pop(key, None)
    where = Filter((tuple(group),) if group else (), end=MOMENT + timedelta(days=end))
    expected = {
        key
        for key, (text, labels, day) in model.items()
        if word in text and (not group or labels & group) and day < end
    }
    ranking = ask(index, word, where)
    assert set(keys(ranking)) == expected
    assert ranking.total == len(expected)
    assert len(index) == len(model)
    vectors = ask(index, word, where, vector=embedder.embed_query(word), lexical=False)
    assert set(keys(vectors)) == {
        key
        for key, (_, labels, day) in model.items()
        if day % 2 == 0 and day < end and (not group or labels & group)
    }


texts = st.lists(st.sampled_from(["word", " ", "\n", "咖啡", "x" * 900]), max_size=40).map("".join)


@given(texts)
def test_passages_cover_the_text_without_a_gap_and_overlap(text):
    ranges = passages(text)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == len(text)
    for (start, end), (next_start, next_end) in pairwise(ranges):
        assert next_start == end - PASSAGE_OVERLAP_CHARS
        assert start < next_start < end < next_end
    assert all(end - start <= PASSAGE_CHARS for start, end in ranges)


def test_a_word_at_the_cut_of_two_passages_is_whole_in_one_of_them():
    text = "x" * (PASSAGE_CHARS - 3) + "kettle" + "y" * PASSAGE_CHARS
    assert any("kettle" in text[start:end] for start, end in passages(text))


def test_what_surrounds_a_long_message_counts_the_less_the_longer_it_is(index, monkeypatch):
    for number in range(30):
        put(index, number, f"something else {number}", thread=f"other {number}")
    text = "words of no account " * 150
    put(index, "question", "which kettle was it", thread="main")
    put(index, "answer", text, thread="main")

    def near():
        found = {item.key: item for item in ask(index, "kettle words").found}
        return {key: found[key].signals["words within 3"] for key in ("question", "answer")}

    scaled = near()
    monkeypatch.setattr("mcp_memory.search.fusion.WHOLE_CHARS", 10**9)
    whole = near()
    assert scaled["question"] == whole["question"]
    assert scaled["answer"] == pytest.approx(whole["answer"] * 600 / len(text))
