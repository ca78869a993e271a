"""Are long messages favoured? Another conversation is put among what is asked for.

Once turn by turn, and once with its turns joined to long messages: the same
text, that answers nothing. A search that favours length finds it more often then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rich.progress import Progress

from benchmarks.loaders import Talk, Turn
from benchmarks.metrics import Quality, quality
from research.talkindex import Indexed, add, pieces, texts_of
from research.vectorcache import VectorCache

LONG_CHARS: Final = 3_000
HITS: Final = 20
FIRST: Final = 10

_OTHER: Final = "other/"


@dataclass(frozen=True, slots=True)
class Crowded:
    """What is found with others among it.

    Args:
        name: What was put among it.
        quality: Of the questions.
        added_frac: The part of all turns that was added.
        hits_frac: The part of the first ten hits that it has.
    """

    name: str
    quality: Quality
    added_frac: float
    hits_frac: float


def crowded(talks: Sequence[Talk], vectors: VectorCache, bar: Progress) -> list[Crowded]:
    """Return a row with nothing, with short turns and with long messages added to each talk.

    What is added to a talk are the turns of the next one.
    """
    rows: list[Crowded] = []
    others = [(*talks[1:], talks[0])[at].turns for at in range(len(talks))]
    added: dict[str, list[Sequence[Turn]]] = {
        "nothing": [() for _ in talks],
        "another conversation": [_renamed(turns) for turns in others],
        "the same as long messages": [list(joined(_renamed(turns))) for turns in others],
    }
    task = bar.add_task("long messages", total=len(added) * len(talks))
    for name, parts in added.items():
        answers: list[tuple[list[str], frozenset[str]]] = []
        total = 0
        for talk, turns in zip(talks, parts, strict=True):
            answers += _answers(talk, turns, vectors)
            total += len(turns)
            bar.advance(task)
        first = [place for hits, _ in answers for place in hits[:FIRST]]
        rows.append(
            Crowded(
                name,
                quality(answers),
                total / (total + sum(len(talk.turns) for talk in talks)),
                sum(place.startswith(_OTHER) for place in first) / max(len(first), 1),
            )
        )
    return rows


def joined(turns: Sequence[Turn], longest_chars: int = LONG_CHARS) -> Iterator[Turn]:
    """Yield messages of an assistant, each of several turns of one session."""
    held: list[Turn] = []
    for turn in turns:
        chars = sum(len(other.content) for other in held) + len(turn.content)
        if held and (turn.session != held[0].session or chars > longest_chars):
            yield _join(held)
            held = []
        held.append(turn)
    if held:
        yield _join(held)


def _join(turns: Sequence[Turn]) -> Turn:
    content = "\n".join(f"{turn.name or turn.role}: {turn.content}" for turn in turns)
    return replace(turns[0], role="assistant", name=None, content=content)


def _renamed(turns: Sequence[Turn]) -> list[Turn]:
    return [replace(turn, place=_OTHER + turn.place) for turn in turns]


def _answers(
    talk: Talk, turns: Sequence[Turn], vectors: VectorCache
) -> Iterator[tuple[list[str], frozenset[str]]]:
    """Yield the first hits of each question, and its gold, with other turns among a talk's."""
    indexed = Indexed.make(talk, vectors)
    made = list(pieces(turns, vectors.embedder))
    vectors.fill(texts_of(made))
    add(indexed.index, made, vectors, "other")
    for question in talk.questions:
        if question.gold:
            yield indexed.search(*indexed.ask(question), HITS), question.gold
