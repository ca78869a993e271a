"""Postings answer the same whether they are new, folded, joined or renumbered."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_memory.search import postings
from mcp_memory.search.postings import Folded, Postings, hash_of

TERMS = ["tea", "cup", "咖啡", "ERR-42", "\udc80", "pot"]
texts = st.lists(st.lists(st.sampled_from(TERMS), max_size=6), max_size=12)


def made(rows, *, bulk=False, folds=()):
    made = Postings()
    lengths = np.array([len(row) for row in rows], dtype=np.float32)
    if bulk:
        with made.bulk(lengths[:0]):
            for number, row in enumerate(rows):
                made.add(number, row, lengths[: number + 1])
        made.fold(lengths)
        return made
    for number, row in enumerate(rows):
        made.add(number, row, lengths[: number + 1])
        if number in folds:
            made.fold(lengths[: number + 1])
    return made


def found(made):
    answers = {}
    for term in [*TERMS, "unknown"]:
        parts = made.find(term)
        rows = [int(row) for part, _ in parts for row in part]
        answers[term] = (rows, [float(count) for _, part in parts for count in part])
        assert made.count(term) == len(rows)
    return answers


def expected(rows):
    answers = {}
    for term in [*TERMS, "unknown"]:
        having = [number for number, row in enumerate(rows) if term in row]
        answers[term] = (having, [float(rows[number].count(term)) for number in having])
    return answers


@given(texts, st.sets(st.integers(0, 11)))
def test_every_row_is_found_with_its_count_however_it_was_folded(rows, folds):
    assert found(made(rows, folds=folds)) == expected(rows)


@given(texts, texts)
def test_a_bulk_is_found_and_so_is_what_comes_after_it(rows, more):
    assert found(made(rows, bulk=True)) == expected(rows)
    both = made(rows, bulk=True)
    lengths = np.array([len(row) for row in rows + more], dtype=np.float32)
    for number, row in enumerate(more, len(rows)):
        both.add(number, row, lengths[: number + 1])
    assert found(both) == expected(rows + more)


@given(texts, texts, st.sets(st.integers(0, 11)), st.booleans())
def test_a_folded_copy_is_adopted_and_newer_rows_are_still_found(rows, more, folds, late):
    both = made(rows, folds=folds)
    lengths = np.array([len(row) for row in rows + more], dtype=np.float32)
    folded = both.copy().fold(lengths[: len(rows)])
    for number, row in enumerate(more, len(rows)):
        both.add(number, row, lengths[: number + 1])
    if late:
        both.fold(lengths)
    both.adopt(folded, len(rows), lengths)
    assert found(both) == expected(rows + more)
    assert both.copy().first == (len(rows + more) if late else len(rows))


@given(texts, st.randoms(use_true_random=False))
def test_renumbered_rows_are_found_by_their_new_numbers(rows, rng):
    folded = made(rows).copy().fold(np.array([len(row) for row in rows]))
    kept = [number for number in range(len(rows)) if rng.random() < 0.7]
    if rng.random() < 0.5:
        rng.shuffle(kept)
    numbers = np.full(len(rows), -1, dtype=np.int32)
    numbers[kept] = np.arange(len(kept))
    moved = folded.renumbered(numbers)
    assert found(Postings(moved, len(kept))) == expected([rows[number] for number in kept])
    assert (np.diff(moved.firsts) > 0).all()


def test_new_rows_are_folded_once_they_are_many(monkeypatch):
    monkeypatch.setattr(postings, "FOLD_ROWS", 3)
    small = made([["tea"]] * 3)
    assert len(small.copy().terms) == 1
    folded = made([["tea"]] * 4)
    assert len(folded.copy().terms) == 0
    # Half of the folded ones, then.
    many = made([["tea"]] * 40, folds={31})
    assert (len(many.copy().numbers), many.copy().first) == (8, 32)


def test_a_bulk_of_many_terms_is_folded_in_pieces(monkeypatch):
    rng = random.Random(1)
    rows = [rng.choices(TERMS, k=rng.randint(0, 5)) for _ in range(60)]
    monkeypatch.setattr(postings, "BULK_TERMS", 7)
    assert found(made(rows, bulk=True)) == expected(rows)


@pytest.mark.parametrize("count", [254, 255, 256, 70_000])
def test_a_word_said_very_often_keeps_its_count(count):
    rows = [["tea"], ["tea", "cup"] * count, ["cup"]]
    for folds in (set(), {0}, {1}, {2}, {0, 1, 2}):
        assert found(made(rows, folds=folds)) == expected(rows)
    folded = made(rows).copy().fold(np.array([1, 2 * count, 1]))
    numbers = np.array([1, 0, -1], dtype=np.int32)
    moved = Postings(folded.renumbered(numbers), 2)
    assert found(moved) == expected([rows[1], rows[0]])


def test_a_copy_stays_what_it_was():
    rows = [["tea"], ["tea", "cup"]]
    postings = made(rows, folds={0})
    copy = postings.copy()
    postings.add(2, ["tea", "pot"], np.array([1, 2, 2]))
    postings.fold(np.array([1, 2, 2]))
    assert found(Postings(copy.fold(np.array([1, 2])), 2)) == expected(rows)


def test_the_hash_of_a_term_is_the_same_in_every_process():
    assert hash_of("tea") == 10_431_608_578_837_538_234
    assert len(Folded.empty().rows) == 0
