"""What `ablation.py` leaves out, tries and says, on a talk that takes a moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ablation
import boards
import formats
import longtexts
import numpy as np
import pytest
from ablation import VARIANTS, Variant, varied
from common import BenchmarkFault
from fakes import HashEmbedder
from locomo import DataFault
from metrics import quality
from shorttalks import talk_of
from talkindex import Indexed, pieces
from talks import together
from vectorcache import VectorCache

from mcp_memory.search import signals
from mcp_memory.search.embedded import EmbeddedDocuments


@pytest.fixture
def vectors():
    return VectorCache(HashEmbedder(), None)


@pytest.fixture
def indexed(vectors):
    return Indexed.make(talk_of("a", 1), vectors)


def test_weights_tried_on_a_board_rank_as_the_search_does(indexed):
    with varied(Variant("", crowding=False)):
        for question in indexed.talk.questions:
            hits = indexed.search(*indexed.ask(question), limit=20)
            found = quality([(hits, question.gold)])
            graded = boards.board(0, indexed, question).graded(boards.grid())[boards.as_set()]
            expected = (found.recall_at_5, found.recall_at_10, found.recall_at_20, found.mrr)
            assert graded == pytest.approx(expected)


def test_each_signal_can_be_left_out_and_is_back_afterwards():
    before = {**signals.WEIGHTS, **signals.BONUS}
    left_out = {name for variant in VARIANTS for name in variant.without}
    assert left_out == set(before)
    for variant in VARIANTS:
        with varied(variant):
            now = {**signals.WEIGHTS, **signals.BONUS}
            assert {name for name in now if now[name] != before[name]} == variant.without
            assert not any(now[name] for name in variant.without)
    assert before == {**signals.WEIGHTS, **signals.BONUS}


def test_a_search_without_words_goes_by_meaning_alone(indexed):
    asked, vector = indexed.ask(indexed.talk.questions[0])
    by_words = indexed.search(asked, None, 20)
    by_meaning = indexed.search(asked, vector, 20, lexical=False)
    assert by_words != by_meaning
    assert by_words[0] in indexed.talk.questions[0].gold


def test_a_model_that_keeps_texts_close_together_can_count_in_full(indexed, monkeypatch):
    monkeypatch.setattr(EmbeddedDocuments, "apart", 0.0)
    asked, vector = indexed.ask(indexed.talk.questions[0])
    by_chance = indexed.search(asked, vector, 20, lexical=False)
    with varied(Variant("", apart=False)):
        in_full = indexed.search(asked, vector, 20, lexical=False)
    assert by_chance != in_full


def test_together_all_turns_are_in_one_talk_and_gold_is_of_its_own():
    talks = [talk_of("a", 1), talk_of("b", 2)]
    one = together(talks)
    assert [turn.content for turn in one.turns] == [
        turn.content for talk in talks for turn in talk.turns
    ]
    content = {turn.place: turn.content for turn in one.turns}
    assert len(content) == len(one.turns)
    for question, before in zip(one.questions, talks[0].questions, strict=False):
        gold = [turn.content for turn in talks[0].turns if turn.place in before.gold]
        assert [content[place] for place in question.gold] == gold
        assert question.sessions == {f"0/{session}" for session in before.sessions}


def test_weights_that_only_one_half_likes_are_found_out():
    # Talks 0 and 1 like the second weights, 2 and 3 the first, which are those set.
    talks = np.repeat(np.arange(4), 5)
    shares = np.zeros((20, 2, 4))
    shares[:10, 1] = shares[10:, 0] = 1.0
    halves = boards.halves(talks, shares, usual=0)
    assert halves.splits == 6
    assert halves.as_set == pytest.approx([0.5] * 4)
    assert halves.best == pytest.approx([(1 + 1 + 0.5 * 4) / 6] * 4)
    assert halves.chosen[0] < halves.as_set[0]
    assert (halves.worse, halves.least) == (0, 0.0)


def test_halves_need_two_talks():
    with pytest.raises(BenchmarkFault, match="two conversations"):
        boards.halves(np.zeros(3, dtype=np.intp), np.zeros((3, 1, 4)), 0)


def test_many_talks_are_halved_by_chance_and_the_same_in_every_run():
    first, again = ([*boards._halves(range(30))] for _ in range(2))
    assert first == again
    assert len(first) == boards.MAX_SPLITS
    assert all(len(set(half)) == 15 for half in first)


def test_the_grid_has_the_weights_as_they_are_set_and_each_group_without():
    grid = boards.grid()
    assert grid[boards.as_set()] == {**signals.WEIGHTS, **signals.BONUS}
    for name, members in boards.GROUPS.items():
        changed = grid[boards.one_group(name)[0.0]]
        assert {member for member, weight in changed.items() if not weight} == members


def test_joined_messages_hold_the_same_text_of_one_session_each():
    turns = talk_of("a", 1).turns
    joined = list(longtexts.joined(turns, longest_chars=150))
    lines = [line for turn in joined for line in turn.content.split("\n")]
    assert lines == [f"{turn.name}: {turn.content}" for turn in turns]
    assert {turn.role for turn in joined} == {"assistant"}
    assert len(joined) > 4
    assert all(len(turn.content) <= 150 + 6 * len(turn.content.split("\n")) for turn in joined)


def test_a_window_ends_where_a_sitting_does(vectors):
    made = list(pieces(talk_of("a", 1).turns, vectors.embedder))
    sizes = [[window.count("\n") + 1 for window in piece.windows] for piece in made]
    assert sizes[:9] == [[1, 1], [2, 2], [3, 3], [3, 4], [3, 5], [3, 5], [3, 5], [3, 5], [1, 1]]


def test_vectors_are_computed_once_and_kept_for_their_model(tmp_path: Path):
    path = tmp_path / "vectors.npz"
    first = VectorCache(HashEmbedder(), path)
    one = first.passages(["a text", "another", "a text"])
    first.query("a text")
    first.save()
    kept = VectorCache(HashEmbedder(), path)
    assert len(kept) == 3
    done: list[int] = []
    kept.fill(["another"], done.append)
    assert not done
    assert np.array_equal(kept.passages(["a text", "another", "a text"]), one)
    other = HashEmbedder()
    other.fingerprint = "0" * 64
    assert len(VectorCache(other, path)) == 0


def test_the_whole_report_is_made_and_shown(vectors, capsys: pytest.CaptureFixture[str]):
    report = ablation.measure([talk_of("a", 1), talk_of("b", 2)], vectors)
    ablation.show(report)
    shown = capsys.readouterr().out
    assert [row.name for row in report.rows] == [variant.name for variant in VARIANTS]
    assert "best on the other half" in shown
    told: dict[str, Any] = json.loads(json.dumps(report.as_dict()))
    assert told["halves"]["splits"] == 2
    alone, short, long = report.crowded
    assert alone.added_frac == alone.hits_frac == 0
    assert short.added_frac == 0.5
    assert 0 < long.added_frac < 0.2


def test_the_option_together_makes_one_memory_of_all_conversations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    measured: list[int] = []
    monkeypatch.setattr(ablation, "_benchmark", lambda talks, _: measured.append(len(talks)))
    path = tmp_path / "dev.json"
    article = {"paragraphs": [{"context": "It is so.", "qas": []}]}
    path.write_text(json.dumps({"data": [article, article]}), "utf-8")
    given = ["--data", str(path), "--format", "squad"]
    assert ablation.main(given) == ablation.main([*given, "--together"]) == 0
    assert measured == [2, 1]


def test_data_that_is_something_else_is_a_wrong_argument(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert ablation.main(["--data", str(tmp_path / "none.json")]) == 2
    assert "snap-research/locomo" in capsys.readouterr().err
    with pytest.raises(DataFault):
        formats.LOADERS["beam"](tmp_path)
