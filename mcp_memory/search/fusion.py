"""Fuse the signals of a document into one score, and say why it was found.

A signal is what speaks for a document: its words, its meaning, the texts around
it, the speaker and time that the query names. Each signal is measured in standard
deviations above the mean of all documents, so that words and meaning can be added.
The weights come from the ablation on LoCoMo (research/FINDINGS.md, the tables of
`ablation.py`); docs/design.md, "Search", gives the reasons.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from mcp_memory.search.arrays import Scores

WORDS: Final = "words"
WORDS_NEAR: Final = "words within 3"
WORDS_AROUND: Final = "words within 5"
MEANING: Final = "meaning"
MEANING_NEAR: Final = "meaning within 3"
MEANING_AROUND: Final = "meaning within 5"
SPEAKER: Final = "speaker"
TIME: Final = "time"

SURROUNDINGS: Final = (WORDS_NEAR, WORDS_AROUND, MEANING_NEAR, MEANING_AROUND)
"""The signals that come from the texts around a document."""

WHOLE_CHARS: Final = 600
"""Surroundings count less for longer documents: by this length divided by their own.

Long messages speak for themselves. On BEAM's chats this finds 44 % instead of 34 in five hits; from
600 on, LoCoMo's short turns don't change (research/FINDINGS.md, BEAM)."""

WEIGHTS: Final[Mapping[str, float]] = {
    WORDS: 0.45,
    WORDS_NEAR: 0.45,
    WORDS_AROUND: 0.45,
    MEANING: 1.0,
    MEANING_NEAR: 1.0,
    MEANING_AROUND: 1.0,
}
"""What one standard deviation of each signal counts (ablation: "R@10 with a group at")."""

BONUS: Final[Mapping[str, float]] = {SPEAKER: 0.8, TIME: 0.5}
"""What the speaker or time that a query names counts: as many standard deviations of all other
signals together (ablation: "R@10 with a group at", rows speaker and time)."""

BESIDE_TIMES: Final = 0.02
"""What words and meaning count if a query says only a time: they order what was said then.

By judgement: small enough that they never outweigh the time."""

ASSUMED_DOCUMENTS: Final = 20
"""As many documents with the usual mean and spread are assumed besides the real ones, because two
or three real ones say little about what is usual. By judgement."""

USUAL_WORDS_FRAC: Final = 0.08
"""The usual spread of scores by words, as a part of the highest possible score.

The upper end of what conversations have, see `LEAST_WORDS_FRAC`."""

LEAST_WORDS_FRAC: Final = 0.05
"""The least spread of scores by words, as a part of the highest possible score of a query, with the
words that occur nowhere. Conversations have 0.03 to 0.08; docs/design.md, "A word says little"."""

NAMES_FACTOR: Final = 1.5
"""How much more words count if a person, identifier or number of the query occurs; by judgement."""

USUAL_COSINE_SPREAD: Final = 0.1
"""The usual spread of cosines with a query; by judgement."""

_MIDDLE: Final = 2.0
"""So many standard deviations above the mean of many documents score 0.5; by judgement. The order
depends on it only where age or copies lower a score."""

_MOST_BY_WORDS: Final = 4.0
"""The most that words can count for meaning, where a document has no vector; by judgement."""

_STANDS_OUT_AT: Final = 0.5
"""Standard deviations from which a signal is a reason to show a document: fewer than one of three
documents reach it. By judgement; see `ASSUMED_DOCUMENTS` for few documents."""

_WHEN_AT: Final = 0.5
"""Closeness from which a time is a reason: no further away than the named time is long."""


@dataclass(frozen=True, slots=True)
class Usual:
    """The mean and standard deviation of a signal over all documents."""

    mean: float
    spread: float

    def standing(self, scores: Scores) -> Scores:
        """Return how many standard deviations each score is above the mean."""
        standing: Scores = ((scores - self.mean) / self.spread).astype(np.float32)
        return standing


def usual(scores: Scores, spread: float, least: float = 0.0) -> Usual:
    """Return what is usual among scores, one for each document.

    Args:
        scores: Of all documents, or of a sample.
        spread: The spread to assume as long as there are few of them.
        least: The least spread to assume.
    """
    count = len(scores)
    if not count:
        return Usual(0.0, max(spread, least))
    mean = float(scores.mean(dtype=np.float64))
    variance = max(float(np.vdot(scores, scores)) / count - mean * mean, 0.0)
    assumed = ASSUMED_DOCUMENTS
    mixed = (count * variance + assumed * spread * spread) / (count + assumed)
    return Usual(mean, max(mixed**0.5, least, 1e-6))


def fuse(signals: Mapping[str, Scores], bonus: Mapping[str, Scores], *, documents: int) -> Scores:
    """Return the scores of documents, 0 to 1.

    Args:
        signals: By signal, standard deviations above the mean (n,). NaN where a document has
            no vector yet: there words count for meaning, and its own meaning for that
            around it.
        bonus: By signal, 0 to 1 (n,): how well the speaker and time fit those of the query.
        documents: How many documents there are. Among few, none can stand far above the rest.
    """
    total, weights = total_of(signals, bonus)
    middle = _MIDDLE * documents / (documents + ASSUMED_DOCUMENTS)
    behind = np.exp(np.float32(middle) - total / np.float32(weights))
    scores: Scores = np.reciprocal(np.float32(1) + behind)
    return scores


def total_of(signals: Mapping[str, Scores], bonus: Mapping[str, Scores]) -> tuple[Scores, float]:
    """Return the weighted sum of each document, and the sum of the weights."""
    whole = _filled(signals)
    weights = sum(WEIGHTS[name] for name in whole)
    total = sum(
        (np.float32(WEIGHTS[name]) * values for name, values in whole.items()), np.float32(0)
    )
    for name, values in bonus.items():
        total = total + np.float32(BONUS[name] * weights) * values
    return np.asarray(total, dtype=np.float32), max(weights, 1e-6)


def weight_of(name: str, present: Iterable[str]) -> float:
    """Return what one standard deviation of a signal counts; for a bonus, what all of it counts.

    Args:
        name: The signal.
        present: All signals of the search.
    """
    if name in BONUS:
        return BONUS[name] * sum(WEIGHTS[other] for other in present if other in WEIGHTS)
    return WEIGHTS[name]


def counted(signals: Mapping[str, float]) -> dict[str, float]:
    """Return the signals of one document as `fuse` counts them, with NaN filled in."""
    named = {
        name: np.asarray([value], dtype=np.float32)
        for name, value in signals.items()
        if name in WEIGHTS
    }
    return {**signals, **{name: float(value[0]) for name, value in _filled(named).items()}}


def reasons(signals: Mapping[str, float], *, worded: bool) -> tuple[str, ...]:
    """Return why a document was found: some of `lexical`, `semantic`, `near`, `when` and `who`.

    A signal that stands out is a reason. The surroundings include the document itself, so
    they are a reason, `near`, only where they stand out more. Where nothing does, as among
    few texts, the reason is words or meaning, whichever adds more.

    Args:
        signals: By signal, standard deviations above the mean; NaN for one it lacks. Empty
            for a document that no signal was computed for, far down in a large index.
        worded: Whether it has any word of the query.
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
    """Return the highest signal around a document, if it stands out above its own."""
    most = max(signals.get(name, -np.inf) for name in around)
    return most if most >= own + _STANDS_OUT_AT else -np.inf


def _filled(signals: Mapping[str, Scores]) -> dict[str, Scores]:
    """Return the signals without NaN: words stand in for meaning, meaning for surroundings."""
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
