"""Each benchmark runs to its end, at a size that takes seconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import scale
from benchmarks.__main__ import main
from benchmarks.harness import Texts
from benchmarks.scale import Sample
from mcp_memory.models.fetching import fetch_model
from mcp_memory.settings import DEFAULT_MODEL, load_settings

DIMENSION = 64


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the form of LoCoMo, in which each turn answers a question of its own words."""
    contents = Texts().contents(40)
    talk = {
        "speaker_a": "Ann",
        "session_1_date_time": "1:56 pm on 8 May, 2023",
        "session_1": [
            {"speaker": "Ann" if at % 2 else "Bo", "dia_id": f"D1:{at}", "text": text}
            for at, text in enumerate(contents, 1)
        ],
    }
    questions = [
        {"question": text, "category": 4, "evidence": [f"D1:{at}"]}
        for at, text in enumerate(contents[:5], 1)
    ]
    path = tmp_path_factory.mktemp("talks") / "talks.json"
    sample = {"sample_id": "one", "conversation": talk, "qa": questions}
    path.write_text(json.dumps([sample]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def _model() -> None:
    fetch_model(DEFAULT_MODEL, load_settings().cache_dir, offline=False)


def run(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    path = tmp_path / "report.json"
    assert main([*map(str, arguments), "--out", str(path)]) == 0
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert report["benchmark"] == arguments[0]
    return report


@pytest.mark.slow
def test_recall_without_a_model_finds_turns_by_their_words(tmp_path: Path, talks: Path):
    report = run(tmp_path, "recall", "--data", talks, "--lexical")
    assert report["quality"]["all"]["questions"] == 5
    assert report["quality"]["all"]["mrr"] == 1


@pytest.mark.slow
def test_paging_of_a_short_talk_is_exact(tmp_path: Path, talks: Path):
    report = run(tmp_path, "paging", "--data", talks, "--windows", "4k")
    assert [replay["problems"] for replay in report["replays"]] == [[], []]


@pytest.mark.slow
@pytest.mark.usefixtures("_model")
@pytest.mark.parametrize(
    "arguments",
    [
        ["latency", "--sizes", "1", "--rounds", "1"],
        ["clients", "--clients", "2", "--calls", "1", "--starts", "1"],
        ["keyvalue", "--samples", "1", "--sets", "1"],
        [
            *("memory", "--minutes", "0.05", "--clients", "2", "--rest-seconds", "0"),
            *("--database-mb", "0.1", "--insert-mb", "0.3"),
        ],
        ["soak", "--minutes", "0.35", "--hostile"],
        ["compare", "--other", sys.executable, "--memories", "1", "--rounds", "1", "--pairs", "1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_benchmark_with_the_real_model_writes_its_report(tmp_path: Path, arguments: list[str]):
    assert run(tmp_path, *arguments)["versions"]


@pytest.fixture(scope="module")
def sample() -> Sample:
    generator = np.random.default_rng(1)
    vectors = generator.standard_normal((80, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    sentences, model = ["One thing.", "Another!", "A third?"], load_settings().embedding_model
    return Sample(sentences, vectors[:60], Texts().queries(20), vectors[60:], model, "f" * 64)


def test_a_sample_gives_each_number_a_text_and_a_vector_of_its_own(sample: Sample, tmp_path: Path):
    sample.save(tmp_path / "sample.npz")
    again = Sample.load(tmp_path / "sample.npz")
    vectors = sample.vectors_of(range(500))
    assert np.array_equal(again.vectors_of(range(500)), vectors)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert len(np.unique(vectors, axis=0)) == 500


@pytest.mark.slow
def test_memories_are_loaded_searched_and_inserted_through_the_facade(
    sample: Sample, tmp_path: Path
):
    db, agents = tmp_path / "memory.duckdb", ["one", "two"]
    assert scale.load(db, sample, 100, agents)["disk_mb"] > 0
    measured = scale.search(db, sample, 100, agents)
    assert measured["search"].calls == scale.SEARCHES
    tenths = scale.inserts(tmp_path / "new.duckdb", sample, 30, ["default"])["tenths"]
    assert [tenth.calls for tenth in tenths] == [3] * 10
