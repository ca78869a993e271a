"""Every signal of every turn for a question, so that weights can be tried without searching.

The signals come from the product's search; what is done here is to add them up
with other weights. Crowding is left out: it changes the order after that.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import BenchmarkFault
from benchmarks.loaders import Question
from benchmarks.metrics import CUTS
from mcp_memory.search import fusion
from mcp_memory.search.queries import Filter
from research.talkindex import Indexed

Values = NDArray[np.float32]
Shares = NDArray[np.float64]

FACTORS: Final = (0.0, 0.5, 1.0, 2.0)
"""Each group of weights is tried at these parts of what it is set to."""

NEAR: Final = frozenset(
    {fusion.WORDS_NEAR, fusion.WORDS_AROUND, fusion.MEANING_NEAR, fusion.MEANING_AROUND}
)
BY_WORDS: Final = frozenset({fusion.WORDS, fusion.WORDS_NEAR, fusion.WORDS_AROUND})
GROUPS: Final[Mapping[str, frozenset[str]]] = {
    "words": BY_WORDS,
    "surroundings": NEAR,
    "speaker": frozenset({fusion.SPEAKER}),
    "time": frozenset({fusion.TIME}),
}

METRICS: Final = (*(f"R@{k}" for k in CUTS), "MRR")
CHOSEN_BY: Final = METRICS.index("R@10")
MAX_SPLITS: Final = 252
SEED: Final = 20_231_012


@dataclass(frozen=True, slots=True)
class Board:
    """A question with the signals of all turns: `parts` is (signals, turns), newest turn last.

    `gold` are the columns of the turns that answer it.
    """

    talk: int
    names: tuple[str, ...]
    parts: Values
    gold: NDArray[np.intp]

    def graded(self, weights: Sequence[Mapping[str, float]]) -> Shares:
        """Return the metrics (weights, metrics) by each set of weights."""
        table = np.array(
            [[_worth(name, self.names, some) for name in self.names] for some in weights],
            dtype=np.float32,
        )
        scores = table @ self.parts
        of_gold = scores[:, self.gold]
        above = (scores[:, np.newaxis, :] > of_gold[:, :, np.newaxis]).sum(axis=2)
        # Of equals the newer comes first, as the search has it.
        newer = np.arange(scores.shape[1]) > self.gold[:, np.newaxis]
        equal = (scores[:, np.newaxis, :] == of_gold[:, :, np.newaxis]) & newer
        ranks = np.sort(above + equal.sum(axis=2), axis=1) + 1
        recalls = [(ranks <= k).mean(axis=1) for k in CUTS]
        first = ranks[:, 0]
        return np.stack([*recalls, np.where(first <= CUTS[-1], 1 / first, 0.0)], axis=1)


def board(number: int, indexed: Indexed, question: Question) -> Board:
    """Return the board of a question.

    Raises:
        BenchmarkFault: A turn lacks a signal.
    """
    asked, vector = indexed.ask(question)
    prepared = indexed.index.prepare(asked, Filter())
    found = indexed.index.search(prepared, vector, offset=0, limit=len(indexed.index)).found
    by_key = {
        one.key: {name: value for name, value in one.signals.items() if not np.isnan(value)}
        for one in found
    }
    places = [turn.place for turn in indexed.talk.turns if turn.place in by_key]
    names = tuple(dict.fromkeys(name for parts in by_key.values() for name in parts))
    try:
        rows = [[by_key[place][name] for place in places] for name in names]
    except KeyError as error:
        raise BenchmarkFault(f"a turn has no signal {error}") from error
    gold = [column for column, place in enumerate(places) if place in question.gold]
    return Board(number, names, np.array(rows, dtype=np.float32), np.array(gold, dtype=np.intp))


def grid() -> list[dict[str, float]]:
    """Return sets of weights with every group of them at every part of what is set."""
    usual = {**fusion.WEIGHTS, **fusion.BONUS}
    made = []
    for factors in itertools.product(FACTORS, repeat=len(GROUPS)):
        parts = dict(zip(GROUPS, factors, strict=True))
        made.append({name: weight * _factor(name, parts) for name, weight in usual.items()})
    return made


def as_set() -> int:
    """Return the place in the grid of the weights as they are set."""
    return list(itertools.product(FACTORS, repeat=len(GROUPS))).index((1.0,) * len(GROUPS))


def one_group(name: str) -> dict[float, int]:
    """Return the places in the grid where only one group is not as it is set, by its factor."""
    places = {
        factors: at for at, factors in enumerate(itertools.product(FACTORS, repeat=len(GROUPS)))
    }
    return {
        factor: places[tuple(factor if group == name else 1.0 for group in GROUPS)]
        for factor in FACTORS
    }


@dataclass(frozen=True, slots=True)
class Halves:
    """What weights are worth on questions that they were not chosen on; means over `splits`.

    Args:
        splits: Each half was chosen on, and the other asked, in turn.
        as_set: By the weights as they are set, by metric.
        chosen: By the best of the grid on the other half.
        best: By the best of the grid on the very half that is asked: what can't be known.
        worse: In how many splits the weights as set find less in ten than those chosen.
        least: The most that they find less in any split, in R@10.
    """

    splits: int
    as_set: tuple[float, ...]
    chosen: tuple[float, ...]
    best: tuple[float, ...]
    worse: int
    least: float

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for the JSON."""
        rows = {"as_set": self.as_set, "chosen": self.chosen, "best": self.best}
        named = {
            name: {metric: round(value, 4) for metric, value in zip(METRICS, row, strict=True)}
            for name, row in rows.items()
        }
        return {**named, "splits": self.splits, "worse": self.worse, "least": round(self.least, 4)}


