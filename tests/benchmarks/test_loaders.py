"""Data sets in their published forms, hand-made and tiny, as the benchmarks read them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks import loaders
from benchmarks.loaders import DataFault, Talk


def locomo() -> dict[str, Any]:
    return {
        "sample_id": "conv-1",
        "conversation": {
            "speaker_a": "Ann",
            "speaker_b": "Bo",
            "session_10_date_time": "12:06 am on 2 January, 2024",
            "session_10": [{"speaker": "Bo", "dia_id": "D10:1", "text": "Last"}],
            "session_2_date_time": "1:56 pm on 8 May, 2023",
            "session_2": [
                {"speaker": "Ann", "dia_id": "D2:1", "text": "Look!", "blip_caption": "a red kite"},
                {"speaker": "Bo", "dia_id": "D2:2", "text": "Lovely"},
            ],
            # A date without a session stands in the real data, too.
            "session_11_date_time": "1:00 pm on 9 May, 2023",
        },
        "qa": [
            {"question": "Both?", "category": 1, "evidence": ["D2:1; D:10:1", "D7:7"]},
            {"question": "None?", "category": 5, "evidence": ["D7:7"]},
            {"question": "Empty?", "category": 3, "evidence": []},
        ],
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("D1:3", ["D1:3"]),
        ("D:11:26", ["D11:26"]),
        ("D8:6; D9:17", ["D8:6", "D9:17"]),
        ("D9:1 D4:4 D4:6", ["D9:1", "D4:4", "D4:6"]),
        ("D", []),
        ("", []),
    ],
)
def test_every_turn_named_in_an_evidence_text_is_found(text, expected):
    assert loaders.locomo_places(text) == expected


def test_turns_come_in_the_order_of_their_sessions_numbers():
    turns = loaders.parse_locomo(locomo()).turns
    assert [turn.place for turn in turns] == ["D2:1", "D2:2", "D10:1"]
    assert [turn.role for turn in turns] == ["user", "assistant", "assistant"]
    assert turns[0].created_at == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)


def test_a_shared_picture_is_stored_as_its_caption_in_brackets():
    first, second, _ = loaders.parse_locomo(locomo()).turns
    assert first.content == "Look! [a red kite]"
    assert second.content == "Lovely"


def test_only_questions_with_evidence_that_exists_count():
    (question,) = loaders.parse_locomo(locomo()).questions
    assert question.text == "Both?"
    assert question.gold == {"D2:1", "D10:1"}
    assert question.sessions == {"2", "10"}


def test_a_file_that_is_not_the_data_set_is_named_as_such(tmp_path: Path):
    path = tmp_path / "data.json"
    with pytest.raises(DataFault, match="No such file"):
        loaders.load_locomo(path)
    for text in ("{", "{}", "[]", "[1]", '[{"qa": []}]'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataFault):
            loaders.load_locomo(path)
    path.write_text(json.dumps([locomo()]), encoding="utf-8")
    assert [dialogue.name for dialogue in loaders.load_locomo(path)] == ["conv-1"]


def history() -> dict[str, Any]:
    return {
        "question_id": "q1",
        "question_type": "multi-session",
        "question": "How many bikes do I have?",
        "answer": "Two.",
        "question_date": "2023/05/30 (Tue) 23:40",
        "haystack_session_ids": ["late", "answer_1"],
        "haystack_dates": ["2023/05/25 (Thu) 10:00", "2023/05/20 (Sat) 02:21"],
        "haystack_sessions": [
            [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": " "}],
            [
                {"role": "user", "content": "I bought a bike", "has_answer": True},
                {"role": "assistant", "content": "Nice", "has_answer": False},
            ],
        ],
        "answer_session_ids": ["answer_1"],
    }


def chat() -> list[dict[str, Any]]:
    return [
        {
            "batch_number": 1,
            "time_anchor": None,
            "turns": [
                [
                    {"role": "user", "id": 0, "time_anchor": "March-15-2024", "content": "Hi"},
                    {"role": "assistant", "id": 1, "content": "Hello"},
                ]
            ],
        },
        {
            "batch_number": 2,
            "time_anchor": None,
            "turns": [
                [{"role": "user", "id": 2, "time_anchor": "April-05-2024", "content": "Again"}]
            ],
        },
    ]


def questions() -> dict[str, Any]:
    return {
        "abstention": [{"question": "Nothing?", "source_chat_ids": [1]}],
        "knowledge_update": [
            {"question": "Which?", "source_chat_ids": {"old": [0], "new": [2, 2]}},
            {"question": "No source?"},
        ],
        "event_ordering": [{"question": "Gone?", "source_chat_ids": [9]}],
    }


def write_beam(folder: Path, name: str, file: str = "chat.json") -> Path:
    own = folder / name
    (own / "probing_questions").mkdir(parents=True)
    (own / file).write_text(json.dumps(chat()), encoding="utf-8")
    path = own / "probing_questions" / "probing_questions.json"
    path.write_text(json.dumps(questions()), encoding="utf-8")
    return own


def gold_of(talk: Talk) -> list[str]:
    (question,) = talk.questions
    return [turn.content for turn in talk.turns if turn.place in question.gold]


def test_sessions_of_longmemeval_come_in_the_order_of_their_dates():
    talk = loaders.parse_longmemeval(history())
    assert [turn.content for turn in talk.turns] == ["I bought a bike", "Nice", "Hello"]
    assert talk.turns[0].created_at == datetime(2023, 5, 20, 2, 21, tzinfo=UTC)
    assert len({turn.place for turn in talk.turns}) == 3


def test_gold_of_longmemeval_is_both_turns_and_sessions():
    talk = loaders.parse_longmemeval(history())
    assert gold_of(talk) == ["I bought a bike"]
    (question,) = talk.questions
    assert question.sessions == {"answer_1"}
    assert question.kind == "multi-session"
    assert question.asked_at == datetime(2023, 5, 30, 23, 40, tzinfo=UTC)


def test_questions_of_longmemeval_that_nothing_answers_are_left_out(tmp_path: Path):
    path = tmp_path / "longmemeval_s.json"
    path.write_text(json.dumps([history(), {**history(), "question_id": "q2_abs"}]), "utf-8")
    assert [talk.name for talk in loaders.load_longmemeval(path)] == ["q1"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"question": None}, "q1.*question"),
        ({"haystack_dates": ["2023/05/25 (Thu) 10:00"]}, "q1.*zip"),
        ({"question_date": "30 May"}, "q1.*unpack"),
        ({"haystack_sessions": [[], [{"role": "bot", "content": "x"}]]}, "'bot' is not a role"),
    ],
)
def test_a_history_of_another_form_is_named(change: dict[str, Any], problem: str):
    wrong = {name: value for name, value in {**history(), **change}.items() if value is not None}
    with pytest.raises(DataFault, match=problem):
        loaders.parse_longmemeval(wrong)


def test_messages_of_beam_are_dated_by_the_anchor_before_them():
    talk = loaders.parse_beam("7", chat(), questions())
    assert [turn.created_at.date().isoformat() for turn in talk.turns] == [
        "2024-03-15",
        "2024-03-15",
        "2024-04-05",
    ]
    assert [turn.session for turn in talk.turns] == ["1", "1", "2"]


def test_gold_of_beam_are_the_messages_that_a_question_names():
    talk = loaders.parse_beam("7", chat(), questions())
    assert gold_of(talk) == ["Hi", "Again"]
    assert talk.questions[0].kind == "knowledge_update"
    assert talk.questions[0].sessions == {"1", "2"}


def test_an_id_that_two_messages_of_beam_have_names_neither():
    doubled = chat()
    doubled[1]["turns"][0][0]["id"] = 0
    asked = {"knowledge_update": [{"question": "Which?", "source_chat_ids": [0, 1]}]}
    assert gold_of(loaders.parse_beam("7", doubled, asked)) == ["Hello"]


def test_a_chat_of_beam_may_be_several_plans_in_one():
    plans = [{"plan-1": chat()[:1]}, {"plan-2": chat()[1:]}]
    talk = loaders.parse_beam("7", plans, questions())
    assert [turn.session for turn in talk.turns] == ["plan-1, 1", "plan-1, 1", "plan-2, 1"]
    assert gold_of(talk) == ["Hi", "Again"]


def test_a_folder_of_beam_is_read_chat_by_chat_in_the_order_of_their_numbers(tmp_path: Path):
    for name in ("10", "9"):
        write_beam(tmp_path, name)
    assert [talk.name for talk in loaders.load_beam(tmp_path)] == ["9", "10"]
    assert [talk.name for talk in loaders.load_beam(tmp_path / "10")] == ["10"]


def test_the_cut_chat_of_beam_goes_before_the_whole_one(tmp_path: Path):
    folder = write_beam(tmp_path, "1")
    (folder / loaders.CHATS[0]).write_text(json.dumps(chat()[:1]), encoding="utf-8")
    assert len(loaders.load_beam(folder)[0].turns) == 2


def test_a_chat_of_another_form_is_named(tmp_path: Path):
    with pytest.raises(DataFault, match="has no folder"):
        loaders.load_beam(tmp_path)
    undated = chat()[:1]
    del undated[0]["turns"][0][0]["time_anchor"]
    for wrong in (undated, [], [{"turns": [[{"content": "x"}]]}]):
        with pytest.raises(DataFault, match="chat 1 is not of the data set's form"):
            loaders.parse_beam("1", wrong, questions())


def bank() -> dict[str, Any]:
    days = {
        "2023-04-27": [{"query": "我叫张曼婷。", "response": "你好！"}],
        "2023-04-28": [{"query": "我去了公园。", "response": "好呀。"}],
    }
    return {" 张曼婷": {"history": days}}


ASKED = {"张曼婷": ["我叫什么？", "我去了哪里？", "谁也没说过的？"]}
GOLD_OF_BANK = [[["D1:1"], ["D2:1"], []]]


def test_a_day_of_memorybank_is_a_session_and_a_pair_two_turns():
    (talk,) = loaders.parse_memorybank(bank(), ASKED, GOLD_OF_BANK)
    assert [turn.place for turn in talk.turns] == ["D1:1", "D1:2", "D2:1", "D2:2"]
    assert [turn.role for turn in talk.turns] == ["user", "assistant"] * 2
    assert talk.turns[2].created_at.date().isoformat() == "2023-04-28"


def test_questions_of_memorybank_are_asked_afterwards_and_those_without_gold_left_out():
    (talk,) = loaders.parse_memorybank(bank(), ASKED, GOLD_OF_BANK)
    assert [question.text for question in talk.questions] == ASKED["张曼婷"][:2]
    assert [question.gold for question in talk.questions] == [{"D1:1"}, {"D2:1"}]
    assert talk.questions[1].sessions == {"2"}
    assert talk.questions[0].asked_at == datetime(2023, 4, 29, 20, tzinfo=UTC)


@pytest.mark.parametrize("language", loaders.LANGUAGES)
def test_a_folder_of_memorybank_is_read_in_either_language(tmp_path: Path, language: str):
    gold = tmp_path / "gold.json"
    gold.write_text(json.dumps({language: GOLD_OF_BANK}), "utf-8")
    (tmp_path / f"memory_bank_{language}.json").write_text(json.dumps(bank()), "utf-8")
    path = tmp_path / f"probing_questions_{language}.jsonl"
    path.write_text(json.dumps(ASKED) + "\n\n", "utf-8")
    assert [talk.name for talk in loaders.load_memorybank(tmp_path, gold)] == ["张曼婷"]


@pytest.mark.parametrize(
    "gold", [[*GOLD_OF_BANK, []], [[["D1:1"]]], [[["D1:1"], ["D9:1"], []]]], ids=str
)
def test_gold_that_does_not_fit_a_memory_bank_is_refused(gold: list[list[list[str]]]):
    with pytest.raises(DataFault, match="memory bank is not of the data set's form"):
        loaders.parse_memorybank(bank(), ASKED, gold)


@pytest.mark.parametrize("language", loaders.LANGUAGES)
def test_the_gold_that_was_read_for_memorybank_is_of_its_form(language: str):
    gold = json.loads(loaders.GOLD.read_text("utf-8"))[language]
    assert len(gold) == 15
    assert sum(map(len, gold)) == 100
    places = [place for user in gold for answer in user for place in answer]
    assert all(re.fullmatch(r"D(10|\d):\d{1,2}", place) for place in places)
    assert all(answer == sorted(set(answer), key=_by_place) for user in gold for answer in user)


def _by_place(place: str) -> list[int]:
    return [int(number) for number in place[1:].split(":")]


def test_a_limit_takes_talks_from_all_over_the_file():
    many = [Talk(str(number), ()) for number in range(10)]
    assert [talk.name for talk in loaders.spread(many, 3)] == ["0", "3", "6"]
    assert loaders.spread(many, None) == loaders.spread(many, 11) == many
