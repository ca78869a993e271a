"""Conversations with questions about them, read in the form in which each data set is published.

A question's gold is at two levels: the turns that answer it, and the sessions
that contain them. Reads only; the data is never part of this repository.

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
from contextlib import contextmanager
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
    """What is said to one memory, in order, and what it is asked then."""

    name: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...] = field(default=())


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Report data of another form as a `DataFault` that names it."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise DataFault(f"{what} is not of the data set's form: {error!r}") from error


def load_json(path: Path) -> Any:
    """Return the content of a file of JSON.

    Raises:
        DataFault: There is no such file, or it is something else.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataFault(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise DataFault(f"{path}: is not JSON") from error


def moment(text: str, form: str) -> datetime:
    """Return a date in the form of a data set as UTC.

    Raises:
        ValueError: It is not of that form.
    """
    return datetime.strptime(text.strip(), form).replace(tzinfo=UTC)


def _samples(path: Path) -> list[Any]:
    samples = load_json(path)
    if not isinstance(samples, list) or not samples:
        raise DataFault(f"{path}: is not a list of conversations")
    return samples


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
    return [parse_locomo(sample) for sample in _samples(path)]


def parse_locomo(sample: Mapping[str, Any]) -> Talk:
    """Return one sample of LoCoMo; questions without a gold turn are left out.

    Raises:
        DataFault: The sample is not of the data set's form.
    """
    with reading("a conversation"):
        said = sample["conversation"]
        sessions = sorted(
            filter(_SESSION.fullmatch, said), key=lambda key: int(key.removeprefix("session_"))
        )
        turns: list[Turn] = []
        for key in sessions:
            at = moment(said[f"{key}_date_time"], "%I:%M %p on %d %B, %Y")
            for raw in said[key]:
                (place,) = locomo_places(raw["dia_id"])
                role = "user" if raw["speaker"] == said["speaker_a"] else "assistant"
                caption = raw.get("blip_caption")
                content = f"{raw['text']} [{caption}]".strip() if caption else raw["text"]
                session = key.removeprefix("session_")
                turns.append(Turn(place, session, role, raw["speaker"], content, at))
        session_of = {turn.place: turn.session for turn in turns}
        questions = []
        for raw in sample["qa"]:
            named = {place for text in raw["evidence"] for place in locomo_places(text)}
            gold = frozenset(named & session_of.keys())
            if gold:
                kind = CATEGORIES.get(raw["category"], NO_KIND)
                where = frozenset(session_of[place] for place in gold)
                questions.append(Question(raw["question"], kind, gold, where))
        return Talk(str(sample["sample_id"]), tuple(turns), tuple(questions))


def locomo_places(evidence: str) -> list[str]:
    """Return every turn that a text of evidence names; some texts name several, some none."""
    return [f"D{int(session)}:{int(turn)}" for session, turn in _DIA_ID.findall(evidence)]


# LongMemEval: a question to each history of chats with an assistant; the files of September 2024
# and the cleaned ones of 2025 have the same fields.


def load_longmemeval(path: Path) -> list[Talk]:
    """Return the histories of a file, each with its question.

    Questions that nothing answers (`_abs`) are left out, as the paper does for retrieval.

    Raises:
        DataFault: There is no such file, or it is something else.
    """
    with reading(str(path)):
        asked = [one for one in _samples(path) if not one["question_id"].endswith("_abs")]
        return [parse_longmemeval(sample) for sample in asked]


def parse_longmemeval(sample: Mapping[str, Any]) -> Talk:
    """Return one history and its question, sessions in the order of their dates.

    Raises:
        DataFault: It is not of the data set's form.
    """
    with reading(f"question {sample['question_id']}"):
        dated = [longmemeval_moment(text) for text in sample["haystack_dates"]]
        sessions = sorted(
            zip(dated, sample["haystack_session_ids"], sample["haystack_sessions"], strict=True),
            key=lambda session: session[0],
        )
        turns: list[Turn] = []
        gold: set[str] = set()
        for number, (at, session, said) in enumerate(sessions):
            for raw in said:
                if raw["content"].strip():
                    # By number: a session can be in a history twice.
                    place = f"{number}:{len(turns)}"
                    role = _role(raw["role"])
                    turns.append(Turn(place, str(session), role, None, raw["content"], at))
                    if raw.get("has_answer"):
                        gold.add(place)
        question = Question(
            sample["question"],
            sample["question_type"],
            frozenset(gold),
            frozenset(map(str, sample["answer_session_ids"])),
            longmemeval_moment(sample["question_date"]),
        )
        return Talk(sample["question_id"], tuple(turns), (question,))


def longmemeval_moment(text: str) -> datetime:
    """Return a date, such as `2023/05/20 (Sat) 02:21`, as UTC.

    Raises:
        ValueError: It is not of that form.
    """
    day, _, hour = text.split()
    return moment(f"{day} {hour}", "%Y/%m/%d %H:%M")


def _role(text: str) -> str:
    if text not in ROLES:
        raise ValueError(f"{text!r} is not a role")
    return text


# BEAM: long chats with an assistant, and twenty questions of ten kinds to each. Of the two files
# the first that is there is read, as the authors' own evaluation does.

CHATS: Final = ("chat_trunecated.json", "chat.json")
QUESTIONS: Final = Path("probing_questions") / "probing_questions.json"
ABSTENTION: Final = "abstention"
"""Questions that nothing answers have no gold."""


def load_beam(path: Path) -> list[Talk]:
    """Return the chats of a folder, by number, or the one that the folder has itself.

    Raises:
        DataFault: There is no such folder, or something else is in it.
    """
    folders = sorted(
        (folder for folder in (path, *path.glob("*")) if _chat(folder) is not None),
        key=lambda folder: (folder.name.zfill(9), folder.name),
    )
    if not folders:
        raise DataFault(f"{path}: has no folder with a {CHATS[1]} of BEAM's")
    return [
        parse_beam(folder.name, load_json(_chat(folder) or folder), load_json(folder / QUESTIONS))
        for folder in folders
    ]


def _chat(folder: Path) -> Path | None:
    return next((path for name in CHATS if (path := folder / name).is_file()), None)


def parse_beam(name: str, chat: Any, asked: Any) -> Talk:
    """Return a chat with its questions, from the two files that they are in.

    A message is dated by the last anchor before it, at noon; those of BEAM are at the
    beginning of a part of the chat, which counts as a session here.

    Raises:
        DataFault: They are not of the data set's form.
    """
    with reading(f"chat {name}"):
        messages = list(_beam_messages(chat))
        anchors = [raw["time_anchor"] for _, raw in messages if raw.get("time_anchor")]
        at = moment(f"{anchors[0]} 12", "%B-%d-%Y %H")
        turns: list[Turn] = []
        ids: list[str] = []
        for session, raw in messages:
            if raw.get("time_anchor"):
                at = moment(f"{raw['time_anchor']} 12", "%B-%d-%Y %H")
            place, role = f"{name}:{len(turns)}", _role(raw["role"])
            turns.append(Turn(place, session, role, None, raw["content"], at))
            ids.append(str(raw["id"]))
        counted = Counter(ids)
        # Of several messages with one id, none is meant for certain.
        by_id = {one: turn for one, turn in zip(ids, turns, strict=True) if counted[one] == 1}
        questions = []
        for kind, raws in asked.items():
            for raw in raws:
                named = set(_beam_ids(raw.get("source_chat_ids")))
                gold = [by_id[one] for one in named if one in by_id]
                if gold and kind != ABSTENTION:
                    places = frozenset(turn.place for turn in gold)
                    where = frozenset(turn.session for turn in gold)
                    questions.append(Question(raw["question"], kind, places, where))
        return Talk(name, tuple(turns), tuple(questions))


def _beam_messages(chat: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each message with its session."""
    for number, batch in enumerate(chat, start=1):
        if "turns" in batch:
            for turn in batch["turns"]:
                for raw in turn if isinstance(turn, list) else [turn]:
                    yield str(number), raw
        else:
            # The chats of ten million tokens are several in one: {"plan-1": [...]}.
            for plan, part in batch.items():
                for session, raw in _beam_messages(part):
                    yield f"{plan}, {session}", raw


def _beam_ids(found: Any) -> Iterator[str]:
    """Yield the ids in a list of them, or in lists by their meaning."""
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list):
        for value in found:
            yield from _beam_ids(value)
    elif found is not None:
        yield str(found)


# MemoryBank: fifteen users' chats with a companion over ten days, the same in Chinese and English.
# The set doesn't say which turns answer a question: `memorybank_gold.json` does, by the places of
# the turns, read for this benchmark in each language apart; 92 of the 100 questions agree.
# Questions are asked on the day after the last chat.

LANGUAGES: Final = ("cn", "en")
GOLD: Final = Path(__file__).with_name("memorybank_gold.json")
_PAIR_ROLES: Final = {"query": "user", "response": "assistant"}

Gold = Sequence[Sequence[str]]
"""The places of the turns that answer each question of a user."""


def load_memorybank(path: Path, gold: Path = GOLD) -> list[Talk]:
    """Return the chats of a folder, one for each user.

    Raises:
        DataFault: There is no such folder, or something else is in it.
    """
    for language in LANGUAGES:
        bank = path / f"memory_bank_{language}.json"
        if bank.is_file():
            with reading(str(path)):
                lines = (path / f"probing_questions_{language}.jsonl").read_text("utf-8")
                users = [json.loads(line) for line in lines.splitlines() if line.strip()]
                asked = {name.strip(): some for user in users for name, some in user.items()}
            return parse_memorybank(load_json(bank), asked, load_json(gold)[language])
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
    talks = []
    with reading("the memory bank"):
        for (name, user), places in zip(bank.items(), gold, strict=True):
            # Some names have blanks around them in one of the two files.
            questions = asked[name.strip()]
            turns = tuple(_memorybank_turns(user))
            session_of = {turn.place: turn.session for turn in turns}
            asked_at = max(turn.created_at for turn in turns) + timedelta(days=1)
            made = [
                Question(
                    text,
                    NO_KIND,
                    frozenset(answer),
                    frozenset(session_of[place] for place in answer),
                    asked_at,
                )
                for text, answer in zip(questions, places, strict=True)
                if answer
            ]
            talks.append(Talk(name.strip(), turns, tuple(made)))
    return talks


def _memorybank_turns(user: Any) -> Iterator[Turn]:
    for session, (day, pairs) in enumerate(user["history"].items(), start=1):
        at = moment(f"{day} 20", "%Y-%m-%d %H")
        said = [(role, pair[key]) for pair in pairs for key, role in _PAIR_ROLES.items()]
        for number, (role, content) in enumerate(said, start=1):
            yield Turn(f"D{session}:{number}", str(session), role, None, content, at)


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
