"""Does exact search carry an agent through nested key-value pairs?

The paper's task: 140 pairs of UUIDs; the value of a key may be a key itself, up to four
times over; asked for the last value. The agent here is no model, only a loop over
`archival_memory_search`: it searches what it has, follows the memory that begins with it,
and stops when there is none. All pairs of all samples lie in one archival memory, so that
there are far more than 140 to be confused.

Source: MemGPT, arXiv:2310.08560, "Nested Key-Value Retrieval".
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, Final

from benchmarks import BenchmarkFault, harness
from benchmarks.client import Clients, RawClient
from benchmarks.metrics import Latency

PAIRS: Final = 140
LEVELS: Final = range(5)
SAMPLES: Final = 100
"""Questions a level."""

SETS: Final = 20
"""Sets of pairs; each is asked at all levels, by chains of its own."""

SEED: Final = 140
MAX_SEARCHES: Final = 20
LIMIT_SECONDS: Final = 1_800.0

PAPER: Final = {
    "models alone": "0 % by level 1 to 3",
    "MemGPT with GPT-4": "unaffected by the level",
}
"""What the paper says of the same task, as far as it is in numbers or words."""

Search = Callable[[str], Sequence[str]]
"""Returns the texts that are found for a query, best first."""


@dataclass(frozen=True, slots=True)
class Question:
    """A key, the value it leads to in the end, and how many keys are on the way there."""

    level: int
    key: str
    answer: str


@dataclass(frozen=True, slots=True)
class PairSet:
    """Pairs of keys and values, and the questions about them."""

    pairs: tuple[tuple[str, str], ...]
    questions: tuple[Question, ...]


@dataclass
class Asked:
    """What came of the questions of one level."""

    questions: int = 0
    right: int = 0
    searches: int = 0
    keys: int = 0
    """Searches for what is a key."""

    first: int = 0
    """Those of them in which its pair was found first, the pair it was read from aside."""


def make_set(rng: random.Random, pairs: int, chains: int) -> PairSet:
    """Return pairs with `chains` chains of each level among them, in random order.

    Raises:
        ValueError: So many chains need more pairs than there are.
    """
    made: list[tuple[str, str]] = []
    questions: list[Question] = []
    for level in LEVELS:
        for _ in range(chains):
            keys = [_uuid(rng) for _ in range(level + 2)]
            made += pairwise(keys)
            questions.append(Question(level, keys[0], keys[-1]))
    if len(made) > pairs:
        raise ValueError(f"{chains} chains a level need {len(made)} pairs, there are {pairs}")
    made += [(_uuid(rng), _uuid(rng)) for _ in range(pairs - len(made))]
    rng.shuffle(made)
    return PairSet(tuple(made), tuple(questions))


def follow(search: Search, question: Question, asked: Asked) -> str:
    """Return what the loop ends with: the value of the last key that a memory begins with."""
    value = question.key
    read_from: str | None = None
    for _ in range(MAX_SEARCHES):
        # The pair that the value was read from has it too.
        found = [text for text in search(value) if text != read_from]
        asked.searches += 1
        place = next((at for at, text in enumerate(found) if text.startswith(f"{value}: ")), None)
        if place is None:
            return value
        asked.keys += 1
        asked.first += place == 0
        read_from = found[place]
        value = read_from.removeprefix(f"{value}: ")
    return value


def ask(search: Search, sets: Sequence[PairSet]) -> dict[int, Asked]:
    """Ask all questions, and return what came of them by level."""
    by_level = {level: Asked() for level in LEVELS}
    with harness.progress() as bar:
        task = bar.add_task("ask", total=sum(len(each.questions) for each in sets))
        for question in (question for each in sets for question in each.questions):
            asked = by_level[question.level]
            asked.questions += 1
            asked.right += follow(search, question, asked) == question.answer
            bar.advance(task)
    return by_level


@dataclass
class Run:
    """One server with all pairs, and what asking it has given."""

    by_level: dict[int, Asked]
    inserts: list[float] = field(default_factory=list)
    searches: list[float] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    """How the server searched: `hybrid`, or `lexical`."""


def measure(sets: Sequence[PairSet], python: str) -> Run:
    """Store all pairs of all sets in one archival memory, and ask."""
    run = Run({})
    with harness.temporary() as folder, Clients(LIMIT_SECONDS) as clients:
        client = clients.start(harness.server(folder / "memory.duckdb", python, owner="off"))
        client.initialize()
        # Loaded first, the model embeds each pair as it is stored, as it does for users.
        client.wait_until_embedded()
        _store(client, [pair for each in sets for pair in each.pairs], run)
        client.wait_until_embedded()
        run.by_level = ask(partial(_search, client, run), sets)
        client.close()
    if run.kinds != {"hybrid"}:
        raise BenchmarkFault(f"the server searched otherwise than by default: {run.kinds}")
    return run


def _store(client: RawClient, pairs: Sequence[tuple[str, str]], run: Run) -> None:
    with harness.progress() as bar:
        task = bar.add_task("store", total=len(pairs))
        for key, value in pairs:
            began = time.perf_counter()
            client.tool("archival_memory_insert", {"content": f"{key}: {value}"})
            run.inserts.append(time.perf_counter() - began)
            bar.advance(task)


def _search(client: RawClient, run: Run, query: str) -> list[str]:
    began = time.perf_counter()
    reply = client.tool("archival_memory_search", {"query": query})
    run.searches.append(time.perf_counter() - began)
    run.kinds.add(reply["search"])
    return [hit["text"] for hit in reply["results"]]


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def show(run: Run) -> None:
    """Print a table of answers beside the paper's, and one of times."""
    levels = list(run.by_level.values())
    harness.table(
        "Nested key-value pairs, percent",
        ("nesting", *map(str, run.by_level)),
        [
            ("questions", *(asked.questions for asked in levels)),
            (
                "right answers",
                *(f"{100 * asked.right / asked.questions:.0f}" for asked in levels),
            ),
            ("pair found first", *(f"{100 * asked.first / asked.keys:.0f}" for asked in levels)),
        ],
    )
    for who, said in PAPER.items():
        harness.out.print(f"the paper, {who}: {said}", highlight=False)
    harness.table(
        "Times, milliseconds",
        ("call", "p50 / p95"),
        [("insert", Latency.of(run.inserts)), ("search", Latency.of(run.searches))],
    )


