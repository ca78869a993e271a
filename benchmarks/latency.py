"""What do storing and searching cost beyond the protocol and the embedding?

At each size, stores and searches are timed one by one through a stdio client,
in turn with a trivial tool, with a call that is refused, and with the bare
embedding of the same texts in this process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from rich.progress import Progress

from benchmarks import harness
from benchmarks.client import Clients, RawClient
from benchmarks.metrics import Latency, milliseconds
from benchmarks.model import load_embedder
from mcp_memory.models.embedding import Embedder

SIZES: Final = (100, 1_000, 10_000)
ROUNDS: Final = 5
BLOCK_CALLS: Final = 25
SETTLING_CALLS: Final = 5
LIMIT_SECONDS: Final = 2 * 3_600.0

GOAL_SIZE: Final = 10_000
GOAL_SEARCH_MS: Final = 5.0
GOAL_STORE_MS: Final = 6.0
"""Both by judgement: little beside what the embedding costs."""

# No tool has this name: the call is refused before any memory is asked.
REFUSED_TOOL: Final = "no_such_tool"
# The smallest of the tools: three blocks, which are in memory.
FLOOR_TOOL: Final = "core_memory_view"

MEASURES: Final = {
    "refused": "a refused call",
    "floor": "floor: a trivial tool",
    "search": "search",
    "store": "store",
    "embed_query": "embed the query",
    "embed_text": "embed the text",
}
ON_CONTENTS: Final = frozenset({"store", "embed_text"})

Action = Callable[[str], object]
Samples = dict[str, list[float]]
"""Seconds of each call, by the names of `MEASURES`."""


@dataclass(frozen=True, slots=True)
class Row:
    """The latencies at one size by the names of `MEASURES`, and what a call adds of its own."""

    size: int
    latencies: Mapping[str, Latency]

    @classmethod
    def of(cls, size: int, samples: Samples) -> Row:
        """Return the row of timed calls."""
        return cls(size, {name: Latency.of(samples[name]) for name in MEASURES})

    @property
    def own_search_ms(self) -> float:
        """The p50 of a search without floor and embedding."""
        return self._own_ms("search", "embed_query")

    @property
    def own_store_ms(self) -> float:
        """The p50 of a store without floor and embedding."""
        return self._own_ms("store", "embed_text")

    def _own_ms(self, call: str, embedding: str) -> float:
        of = self.latencies
        return of[call].p50_ms - of["floor"].p50_ms - of[embedding].p50_ms

    def as_dict(self) -> dict[str, Any]:
        """Return the row for the JSON."""
        return {
            "size": self.size,
            **self.latencies,
            "own_search_ms": self.own_search_ms,
            "own_store_ms": self.own_store_ms,
        }


def actions(client: RawClient, embedder: Embedder) -> dict[str, Action]:
    """Return what is timed, by the names of `MEASURES`; each takes a text or a query."""
    refused = {"name": REFUSED_TOOL, "arguments": {}}
    return {
        "refused": lambda _: client.answer("tools/call", refused),
        "search": lambda query: client.tool("archival_memory_search", {"query": query}),
        "embed_query": lambda query: embedder.embed_query(query, of_facts=True),
        "floor": lambda _: client.tool(FLOOR_TOOL, {}),
        "store": lambda content: client.tool("archival_memory_insert", {"content": content}),
        "embed_text": lambda content: embedder.embed_passages([content]),
    }


def sample(
    timed: Mapping[str, Action], contents: Sequence[str], queries: Sequence[str], bar: Progress
) -> Samples:
    """Time each action, in blocks of one kind, in as many rounds as there are texts for.

    In blocks, because a model's threads spin for a while after their work and
    would slow whatever comes next; in rounds, so that all kinds meet the same
    load. The first calls of a block are not counted.

    Args:
        timed: What is timed.
        contents: Texts that have not been stored, `BLOCK_CALLS` a round.
        queries: As many questions that have not been asked.
        bar: Where the progress is shown.
    """
    samples: Samples = {name: [] for name in timed}
    task = bar.add_task("timing", total=len(queries) * len(timed))
    for start in range(0, len(queries), BLOCK_CALLS):
        for name, act in timed.items():
            given = contents if name in ON_CONTENTS else queries
            for number, text in enumerate(given[start : start + BLOCK_CALLS]):
                began = time.perf_counter()
                act(text)
                if number >= SETTLING_CALLS:
                    samples[name].append(time.perf_counter() - began)
                bar.advance(task)
    bar.remove_task(task)
    return samples


def measure(sizes: Sequence[int], rounds: int) -> tuple[list[Row], str]:
    """Return a row for each size, ascending, and the model's name."""
    # The server caches the vectors of recent queries, so none may come twice.
    texts = harness.Texts()
    rows: list[Row] = []
    stored = 0
    with (
        harness.progress() as bar,
        harness.temporary() as folder,
        Clients(LIMIT_SECONDS) as clients,
    ):
        client = clients.start(harness.server(folder / "memory.duckdb", owner="off"))
        client.initialize()
        model = client.wait_until_embedded()
        timed = actions(client, load_embedder())
        for size in sizes:
            new = texts.contents(max(0, size - stored))
            task = bar.add_task("storing", total=len(new))
            for content in new:
                client.tool("archival_memory_insert", {"content": content})
                bar.advance(task)
            bar.remove_task(task)
            client.wait_until_embedded()
            calls = rounds * BLOCK_CALLS
            samples = sample(timed, texts.contents(calls), texts.queries(calls), bar)
            stored = max(size, stored) + calls
            rows.append(Row.of(size, samples))
        client.close()
    return rows, model


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Return a line for each goal; a run that stopped short of the size says so."""
    at_goal = [row for row in rows if row.size == GOAL_SIZE]
    if not at_goal:
        return [f"no verdict: the goals are for {GOAL_SIZE:,} memories"]
    (row,) = at_goal
    return [
        harness.verdict(
            f"{name} p50 - floor - embedding at {GOAL_SIZE:,}",
            f"{own_ms:.2f} ms",
            f"{goal_ms:g} ms",
            met=own_ms <= goal_ms,
        )
        for name, own_ms, goal_ms in (
            ("search", row.own_search_ms, GOAL_SEARCH_MS),
            ("store", row.own_store_ms, GOAL_STORE_MS),
        )
    ]


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    cells = [
        (label, *(row.latencies[name] for row in rows)) for name, label in MEASURES.items()
    ] + [
        ("search - floor - embedding", *(milliseconds(row.own_search_ms) for row in rows)),
        ("store - floor - embedding", *(milliseconds(row.own_store_ms) for row in rows)),
    ]
    headings = ["memories", *(f"{row.size:,}" for row in rows)]
    harness.table("Milliseconds, p50 / p95", headings, cells)


def _benchmark(options: argparse.Namespace) -> None:
    rows, model = measure(options.sizes, options.rounds)
    show(rows)
    report = {"model": model, "sizes": [row.as_dict() for row in rows]}
    harness.finish("latency", options, report, verdicts(rows))


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return its exit status."""
    parser = harness.parser("latency", __doc__)
    parser.add_argument(
        "--sizes", type=harness.numbers, default=SIZES, help="default: 100,1000,10000"
    )
    parser.add_argument(
        "--rounds", type=harness.positive, default=ROUNDS, help="blocks of each kind; default: 5"
    )
    return harness.run(partial(_benchmark, parser.parse_args(argv)))
