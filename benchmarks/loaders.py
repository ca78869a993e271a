"""Conversations with questions about them, read in the form in which each data set is published.

A question's gold is at two levels: the turns that answer it, and the sessions
in which they stand. Reads only; the data is never part of this repository.

Sources: LoCoMo, arXiv:2402.17753; LongMemEval, arXiv:2410.10813, and "Dataset Format" in
the README of xiaowu0162/LongMemEval at 01055c0; BEAM, arXiv:2510.27246, and
`src/answer_probing_questions` of mohammadtavakoli78/BEAM at b2a3ee8; MemoryBank,
arXiv:2305.10250, and zhongwanjun/MemoryBank-SiliconFriend at cf61c41.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import positive

NO_KIND: Final = "other"
ROLES: Final = frozenset({"user", "assistant"})


class DataFault(Exception):
    """A file of a data set is missing, or is not of its form."""


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


# LoCoMo: ten long conversations between two people.

CATEGORIES: Final = {
    1: "multi-hop",
    2: "temporal",
    3: "open-domain",
    4: "single-hop",
    5: "adversarial",
}
_DIA_ID: Final = re.compile(r"D:?(\d+):(\d+)")
_SESSION: Final = re.compile(r"session_(\d+)")


def load_locomo(path: Path) -> list[Talk]:
    """Return the dialogues of LoCoMo's `locomo10.json`, or of a file in its form.

    Raises:
        DataFault: There is no such file, or it is something else.
    """
    samples = load_json(path)
    if not isinstance(samples, list) or not samples:
        raise DataFault(f"{path}: is not a list of conversations")
    return [parse_locomo(sample) for sample in samples]


def parse_locomo(sample: Mapping[str, Any]) -> Talk:
    """Return one sample of LoCoMo; questions without a gold turn are left out.

    Raises:
        DataFault: The sample is not of the data set's form.
    """
    try:
        said = sample["conversation"]
        turns = tuple(
            _locomo_turn(raw, said["speaker_a"], parse_locomo_time(said[f"{key}_date_time"]))
            for key in sorted(
                filter(_SESSION.fullmatch, said), key=lambda key: int(key.removeprefix("session_"))
            )
            for raw in said[key]
        )
        session_of = {turn.place: turn.session for turn in turns}
        questions = []
        for raw in sample["qa"]:
            named = {place for text in raw["evidence"] for place in locomo_places(text)}
            gold = named & session_of.keys()
            if gold:
                kind = CATEGORIES.get(raw["category"], NO_KIND)
                sessions = frozenset(session_of[place] for place in gold)
                questions.append(Question(raw["question"], kind, frozenset(gold), sessions))
        return Talk(str(sample["sample_id"]), turns, tuple(questions))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataFault(f"a sample is not of LoCoMo's form: {error!r}") from error


def locomo_places(evidence: str) -> list[str]:
    """Return every turn that a text of evidence names; some texts name several, some none."""
    return [f"D{int(session)}:{int(turn)}" for session, turn in _DIA_ID.findall(evidence)]


def parse_locomo_time(text: str) -> datetime:
    """Return a session's date, such as `1:56 pm on 8 May, 2023`, as UTC.

    Raises:
        DataFault: It is not of that form.
    """
    try:
        return datetime.strptime(text.strip(), "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
    except ValueError as error:
        raise DataFault(f"{text!r} is not a session date") from error


def _locomo_turn(raw: Mapping[str, Any], first_speaker: str, created_at: datetime) -> Turn:
    places = locomo_places(raw["dia_id"])
    if len(places) != 1:
        raise DataFault(f"{raw['dia_id']!r} is not a dia_id")
    caption = raw.get("blip_caption")
    return Turn(
        place=places[0],
        session=places[0].partition(":")[0].removeprefix("D"),
        role="user" if raw["speaker"] == first_speaker else "assistant",
        name=raw["speaker"],
        content=f"{raw['text']} [{caption}]".strip() if caption else raw["text"],
        created_at=created_at,
    )


# LongMemEval: a question to each history of chats with an assistant; the files of September 2024
# and the cleaned ones of 2025 have the same fields.

_ABSTENTION: Final = "_abs"


def load_longmemeval(path: Path) -> list[Talk]:
    """Return the histories of a file, each with its question.

    Questions that nothing answers (`_abs`) are left out, as the paper does for retrieval.

    Raises:
        DataFault: There is no such file, or it is something else.
    """
    samples = load_json(path)
    if not isinstance(samples, list) or not samples:
        raise DataFault(f"{path}: is not a list of questions")
    talks = [parse_longmemeval(sample) for sample in samples if not _is_abstention(sample)]
    if not talks:
        raise DataFault(f"{path}: every question in it is one that nothing answers")
    return talks


def parse_longmemeval(sample: Mapping[str, Any]) -> Talk:
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
    moments = [parse_longmemeval_date(date) for date in dates]
    turns: list[Turn] = []
    gold: set[str] = set()
    for number in sorted(range(len(sessions)), key=moments.__getitem__):
        if not isinstance(sessions[number], list):
            raise DataFault(f"{name}: session {ids[number]} is no list of turns")
        for raw in sessions[number]:
            # By number: a session can stand in a history twice.
            turn = _longmemeval_turn(
                raw, f"{number}:{len(turns)}", str(ids[number]), moments[number]
            )
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
        parse_longmemeval_date(wanted(sample, "question_date", str, name)),
    )
    return Talk(name, tuple(turns), (question,))


def parse_longmemeval_date(text: str) -> datetime:
    """Return a date, such as `2023/05/20 (Sat) 02:21`, as UTC.

    Raises:
        DataFault: It is not of that form.
    """
    try:
        day, _, hour = text.split()
        return datetime.strptime(f"{day} {hour}", "%Y/%m/%d %H:%M").replace(tzinfo=UTC)
    except (ValueError, AttributeError) as error:
        raise DataFault(f"{text!r} is not a date of LongMemEval") from error


def _longmemeval_turn(raw: Any, place: str, session: str, created_at: datetime) -> Turn:
    role = wanted(raw, "role", str, f"a turn of session {session}")
    if role not in ROLES:
        raise DataFault(f"a turn of session {session}: {role!r} is not a role")
    content = wanted(raw, "content", str, f"a turn of session {session}")
    return Turn(place, session, role, None, content, created_at)


def _is_abstention(sample: Any) -> bool:
    return isinstance(sample, dict) and str(sample.get("question_id")).endswith(_ABSTENTION)


# BEAM: long chats with an assistant, and twenty questions of ten kinds to each. Of the two files
# the first that is there is read, as the authors' own evaluation does.

CHATS: Final = ("chat_trunecated.json", "chat.json")
QUESTIONS: Final = Path("probing_questions") / "probing_questions.json"
ABSTENTION: Final = "abstention"
"""Questions that nothing answers have no gold."""


def load_beam(path: Path) -> list[Talk]:
    """Return the chats of a folder, by number.

    Raises:
        DataFault: There is no such folder, or something else is in it.
    """
    if _chat(path) is not None:
        return [_load_chat(path)]
    folders = [folder for folder in path.glob("*") if _chat(folder) is not None]
    if not folders:
        raise DataFault(f"{path}: has no folder with a {CHATS[1]} of BEAM's")
    return [_load_chat(folder) for folder in sorted(folders, key=_chat_number)]


def parse_beam(name: str, chat: Any, asked: Any) -> Talk:
    """Return a chat with its questions, as they stand in their two files.

    A message is dated by the last anchor before it; those of BEAM stand at the
    beginning of a part of the chat, which counts as a session here.

    Raises:
        DataFault: They are not of the data set's form.
    """
    messages = list(_beam_messages(name, chat))
    dates = [parse_beam_anchor(raw["time_anchor"]) for _, raw in messages if raw.get("time_anchor")]
    if not dates:
        raise DataFault(f"{name}: no message has a time_anchor")
    moment = dates[0]
    turns: list[Turn] = []
    ids: list[str] = []
    for session, raw in messages:
        if raw.get("time_anchor"):
            moment = parse_beam_anchor(raw["time_anchor"])
        turns.append(_beam_turn(raw, f"{name}:{len(turns)}", session, moment))
        ids.append(str(raw["id"]))
    counted = Counter(ids)
    # Which message an id means that several have can't be told.
    by_id = {found: turn for found, turn in zip(ids, turns, strict=True) if counted[found] == 1}
    return Talk(name, tuple(turns), tuple(_beam_questions(name, asked, by_id)))


def parse_beam_anchor(text: str) -> datetime:
    """Return a date, such as `March-15-2024`, as noon of that day, UTC.

    Raises:
        DataFault: It is not of that form.
    """
    try:
        return datetime.strptime(f"{text} 12", "%B-%d-%Y %H").replace(tzinfo=UTC)
    except ValueError as error:
        raise DataFault(f"{text!r} is not a time_anchor") from error


def _beam_messages(name: str, chat: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each message with its session."""
    if not isinstance(chat, list) or not chat:
        raise DataFault(f"{name}: the chat is not a list")
    for number, batch in enumerate(chat, start=1):
        if isinstance(batch, dict) and "turns" not in batch:
            # The chats of ten million tokens are several in one: {"plan-1": [...]}.
            for plan, part in batch.items():
                for session, raw in _beam_messages(f"{name}, {plan}", part):
                    yield f"{plan}, {session}", raw
            continue
        for turn in wanted(batch, "turns", list, f"{name}, part {number}"):
            for raw in turn if isinstance(turn, list) else [turn]:
                wanted(raw, "content", str, f"{name}, part {number}, a message")
                if "id" not in raw:
                    raise DataFault(f"{name}, part {number}: a message has no id")
                yield str(number), raw


