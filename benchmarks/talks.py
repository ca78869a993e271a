"""Conversations with questions about them, whatever data set they come from.

A question's gold is at two levels: the turns that answer it, and the sessions
in which they stand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from benchmarks import locomo
from benchmarks.locomo import CATEGORIES, DataFault

NO_KIND: Final = "other"


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing said; `place` is its own in its talk, and `session` the place of its session."""

    place: str
    session: str
    role: str
    name: str | None
    content: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Question:
    """A question: `gold` are the places of the turns that answer it, `sessions` those of sessions.

    One of them may be empty, where the data set doesn't say; `asked_at` is None as well then.
    """

    text: str
    kind: str
    gold: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()
    asked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Talk:
    """All that one memory is told, in order, and what it is asked then."""

    name: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...] = field(default=())

    def session_of(self) -> dict[str, str]:
        """Return the session of each turn, by its place."""
        return {turn.place: turn.session for turn in self.turns}


def load_json(path: Path) -> Any:
    """Return what a file of JSON holds.

    Raises:
        DataFault: There is no such file, or it is something else.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataFault(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise DataFault(f"{path}: is not JSON") from error


def wanted(raw: Mapping[str, Any], name: str, kind: type, what: str) -> Any:
    """Return a field that has to be there.

    Raises:
        DataFault: It is missing, or of another type.
    """
    value = raw.get(name) if isinstance(raw, dict) else None
    if not isinstance(value, kind):
        found = "missing" if value is None else f"{type(value).__name__}, not {kind.__name__}"
        raise DataFault(f"{what}: its {name} is {found}")
    return value


def load_locomo(path: Path) -> list[Talk]:
    """Return the dialogues of LoCoMo's `locomo10.json`.

    Raises:
        DataFault: There is no such file, or it is something else.
    """
    return [of_locomo(dialogue) for dialogue in locomo.load(path)]


def of_locomo(dialogue: locomo.Dialogue) -> Talk:
    """Return a dialogue of LoCoMo as a talk."""
    turns = tuple(
        Turn(
            place=_place(turn.dia_id),
            session=str(turn.dia_id.session),
            role=turn.role,
            name=turn.speaker,
            content=turn.content,
            created_at=turn.created_at,
        )
        for turn in dialogue.turns
    )
    questions = tuple(
        Question(
            question.text,
            CATEGORIES.get(question.category, NO_KIND),
            frozenset(map(_place, question.gold)),
            frozenset(str(dia_id.session) for dia_id in question.gold),
        )
        for question in dialogue.questions
    )
    return Talk(dialogue.name, turns, questions)


def spread(talks: list[Talk], limit: int | None) -> list[Talk]:
    """Return `limit` of the talks, evenly from all over the list: files are sorted by kind."""
    if limit is None or limit >= len(talks):
        return talks
    return [talks[number * len(talks) // limit] for number in range(limit)]


def together(talks: Sequence[Talk]) -> Talk:
    """Return one talk of all turns and questions, a talk after the other."""
    turns: list[Turn] = []
    questions: list[Question] = []
    for number, talk in enumerate(talks):
        own = f"{number}/"
        turns += [
            replace(turn, place=own + turn.place, session=own + turn.session) for turn in talk.turns
        ]
        questions += [
            replace(
                question,
                gold=frozenset(own + place for place in question.gold),
                sessions=frozenset(own + session for session in question.sessions),
            )
            for question in talk.questions
        ]
    return Talk("together", tuple(turns), tuple(questions))


def _place(dia_id: locomo.DiaId) -> str:
    return f"D{dia_id.session}:{dia_id.turn}"
