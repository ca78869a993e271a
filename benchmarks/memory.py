"""Does the owner stay small under load, and does a text of 30 MB make the others wait?

Clients store and search without a pause in a database that has some megabytes. At half
time one more client stores a text of 30 MB. The owner's resident memory is watched all
the time, and once more a minute after the last call.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from benchmarks import BenchmarkFault, harness, texts
from benchmarks.client import Clients, RawClient
from benchmarks.harness import err
from benchmarks.metrics import Latency, percentile
from benchmarks.procfs import field_kb

MINUTES: Final = 10.0
CLIENTS: Final = 8
DATABASE_MB: Final = 10.0
INSERT_MB: Final = 30.0
REST_SECONDS: Final = 60.0
LIMIT_SECONDS: Final = 4 * 3_600.0

GOAL_PEAK_MB: Final = 450.0
GOAL_REST_MB: Final = 300.0
GOAL_WAIT: Final = 3.0
"""What the owner may take, at most and at rest, and the others' p95 by that without the insert."""

SAMPLE_SECONDS: Final = 0.5
LONG_EVERY: Final = 10
LONG_TEXTS: Final = 20
"""One insert in ten has the length of 20 others, about 5,000 characters; by judgement."""

LAST: Final = "The very last thing: Quenby Zarkovian keeps the ocarina in the lighthouse."
"""The last sentence of the large text, and with other words what is asked for it."""

QUESTION: Final = "Where does Quenby Zarkovian keep the ocarina?"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one client: when it began, and how long it took."""

    kind: str
    began: float
    seconds: float


@dataclass(slots=True)
class Watched:
    """The owner's resident memory over time, in megabytes; empty without `/proc`."""

    samples: list[tuple[float, float]] = field(default_factory=list)
    peak_mb: float | None = None

    def at(self, moment: float) -> float | None:
        """Return the last value before a moment."""
        return next((mb for when, mb in reversed(self.samples) if when <= moment), None)


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that was measured; times are from the first call of the load."""

    calls: list[Call]
    watched: Watched
    insert_began: float
    insert_seconds: float
    ended: float
    rest_mb: float | None
    is_found: bool

    def during(self, first: float, end: float) -> list[float]:
        """Return how long the calls took that were in flight between two moments."""
        return [
            call.seconds
            for call in self.calls
            if call.began < end and call.began + call.seconds > first
        ]

    @property
    def insert_ended(self) -> float:
        """When the large insert was answered."""
        return self.insert_began + self.insert_seconds

    @property
    def phases(self) -> dict[str, list[float]]:
        """How long the calls took before, during and after the insert."""
        return {
            "before the insert": self.during(0, self.insert_began),
            "during the insert": self.during(self.insert_began, self.insert_ended),
            "after the insert": self.during(self.insert_ended, self.ended),
        }


def actions(client: RawClient, seed: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the calls of one client without end, each with its kind."""
    made = harness.Texts(seed)
    for number in cycle(range(LONG_EVERY)):
        count = 1 if number else LONG_TEXTS
        content = " ".join(made.contents(count))
        yield "insert", partial(client.tool, "archival_memory_insert", {"content": content})
        query = {"query": made.queries(1)[0]}
        yield "search", partial(client.tool, "archival_memory_search", query)
        messages = [
            {"role": role, "content": made.contents(1)[0]} for role in ("user", "assistant")
        ]
        yield "append", partial(client.tool, "conversation_append", {"messages": messages})
        query = {"query": made.queries(1)[0]}
        yield "recall", partial(client.tool, "conversation_search", query)


def work(
    client: RawClient, seed: int, clock: Callable[[], float], stop: threading.Event
) -> list[Call]:
    """Call without a pause until `stop` is set."""
    calls: list[Call] = []
    for kind, call in actions(client, seed):
        if stop.is_set():
            break
        began = clock()
        call()
        calls.append(Call(kind, began, clock() - began))
    return calls


def large_text(megabytes: float) -> str:
    """Return a text of about this size that ends with `LAST`."""
    rng = random.Random(harness.SEED)
    parts: list[str] = []
    left = int(megabytes * 1_000_000) - len(LAST)
    while left > 0:
        parts.append(texts.memory(rng))
        left -= len(parts[-1]) + 1
    return " ".join([*parts, LAST])


def fill(clients: Sequence[RawClient], db: Path, megabytes: float) -> None:
    """Store texts until the database has a size, and wait until they have vectors."""
    full = threading.Event()

    def store(client: RawClient, seed: int) -> None:
        for _, call in actions(client, seed):
            if full.is_set():
                break
            call()

    with ThreadPoolExecutor(len(clients)) as threads:
        done = [threads.submit(store, client, 1_000 + at) for at, client in enumerate(clients)]
        while size_mb(db) < megabytes and not any(one.done() for one in done):
            time.sleep(SAMPLE_SECONDS)
        full.set()
        for one in done:
            one.result()
    clients[0].wait_until_embedded()


def size_mb(db: Path) -> float:
    """Return the size of a database with its log."""
    files = (db, db.with_name(f"{db.name}.wal"))
    return sum(file.stat().st_size for file in files if file.exists()) / 1e6


@contextmanager
def watching(pid: int, clock: Callable[[], float]) -> Iterator[Watched]:
    """Read the resident memory of a process now and then, until the block ends."""
    watched, stop = Watched(), threading.Event()

    def watch() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            mb = resident_mb(pid)
            if mb is not None:
                watched.samples.append((clock(), mb))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield watched
    finally:
        stop.set()
        thread.join()
        watched.peak_mb = resident_mb(pid, "VmHWM")


