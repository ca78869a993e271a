"""From what speaks for a document to one score: what counts how much, and why.

Each signal is set against what it is over all documents, so that words and
meaning can be added. The weights are measured (benchmarks/README.md, the
table of what each signal gives).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]

WORDS: Final = "words"
WORDS_NEAR: Final = "words within 3"
WORDS_AROUND: Final = "words within 5"
MEANING: Final = "meaning"
MEANING_NEAR: Final = "meaning within 3"
MEANING_AROUND: Final = "meaning within 5"
SPEAKER: Final = "speaker"
TIME: Final = "time"

SURROUNDINGS: Final = (WORDS_NEAR, WORDS_AROUND, MEANING_NEAR, MEANING_AROUND)
"""The signals that a document has from what stands around it."""

WHOLE_CHARS: Final = 600
"""A longer document says by itself what it is about: its surroundings count the less the
longer it is. On chats with long messages that finds 45 % instead of 34 in five hits; turns
of a conversation are shorter (benchmarks/README.md)."""

WEIGHTS: Final[Mapping[str, float]] = {
    WORDS: 0.45,
    WORDS_NEAR: 0.45,
    WORDS_AROUND: 0.45,
    MEANING: 1.0,
    MEANING_NEAR: 1.0,
    MEANING_AROUND: 1.0,
}
"""What a standard deviation of each signal is worth."""

BONUS: Final[Mapping[str, float]] = {SPEAKER: 0.8, TIME: 0.5}
"""What it is worth to be said by whom, or when, a question names: so many spreads of
every signal at once."""

BESIDE_TIMES: Final = 0.02
"""So much do words and meaning count where a question says nothing besides a time: they only
order what was said then."""

LIKE_OTHERS: Final = 20
"""So many documents of the usual spread are thought to be there as well: two or three
say little about what is usual."""

USUAL_WORDS_FRAC: Final = 0.08
"""The usual spread of scores by words, as a part of the highest there can be."""

LEAST_WORDS_FRAC: Final = 0.05
"""The spread of scores by words is thought to be at least this part of the highest there can
be, counting words that occur nowhere. In conversations it is 0.03 to 0.08 by itself."""

NAMING: Final = 1.5
"""So much more do words count where a question names something that occurs: a person, an
identifier, a number."""

USUAL_COSINES: Final = 0.1
"""The usual spread of cosines with a question."""

_MIDDLE: Final = 2.0
"""What stands so many spreads above the mean, of many documents, scores a half."""

_MOST_BY_WORDS: Final = 4.0


_STANDS_OUT_AT: Final = 0.5
"""Half a spread above the mean: where fewer than one of three documents stand. Among few
documents nothing stands much higher, see `LIKE_OTHERS`."""

_WHEN_AT: Final = 0.5
"""As near to the time that is named: no further off than that time is long."""


@dataclass(frozen=True, slots=True)
class Usual:
    """What a signal is over all documents."""

    mean: float
    spread: float

    def standing(self, scores: Scores) -> Scores:
        """Return by how many spreads each score is above the mean."""
        standing: Scores = ((scores - self.mean) / self.spread).astype(np.float32)
        return standing


def usual(scores: Scores, spread: float, least: float = 0.0) -> Usual:
    """Return what is usual among scores, one a document.

    Args:
        spread: What the spread is thought to be as long as there are few of them.
        least: What it is thought to be at least.
    """
    count = len(scores)
    if not count:
        return Usual(0.0, max(spread, least))
    mean = float(scores.mean(dtype=np.float64))
    variance = max(float(np.vdot(scores, scores)) / count - mean * mean, 0.0)
    mixed = (count * variance + LIKE_OTHERS * spread * spread) / (count + LIKE_OTHERS)
    return Usual(mean, max(mixed**0.5, least, 1e-6))


def fuse(signals: Mapping[str, Scores], bonus: Mapping[str, Scores], *, documents: int) -> Scores:
    """Return the scores of documents, 0 to 1, from where they stand in each signal.

    Args:
        documents: How many there are in all. Among few, nothing can stand far above the rest.
        signals: Standings by signal (documents,); NaN where a document has no such signal
            yet: there words count for meaning, and its own meaning for that around it.
        bonus: 0 to 1 by signal (documents,), for what a question names.
    """
    total, weights = total_of(signals, bonus)
    middle = _MIDDLE * documents / (documents + LIKE_OTHERS)
    behind = np.exp(np.float32(middle) - total / np.float32(weights))
    scores: Scores = np.reciprocal(np.float32(1) + behind)
    return scores


def total_of(signals: Mapping[str, Scores], bonus: Mapping[str, Scores]) -> tuple[Scores, float]:
    """Return the weighted sums of documents, and the sum of the weights."""
    whole = _filled(signals)
    weights = sum(WEIGHTS[name] for name in whole)
    total = sum(
        (np.float32(WEIGHTS[name]) * values for name, values in whole.items()), np.float32(0)
    )
    for name, values in bonus.items():
        total = total + np.float32(BONUS[name] * weights) * values
    return np.asarray(total, dtype=np.float32), max(weights, 1e-6)


def weight_of(name: str, beside: Iterable[str]) -> float:
    """Return what one spread of a signal is worth in a search that has the signals `beside`.

    For a bonus it is what all of it is worth; see `total_of`.
    """
    if name in BONUS:
        return BONUS[name] * sum(WEIGHTS[other] for other in beside if other in WEIGHTS)
    return WEIGHTS[name]


def counted(signals: Mapping[str, float]) -> dict[str, float]:
    """Return the standings of one document as `fuse` counts them, without NaN."""
    named = {
        name: np.asarray([value], dtype=np.float32)
        for name, value in signals.items()
        if name in WEIGHTS
    }
    return {**signals, **{name: float(value[0]) for name, value in _filled(named).items()}}


def reasons(signals: Mapping[str, float], *, worded: bool) -> tuple[str, ...]:
    """Return why a document was found: of `lexical`, `semantic`, `near`, `when` and `who`.

    What stands out by itself is a reason; its surroundings are one, `near`, only where
    they stand out more than it does, as it is a part of them. Where nothing stands out,
    as among few texts, it is the half that adds more.

    Args:
        signals: Its standing by signal, NaN for one that it doesn't have. Without any it
            is far down among too many to weigh, where only vectors were compared.
        worded: Whether it has any word of the question.
    """
    signals = {name: value for name, value in signals.items() if not np.isnan(value)}
    least = -np.inf
    words = signals.get(WORDS, least) if worded else least
    meaning = signals.get(MEANING, least)
    around = max(
        _above(words, signals, WORDS_NEAR, WORDS_AROUND),
        _above(meaning, signals, MEANING_NEAR, MEANING_AROUND),
    )
    standings = {"lexical": words, "semantic": meaning, "near": around}
    found = [name for name, standing in standings.items() if standing >= _STANDS_OUT_AT]
    if signals.get(TIME, 0.0) >= _WHEN_AT:
        found.append("when")
    if signals.get(SPEAKER, 0.0) > 0:
        found.append("who")
    if not found:
        by_words = WEIGHTS[WORDS] * words > WEIGHTS[MEANING] * meaning
        found.append("lexical" if by_words else "semantic")
    return tuple(found)


def _above(own: float, signals: Mapping[str, float], *around: str) -> float:
    """Return what stands highest around a document, if it is half a spread above its own."""
    most = max(signals.get(name, -np.inf) for name in around)
    return most if most >= own + _STANDS_OUT_AT else -np.inf


def _filled(signals: Mapping[str, Scores]) -> dict[str, Scores]:
    filled = dict(signals)
    if MEANING in filled:
        words = filled.get(WORDS)
        rest = np.float32(0) if words is None else np.clip(words, 0, _MOST_BY_WORDS)
        own = filled[MEANING]
        filled[MEANING] = own = np.where(np.isnan(own), rest, own)
        for name in (MEANING_NEAR, MEANING_AROUND):
            if name in filled:
                filled[name] = np.where(np.isnan(filled[name]), own, filled[name])
    return filled
