"""How much of what is asked for does `conversation_search` find?

Every turn of every conversation goes in through `conversation_append`, every
question through `conversation_search`. A conversation of the data set has a
server and a database of its own.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from rich.progress import Progress

from benchmarks import BenchmarkFault, harness, loaders
from benchmarks.client import Clients, RawClient
from benchmarks.loaders import Question, Talk
from benchmarks.metrics import Latency, Quality, quality

HITS: Final = 20
EMBEDDING_SECONDS: Final = 3_600.0
LIMIT_SECONDS: Final = 4 * 3_600.0
"""No conversation of any of the data sets takes longer."""

LOCOMO_QUESTIONS: Final = 1_982
"""All of LoCoMo that have a gold turn; the goals are for these."""

ALL: Final = "all"
GOALS: Final = (
    (ALL, "recall_at_5", "R@5", 0.71),
    (ALL, "recall_at_10", "R@10", 0.80),
    (ALL, "recall_at_20", "R@20", 0.86),
    (ALL, "mrr", "MRR", 0.58),
    ("multi-hop", "recall_at_10", "R@10", 0.53),
)
"""By kind of question and metric, 0 to 1; set by judgement, below what was measured first."""

Answers = list[tuple[Question, list[str]]]
"""Each question with what was found for it, best first."""


@dataclass
class Measured:
    """What one run found, filled as it goes; times are in seconds."""

    turns: Answers = field(default_factory=list)
    sessions: Answers = field(default_factory=list)
    queries: list[float] = field(default_factory=list)
    appends: list[float] = field(default_factory=list)
    background_seconds: float = 0.0
    model: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for the JSON."""
        return {
            "model": self.model,
            "turns": len(self.appends),
            "quality": grade(self.turns, sessions=False),
            "session_quality": grade(self.sessions, sessions=True),
            "latency": {
                "append": Latency.of(self.appends),
                "ask": Latency.of(self.queries),
            },
            "background_seconds": self.background_seconds,
        }


def append_turns(client: RawClient, talk: Talk, measured: Measured, bar: Progress) -> list[str]:
    """Append every turn by a call of its own; return the id that each was given."""
    task = bar.add_task(f"{talk.name} append", total=len(talk.turns))
    ids: list[str] = []
    for turn in talk.turns:
        message = {
            "role": turn.role,
            "content": turn.content,
            "created_at": turn.created_at.isoformat(),
            **({"name": turn.name} if turn.name else {}),
        }
        began = time.perf_counter()
        ids += client.tool("conversation_append", {"messages": [message]})["ids"]
        measured.appends.append(time.perf_counter() - began)
        bar.advance(task)
    bar.remove_task(task)
    return ids


def search(client: RawClient, question: str, wanted: str) -> list[str]:
    """Return the ids of the first 20 hits, best first.

    Raises:
        BenchmarkFault: The server did not search in the wanted way, `hybrid` or `lexical`.
    """
    arguments: dict[str, Any] = {"query": question, "limit": HITS}
    ids: list[str] = []
    while True:
        reply = client.tool("conversation_search", arguments)
        if reply["search"] != wanted:
            raise BenchmarkFault(f"the search was {reply['search']}, not {wanted}")
        ids += [hit["id"] for hit in reply["results"]]
        cursor = reply.get("next_cursor")
        if len(ids) >= HITS or cursor is None:
            return ids[:HITS]
        arguments["cursor"] = cursor


def ask(client: RawClient, talk: Talk, ids: Sequence[str], measured: Measured, wanted: str) -> None:
    """Ask every question of a talk."""
    turns = dict(zip(ids, talk.turns, strict=True))
    for question in talk.questions:
        began = time.perf_counter()
        found = [turns[one] for one in search(client, question.text, wanted)]
        measured.queries.append(time.perf_counter() - began)
        measured.turns.append((question, [turn.place for turn in found]))
        sessions = list(dict.fromkeys(turn.session for turn in found))
        measured.sessions.append((question, sessions))


