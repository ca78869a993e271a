"""What `scale.py` makes, measures and says, at sizes that take a moment."""

from __future__ import annotations

import argparse
import random
from functools import partial

import duckdb
import numpy as np
import pytest

from benchmarks import scale, scaledata, scaleplot, scaleworker, texts
from benchmarks.scale import Case
from benchmarks.scaledata import KnownVectors, Sample
from mcp_memory.agent import Memories
from mcp_memory.settings import load_settings
from mcp_memory.tiers.engine import Engine

DIMENSION = 64
ROW = {
    "size": 10_000,
    "agents": 1,
    "disk_mb": 30.0,
    "rss_mb": 200,
    "made_first_ms": 500.0,
    "first_search_ms": 90.0,
    "whole_after_seconds": 0.2,
    "search": {"p50_ms": 2.0, "p95_ms": 4.0},
}


@pytest.fixture(scope="module")
def sample():
    rng, generator = random.Random(1), np.random.default_rng(1)
    vectors = generator.standard_normal((80, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    questions = texts.distinct(partial(texts.query, rng), 20)
    return Sample(
        ["One thing.", "Another!", "A third?"],
        vectors[:60],
        questions,
        vectors[60:],
        load_settings().embedding_model,
        "f" * 64,
    )


@pytest.fixture(scope="module")
def db(sample, tmp_path_factory):
    path = tmp_path_factory.mktemp("scale") / "memory.duckdb"
    scaledata.build(path, {"default": 300, "other": 40}, sample, seed=2)
    return path


def test_each_agent_of_a_built_database_finds_its_own_memories(db, sample):
    memories = Memories(Engine(load_settings(db=db), embedder=KnownVectors(sample)))
    try:
        assert memories.open("default").overview().memories == 300
        assert memories.open("other").overview().memories == 40
        page = memories.open("other").archive.search(sample.questions[0], limit=10)
        assert (page.total, len(page.items)) == (40, 10)
    finally:
        memories.close()


def test_vectors_are_read_back_block_by_block(db):
    blocks = list(scaledata.stored_vectors(db, "default"))
    rows = np.concatenate(blocks)
    assert rows.shape == (300, DIMENSION)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)


def test_a_sample_is_the_same_after_it_was_saved(sample, tmp_path):
    sample.save(tmp_path / "sample.npz")
    again = Sample.load(tmp_path / "sample.npz")
    assert again.sentences == sample.sentences
    assert again.name == sample.name
    assert (again.question_vectors == sample.question_vectors).all()


def test_no_two_texts_are_the_same(sample):
    rng = random.Random(3)
    assert len({sample.text(number, rng) for number in range(500)}) == 500


def test_a_small_index_finds_all_that_exact_cosines_find(db, sample):
    measured = scaleworker.recall(db, sample, ["default"])
    assert measured["recall"] == {"10": 1.0, "50": 1.0}
    assert not measured["compressed"]


def test_searches_are_timed_for_all_agents(db, sample, monkeypatch):
    monkeypatch.setattr(scaleworker, "SEARCHES", 10)
    monkeypatch.setattr("mcp_memory.tiers.keeping.KEPT_DOCUMENTS", 10)
    made = scaleworker.first(db, sample, ["default", "other"])
    measured = scaleworker.search(db, sample, ["default", "other"])
    assert measured["search"]["calls"] == 10
    assert measured["first_search_ms"] > 0
    assert measured["whole_after_seconds"] > 0
    assert made["made_first_ms"] > 0
    with duckdb.connect(str(db), read_only=True) as connection:
        assert connection.sql("SELECT count(DISTINCT agent) FROM kept_indexes").fetchall() == [(2,)]


def test_inserts_are_timed_in_tenths(sample, tmp_path):
    measured = scaleworker.inserts(tmp_path / "new.duckdb", sample, 30)
    assert [tenth["calls"] for tenth in measured["tenths"]] == [3] * 10


def test_memories_are_spread_where_each_agent_has_enough():
    made = scale.cases([1_000, 10_000, 1_000_000], 100)
    assert made == [
        Case(1_000, 1),
        Case(10_000, 1),
        Case(10_000, 100),
        Case(1_000_000, 1),
        Case(1_000_000, 100),
    ]
    assert sum(Case(10_000, 100).shares.values()) == 10_000
    assert scale.cases([10_000], 1) == [Case(10_000, 1)]


@pytest.mark.parametrize(("p50_ms", "word"), [(3.0, "met"), (3.01, "MISSED")])
def test_a_search_is_held_to_the_goal_of_its_size(p50_ms, word):
    (line,) = scale.verdicts([{**ROW, "search": {"p50_ms": p50_ms}}], None)
    assert line.endswith(word)


@pytest.mark.parametrize(("deep", "word"), [(0.98, "met"), (0.979, "MISSED")])
def test_the_worst_recall_counts(deep, word):
    row = {**ROW, "size": 5, "vectors": {"recall": {"10": 1.0, "50": deep}}}
    (line,) = scale.verdicts([row], None)
    assert line.endswith(word)


@pytest.mark.parametrize(("ratio", "word"), [(1.3, "met"), (1.31, "MISSED")])
def test_the_last_tenth_of_the_inserts_is_held_to_the_first(ratio, word):
    (line,) = scale.verdicts([], {"inserts": 100, "ratio": ratio})
    assert line.endswith(word)


def test_the_growth_is_drawn_for_light_and_dark_pages(tmp_path):
    report = {"sizes": [ROW, {**ROW, "size": 100_000}, {**ROW, "agents": 100, "rss_mb": None}]}
    light, dark = scaleplot.plot(report, tmp_path / "images")
    assert light.read_bytes()[:4] == dark.read_bytes()[:4] == b"\x89PNG"
    assert light.read_bytes() != dark.read_bytes()


@pytest.mark.parametrize("text", ["", "1e3", "0", "-5", "10,,20"])
def test_a_wrong_list_of_sizes_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        scale._sizes(text)
