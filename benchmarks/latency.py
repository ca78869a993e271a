"""What do storing and searching cost beyond the protocol and the embedding?

At each size, stores and searches are timed one by one through a stdio client,
in turn with a trivial tool, with a call that is refused, and with the bare
embedding of the same texts in this process.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import anyio
from mcp import Client
from rich.progress import Progress
from rich.table import Table

from benchmarks import texts
from benchmarks.harness import (
    BenchmarkFault,
    call,
    machine,
    out,
    progress,
    run,
    serve,
    wait_until_embedded,
    write_json,
)
from benchmarks.metrics import Latency
from mcp_memory.models.embedding import Embedder, FastEmbedder
from mcp_memory.models.files import ModelFiles, find_model
from mcp_memory.settings import load_settings

SIZES: Final = (100, 1_000, 10_000)
ROUNDS: Final = 5
BLOCK_CALLS: Final = 25
SETTLING_CALLS: Final = 5
CALLS: Final = ROUNDS * BLOCK_CALLS
IN_FLIGHT: Final = 8
SEED: Final = 20_231_012
EMBEDDING_TIMEOUT_SECONDS: Final = 900.0

GOAL_SIZE: Final = 10_000
GOAL_SEARCH_MS: Final = 5.0
GOAL_STORE_MS: Final = 6.0

# A name that no tool has: the call is refused before any memory is asked.
REFUSED_TOOL: Final = "no_such_tool"
# The smallest of the tools: three blocks, held in memory.
FLOOR_TOOL: Final = "core_memory_view"

MEASURES: Final = {
    "a refused call": "refused",
    "floor: a trivial tool": "floor",
    "search": "search",
    "store": "store",
    "embed the query": "embed_query",
    "embed the text": "embed_text",
}
ON_CONTENTS: Final = frozenset({"store", "embed_text"})


Action = Callable[[str], Awaitable[object]]
Samples = dict[str, list[float]]
"""Seconds of each call, by the names of `MEASURES`."""


@dataclass(frozen=True, slots=True)
class Row:
    """The latencies at one size, and what storing and searching add of their own."""

    size: int
    refused: Latency
    floor: Latency
    search: Latency
    store: Latency
    embed_query: Latency
    embed_text: Latency

    @classmethod
    def of(cls, size: int, samples: Samples) -> Row:
        """Return the row that `samples` make."""
        return cls(
            size,
            **{name: Latency.of(samples[name]) for name in MEASURES.values()},
        )

    @property
    def own_store_ms(self) -> float:
        """What is left of a store's p50 without floor and embedding."""
        return self.store.p50_ms - self.floor.p50_ms - self.embed_text.p50_ms

    @property
    def own_search_ms(self) -> float:
        """What is left of a search's p50 without floor and embedding."""
        return self.search.p50_ms - self.floor.p50_ms - self.embed_query.p50_ms

    @property
    def tool_ms(self) -> float:
        """What a trivial tool takes beyond a call that is refused."""
        return self.floor.p50_ms - self.refused.p50_ms

    def as_dict(self) -> dict[str, Any]:
        """Return the row as it stands in the JSON."""
        return {
            "size": self.size,
            **{name: getattr(self, name).as_dict() for name in MEASURES.values()},
            "own_search_ms": round(self.own_search_ms, 3),
            "own_store_ms": round(self.own_store_ms, 3),
            "tool_ms": round(self.tool_ms, 3),
        }


async def fill(client: Client, contents: Sequence[str], bar: Progress) -> None:
    """Store `contents`, several at a time."""
    task = bar.add_task("storing", total=len(contents))
    waiting = iter(contents)

    async def worker() -> None:
        for content in waiting:
            await call(client, "archival_memory_insert", {"content": content})
            bar.advance(task)

    async with anyio.create_task_group() as group:
        for _ in range(IN_FLIGHT):
            group.start_soon(worker)
    bar.remove_task(task)


def actions(client: Client, embedder: Embedder) -> dict[str, Action]:
    """Return what is timed, by the names of `MEASURES`; each takes a text or a query."""

    async def embed_query(query: str) -> None:
        embedder.embed_query(query, of_facts=True)

    async def embed_text(content: str) -> None:
        embedder.embed_passages([content])

    return {
        "refused": lambda _: client.call_tool(REFUSED_TOOL, {}),
        "search": lambda query: call(client, "archival_memory_search", {"query": query}),
        "embed_query": embed_query,
        "floor": lambda _: call(client, FLOOR_TOOL, {}),
        "store": lambda content: call(client, "archival_memory_insert", {"content": content}),
        "embed_text": embed_text,
    }