def measure(talks: Sequence[Talk], python: str, *, lexical: bool = False) -> Measured:
    """Store and ask all talks, with the server of an interpreter.

    Args:
        talks: Each gets a database of its own.
        python: Where the server is installed.
        lexical: Whether to search without an embedding model.
    """
    measured = Measured()
    with harness.progress() as bar, harness.temporary() as folder:
        overall = bar.add_task("conversations", total=len(talks))
        for number, talk in enumerate(talks):
            db = folder / str(number) / "memory.duckdb"
            db.parent.mkdir()
            settings: dict[str, object] = {"owner": "off"}
            if lexical:
                # An empty cache has no model, and offline none is fetched.
                settings |= {"offline": 1, "cache_dir": db.parent / "cache"}
            with Clients(LIMIT_SECONDS) as clients:
                client = clients.start(harness.server(db, python, **settings))
                client.initialize()
                ids = append_turns(client, talk, measured, bar)
                if not lexical:
                    began = time.perf_counter()
                    measured.model = client.wait_until_embedded(timeout_seconds=EMBEDDING_SECONDS)
                    measured.background_seconds += time.perf_counter() - began
                ask(client, talk, ids, measured, "lexical" if lexical else "hybrid")
                client.close()
            bar.advance(overall)
    return measured


def grade(answers: Answers, *, sessions: bool) -> dict[str, Quality]:
    """Return the quality over all questions that have gold, and by kind in order of appearance.

    Args:
        answers: Each question with what was found, best first.
        sessions: Whether it is sessions that were found, and not turns.
    """
    groups: dict[str, list[tuple[list[str], frozenset[str]]]] = {ALL: []}
    for question, ranking in answers:
        gold = question.sessions if sessions else question.gold
        if gold:
            groups[ALL].append((ranking, gold))
            groups.setdefault(question.kind, []).append((ranking, gold))
    return {name: quality(group) for name, group in groups.items() if group}


def verdicts(answers: Answers) -> list[str]:
    """Return a line for each goal."""
    found = grade(answers, sessions=False)
    lines: list[str] = []
    for kind, metric, name, goal in GOALS:
        if kind not in found:
            lines.append(f"{name}, {kind}: no verdict, there is no such question")
            continue
        value = getattr(found[kind], metric)
        shown = f"{100 * value:.1f} %"
        lines.append(
            harness.verdict(f"{name}, {kind}", shown, f"{100 * goal:.0f} %", met=value >= goal)
        )
    return lines


def show(measured: Measured) -> None:
    """Print the tables."""
    for title, answers, sessions in (
        ("Recall of the gold turns, percent", measured.turns, False),
        ("Recall of the gold sessions, percent", measured.sessions, True),
    ):
        rows = grade(answers, sessions=sessions)
        harness.table(
            title,
            ("questions", "n", "R@5", "R@10", "R@20", "MRR"),
            [(name, row.questions, *row.percent()) for name, row in rows.items()],
        )
    times = {"append a turn": measured.appends, "ask, 20 hits": measured.queries}
    harness.table(
        "Times, milliseconds",
        ("call", "p50 / p95"),
        [(name, Latency.of(seconds)) for name, seconds in times.items()],
    )


def _benchmark(talks: Sequence[Talk], options: argparse.Namespace) -> None:
    began = time.perf_counter()
    measured = measure(talks, options.python, lexical=options.lexical)
    show(measured)
    # The goals are for all of LoCoMo, and its form is used by other sets as well.
    whole = len(measured.turns) == LOCOMO_QUESTIONS and not options.lexical
    report = {
        "data": options.format,
        "conversations": len(talks),
        "lexical": options.lexical,
        "duration_seconds": time.perf_counter() - began,
        **measured.as_dict(),
    }
    harness.finish("recall", options, report, verdicts(measured.turns) if whole else [])


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return its exit status."""
    parser = harness.parser("recall", __doc__)
    loaders.add_options(parser)
    parser.add_argument("--lexical", action="store_true", help="search without a model")
    parser.add_argument("--python", default=sys.executable, help=harness.PYTHON_HELP)
    options = parser.parse_args(argv)
    return harness.run(partial(_benchmark, loaders.chosen(parser, options), options))
