"""Many vectors: found by single bits, compared by 16, with filters before the limit."""

import subprocess
import sys

import numpy as np
import pytest

from mcp_memory.search import compressed, vectors
from mcp_memory.search.compressed import CompressedVectors

DIMENSION = 96
COUNT = 40_000
QUERIES = 20


@pytest.fixture(scope="module")
def cloud():
    """Vectors in clusters about a common direction, as a model's are, and questions near some."""
    generator = np.random.default_rng(11)
    centres = generator.standard_normal((200, DIMENSION)) + 1.5
    rows = centres[generator.integers(0, 200, COUNT)] + generator.standard_normal(
        (COUNT, DIMENSION)
    )
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    queries = rows[:QUERIES] + 0.05 * generator.standard_normal((QUERIES, DIMENSION))
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    return rows, queries


@pytest.fixture(scope="module")
def index(cloud, tmp_path_factory):
    rows, _ = cloud
    made = CompressedVectors(rows[:8_192], tmp_path_factory.mktemp("vectors"))
    for first in range(0, COUNT, 7_000):
        made.add(rows[first : first + 7_000])
    return made


def nearest(rows, query, allowed, limit):
    scores = rows @ query
    scores[~allowed] = -np.inf
    return set(np.argsort(-scores)[:limit].tolist())


@pytest.mark.parametrize("share", [1.0, 0.95, 0.5, 0.1])
def test_nearly_all_of_the_nearest_are_found_whatever_is_allowed(index, cloud, share):
    rows, queries = cloud
    allowed = np.random.default_rng(1).random(COUNT) < share
    hits = 0
    for query in queries:
        found, _ = index.top(query, 50, None if share == 1.0 else allowed)
        assert allowed[found].all()
        hits += len(nearest(rows, query, allowed, 50) & set(found.tolist()))
    assert hits / (50 * QUERIES) >= 0.98


def test_what_is_allowed_is_found_though_nothing_near_the_question_is(index, cloud):
    rows, queries = cloud
    order = np.argsort(-(rows @ queries[0]))
    allowed = np.zeros(COUNT, dtype=np.bool_)
    allowed[order[8_000:]] = True  # most rows, but none of those that a first pass meets first
    found, scores = index.top(queries[0], 10, allowed)
    assert allowed[found].all()
    # So far down the rows stand too densely to tell which is nearer.
    assert scores == pytest.approx((rows @ queries[0])[order[8_000:8_010]], abs=2e-3)


def test_cosines_are_exact_to_four_places(index, cloud):
    rows, queries = cloud
    found, scores = index.top(queries[3], 100, None)
    assert scores == pytest.approx(rows[found] @ queries[3], abs=1e-4)
    assert (np.diff(scores) <= 0).all()
    assert index.scores(queries[3]) == pytest.approx(rows @ queries[3], abs=1e-4)


def test_few_allowed_rows_are_all_compared(index, cloud):
    rows, queries = cloud
    allowed = np.zeros(COUNT, dtype=np.bool_)
    allowed[[5, 16_383, 16_384, COUNT - 1]] = True
    found, _ = index.top(queries[0], 10, allowed)
    assert found.tolist() == sorted(
        [5, 16_383, 16_384, COUNT - 1], key=lambda row: -float(rows[row] @ queries[0])
    )


def test_nothing_is_found_where_nothing_is_allowed(index, cloud):
    found, scores = index.top(cloud[1][0], 10, np.zeros(COUNT, dtype=np.bool_))
    assert found.tolist() == scores.tolist() == []


def test_a_vector_is_found_at_once_after_it_was_added(cloud):
    rows, _ = cloud
    grown = CompressedVectors(rows[:1_000])
    grown.add(rows)
    for number in range(40):
        odd = -rows[number : number + 1]
        grown.add(odd)
        assert grown.top(odd[0], 1, None)[0].tolist() == [COUNT + number]


def test_rows_come_back_as_they_were_put_in(index, cloud):
    rows = np.array([0, 16_383, 16_384, 16_384, COUNT - 1])
    assert index.take(rows) == pytest.approx(cloud[0][rows], abs=2e-5)


def test_the_files_have_no_name_and_are_not_counted_as_memory(cloud, tmp_path):
    made = CompressedVectors(cloud[0][:1_000], tmp_path / "new")
    made.add(cloud[0][:20_000])
    assert list((tmp_path / "new").iterdir()) == []
    assert made.mapped_bytes >= 20_000 * DIMENSION * 2
    assert made.nbytes <= 20_000 * 64


def test_vectors_stay_in_memory_where_no_file_can_be_made(cloud, tmp_path, caplog):
    (tmp_path / "file").touch()
    made = CompressedVectors(cloud[0][:1_000], tmp_path / "file" / "folder")
    made.add(cloud[0][:20_000])
    assert made.mapped_bytes == 0
    assert made.nbytes >= 20_000 * DIMENSION * 2
    assert made.top(cloud[0][17], 1, None)[0].tolist() == [17]
    assert caplog.text.count("stay in memory") == 1


def test_a_component_beyond_one_by_rounding_is_stored_as_one():
    rows = np.eye(4, 32, dtype=np.float32) * np.float32(1.0001)
    made = CompressedVectors(rows)
    made.add(rows)
    assert made.scores(np.eye(1, 32, dtype=np.float32)[0]).tolist() == [1, 0, 0, 0]


def test_without_the_library_many_vectors_are_compared_exactly(cloud, monkeypatch):
    monkeypatch.setattr(vectors, "faiss", lambda: None)
    index = vectors.VectorIndex(DIMENSION, exact_rows=100)
    index.add(cloud[0][:90])
    index.add(cloud[0][90:300])
    assert not index.compressed
    assert index.top(cloud[0][200], 1)[0].tolist() == [200]


@pytest.mark.slow
def test_the_library_is_not_imported_before_it_is_needed():
    code = (
        "import sys, numpy; from mcp_memory.search.vectors import VectorIndex;"
        "VectorIndex(8).add(numpy.eye(8, dtype='f4')); sys.exit('faiss' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert compressed.faiss() is not None
