"""LongMemEval: a question to each history of chats with an assistant.

Reads what is published as `longmemeval_s.json`, `longmemeval_m.json` and
`longmemeval_oracle.json` of September 2024, and the cleaned files of 2025,
which have the same fields.

Source: arXiv:2410.10813, and "Dataset Format" in the README of the repository
xiaowu0162/LongMemEval at 01055c0.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.locomo import DataFault
from benchmarks.talks import Question, Talk, Turn, load_json, wanted

ROLES: Final = frozenset({"user", "assistant"})
_ABSTENTION: Final = "_abs"


def load(path: Path) -> list[Talk]:
    """Return the histories of a file, each with its question.

    Questions that nothing answers (`_abs`) are left out, as the paper does for retrieval.

    Raises:
        DataFault: There is no such file, or it is something else.
    """
    samples = load_json(path)
    if not isinstance(samples, list) or not samples:
        raise DataFault(f"{path}: is not a list of questions")
    talks = [parse(sample) for sample in samples if not _is_abstention(sample)]
    if not talks:
        raise DataFault(f"{path}: every question in it is one that nothing answers")
    return talks


def parse(sample: Mapping[str, Any]) -> Talk:
    """Return one history and its question.

    Its sessions come in the order of their dates: those of `longmemeval_oracle.json` don't.

    Raises:
        DataFault: It is not of the data set's form.
    """
    name = wanted(sample, "question_id", str, "a question")
    sessions = wanted(sample, "haystack_sessions", list, name)
    ids = wanted(sample, "haystack_session_ids", list, name)
    dates = wanted(sample, "haystack_dates", list, name)
    if not len(sessions) == len(ids) == len(dates):
        raise DataFault(
            f"{name}: {len(sessions)} sessions, {len(ids)} ids and {len(dates)} dates of them"
        )
    moments = [parse_date(date) for date in dates]
    turns: list[Turn] = []
    gold: set[str] = set()
    for number in sorted(range(len(sessions)), key=moments.__getitem__):
        if not isinstance(sessions[number], list):
            raise DataFault(f"{name}: session {ids[number]} is no list of turns")
        for raw in sessions[number]:
            # By number: a session can stand in a history twice.
            turn = _turn(raw, f"{number}:{len(turns)}", str(ids[number]), moments[number])
            if not turn.content.strip():
                continue
            turns.append(turn)
            if raw.get("has_answer"):
                gold.add(turn.place)
    question = Question(
        wanted(sample, "question", str, name),
        wanted(sample, "question_type", str, name),
        frozenset(gold),
        frozenset(map(str, wanted(sample, "answer_session_ids", list, name))),
        parse_date(wanted(sample, "question_date", str, name)),
    )
    return Talk(name, tuple(turns), (question,))


def parse_date(text: str) -> datetime:
    """Return a date, such as `2023/05/20 (Sat) 02:21`, as UTC.

    Raises:
        DataFault: It is not of that form.
    """
    try:
        day, _, hour = text.split()
        return datetime.strptime(f"{day} {hour}", "%Y/%m/%d %H:%M").replace(tzinfo=UTC)
    except (ValueError, AttributeError) as error:
        raise DataFault(f"{text!r} is no date of LongMemEval's") from error


def _turn(raw: Any, place: str, session: str, created_at: datetime) -> Turn:
    role = wanted(raw, "role", str, f"a turn of session {session}")
    if role not in ROLES:
        raise DataFault(f"a turn of session {session}: {role!r} is no role")
    content = wanted(raw, "content", str, f"a turn of session {session}")
    return Turn(place, session, role, None, content, created_at)


def _is_abstention(sample: Any) -> bool:
    return isinstance(sample, dict) and str(sample.get("question_id")).endswith(_ABSTENTION)
