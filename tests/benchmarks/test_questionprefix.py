"""How a question meets the model's prefix: what `questionprefix.py` asks, and with what."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paraphrase
import pytest
import questionprefix
from fakes import HashEmbedder
from paraphrase import Pair
from shorttalks import talk_of
from talkindex import Indexed
from vectorcache import VectorCache, Vectors


class Asked(HashEmbedder):
    """Notes how it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.of_facts: list[bool] = []

    def embed_query(self, text: str, *, of_facts: bool = False) -> Vectors:
        self.of_facts.append(of_facts)
        return super().embed_query(text, of_facts=of_facts)


def test_conversations_are_asked_as_facts_are() -> None:
    embedder = Asked()
    indexed = Indexed.make(talk_of("one", 1), VectorCache(HashEmbedder(), None))
    found = questionprefix.found_in([indexed], embedder)
    assert found.questions == len(embedder.of_facts) > 0
    assert all(embedder.of_facts)
    assert found.recall_at_10 > 0


def test_there_is_a_row_for_each_part_of_the_prefix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted: list[float | None] = []

    def load(frac: float | None) -> HashEmbedder:
        wanted.append(frac)
        return HashEmbedder()

    pairs = [
        Pair("english", "Zebras graze quietly.", "zebras graze"),
        Pair("english", "Walnuts fell yesterday.", "walnuts fell"),
        Pair("chinese", "斑马吃草。", "斑马"),
    ]
    monkeypatch.setattr(questionprefix, "load_asking", load)
    monkeypatch.setattr(paraphrase, "load", lambda _: pairs)
    path = tmp_path / "report.json"
    assert questionprefix.main(["--notes", "20", "--out", str(path)]) == 0
    assert wanted == [None, *questionprefix.FRACS]
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert [row["prefix_frac"] for row in rows] == list(questionprefix.FRACS)
    assert all(half["recall_at_1"] == 1 for row in rows for half in row["facts"])
    assert all({half["language"] for half in row["facts"]} == {"english"} for row in rows)
    assert all(row["talks"] is None for row in rows)
    assert "0.4 of it" in capsys.readouterr().out


@pytest.mark.slow
def test_each_part_of_the_prefix_asks_the_model_otherwise() -> None:
    itself, none, half = (
        questionprefix.load_asking(frac).embed_query("Who is afraid of dogs?", of_facts=True)
        for frac in (None, 0.0, 0.5)
    )
    assert np.dot(itself, none) < np.dot(itself, half) < 0.999


def test_a_data_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert questionprefix.main(["--data", str(tmp_path / "none.json")]) == 2