def _beam_turn(raw: dict[str, Any], place: str, session: str, created_at: datetime) -> Turn:
    role = raw.get("role")
    if role not in ROLES:
        raise DataFault(f"message {raw['id']}: {role!r} is not a role")
    return Turn(place, session, str(role), None, raw["content"], created_at)


def _beam_questions(name: str, asked: Any, by_id: dict[str, Turn]) -> Iterator[Question]:
    """Yield the questions that name messages which are there."""
    if not isinstance(asked, dict) or not asked:
        raise DataFault(f"{name}: the questions are not lists by kind")
    for kind, questions in asked.items():
        if not isinstance(questions, list):
            raise DataFault(f"{name}: the questions of {kind} are no list")
        for raw in questions:
            text = wanted(raw, "question", str, f"{name}, a question of {kind}")
            named = set(_beam_ids(raw.get("source_chat_ids")))
            gold = [by_id[found] for found in named if found in by_id]
            if gold and kind != ABSTENTION:
                yield Question(
                    text,
                    kind,
                    frozenset(turn.place for turn in gold),
                    frozenset(turn.session for turn in gold),
                )


def _beam_ids(found: Any) -> Iterator[str]:
    """Yield the ids in a list of them, or in lists by what they stand for."""
    if isinstance(found, dict):
        for value in found.values():
            yield from _beam_ids(value)
    elif isinstance(found, list):
        for value in found:
            yield from _beam_ids(value)
    elif isinstance(found, int | str):
        yield str(found)


