"""How do many clients share one memory, and what does a client cost?

Clients on stdio store and search at the same time in one database; what was
acknowledged is read back after the owner was killed. Starts and a trivial call
are timed in turn with a bare server of the SDK and with the reference server.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from benchmarks import starts, texts
from benchmarks.client import Clients, Command, RawClient
from benchmarks.harness import (
    SERVER,
    BenchmarkFault,
    environment,
    err,
    machine,
    out,
    positive,
    run_blocking,
    write_json,
)
from benchmarks.metrics import Latency
from benchmarks.procfs import Usage, kill_owner, owner_pid, usage

CLIENTS: Final = (1, 4, 16)
CALLS: Final = 50
STARTS: Final = 10
SEED: Final = 20_231_012
LOAD_SECONDS: Final = 600.0
EMBEDDING_SECONDS: Final = 120.0
READY_SECONDS: Final = 60.0
OWNER_IDLE_SECONDS: Final = 5
"""An owner that the benchmark couldn't end goes by itself soon after."""

GOAL_WARM: Final = 0.1
GOAL_COLD: Final = 1.3
GOAL_TRIVIAL: Final = 1.0
GOAL_SHIM_MB: Final = 16.0


@dataclass(frozen=True, slots=True)
class Work:
    """What one client did; `stored` maps the id of each acknowledged memory to its text."""

    stored: dict[str, str] = field(default_factory=dict)
    store_seconds: list[float] = field(default_factory=list)
    search_seconds: list[float] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Load:
    """One load: so many clients at the same time, and what was left of what they stored.

    `kept` of the `acknowledged` were read back, `total` stood in the database.
    """

    clients: int
    seconds: float
    store: Latency
    search: Latency
    refused: int
    acknowledged: int
    kept: int
    total: int
    shims: tuple[Usage, ...]
    owner: Usage | None

    @property
    def calls_per_second(self) -> float:
        """Stores and searches that were answered in a second, of all clients."""
        return (self.store.calls + self.search.calls) / self.seconds

    @property
    def is_whole(self) -> bool:
        """Whether everything acknowledged is there, once, and nothing was refused."""
        return self.kept == self.acknowledged == self.total and not self.refused

    @property
    def shim_mb(self) -> float | None:
        """The resident memory of the largest process that a client started, if it is known."""
        return max((shim.rss_kb for shim in self.shims), default=0) / 1_024 or None

    def as_dict(self) -> dict[str, Any]:
        """Return the load as it stands in the JSON."""
        return {
            "clients": self.clients,
            "seconds": round(self.seconds, 3),
            "calls_per_second": round(self.calls_per_second, 2),
            "store": self.store.as_dict(),
            "search": self.search.as_dict(),
            "refused": self.refused,
            "acknowledged": self.acknowledged,
            "kept": self.kept,
            "total": self.total,
            "shims": [shim.as_dict() for shim in self.shims],
            "owner": None if self.owner is None else self.owner.as_dict(),
        }


def our_server(db: Path) -> Command:
    """Return how our server is started on a database."""
    settings = environment(db, owner_idle_seconds=OWNER_IDLE_SECONDS)
    return Command(SERVER, settings, db.parent)


@contextmanager
def database(folder: Path, name: str) -> Iterator[Path]:
    """Give the path of a new database; its owner is ended with the block."""
    db = folder / name / "memory.duckdb"
    db.parent.mkdir()
    try:
        yield db
    finally:
        kill_owner(db)


def work(client: RawClient, contents: Sequence[str], queries: Sequence[str]) -> Work:
    """Store and search in turn; what is refused is noted, and the client goes on."""
    done = Work()
    for content, query in zip(contents, queries, strict=True):
        try:
            began = time.perf_counter()
            stored = client.tool("archival_memory_insert", {"content": content})
            done.store_seconds.append(time.perf_counter() - began)
            done.stored[stored["id"]] = content
            began = time.perf_counter()
            client.tool("archival_memory_search", {"query": query})
            done.search_seconds.append(time.perf_counter() - began)
        except BenchmarkFault as fault:
            done.refusals.append(str(fault))
    return done


