"""The LoCoMo data set as this benchmark uses it: its turns, questions and gold turns.

Reads only; the data is never part of this repository.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

CATEGORIES: Final = {
    1: "multi-hop",
    2: "temporal",
    3: "open-domain",
    4: "single-hop",
    5: "adversarial",
}

_DIA_ID: Final = re.compile(r"D:?(\d+):(\d+)")
_SESSION: Final = re.compile(r"session_(\d+)")


class DataFault(Exception):
    """The file is missing or is not LoCoMo."""


class DiaId(NamedTuple):
    """The place of a turn in its dialogue, both counted from 1."""

    session: int
    turn: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing said, with the caption of the picture that was shared, if any."""

    dia_id: DiaId
    speaker: str
    role: str
    content: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the turns that answer it; `gold` is never empty."""

    text: str
    category: int
    gold: frozenset[DiaId]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One long conversation between two people, its turns in order."""

    name: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]


def parse_evidence(evidence: str) -> tuple[DiaId, ...]:
    """Return every turn that a text of evidence names; some texts name several, some none."""
    return tuple(DiaId(int(session), int(turn)) for session, turn in _DIA_ID.findall(evidence))


def parse_session_time(text: str) -> datetime:
    """Return a session's date, such as `1:56 pm on 8 May, 2023`, as UTC.

    Raises:
        DataFault: It is not of that form.
    """
    try:
        return datetime.strptime(text.strip(), "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
    except ValueError as error:
        raise DataFault(f"{text!r} is no session date") from error


def parse_dialogue(sample: Mapping[str, Any]) -> Dialogue:
    """Return one sample of the data set; questions without a gold turn are left out.

    Raises:
        DataFault: The sample is not of the data set's form.
    """
    try:
        talk = sample["conversation"]
        turns = tuple(
            _parse_turn(raw, talk["speaker_a"], parse_session_time(talk[f"{key}_date_time"]))
            for key in sorted(filter(_SESSION.fullmatch, talk), key=_session_number)
            for raw in talk[key]
        )
        known = {turn.dia_id for turn in turns}
        questions = tuple(
            Question(raw["question"], raw["category"], gold)
            for raw in sample["qa"]
            if (gold := _parse_gold(raw["evidence"]) & known)
        )
        return Dialogue(str(sample["sample_id"]), turns, questions)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataFault(f"a sample is not of LoCoMo's form: {error!r}") from error


def load(path: Path) -> list[Dialogue]:
    """Return the dialogues of a file.

    Raises:
        DataFault: There is no such file, or it is something else.
    """
    try:
        samples = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataFault(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise DataFault(f"{path}: is not JSON") from error
    if not isinstance(samples, list) or not samples:
        raise DataFault(f"{path}: is not a list of conversations")
    return [parse_dialogue(sample) for sample in samples]


def _parse_turn(raw: Mapping[str, Any], first_speaker: str, created_at: datetime) -> Turn:
    found = parse_evidence(raw["dia_id"])
    if len(found) != 1:
        raise DataFault(f"{raw['dia_id']!r} is no dia_id")
    caption = raw.get("blip_caption")
    return Turn(
        dia_id=found[0],
        speaker=raw["speaker"],
        role="user" if raw["speaker"] == first_speaker else "assistant",
        content=f"{raw['text']} [{caption}]".strip() if caption else raw["text"],
        created_at=created_at,
    )


def _parse_gold(evidence: list[str]) -> frozenset[DiaId]:
    return frozenset(dia_id for text in evidence for dia_id in parse_evidence(text))


def _session_number(key: str) -> int:
    return int(key.removeprefix("session_"))
