"""The set of vectors: exact cosines, rows that stay where they are, few or many."""

import numpy as np
import pytest

from mcp_memory.search.vectors import VectorIndex


def unit(generator, count, dimension=8):
    rows = generator.standard_normal((count, dimension)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("capacity", [1, 4, 256])
def test_the_matrix_grows_and_forgets_no_row(capacity):
    generator = np.random.default_rng(7)
    index = VectorIndex(8, capacity=capacity)
    batches = [unit(generator, count) for count in (1, 3, 0, 300, 2)]
    assert [index.add(batch) for batch in batches] == [0, 1, 4, 4, 304]
    assert len(index) == 306
    query = unit(generator, 1)[0]
    assert index.scores(query) == pytest.approx(np.concatenate(batches) @ query, abs=1e-6)


def test_a_vector_is_nearest_to_itself_with_a_cosine_of_one():
    rows = unit(np.random.default_rng(1), 50)
    index = VectorIndex(8)
    index.add(rows)
    scores = index.scores(rows[17])
    assert int(np.argmax(scores)) == 17
    assert scores[17] == pytest.approx(1, abs=1e-6)


def test_rows_that_were_reserved_but_not_used_have_no_score():
    assert VectorIndex(8).scores(np.ones(8, dtype=np.float32)).shape == (0,)


def test_vectors_of_another_length_are_refused():
    index = VectorIndex(8)
    with pytest.raises(ValueError, match=r"shape \(1, 9\).*dimension 8"):
        index.add(np.ones((1, 9), dtype=np.float32))


def test_a_row_is_a_copy_that_later_changes_do_not_reach():
    rows = np.eye(2, 8, dtype=np.float32)
    index = VectorIndex(8)
    index.add(rows)
    rows[:] = 0
    assert index.scores(np.eye(1, 8, dtype=np.float32)[0]).tolist() == [1, 0]


def test_the_nearest_come_first_with_their_cosines():
    generator = np.random.default_rng(3)
    rows, query = unit(generator, 400), unit(generator, 1)[0]
    index = VectorIndex(8)
    index.add(rows)
    found, scores = index.top(query, 5)
    assert found.tolist() == np.argsort(-(rows @ query))[:5].tolist()
    assert scores == pytest.approx((rows @ query)[found], abs=1e-6)


def test_a_mask_is_applied_before_the_limit():
    generator = np.random.default_rng(4)
    rows, query = unit(generator, 400), unit(generator, 1)[0]
    index = VectorIndex(8)
    index.add(rows)
    order = np.argsort(-(rows @ query))
    allowed = np.zeros(400, dtype=np.bool_)
    allowed[order[300:]] = True
    assert index.top(query, 3, allowed)[0].tolist() == order[300:303].tolist()
    assert len(index.top(query, 300, allowed)[0]) == 100


def test_crossing_the_limit_of_exactness_keeps_numbers_and_cosines():
    generator = np.random.default_rng(5)
    rows, query = unit(generator, 130, 64), unit(generator, 1, 64)[0]
    index = VectorIndex(64, exact_rows=100)
    before = [index.add(rows[at : at + 1]) for at in range(100)]
    small = index.compressed
    after = [index.add(rows[at : at + 10]) for at in range(100, 130, 10)]
    assert (small, index.compressed) == (False, True)
    assert before + after == [*range(100), 100, 110, 120]
    assert len(index) == 130
    assert index.scores(query) == pytest.approx(rows @ query, abs=1e-4)
    assert index.top(query, 3)[0].tolist() == np.argsort(-(rows @ query))[:3].tolist()


def test_many_vectors_added_at_once_are_compressed_at_once():
    rows = unit(np.random.default_rng(6), 300, 64)
    index = VectorIndex(64, exact_rows=100)
    assert index.add(rows) == 0
    assert index.compressed
    assert index.top(rows[250], 1)[0].tolist() == [250]


def test_vectors_of_another_length_are_refused_when_there_are_many():
    index = VectorIndex(64, exact_rows=10)
    index.add(unit(np.random.default_rng(6), 20, 64))
    with pytest.raises(ValueError, match=r"shape \(1, 65\).*dimension 64"):
        index.add(np.ones((1, 65), dtype=np.float32))
    assert len(index) == 20


@pytest.mark.parametrize("exact_rows", [10, 1_000])
def test_rows_are_compared_and_given_in_the_order_asked_for(exact_rows):
    generator = np.random.default_rng(8)
    rows, query = unit(generator, 200, 64), unit(generator, 1, 64)[0]
    index = VectorIndex(64, exact_rows=exact_rows)
    index.add(rows)
    wanted = np.array([150, 3, 199, 3])
    assert index.vectors(wanted) == pytest.approx(rows[wanted], abs=2e-5)
    assert index.compare(query, wanted) == pytest.approx(rows[wanted] @ query, abs=1e-4)


def test_what_an_index_takes_grows_with_it(tmp_path):
    index = VectorIndex(64, folder=tmp_path, exact_rows=100)
    empty = index.nbytes
    index.add(unit(np.random.default_rng(9), 100, 64))
    assert index.nbytes >= max(empty, 100 * 64 * 4)
    assert index.mapped_bytes == 0
    index.add(unit(np.random.default_rng(9), 1, 64))
    assert index.nbytes < 100 * 64 * 4
    assert index.mapped_bytes >= 101 * 64 * 2


def test_the_mean_is_that_of_all_rows_before_and_after_they_are_compressed():
    rows = np.random.default_rng(4).standard_normal((60, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    index = VectorIndex(16, exact_rows=40)
    assert not index.mean.any()
    for first in range(0, 60, 15):
        index.add(rows[first : first + 15])
        assert np.allclose(index.mean, rows[: first + 15].mean(axis=0), atol=1e-6)
    assert index.compressed