def put_load(db: Path, count: int, calls: int) -> Load:
    """Let `count` clients work at the same time, then read back what they stored.

    Raises:
        BenchmarkFault: A client can't connect, or nothing was answered.
    """
    jobs = plan(count, calls)
    command = our_server(db)
    with ThreadPoolExecutor(count) as threads, Clients(LOAD_SECONDS) as clients:
        connected = [clients.start(command) for _ in range(count)]
        for client in connected:
            client.initialize()
        connected[0].wait_until_embedded(timeout_seconds=EMBEDDING_SECONDS)
        for client in connected:
            client.tool("core_memory_view", {})  # The first call of a connection opens its memory.

        ready = threading.Barrier(count + 1)

        def job(client: RawClient, contents: Sequence[str], queries: Sequence[str]) -> Work:
            ready.wait(READY_SECONDS)
            return work(client, contents, queries)

        futures = [
            threads.submit(job, client, *texts_of)
            for client, texts_of in zip(connected, jobs, strict=True)
        ]
        ready.wait(READY_SECONDS)
        began = time.perf_counter()
        done = [future.result() for future in futures]
        seconds = time.perf_counter() - began

        shims = tuple(filter(None, (usage(client.pid) for client in connected)))
        owner = owner_pid(db)
        owner_usage = None if owner is None else usage(owner)
    # From here on what is read comes from the file.
    kill_owner(db)
    return _summed(done, seconds, shims, owner_usage, partial(read_back, command))


def _summed(
    done: Sequence[Work],
    seconds: float,
    shims: tuple[Usage, ...],
    owner: Usage | None,
    read: Callable[[dict[str, str]], tuple[int, int]],
) -> Load:
    refusals = list(chain.from_iterable(part.refusals for part in done))
    for refusal in refusals[:3]:
        err.print(f"refused: {refusal}", markup=False)
    stored: dict[str, str] = {}
    for part in done:
        stored |= part.stored
    acknowledged = sum(len(part.store_seconds) for part in done)
    searches = list(chain.from_iterable(part.search_seconds for part in done))
    if not searches:
        raise BenchmarkFault("no call was answered")
    kept, total = read(stored)
    return Load(
        clients=len(done),
        seconds=seconds,
        store=Latency.of(list(chain.from_iterable(part.store_seconds for part in done))),
        search=Latency.of(searches),
        refused=len(refusals),
        acknowledged=acknowledged,
        kept=kept,
        total=total,
        shims=shims,
        owner=owner,
    )


def read_back(command: Command, stored: dict[str, str]) -> tuple[int, int]:
    """Return how many of `stored` a new client reads unchanged, and how many there are in all."""
    with Clients(LOAD_SECONDS) as clients:
        client = clients.start(command)
        client.initialize()
        total = int(client.tool("archival_memory_search", {"top_k": 1})["total"])
        kept = sum(_is_there(client, memory, content) for memory, content in stored.items())
        client.close()
    return kept, total


def _is_there(client: RawClient, memory: str, content: str) -> bool:
    try:
        return client.read(f"memory://archival/{memory}") == content
    except BenchmarkFault:
        return False


def plan(count: int, calls: int) -> list[tuple[list[str], list[str]]]:
    """Return the texts and questions of each client: all different, the same in every run."""
    rng = random.Random(SEED)
    contents = texts.distinct(partial(texts.memory, rng), count * calls)
    queries = texts.distinct(partial(texts.query, rng), count * calls)
    return [
        (contents[start : start + calls], queries[start : start + calls])
        for start in range(0, count * calls, calls)
    ]