def resident_mb(pid: int, name: str = "VmRSS") -> float | None:
    """Return the resident memory of a process, or its peak, `VmHWM`; None without `/proc`."""
    try:
        kb = field_kb(Path(f"/proc/{pid}/status"), name)
    except OSError:
        return None
    return None if kb is None else kb * 1_024 / 1e6


def measure(options: argparse.Namespace) -> Run:
    """Put the load on a new database, and read what the owner takes.

    Raises:
        BenchmarkFault: A server fails, or a call is refused.
    """
    content = large_text(options.insert_mb)
    seconds = options.minutes * 60
    with (
        harness.temporary() as folder,
        harness.database(folder, "memory", options.python) as db,
        ThreadPoolExecutor(options.clients) as threads,
        Clients(LIMIT_SECONDS) as clients,
    ):
        connected = [
            clients.start(harness.server(db, options.python)) for _ in range(options.clients + 1)
        ]
        for client in connected:
            client.initialize()
        *busy, one = connected
        one.wait_until_embedded()
        fill(busy, db, options.database_mb)
        pid = harness.owner_pid(db, options.python)
        if pid is None:
            raise BenchmarkFault("no owner runs")
        err.print(f"{size_mb(db):.1f} MB of data; the owner has {resident_mb(pid)} MB")
        zero, stop = time.perf_counter(), threading.Event()

        def clock() -> float:
            return time.perf_counter() - zero

        with watching(pid, clock) as watched:
            done = [
                threads.submit(work, client, seed, clock, stop) for seed, client in enumerate(busy)
            ]
            try:
                stop.wait(seconds / 2)
                began = clock()
                stored = one.tool("archival_memory_insert", {"content": content})
                taken = clock() - began
                err.print(f"the insert took {taken:.1f} s")
                stop.wait(max(seconds - clock(), 0))
            finally:
                stop.set()
            calls = [call for future in done for call in future.result()]
            ended = clock()
            stop.clear()
            stop.wait(options.rest_seconds)
            rest_mb = resident_mb(pid)
        found = one.tool("archival_memory_search", {"query": QUESTION, "top_k": 3})["results"]
        is_found = any(hit["id"] == stored["id"] and LAST in hit["text"] for hit in found)
    return Run(calls, watched, began, taken, ended, rest_mb, is_found)


def verdicts(run: Run) -> list[str]:
    """Return a line for each goal."""
    lines = [f"the last sentence of the large text is found: {'met' if run.is_found else 'MISSED'}"]
    figures = (
        ("owner, peak", run.watched.peak_mb, GOAL_PEAK_MB),
        (
            "owner, a minute after the insert",
            run.watched.at(run.insert_ended + REST_SECONDS),
            GOAL_REST_MB,
        ),
        ("owner, a minute after the last call", run.rest_mb, GOAL_REST_MB),
    )
    for label, mb, goal in figures:
        lines.append(
            f"{label}: no verdict, there is no /proc here"
            if mb is None
            else harness.verdict(label, f"{mb:.0f} MB", f"{goal:.0f} MB", met=mb <= goal)
        )
    before, *later = run.phases.values()
    for label, taken in zip(("during", "after"), later, strict=True):
        if before and taken:
            ratio = percentile(taken, 0.95) / percentile(before, 0.95)
            lines.append(
                harness.verdict(
                    f"others' p95 {label} the insert by that before it",
                    f"{ratio:.2f}",
                    f"{GOAL_WAIT:g}",
                    met=ratio <= GOAL_WAIT,
                )
            )
    return lines


def report(run: Run) -> dict[str, Any]:
    """Return the whole run for the JSON."""
    return {
        "insert_seconds": run.insert_seconds,
        "peak_mb": run.watched.peak_mb,
        "rest_mb": run.rest_mb,
        "phases": {name: Latency.of(taken) for name, taken in run.phases.items() if taken},
        "longest_seconds": max((call.seconds for call in run.calls), default=None),
        "resident_mb": [
            {"at_seconds": round(at, 1), "mb": round(mb, 1)}
            for at, mb in run.watched.samples[:: max(len(run.watched.samples) // 100, 1)]
        ],
    }


def show(run: Run) -> None:
    """Print the tables."""
    harness.table(
        "Calls of the other clients, milliseconds",
        ("", "calls", "p50 / p95", "p99", "longest"),
        [
            (
                name,
                len(taken),
                Latency.of(taken),
                f"{Latency.of(taken).p99_ms:.0f}",
                f"{max(taken) * 1_000:.0f}",
            )
            for name, taken in run.phases.items()
            if taken
        ],
    )


def _benchmark(options: argparse.Namespace) -> None:
    run = measure(options)
    show(run)
    harness.finish("memory", options, report(run), verdicts(run))
    if not run.is_found:
        raise BenchmarkFault("the last sentence of the large text is not found")


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return its exit status."""
    parser = harness.parser("memory", __doc__)
    parser.add_argument("--python", default=sys.executable, help=harness.PYTHON_HELP)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="default: 10")
    parser.add_argument("--clients", type=harness.positive, default=CLIENTS, help="default: 8")
    parser.add_argument(
        "--database-mb", type=float, default=DATABASE_MB, help="what is stored before; default: 10"
    )
    parser.add_argument(
        "--insert-mb", type=float, default=INSERT_MB, help="the large text; default: 30"
    )
    parser.add_argument(
        "--rest-seconds", type=float, default=REST_SECONDS, help="after the last call; default: 60"
    )
    return harness.run(partial(_benchmark, parser.parse_args(argv)))
