"""The matrix of vectors: exact cosines, rows that stay where they are."""

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
    with pytest.raises(ValueError, match="broadcast"):
        index.add(np.ones((1, 9), dtype=np.float32))


def test_a_row_is_a_copy_that_later_changes_do_not_reach():
    rows = np.eye(2, 8, dtype=np.float32)
    index = VectorIndex(8)
    index.add(rows)
    rows[:] = 0
    assert index.scores(np.eye(1, 8, dtype=np.float32)[0]).tolist() == [1, 0]
