"""What does a search cost when there are a thousand, ten thousand, a million memories?

At each size, in one agent's hands and spread over a hundred, it times searches through
the façade, with the vector of the question known, and through a client on stdio, beside
the floor and the bare embedding; the first search of all, for which the index is made, the
first after a start, which takes it up again, and when it had all its vectors; memory, disk,
and what the index finds of the nearest by exact cosines. Then memories are kept one by one.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE
from rich.table import Table

from benchmarks import scaledata
from benchmarks.harness import (
    BenchmarkFault,
    call,
    environment,
    err,
    machine,
    out,
    run,
    serve,
    write_json,
)
from benchmarks.latency import FLOOR_TOOL, load_embedder
from benchmarks.metrics import Latency
from benchmarks.scaledata import Sample
from mcp_memory.models.embedding import Embedder

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
AGENTS: Final = 100
LEAST_EACH: Final = 100
"""With fewer memories each agent has too few to be worth a case."""
INSERTS: Final = 100_000
STDIO_CALLS: Final = 100
STDIO_SETTLING: Final = 10
WORKER_SECONDS: Final = 3_600.0
SEED: Final = 20_231_101

GOALS_MS: Final = {
    (10_000, 1): 3.0,
    (100_000, 1): 8.0,
    (1_000_000, 1): 30.0,
    (1_000_000, AGENTS): 8.0,
}
"""Search p50 through the façade, by memories and agents."""
GOAL_RECALL: Final = 0.98
GOAL_RATIO: Final = 1.3

ROOT: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Case:
    """So many memories in so many hands."""

    size: int
    agents: int

    @property
    def names(self) -> list[str]:
        """The agents; a single one is the server's default."""
        return ["default"] if self.agents == 1 else [f"a{n:03d}" for n in range(self.agents)]

    @property
    def shares(self) -> dict[str, int]:
        """How many memories each agent has."""
        return dict.fromkeys(self.names, self.size // self.agents)


def worker(kind: str, db: Path, sample: Path, *rest: object) -> dict[str, Any]:
    """Run one measurement in a process of its own.

    Raises:
        BenchmarkFault: It failed; the message has the end of what it wrote.
    """
    done = subprocess.run(  # noqa: S603  # our own script
        [
            sys.executable,
            "-m",
            "benchmarks.scaleworker",
            kind,
            str(db),
            str(sample),
            *map(str, rest),
        ],
        # As the server is started.
        env=environment(db) | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=db.parent,
        capture_output=True,
        text=True,
        timeout=WORKER_SECONDS,
        check=False,
    )
    if done.returncode:
        raise BenchmarkFault(f"{kind} at {db.name} failed:\n{done.stderr[-2_000:]}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


async def through_stdio(db: Path, embedder: Embedder, sample: Sample) -> dict[str, Any]:
    """Time a client's searches; what is left without floor and embedding is the server's own."""
    search: list[float] = []
    floor: list[float] = []
    embedding: list[float] = []
    async with serve(db) as client:
        await call(client, "archival_memory_search", {"query": "the first one loads"})
        for number, question in enumerate(sample.questions[: STDIO_SETTLING + STDIO_CALLS]):
            began = time.perf_counter()
            await call(client, "archival_memory_search", {"query": question})
            searched = time.perf_counter()
            await client.call_tool(FLOOR_TOOL, {})
            answered = time.perf_counter()
            embedder.embed_query(question, of_facts=True)
            if number >= STDIO_SETTLING:
                search.append(searched - began)
                floor.append(answered - searched)
                embedding.append(time.perf_counter() - answered)
    of = {"search": search, "floor": floor, "embedding": embedding}
    latencies = {name: Latency.of(seconds) for name, seconds in of.items()}
    own_ms = latencies["search"].p50_ms - sum(latencies[n].p50_ms for n in ("floor", "embedding"))
    return {name: latency.as_dict() for name, latency in latencies.items()} | {
        "own_p50_ms": round(own_ms, 3)
    }


async def measure(case: Case, folder: Path, embedder: Embedder, sample: Sample) -> dict[str, Any]:
    """Make a database of a case and return what was measured on it."""
    db, held = folder / f"{case.size}-{case.agents}.duckdb", folder / "sample.npz"
    err.print(f"{case.size:,} memories, {case.agents} agents: making the database")
    began = time.perf_counter()
    scaledata.build(db, case.shares, sample, SEED)
    row: dict[str, Any] = {
        "size": case.size,
        "agents": case.agents,
        "build_seconds": round(time.perf_counter() - began, 1),
    }
    err.print("making the indexes")
    row |= worker("first", db, held, *case.names)
    err.print("searching")
    row |= worker("search", db, held, *case.names)
    row |= {"disk_mb": round(db.stat().st_size / 1e6, 1)}
    if case.agents == 1:
        err.print("comparing with exact cosines")
        row |= {"vectors": worker("recall", db, held, *case.names)}
        err.print("searching as a client")
        row |= {"stdio": await through_stdio(db, embedder, sample)}
    db.unlink()
    return row


def cases(sizes: Sequence[int], agents: int) -> list[Case]:
    """Return what is measured: each size in one hand, and in many where each has enough."""
    return [
        Case(size, count)
        for size in sizes
        for count in sorted({1, agents})
        if count == 1 or size >= LEAST_EACH * count
    ]


def show(report: Mapping[str, Any]) -> None:
    """Print the table and a verdict line for each goal."""
    searches = Table(title="A search, milliseconds; the model's part left out", box=SIMPLE)
    indexes = Table(title="Indexes, milliseconds and megabytes", box=SIMPLE)
    for table, columns in (
        (searches, ("p50", "p95", "stdio", "R@10", "R@50")),
        (indexes, ("made in", "first search", "whole after", "RAM", "disk")),
    ):
        for column in ("memories", "agents", *columns):
            table.add_column(column, justify="right", no_wrap=True)
    for row in report["sizes"]:
        vectors, stdio = row.get("vectors"), row.get("stdio")
        where = f"{row['size']:,}", str(row["agents"])
        searches.add_row(
            *where,
            f"{row['search']['p50_ms']:.2f}",
            f"{row['search']['p95_ms']:.2f}",
            f"{stdio['own_p50_ms']:.2f}" if stdio else "",
            *((f"{vectors['recall'][k]:.3f}" for k in ("10", "50")) if vectors else ("", "")),
        )
        indexes.add_row(
            *where,
            f"{row['made_first_ms']:,.0f}",
            f"{row['first_search_ms']:,.0f}",
            f"{1_000 * row['whole_after_seconds']:,.0f}",
            "" if row["rss_mb"] is None else f"{row['rss_mb']:,}",
            f"{row['disk_mb']:,.0f}",
        )
    out.print(searches)
    out.print(indexes)
    if report["inserts"]:
        tenths = " ".join(f"{tenth['p50_ms']:.2f}" for tenth in report["inserts"]["tenths"])
        out.print(f"inserts one by one, p50 of each tenth: {tenths} ms", highlight=False)
    for line in report["verdicts"]:
        out.print(line, highlight=False)


def verdicts(rows: Sequence[Mapping[str, Any]], inserted: Mapping[str, Any] | None) -> list[str]:
    """Return a line for each goal that was measured."""
    lines = []
    for row in rows:
        where = f"{row['size']:,} memories of {row['agents']} agent(s)"
        goal_ms = GOALS_MS.get((row["size"], row["agents"]))
        if goal_ms is not None:
            p50_ms = row["search"]["p50_ms"]
            lines.append(
                f"search p50, {where}: {p50_ms:.2f} ms, goal {goal_ms:g} ms:"
                f" {_verdict(p50_ms <= goal_ms)}"
            )
        if "vectors" in row:
            least = min(row["vectors"]["recall"].values())
            lines.append(
                f"recall against exact, {where}: {least:.3f}, goal {GOAL_RECALL}:"
                f" {_verdict(least >= GOAL_RECALL)}"
            )
    if inserted is not None:
        lines.append(
            f"last tenth of {inserted['inserts']:,} inserts / first: {inserted['ratio']:.2f},"
            f" goal {GOAL_RATIO}: {_verdict(inserted['ratio'] <= GOAL_RATIO)}"
        )
    return lines


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks scale", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--sizes", type=_sizes, default=SIZES, help="default: all four")
    parser.add_argument("--agents", type=int, default=AGENTS, help="in how many hands; default 100")
    parser.add_argument("--inserts", type=int, default=INSERTS, help="0 for none; default 100000")
    parser.add_argument("--folder", type=Path, help="where there is room: 3 GB for a million")
    parser.add_argument("--out", type=Path, help="write the report to this JSON file")
    parser.add_argument("--plot", type=Path, help="draw the cost of growth into this folder")
    return parser.parse_args(argv)


async def _benchmark(options: argparse.Namespace) -> None:
    embedder = load_embedder()
    err.print("embedding a sample")
    sample = Sample.make(embedder, random.Random(SEED))
    with tempfile.TemporaryDirectory(prefix="mcp-memory-scale-", dir=options.folder) as name:
        folder = Path(name)
        sample.save(folder / "sample.npz")
        rows = [
            await measure(case, folder, embedder, sample)
            for case in cases(options.sizes, options.agents)
        ]
        inserted = None
        if options.inserts:
            err.print(f"keeping {options.inserts:,} memories one by one")
            inserted = worker(
                "inserts", folder / "inserts.duckdb", folder / "sample.npz", options.inserts
            )
    report = {
        "benchmark": "scale",
        **machine(),
        "model": sample.name,
        "vectors": "synthetic: mixed from real ones (scaledata.py)",
        "sizes": rows,
        "inserts": inserted,
        "verdicts": verdicts(rows, inserted),
    }
    show(report)
    write_json(options.out, report)
    if options.plot:
        from benchmarks.scaleplot import plot

        for path in plot(report, options.plot):
            err.print(f"wrote {path}")


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def _sizes(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of sizes, such as 1000,10000")
    return tuple(sorted({int(part) for part in parts}))


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return its exit status."""
    options = parse_arguments(argv)
    return run(partial(_benchmark, options))