async def sample(
    timed: Mapping[str, Action], contents: Sequence[str], queries: Sequence[str], bar: Progress
) -> Samples:
    """Time each action, in blocks of one kind, in `ROUNDS` rounds.

    In blocks, because a model's threads spin for a while after their work and
    would slow whatever comes next; in rounds, so that all kinds meet the same
    load. The first calls of a block are not counted.

    Args:
        timed: What is timed.
        contents: `CALLS` texts that have not been stored.
        queries: `CALLS` questions that have not been asked.
        bar: Where the progress is shown.
    """
    samples: Samples = {name: [] for name in timed}
    task = bar.add_task("timing", total=CALLS * len(timed))
    for start in range(0, CALLS, BLOCK_CALLS):
        for name, act in timed.items():
            given = contents if name in ON_CONTENTS else queries
            for number, text in enumerate(given[start : start + BLOCK_CALLS]):
                began = time.perf_counter()
                await act(text)
                if number >= SETTLING_CALLS:
                    samples[name].append(time.perf_counter() - began)
                bar.advance(task)
    bar.remove_task(task)
    return samples


def model_files() -> ModelFiles:
    """Return the files of the model that the server uses.

    Raises:
        BenchmarkFault: They are not there.
    """
    settings = load_settings()
    files = find_model(settings.embedding_model, settings.cache_dir)
    if files is None:
        raise BenchmarkFault("the model's files are missing: run `mcp-memory models fetch` first")
    return files


def load_embedder() -> Embedder:
    """Return the model that the server uses, loaded in this process.

    Raises:
        BenchmarkFault: Its files are not there.
    """
    return FastEmbedder.load(model_files(), threads=load_settings().threads)


async def measure(sizes: Sequence[int]) -> tuple[list[Row], str]:
    """Return a row for each size, ascending, and the model's name."""
    rng = random.Random(SEED)
    # The server remembers the vectors of recent queries, so none may come twice.
    queries = iter(texts.distinct(partial(texts.query, rng), CALLS * len(sizes)))
    contents = iter(texts.distinct(partial(texts.memory, rng), max(sizes) + CALLS * len(sizes)))
    rows: list[Row] = []
    stored = 0
    with progress() as bar, tempfile.TemporaryDirectory(prefix="mcp-memory-latency-") as folder:
        async with serve(Path(folder) / "memory.duckdb") as client:
            model = await _wait(client, bar)
            timed = actions(client, load_embedder())
            for size in sizes:
                await fill(client, list(islice(contents, max(0, size - stored))), bar)
                await _wait(client, bar)
                new, asked = list(islice(contents, CALLS)), list(islice(queries, CALLS))
                samples = await sample(timed, new, asked, bar)
                stored = max(size, stored) + CALLS
                rows.append(Row.of(size, samples))
    return rows, model


async def _wait(client: Client, bar: Progress) -> str:
    task = bar.add_task("embedding", total=None)
    model = await wait_until_embedded(
        client,
        timeout_seconds=EMBEDDING_TIMEOUT_SECONDS,
        on_wait=lambda state: bar.update(task, description=f"embedding: {state}"),
    )
    bar.remove_task(task)
    return model


def show(rows: Sequence[Row]) -> None:
    """Print the table and a verdict line for each goal."""
    table = Table(title="Milliseconds, p50 / p95")
    table.add_column("memories")
    for row in rows:
        table.add_column(f"{row.size:,}", justify="right")
    for label, name in MEASURES.items():
        pairs: list[Latency] = [getattr(row, name) for row in rows]
        table.add_row(label, *(f"{pair.p50_ms:.2f} / {pair.p95_ms:.2f}" for pair in pairs))
    table.add_section()
    table.add_row("search - floor - embedding", *(f"{row.own_search_ms:.2f}" for row in rows))
    table.add_row("store - floor - embedding", *(f"{row.own_store_ms:.2f}" for row in rows))
    table.add_row("floor - refused call", *(f"{row.tool_ms:.2f}" for row in rows))
    out.print(table)
    for line in verdicts(rows):
        out.print(line, highlight=False)


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Return a line for each goal; a run that stopped short of the size says so."""
    at_goal = [row for row in rows if row.size == GOAL_SIZE]
    if not at_goal:
        return [f"no verdict: the goals are for {GOAL_SIZE:,} memories"]
    (row,) = at_goal
    return [
        f"{name} p50 - floor - embedding at {GOAL_SIZE:,}: {own_ms:.2f} ms, "
        f"goal {goal_ms:g} ms: {'met' if own_ms <= goal_ms else 'MISSED'}"
        for name, own_ms, goal_ms in (
            ("search", row.own_search_ms, GOAL_SEARCH_MS),
            ("store", row.own_store_ms, GOAL_STORE_MS),
        )
    ]


def _sizes(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of sizes, such as 100,1000")
    return tuple(sorted({int(part) for part in parts}))


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks latency", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--sizes", type=_sizes, default=SIZES, help="default: 100,1000,10000")
    parser.add_argument("--out", type=Path, help="write the report to this JSON file")
    return parser.parse_args(argv)


async def _benchmark(sizes: Sequence[int], out_path: Path | None) -> None:
    rows, model = await measure(sizes)
    show(rows)
    write_json(
        out_path,
        {
            "benchmark": "latency",
            **machine(),
            "model": model,
            "sizes": [row.as_dict() for row in rows],
            "verdicts": verdicts(rows),
        },
    )


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return its exit status."""
    options = parse_arguments(argv)
    return run(partial(_benchmark, options.sizes, options.out))
