"""MemoryBank: fifteen users' chats with a companion over ten days, in Chinese and in English.

Reads the folders `eval_data/cn` and `eval_data/en` of the repository
zhongwanjun/MemoryBank-SiliconFriend as they are at cf61c41. Both say the same.
The set has questions and no evidence: which turns answer each was read and
written down for this benchmark, in `memorybank_gold.json`, by the places of the
turns. Each language was read apart; in 92 of the 100 questions both name the same.
The questions are asked on the day after the last chat.

Source: arXiv:2305.10250.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from benchmarks.locomo import DataFault
from benchmarks.talks import NO_KIND, Question, Talk, Turn, load_json

LANGUAGES: Final = ("cn", "en")
GOLD: Final = Path(__file__).with_name("memorybank_gold.json")
ROLES: Final = {"query": "user", "response": "assistant"}

Gold = Sequence[Sequence[str]]
"""The places of the turns that answer each question of a user."""


def load(path: Path) -> list[Talk]:
    """Return the chats of a folder, one for each user.

    Raises:
        DataFault: There is no such folder, or something else is in it.
    """
    for language in LANGUAGES:
        bank = path / f"memory_bank_{language}.json"
        if bank.is_file():
            asked = _lines(path / f"probing_questions_{language}.jsonl")
            return parse(load_json(bank), asked, load_json(GOLD)[language])
    raise DataFault(f"{path}: has no memory_bank_cn.json or memory_bank_en.json")


def parse(bank: Any, asked: Mapping[str, Sequence[str]], gold: Sequence[Gold]) -> list[Talk]:
    """Return the chats of a memory bank with their questions.

    Args:
        bank: The users with their histories, in the order of `gold`.
        asked: The questions of each user, by name.
        gold: The places of the turns that answer each question, by user.

    Raises:
        DataFault: They are not of the data set's form.
    """
    if not isinstance(bank, dict) or len(bank) != len(gold):
        raise DataFault(f"the memory bank is not one of {len(gold)} users")
    talks = []
    for (name, user), places in zip(bank.items(), gold, strict=True):
        # Some names stand between blanks in one of the two files.
        questions = asked.get(name.strip(), ())
        if len(questions) != len(places):
            raise DataFault(f"{name}: has {len(questions)} questions, not {len(places)}")
        turns = tuple(_turns(name, user))
        there = {turn.place for turn in turns}
        missing = {place for answer in places for place in answer} - there
        if missing:
            raise DataFault(f"{name}: has no turn {min(missing)}")
        talks.append(Talk(name.strip(), turns, tuple(_questions(questions, places, turns))))
    return talks


def _turns(name: str, user: Any) -> Iterator[Turn]:
    try:
        days = user["history"].items()
        for session, (day, pairs) in enumerate(days, start=1):
            moment = datetime.strptime(f"{day} 20", "%Y-%m-%d %H").replace(tzinfo=UTC)
            said = [(role, pair[key]) for pair in pairs for key, role in ROLES.items()]
            for number, (role, content) in enumerate(said, start=1):
                place = f"D{session}:{number}"
                yield Turn(place, str(session), role, None, content, moment)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataFault(f"{name}: the history is not of MemoryBank's form: {error!r}") from error


def _questions(questions: Sequence[str], places: Gold, turns: Sequence[Turn]) -> Iterator[Question]:
    asked_at = max(turn.created_at for turn in turns) + timedelta(days=1)
    session_of = {turn.place: turn.session for turn in turns}
    for text, answer in zip(questions, places, strict=True):
        if answer:
            sessions = frozenset(session_of[place] for place in answer)
            yield Question(text, NO_KIND, frozenset(answer), sessions, asked_at)


def _lines(path: Path) -> dict[str, list[str]]:
    """Return the questions by user, from a line of JSON for each."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        users = [json.loads(line) for line in lines if line.strip()]
        return {name.strip(): asked for user in users for name, asked in user.items()}
    except OSError as error:
        raise DataFault(f"{path}: {error.strerror}") from error
    except (ValueError, AttributeError) as error:
        raise DataFault(f"{path}: is not lines of JSON objects") from error