def _load_chat(folder: Path) -> Talk:
    chat = _chat(folder)
    if chat is None:
        raise DataFault(f"{folder}: has no {CHATS[1]}")
    return parse_beam(folder.name, load_json(chat), load_json(folder / QUESTIONS))


def _chat(folder: Path) -> Path | None:
    return next((path for name in CHATS if (path := folder / name).is_file()), None)


def _chat_number(folder: Path) -> tuple[int, str]:
    return (int(folder.name) if folder.name.isdecimal() else 0, folder.name)


# MemoryBank: fifteen users' chats with a companion over ten days, the same in Chinese and English.
# The set doesn't say which turns answer a question: `memorybank_gold.json` does, by the places of
# the turns, read for this benchmark in each language apart; 92 of the 100 questions agree.
# Questions are asked on the day after the last chat.

LANGUAGES: Final = ("cn", "en")
GOLD: Final = Path(__file__).with_name("memorybank_gold.json")
_PAIR_ROLES: Final = {"query": "user", "response": "assistant"}

Gold = Sequence[Sequence[str]]
"""The places of the turns that answer each question of a user."""


def load_memorybank(path: Path) -> list[Talk]:
    """Return the chats of a folder, one for each user.

    Raises:
        DataFault: There is no such folder, or something else is in it.
    """
    for language in LANGUAGES:
        bank = path / f"memory_bank_{language}.json"
        if bank.is_file():
            asked = _memorybank_lines(path / f"probing_questions_{language}.jsonl")
            return parse_memorybank(load_json(bank), asked, load_json(GOLD)[language])
    raise DataFault(f"{path}: has no memory_bank_cn.json or memory_bank_en.json")


