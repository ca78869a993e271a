"""Facts and questions in other words: how they are read, graded and put among notes."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import notes
import paraphrase
import pytest
import texts
from fakes import HashEmbedder
from locomo import DataFault
from paraphrase import Pair


def test_our_pairs_are_enough_of_both_languages_and_each_is_there_once() -> None:
    pairs = paraphrase.load(paraphrase.PAIRS)
    counted = Counter(pair.language for pair in pairs)
    assert counted["english"] >= 80
    assert counted["chinese"] >= 40
    assert len({pair.fact for pair in pairs}) == len({pair.question for pair in pairs})
    assert len({pair.fact for pair in pairs}) == len(pairs)


@pytest.mark.parametrize(
    "rows",
    [
        [{"language": "english", "fact": "Tea."}],
        [{"language": "klingon", "fact": "Tea.", "question": "What?"}],
        [{"language": "english", "fact": "", "question": "What?"}],
        ["Tea."],
    ],
)
def test_a_pair_that_lacks_something_is_refused(rows: list[object], tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(DataFault):
        paraphrase.load(path)
    assert paraphrase.main(["--data", str(path)]) == 2


def test_every_second_question_is_of_the_other_half() -> None:
    pairs = [Pair("english", fact, "?") for fact in ("tea", "milk", "salt")]
    rankings = [["tea", "milk"], ["tea", "milk"], ["tea"]]
    chosen, judged = paraphrase.grade("english", 5, rankings, pairs)
    assert (chosen.questions, chosen.first, chosen.in_ten, chosen.mrr) == (2, 0.5, 0.5, 0.5)
    assert (judged.questions, judged.first, judged.in_ten, judged.mrr) == (1, 0, 1, 0.5)


@pytest.mark.parametrize("language", sorted(notes.NOTES))
def test_notes_are_the_same_for_the_same_seed_and_enough(language: str) -> None:
    def made() -> list[str]:
        rng = random.Random(7)
        return texts.distinct(lambda: notes.NOTES[language](rng), 2_000)

    first = made()
    assert first == made()
    assert not any("{" in note for note in first)


def test_facts_are_kept_among_the_notes_and_asked_for() -> None:
    pairs = [
        Pair("english", "Zebras graze quietly.", "zebras graze"),
        Pair("english", "Walnuts fell yesterday.", "zebras graze"),
    ]
    found, lost = paraphrase.measure(pairs, [20], HashEmbedder())
    assert (found.notes, found.half, found.first) == (20, paraphrase.HALVES[0], 1)
    assert lost.first == 0
