"""BEAM: long chats with an assistant, and twenty questions of ten kinds to each.

Reads the folders of the repository mohammadtavakoli78/BEAM as they are at
b2a3ee8: `chats/100K` with a numbered folder for each chat, or one of those. Of
`chat_trunecated.json` and `chat.json` it takes the first that is there, as the
authors' own evaluation does.

Source: arXiv:2510.27246, and `src/answer_probing_questions` of that repository.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.locomo import DataFault
from benchmarks.talks import Question, Talk, Turn, load_json, wanted

CHATS: Final = ("chat_trunecated.json", "chat.json")
QUESTIONS: Final = Path("probing_questions") / "probing_questions.json"
ROLES: Final = frozenset({"user", "assistant"})
ABSTENTION: Final = "abstention"
"""Questions that nothing answers have no gold."""


def load(path: Path) -> list[Talk]:
    """Return the chats of a folder, by number.

    Raises:
        DataFault: There is no such folder, or something else is in it.
    """
    if _chat(path) is not None:
        return [_load_one(path)]
    folders = [folder for folder in path.glob("*") if _chat(folder) is not None]
    if not folders:
        raise DataFault(f"{path}: has no folder with a {CHATS[1]} of BEAM's")
    return [_load_one(folder) for folder in sorted(folders, key=_number)]


def parse(name: str, chat: Any, asked: Any) -> Talk:
    """Return a chat with its questions, as they stand in their two files.

    A message is dated by the last anchor before it; those of BEAM stand at the
    beginning of a part of the chat, which counts as a session here.

    Raises:
        DataFault: They are not of the data set's form.
    """
    messages = list(_messages(name, chat))
    dates = [parse_anchor(raw["time_anchor"]) for _, raw in messages if raw.get("time_anchor")]
    if not dates:
        raise DataFault(f"{name}: no message has a time_anchor")
    moment = dates[0]
    turns: list[Turn] = []
    ids: list[str] = []
    for session, raw in messages:
        if raw.get("time_anchor"):
            moment = parse_anchor(raw["time_anchor"])
        turns.append(_turn(raw, f"{name}:{len(turns)}", session, moment))
        ids.append(str(raw["id"]))
    counted = Counter(ids)
    # Which message an id means that several have can't be told.
    by_id = {found: turn for found, turn in zip(ids, turns, strict=True) if counted[found] == 1}
    return Talk(name, tuple(turns), tuple(_questions(name, asked, by_id)))


def parse_anchor(text: str) -> datetime:
    """Return a date, such as `March-15-2024`, as noon of that day, UTC.

    Raises:
        DataFault: It is not of that form.
    """
    try:
        return datetime.strptime(f"{text} 12", "%B-%d-%Y %H").replace(tzinfo=UTC)
    except ValueError as error:
        raise DataFault(f"{text!r} is no time_anchor") from error


def _messages(name: str, chat: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each message with its session."""
    if not isinstance(chat, list) or not chat:
        raise DataFault(f"{name}: the chat is not a list")
    for number, batch in enumerate(chat, start=1):
        if isinstance(batch, dict) and "turns" not in batch:
            # The chats of ten million tokens are several in one: {"plan-1": [...]}.
            for plan, part in batch.items():
                for session, raw in _messages(f"{name}, {plan}", part):
                    yield f"{plan}, {session}", raw
            continue
        for turn in wanted(batch, "turns", list, f"{name}, part {number}"):
            for raw in turn if isinstance(turn, list) else [turn]:
                wanted(raw, "content", str, f"{name}, part {number}, a message")
                if "id" not in raw:
                    raise DataFault(f"{name}, part {number}: a message has no id")
                yield str(number), raw


def _turn(raw: dict[str, Any], place: str, session: str, created_at: datetime) -> Turn:
    role = raw.get("role")
    if role not in ROLES:
        raise DataFault(f"message {raw['id']}: {role!r} is no role")
    return Turn(place, session, str(role), None, raw["content"], created_at)


def _questions(name: str, asked: Any, by_id: dict[str, Turn]) -> Iterator[Question]:
    """Yield the questions that name messages which are there."""
    if not isinstance(asked, dict) or not asked:
        raise DataFault(f"{name}: the questions are not lists by kind")
    for kind, questions in asked.items():
        if not isinstance(questions, list):
            raise DataFault(f"{name}: the questions of {kind} are no list")
        for raw in questions:
            text = wanted(raw, "question", str, f"{name}, a question of {kind}")
            named = set(_ids(raw.get("source_chat_ids")))
            gold = [by_id[found] for found in named if found in by_id]
            if gold and kind != ABSTENTION:
                yield Question(
                    text,
                    kind,
                    frozenset(turn.place for turn in gold),
                    frozenset(turn.session for turn in gold),
                )


def _ids(found: Any) -> Iterator[str]:
    """Yield the ids in a list of them, or in lists by what they stand for."""
    if isinstance(found, dict):
        for value in found.values():
            yield from _ids(value)
    elif isinstance(found, list):
        for value in found:
            yield from _ids(value)
    elif isinstance(found, int | str):
        yield str(found)


def _load_one(folder: Path) -> Talk:
    chat = _chat(folder)
    if chat is None:
        raise DataFault(f"{folder}: has no {CHATS[1]}")
    return parse(folder.name, load_json(chat), load_json(folder / QUESTIONS))


def _chat(folder: Path) -> Path | None:
    return next((path for name in CHATS if (path := folder / name).is_file()), None)


def _number(folder: Path) -> tuple[int, str]:
    return (int(folder.name) if folder.name.isdecimal() else 0, folder.name)