def verdicts(loads: Sequence[Load], started: starts.Starts, trivial: starts.Trivial) -> list[str]:
    """Return a line for each goal; ratios are of medians, to the bare server of the same run."""
    lines = [
        f"kept with {load.clients} clients: {load.kept} of {load.acknowledged} acknowledged, "
        f"{load.total} stored, {load.refused} refused: {'met' if load.is_whole else 'MISSED'}"
        for load in loads
    ]
    for name, value, goal in (
        ("warm start / bare start", started.ratio("warm"), GOAL_WARM),
        ("cold start / bare start", started.ratio("cold"), GOAL_COLD),
        ("core_memory_view / the same reply of the bare server", trivial.ratio, GOAL_TRIVIAL),
    ):
        lines.append(f"{name}: {value:.2f}, goal {goal:g}: {_met(value <= goal)}")
    sizes = [load.shim_mb for load in loads if load.shim_mb is not None]
    if sizes:
        lines.append(
            f"memory of a shim: {max(sizes):.1f} MB, goal {GOAL_SHIM_MB:g} MB: "
            f"{_met(max(sizes) <= GOAL_SHIM_MB)}"
        )
    else:
        lines.append("memory of a shim: no verdict, there is no /proc here")
    return lines


def _met(reached: bool) -> str:
    return "met" if reached else "MISSED"


def show(loads: Sequence[Load]) -> None:
    """Print the table of the loads."""
    table = Table(title="Clients at the same time; milliseconds, p50 / p95 / p99")
    table.add_column("clients")
    for load in loads:
        table.add_column(str(load.clients), justify="right")
    for label, cell in (
        ("store", lambda load: _triple(load.store)),
        ("search", lambda load: _triple(load.search)),
        ("calls a second", lambda load: f"{load.calls_per_second:.1f}"),
        ("kept / acknowledged", lambda load: f"{load.kept} / {load.acknowledged}"),
        ("shim, MB resident", lambda load: _mb([shim.rss_kb for shim in load.shims])),
        ("shim, MB by its share", lambda load: _mb([shim.pss_kb for shim in load.shims])),
        ("owner, MB resident", lambda load: _mb([load.owner.rss_kb] if load.owner else [])),
    ):
        table.add_row(label, *map(cell, loads))
    out.print(table)


def _mb(kilobytes: Sequence[int]) -> str:
    return f"{max(kilobytes) / 1_024:.1f}" if kilobytes else "-"


def _triple(latency: Latency) -> str:
    values = (latency.p50_ms, latency.p95_ms, latency.p99_ms)
    return " / ".join(f"{value:.1f}" if value < 100 else f"{value:.0f}" for value in values)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(sorted({positive(part) for part in text.split(",")}))


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks clients", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--clients", type=_counts, default=CLIENTS, help="default: 1,4,16")
    parser.add_argument("--calls", type=positive, default=CALLS, help="stores each; default: 50")
    parser.add_argument("--starts", type=positive, default=STARTS, help="default: 10 of each kind")
    parser.add_argument("--out", type=Path, help="write the report to this JSON file")
    return parser.parse_args(argv)


def _benchmark(options: argparse.Namespace) -> None:
    loads: list[Load] = []
    with tempfile.TemporaryDirectory(prefix="mcp-memory-clients-") as name:
        folder = Path(name)
        with database(folder, "warm") as warm, database(folder, "cold") as cold:
            started, trivial = starts.measure(
                our_server(warm), our_server(cold), partial(kill_owner, cold), options.starts
            )
        for count in options.clients:
            err.print(f"{count} clients")
            with database(folder, f"load-{count}") as db:
                loads.append(put_load(db, count, options.calls))
    show(loads)
    starts.show(started, trivial)
    lines = verdicts(loads, started, trivial)
    for line in lines:
        out.print(line, highlight=False)
    write_json(
        options.out,
        {
            "benchmark": "clients",
            **machine(),
            "calls": options.calls,
            "loads": [load.as_dict() for load in loads],
            "starts": started.as_dict(),
            "trivial": trivial.as_dict(),
            "verdicts": lines,
        },
    )
    if not all(load.is_whole for load in loads):
        raise BenchmarkFault("something that was asked for was lost, doubled or refused")


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return its exit status."""
    options = parse_arguments(argv)
    return run_blocking(partial(_benchmark, options))
