"""What do storing and searching cost beyond the protocol and the embedding?

At each size, stores and searches are timed one by one through a stdio client,
in turn with calls that do next to nothing, so that all of them meet the same
load. The bare embedding is timed in this process on the same texts.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import anyio
from mcp import Client
from mcp_memory.embedding import Embedder, FastEmbedder
from mcp_memory.models import find_model
from rich.progress import Progress
from rich.table import Table

import texts
from common import (
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
from mcp_memory.settings import load_settings
from metrics import Latency

SIZES: Final = (100, 1_000, 10_000)
SAMPLES: Final = 100
WARM_UP_CALLS: Final = 10
IN_FLIGHT: Final = 8
SEED: Final = 20_231_012
EMBEDDING_TIMEOUT_SECONDS: Final = 900.0

GOAL_SIZE: Final = 10_000
GOAL_SEARCH_MS: Final = 5.0
GOAL_STORE_MS: Final = 6.0

# A name that no tool has: the protocol layer answers by itself.
FLOOR_TOOL: Final = "no_such_tool"


@dataclass
class Samples:
    """Seconds of each call at one size."""

    floor: list[float] = field(default_factory=list)
    view: list[float] = field(default_factory=list)
    store: list[float] = field(default_factory=list)
    search: list[float] = field(default_factory=list)
    embed_text: list[float] = field(default_factory=list)
    embed_query: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Row:
    """The latencies at one size, and what storing and searching add of their own."""

    size: int
    floor: Latency
    view: Latency
    store: Latency
    search: Latency
    embed_text: Latency
    embed_query: Latency

    @classmethod
    def of(cls, size: int, samples: Samples) -> Row:
        """Return the row that `samples` make."""
        return cls(
            size,
            *(
                Latency.of(getattr(samples, name))
                for name in ("floor", "view", "store", "search", "embed_text", "embed_query")
            ),
        )

    @property
    def own_store_ms(self) -> float:
        """What is left of a store's p50 without floor and embedding."""
        return self.store.p50_ms - self.floor.p50_ms - self.embed_text.p50_ms

    @property
    def own_search_ms(self) -> float:
        """What is left of a search's p50 without floor and embedding."""
        return self.search.p50_ms - self.floor.p50_ms - self.embed_query.p50_ms

    def as_dict(self) -> dict[str, Any]:
        """Return the row as it stands in the JSON."""
        return {
            "size": self.size,
            "floor": self.floor.as_dict(),
            "view": self.view.as_dict(),
            "store": self.store.as_dict(),
            "search": self.search.as_dict(),
            "embed_text": self.embed_text.as_dict(),
            "embed_query": self.embed_query.as_dict(),
            "own_store_ms": round(self.own_store_ms, 3),
            "own_search_ms": round(self.own_search_ms, 3),
        }


@contextmanager
def clock(seconds: list[float]) -> Iterator[None]:
    """Add to `seconds` how long the body took."""
    began = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - began)


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


async def sample(
    client: Client, contents: Sequence[str], queries: Sequence[str], bar: Progress
) -> Samples:
    """Time one of each call for every pair of a text and a query."""
    samples = Samples()
    task = bar.add_task("timing", total=len(contents))
    for number, (content, query) in enumerate(zip(contents, queries, strict=True)):
        into = samples if number >= WARM_UP_CALLS else Samples()
        with clock(into.floor):
            await client.call_tool(FLOOR_TOOL, {})
        with clock(into.search):
            await call(client, "archival_memory_search", {"query": query})
        with clock(into.view):
            await call(client, "core_memory_view", {})
        with clock(into.store):
            await call(client, "archival_memory_insert", {"content": content})
        bar.advance(task)
    bar.remove_task(task)
    return samples


def load_embedder() -> Embedder:
    """Return the model that the server uses, loaded in this process.

    Raises:
        BenchmarkFault: Its files are not there.
    """
    settings = load_settings()
    files = find_model(settings.embedding_model, settings.cache_dir)
    if files is None:
        raise BenchmarkFault("the model's files are missing: run `mcp-memory models fetch` first")
    return FastEmbedder.load(files, threads=settings.threads)


def time_embedding(
    embedder: Embedder, contents: Sequence[str], queries: Sequence[str], samples: Samples
) -> None:
    """Time the embedding of each text and of each query, one by one."""
    for number, (content, query) in enumerate(zip(contents, queries, strict=True)):
        into = samples if number >= WARM_UP_CALLS else Samples()
        with clock(into.embed_text):
            embedder.embed_passages([content])
        with clock(into.embed_query):
            embedder.embed_query(query)


async def measure(sizes: Sequence[int], count: int) -> tuple[list[Row], str]:
    """Return a row for each size, ascending, and the model's name."""
    rng = random.Random(SEED)
    calls = WARM_UP_CALLS + count
    # The server remembers the vectors of recent queries, so none may come twice.
    queries = iter(_distinct(partial(texts.query, rng), calls * len(sizes)))
    contents = iter(_distinct(partial(texts.memory, rng), max(sizes) + calls * len(sizes)))
    rows: list[Row] = []
    stored = 0
    with progress() as bar, tempfile.TemporaryDirectory(prefix="mcp-memory-latency-") as folder:
        async with serve(Path(folder) / "memory.duckdb") as client:
            model = await _wait(client, bar)
            embedder = load_embedder()
            for size in sizes:
                await fill(client, list(islice(contents, max(0, size - stored))), bar)
                await _wait(client, bar)
                new, asked = list(islice(contents, calls)), list(islice(queries, calls))
                samples = await sample(client, new, asked, bar)
                stored = max(size, stored) + calls
                # While the server is idle: the two would otherwise share the processors.
                time_embedding(embedder, new, asked, samples)
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


def _distinct(make: Callable[[], str], count: int) -> list[str]:
    made: dict[str, None] = {}
    while len(made) < count:
        made[make()] = None
    return list(made)


def show(rows: Sequence[Row]) -> None:
    """Print the table and a verdict line for each goal."""
    table = Table(title="Milliseconds, p50 / p95")
    headings = ("memories", "floor", "view", "store", "search", "embed text", "embed query")
    for heading in (*headings, "own store", "own search"):
        table.add_column(heading, justify="right")
    for row in rows:
        pairs = (row.floor, row.view, row.store, row.search, row.embed_text, row.embed_query)
        table.add_row(
            f"{row.size:,}",
            *(f"{pair.p50_ms:.2f} / {pair.p95_ms:.2f}" for pair in pairs),
            f"{row.own_store_ms:.2f}",
            f"{row.own_search_ms:.2f}",
        )
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
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--sizes", type=_sizes, default=SIZES, help="default: 100,1000,10000")
    parser.add_argument("--out", type=Path, help="write the report to this JSON file")
    return parser.parse_args(argv)


async def _benchmark(sizes: Sequence[int], out_path: Path | None) -> None:
    rows, model = await measure(sizes, SAMPLES)
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit status."""
    options = parse_arguments(sys.argv[1:] if argv is None else argv)
    return run(partial(_benchmark, options.sizes, options.out))


if __name__ == "__main__":
    sys.exit(main())