def parse_memorybank(
    bank: Any, asked: Mapping[str, Sequence[str]], gold: Sequence[Gold]
) -> list[Talk]:
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
        turns = tuple(_memorybank_turns(name, user))
        there = {turn.place for turn in turns}
        missing = {place for answer in places for place in answer} - there
        if missing:
            raise DataFault(f"{name}: has no turn {min(missing)}")
        talks.append(
            Talk(name.strip(), turns, tuple(_memorybank_questions(questions, places, turns)))
        )
    return talks


def _memorybank_turns(name: str, user: Any) -> Iterator[Turn]:
    try:
        days = user["history"].items()
        for session, (day, pairs) in enumerate(days, start=1):
            moment = datetime.strptime(f"{day} 20", "%Y-%m-%d %H").replace(tzinfo=UTC)
            said = [(role, pair[key]) for pair in pairs for key, role in _PAIR_ROLES.items()]
            for number, (role, content) in enumerate(said, start=1):
                place = f"D{session}:{number}"
                yield Turn(place, str(session), role, None, content, moment)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataFault(f"{name}: the history is not of MemoryBank's form: {error!r}") from error


def _memorybank_questions(
    questions: Sequence[str], places: Gold, turns: Sequence[Turn]
) -> Iterator[Question]:
    asked_at = max(turn.created_at for turn in turns) + timedelta(days=1)
    session_of = {turn.place: turn.session for turn in turns}
    for text, answer in zip(questions, places, strict=True):
        if answer:
            sessions = frozenset(session_of[place] for place in answer)
            yield Question(text, NO_KIND, frozenset(answer), sessions, asked_at)


def _memorybank_lines(path: Path) -> dict[str, list[str]]:
    """Return the questions by user, from a line of JSON for each."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        users = [json.loads(line) for line in lines if line.strip()]
        return {name.strip(): asked for user in users for name, asked in user.items()}
    except OSError as error:
        raise DataFault(f"{path}: {error.strerror}") from error
    except (ValueError, AttributeError) as error:
        raise DataFault(f"{path}: is not lines of JSON objects") from error


Loaders = Mapping[str, Callable[[Path], list[Talk]]]
"""What reads each form of a data set, by its name."""

LOADERS: Final[Loaders] = {
    "locomo": load_locomo,
    "longmemeval": load_longmemeval,
    "beam": load_beam,
    "memorybank": load_memorybank,
}
HINTS: Final[Mapping[str, str]] = {
    "locomo": "Give the path of data/locomo10.json from the repository snap-research/locomo on "
    "GitHub (CC BY-NC 4.0).",
    "longmemeval": "Give the path of longmemeval_s.json or one of its kind, from the data set "
    "xiaowu0162/longmemeval on Hugging Face.",
    "beam": "Give the path of a folder such as chats/100K, from the repository "
    "mohammadtavakoli78/BEAM on GitHub.",
    "memorybank": "Give the path of the folder eval_data/cn or eval_data/en, from the repository "
    "zhongwanjun/MemoryBank-SiliconFriend on GitHub.",
}


def add_options(parser: argparse.ArgumentParser, formats: Loaders = LOADERS) -> None:
    """Add the options that choose conversations: `--data`, `--format` and `--limit`."""
    parser.add_argument("--data", type=Path, required=True, help="the data set's file or folder")
    parser.add_argument("--format", choices=formats, default="locomo", help="default: locomo")
    parser.add_argument("--limit", type=positive, help="use N conversations, from all over it")


def chosen(
    parser: argparse.ArgumentParser, options: argparse.Namespace, formats: Loaders = LOADERS
) -> list[Talk]:
    """Return the conversations that the options choose; exits with status 2 without any."""
    try:
        return spread(formats[options.format](options.data), options.limit)
    except DataFault as error:
        parser.error(f"{error}. {HINTS.get(options.format, '')}")
