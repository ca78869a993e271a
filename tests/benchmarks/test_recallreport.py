"""What `recall.py` says of what it has measured, and what it reads of a database."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import HashEmbedder

from benchmarks import recallreport
from benchmarks.recallreport import Measured, grade, verdicts
from benchmarks.talks import Question
from benchmarks.vectorsizes import stored_vectors
from mcp_memory.agent import Memories
from mcp_memory.settings import load_settings
from mcp_memory.tiers.engine import Engine


def question(kind: str, *gold: str, sessions: tuple[str, ...] = ()) -> Question:
    return Question("?", kind, frozenset(gold), frozenset(sessions))


def found(share: float, kind: str, of: int = 100) -> list[tuple[Question, list[str]]]:
    right = round(share * of)
    return [(question(kind, "a"), ["a"] if number < right else []) for number in range(of)]


def test_turns_and_sessions_are_graded_by_their_own_gold():
    answers = [
        (question("x", "t1", sessions=("s1",)), ["t2", "t1"]),
        (question("y", sessions=("s1",)), ["s2", "s1"]),
    ]
    turns = grade(answers, sessions=False)
    assert list(turns) == ["all", "x"]
    assert (turns["all"].questions, turns["all"].mrr) == (1, 0.5)
    sessions = grade(answers, sessions=True)
    assert sessions["all"].questions == 2
    assert sessions["y"].mrr == 0.5


def test_each_goal_has_its_verdict():
    measured = Measured()
    measured.turns["hybrid"] = found(0.86, "single-hop", 900) + found(0.53, "multi-hop", 100)
    lines = verdicts(measured)
    # All hits are first, so that every metric is the same share: 82.7 % of all.
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["met", "met", "MISSED", "met", "met"]
    assert lines[2].startswith("R@20, all: 82.7 %")


@pytest.mark.parametrize(("share", "word"), [(0.53, "met"), (0.52, "MISSED")])
def test_multi_hop_questions_have_a_goal_of_their_own(share: float, word: str):
    measured = Measured()
    measured.turns["hybrid"] = found(1.0, "single-hop", 900) + found(share, "multi-hop")
    assert verdicts(measured)[-1].endswith(word)


def test_without_hybrid_search_there_is_no_verdict():
    assert verdicts(Measured())[0].startswith("no verdict")


def test_vectors_are_counted_by_what_they_are_of(tmp_path: Path):
    db = tmp_path / "memory.duckdb"
    memories = Memories(Engine(load_settings(db=db), embedder=HashEmbedder()))
    try:
        memories.open("default").archive.insert("One thing.")
    finally:
        memories.close()
    sizes = stored_vectors(db)
    dimension = HashEmbedder().dimension
    assert sizes == {"memory": (1, dimension * 4)}

    measured = Measured(appends=[0.1, 0.1])
    for _ in range(2):
        measured.add_sizes(sizes)
    cost = measured.insert_cost()
    assert cost["vectors_a_message"] == {"memory": 1.0}
    assert cost["vector_bytes_a_message"] == {"memory": dimension * 4}


def test_a_database_without_vectors_has_none(tmp_path: Path):
    db = tmp_path / "memory.duckdb"
    Memories(Engine(load_settings(db=db), embedder=None)).close()
    assert stored_vectors(db) == {}


def test_the_tables_show_what_windows_cost(capsys: pytest.CaptureFixture[str]):
    measured = Measured(appends=[0.5, 0.5], windows_left=2, background_seconds=3)
    measured.sizes = {"message": (2, 3_072), "window": (4, 6_144)}
    measured.turns["hybrid"] = measured.sessions["hybrid"] = found(0.5, "x", 4)
    measured.queries["hybrid"] = [0.01]
    recallreport.show(measured)
    shown = capsys.readouterr().out
    assert "2.00" in shown
    assert "3 s more for 2 windows" in " ".join(shown.split())