def _benchmark(sets: Sequence[PairSet], options: argparse.Namespace) -> None:
    run = measure(sets, options.python)
    show(run)
    wrong = sum(asked.questions - asked.right for asked in run.by_level.values())
    report: dict[str, Any] = {
        "seed": options.seed,
        "sets": len(sets),
        "pairs": sum(len(each.pairs) for each in sets),
        "levels": run.by_level,
        "paper": PAPER,
        "insert": Latency.of(run.inserts),
        "search": Latency.of(run.searches),
    }
    line = harness.verdict("wrong answers at all levels", str(wrong), "0", met=not wrong)
    harness.finish("keyvalue", options, report, [line])
    if wrong:
        raise BenchmarkFault("not every question was answered")


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return its exit status."""
    parser = harness.parser("keyvalue", __doc__)
    parser.add_argument(
        "--samples", type=harness.positive, default=SAMPLES, help="a level; default: 100"
    )
    parser.add_argument(
        "--sets", type=harness.positive, default=SETS, help="of 140 pairs; default: 20"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="the same seed makes the same pairs")
    parser.add_argument("--python", default=sys.executable, help=harness.PYTHON_HELP)
    options = parser.parse_args(argv)
    rng = random.Random(options.seed)
    chains = -(-options.samples // options.sets)
    try:
        sets = [make_set(rng, PAIRS, chains) for _ in range(options.sets)]
    except ValueError as error:
        parser.error(str(error))
    return harness.run(partial(_benchmark, sets, options))