def halves(talks: NDArray[np.intp], shares: Shares, usual: int) -> Halves:
    """Choose weights on half of the talks and ask the other half.

    Args:
        talks: The talk of each question (questions,).
        shares: Each metric (questions, weights, metrics).
        usual: Which of the weights are those that are set.

    Raises:
        BenchmarkFault: There are less than two talks.
    """
    numbers = sorted(set(talks.tolist()))
    if len(numbers) < 2:
        raise BenchmarkFault("halves of the data need two conversations at least")
    rows: list[tuple[Shares, Shares, Shares]] = []
    for half in _halves(numbers):
        chosen_on = np.isin(talks, half)
        learned = shares[chosen_on].mean(axis=0)
        asked = shares[~chosen_on].mean(axis=0)
        chosen = int(np.argmax(learned[:, CHOSEN_BY]))
        best = int(np.argmax(asked[:, CHOSEN_BY]))
        rows.append((asked[usual], asked[chosen], asked[best]))
    means = np.mean(np.array(rows), axis=0)
    lost = np.array([usual_[CHOSEN_BY] - chosen[CHOSEN_BY] for usual_, chosen, _ in rows])
    as_set_, chosen_, best_ = (tuple(map(float, row)) for row in means)
    return Halves(len(rows), as_set_, chosen_, best_, int((lost < 0).sum()), float(lost.min()))


def _halves(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Yield halves of the talks: all there are, or as many as `MAX_SPLITS` by chance."""
    size = len(numbers) // 2
    every = itertools.combinations(numbers, size)
    first = list(itertools.islice(every, MAX_SPLITS + 1))
    if len(first) <= MAX_SPLITS:
        yield from map(list, first)
        return
    rng = random.Random(SEED)
    for _ in range(MAX_SPLITS):
        yield rng.sample(numbers, size)


def _factor(name: str, parts: Mapping[str, float]) -> float:
    factor = 1.0
    for group, names in GROUPS.items():
        if name in names:
            factor *= parts[group]
    return factor


def _worth(name: str, present: Sequence[str], weights: Mapping[str, float]) -> float:
    """Return what a standing adds by these weights: a bonus counts beside all signals at once."""
    if name in fusion.BONUS:
        return weights[name] * sum(weights[other] for other in present if other in fusion.WEIGHTS)
    return weights[name]
