"""BM25 against a plain implementation of its formula."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_memory.search import lexical, postings
from mcp_memory.search.lexical import K1, B, DocumentWords, LexicalIndex, read_long

words = st.sampled_from(["tea", "cup", "pot", "milk", "leaf", "咖啡"])
documents = st.lists(st.lists(words, max_size=12), max_size=12)
queries = st.lists(words | st.just("unknown"), unique=True, max_size=4)


def reference(rows, query):
    """Give the BM25 score of every row, from the formula and nothing else."""
    total = len(rows)
    average = max(sum(map(len, rows)) / total, 1.0) if total else 1.0
    scores = []
    for row in rows:
        score = 0.0
        for term in query:
            holding = sum(term in other for other in rows)
            idf = math.log(1 + (total - holding + 0.5) / (holding + 0.5))
            count = row.count(term)
            norm = K1 * (1 - B + B * len(row) / average)
            score += idf * count * (K1 + 1) / (count + norm) if count else 0.0
        scores.append(score)
    return scores


def scored(index, query):
    return index.scores(index.idf(query))


def index_of(rows):
    index = LexicalIndex()
    for row in rows:
        index.add(row)
    return index


@given(documents, queries)
def test_scores_are_those_of_the_formula(rows, query):
    index = index_of(rows)
    assert len(index) == len(rows)
    assert scored(index, query).tolist() == pytest.approx(reference(rows, query), rel=1e-4)


@given(documents, documents, queries)
def test_a_row_added_after_a_search_scores_as_if_it_had_been_there(rows, more, query):
    index = index_of(rows)
    scored(index, query)
    for row in more:
        index.add(row)
    assert np.array_equal(scored(index, query), scored(index_of(rows + more), query))


@given(documents, queries)
def test_only_rows_with_a_term_score_and_never_below_zero(rows, query):
    scores = scored(index_of(rows), query)
    assert [score > 0 for score in scores] == [bool(set(row) & set(query)) for row in rows]
    assert (scores >= 0).all()


def test_rows_are_numbered_as_they_come():
    index = LexicalIndex()
    assert [index.add(row) for row in (["tea"], [], ["tea", "cup"])] == [0, 1, 2]


def test_an_empty_index_scores_nothing():
    assert scored(LexicalIndex(), ["tea"]).shape == (0,)


def test_a_rare_word_is_worth_more_than_a_common_one():
    scores = scored(index_of([["tea", "rare"], ["tea", "milk"], ["tea", "cup"]]), ["tea", "rare"])
    assert scores[0] > scores[1]
    only_rare, only_common = (
        scored(index_of([["tea"], ["tea"], ["rare"]]), [word]).max() for word in ("rare", "tea")
    )
    assert only_rare > only_common > 0


def test_each_repetition_of_a_word_adds_less_to_its_score():
    rows = [["tea"] * count + ["milk"] * (10 - count) for count in range(1, 5)]
    scores = scored(index_of(rows), ["tea"]).tolist()
    gains = [after - before for before, after in pairwise(scores)]
    assert all(gain > 0 for gain in gains)
    assert gains == sorted(gains, reverse=True)


def test_of_two_texts_that_say_it_the_shorter_is_better():
    long, short = scored(index_of([["tea"] + ["milk"] * 20, ["tea", "milk"]]), ["tea"])
    assert short > long


LONG = " ".join(f"tea number{at} 咖啡 in pot {at % 300}." for at in range(2_000))
"""Of many passages; "tea" occurs more often than a byte counts."""


@pytest.mark.parametrize("prefix", ["", "home tea"])
@pytest.mark.parametrize("others", [0, 3])
def test_a_long_text_that_was_read_before_scores_as_if_it_had_just_been_added(
    monkeypatch, prefix, others
):
    monkeypatch.setattr(postings, "_READ_TERMS", 500)
    one, other = DocumentWords(), DocumentWords()
    for documents in (one, other):
        for at in range(others):
            documents.add(f"tea and cup {at}", "home", None, 0.0)
    one.add(LONG, prefix, None, 0.0)
    other.add(LONG, prefix, None, 0.0, read_long(LONG, prefix))
    for documents in (one, other):
        documents.add("pot after it", "home", None, 0.0)
    for query in (["tea"], ["number1999", "home"], ["咖", "pot"], ["nothing"], ["after"]):
        wanted, found = (documents.query(dict.fromkeys(query, 1.0)) for documents in (one, other))
        assert found.idf == pytest.approx(wanted.idf)
        assert found.passages == pytest.approx(wanted.passages)
        scores = [
            documents.scores(words).alone for documents, words in ((one, wanted), (other, found))
        ]
        assert scores[1] == pytest.approx(scores[0])
        assert other.best_range(others, found) == one.best_range(others, wanted)


def test_words_read_with_another_prefix_are_not_used():
    documents = DocumentWords()
    documents.add(LONG, "home", None, 0.0, read_long(LONG, "work"))
    assert not documents.query({"work": 1.0}).idf
    assert documents.query({"home": 1.0}).idf


def test_a_text_without_any_word_can_be_read():
    text = ". " * 2_000
    documents = DocumentWords()
    documents.add(text, "", None, 0.0, read_long(text, ""))
    assert not documents.query({"tea": 1.0}).idf


def test_other_threads_get_a_turn_while_a_long_text_is_read(monkeypatch):
    monkeypatch.setattr(lexical, "_PAUSE_PASSAGES", 4)
    pauses: list[None] = []
    read_long(LONG, "", lambda: pauses.append(None))
    assert len(pauses) > 2
