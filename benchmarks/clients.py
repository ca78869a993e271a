"""How do many clients share one memory, and what does a client cost?

Clients on stdio store and search at the same time in one database; what was
acknowledged is read back after the owner was killed. Starts and a trivial call
are timed in turn with a bare server of the SDK and with the reference server.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

from benchmarks import BenchmarkFault, harness, servers
from benchmarks.client import Clients, Command, RawClient
from benchmarks.harness import database, err, kill_owner, owner_pid
from benchmarks.latency import FLOOR_TOOL, REFUSED_TOOL
from benchmarks.metrics import Latency, plain
from benchmarks.procfs import Usage, usage

CLIENTS: Final = (1, 4, 16)
CALLS: Final = 50
STARTS: Final = 10
ROUNDS: Final = 8
BLOCK_CALLS: Final = 55
SETTLING_CALLS: Final = 5
LOAD_SECONDS: Final = 600.0
READY_SECONDS: Final = 60.0
OWNER_IDLE_SECONDS: Final = 5
"""An owner that the benchmark couldn't end exits by itself soon after."""

# Set by judgement: a host waits two seconds for its servers on a busy machine, and a start should
# not be noticed; a trivial call may cost what any server of the SDK costs.
GOAL_WARM: Final = 0.06
GOAL_COLD: Final = 0.15
GOAL_TRIVIAL: Final = 1.0
GOAL_SHIM_MB: Final = 16.0

WARM: Final = "warm"
COLD: Final = "cold"
BARE: Final = "bare"
REFERENCE: Final = "reference"
LABELS: Final = {
    WARM: "ours, the owner runs",
    COLD: "ours, no owner",
    BARE: "a bare server of the SDK",
    REFERENCE: f"{servers.NPM_PACKAGE} {servers.NPM_VERSION}",
}

Call = tuple[RawClient, str]
"""A connection and the tool that is called without arguments."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one client did; `stored` maps the id of each acknowledged memory to its text."""

    stored: dict[str, str] = field(default_factory=dict)
    store_seconds: list[float] = field(default_factory=list)
    search_seconds: list[float] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Load:
    """Clients that work at the same time, and what was left of what they stored.

    `kept` of the `acknowledged` were read back, `total` were in the database.
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
    texts = harness.Texts()
    command = harness.server(db, owner_idle_seconds=OWNER_IDLE_SECONDS)
    with ThreadPoolExecutor(count) as threads, Clients(LOAD_SECONDS) as clients:
        connected = [clients.start(command) for _ in range(count)]
        for client in connected:
            client.initialize()
        connected[0].wait_until_embedded()
        for client in connected:
            client.tool(FLOOR_TOOL, {})  # The first call of a connection opens its memory.

        ready = threading.Barrier(count + 1)

        def job(client: RawClient, contents: Sequence[str], queries: Sequence[str]) -> Work:
            ready.wait(READY_SECONDS)
            return work(client, contents, queries)

        futures = [
            threads.submit(job, client, texts.contents(calls), texts.queries(calls))
            for client in connected
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
    stores = list(chain.from_iterable(part.store_seconds for part in done))
    searches = list(chain.from_iterable(part.search_seconds for part in done))
    if not searches:
        raise BenchmarkFault("no call was answered")
    kept, total = read(stored)
    return Load(
        clients=len(done),
        seconds=seconds,
        store=Latency.of(stores),
        search=Latency.of(searches),
        refused=len(refusals),
        acknowledged=len(stores),
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


@dataclass(frozen=True, slots=True)
class Starts:
    """From the start of a process to its answers, by the keys of `LABELS`.

    `kinds` is to the answer to `initialize`, `listed` to that to `tools/list` after it.
    """

    kinds: Mapping[str, Latency]
    listed: Mapping[str, Latency]

    def ratio(self, kind: str) -> float:
        """Return the median of `kinds`, the bare server's being 1."""
        return self.kinds[kind].p50_ms / self.kinds[BARE].p50_ms

    def listed_ratio(self, kind: str) -> float:
        """Return the median of `listed`, the bare server's being 1."""
        return self.listed[kind].p50_ms / self.listed[BARE].p50_ms


@dataclass(frozen=True, slots=True)
class Trivial:
    """Calls that do next to nothing: `view` one that replies, `refused` one to no tool.

    The bare server's tool gives the same reply as ours.
    """

    view: Latency
    bare_view: Latency
    refused: Latency
    bare_refused: Latency

    @property
    def ratio(self) -> float:
        """The median of `view`, the bare server's being 1."""
        return self.view.p50_ms / self.bare_view.p50_ms

    @property
    def refused_ratio(self) -> float:
        """The median of `refused`, the bare server's being 1."""
        return self.refused.p50_ms / self.bare_refused.p50_ms


def measure_beside(folder: Path, times: int) -> tuple[Starts, Trivial]:
    """Time starts and trivial calls of our server, and of others beside it.

    Args:
        folder: For databases and the other servers.
        times: How many starts of each kind.

    Raises:
        BenchmarkFault: A server fails.
    """
    with (
        database(folder, WARM) as warm_db,
        database(folder, COLD) as cold_db,
        Clients(LOAD_SECONDS + times * LOAD_SECONDS) as clients,
    ):
        warm, cold = (
            harness.server(db, owner_idle_seconds=OWNER_IDLE_SECONDS) for db in (warm_db, cold_db)
        )
        ours = clients.start(warm)
        ours.initialize()
        ours.wait_until_embedded()
        reply = ours.ask("tools/call", {"name": FLOOR_TOOL, "arguments": {}})
        first_run(cold, cold_db)
        commands = {
            WARM: warm,
            COLD: cold,
            BARE: servers.bare_server(folder, reply, warm.environment),
        }
        reference = servers.reference_server(folder / "npm", warm.environment)
        if reference is not None:
            commands[REFERENCE] = reference
        started = time_starts(commands, partial(kill_owner, cold_db), times)
        bare = clients.start(commands[BARE])
        bare.initialize()
        seconds = time_calls(
            {
                "view": (ours, FLOOR_TOOL),
                "bare_view": (bare, servers.BARE_TOOL),
                "refused": (ours, REFUSED_TOOL),
                "bare_refused": (bare, REFUSED_TOOL),
            }
        )
        return started, Trivial(**{name: Latency.of(taken) for name, taken in seconds.items()})


def time_starts(
    commands: Mapping[str, Command], end_cold: Callable[[], None], times: int
) -> Starts:
    """Start each server in turn, `times` times; the first round is not counted."""
    first: dict[str, list[float]] = {kind: [] for kind in commands}
    listed: dict[str, list[float]] = {kind: [] for kind in commands}
    with harness.progress() as bar:
        task = bar.add_task("starts", total=(times + 1) * len(commands))
        for number in range(times + 1):
            for kind, command in commands.items():
                if kind == COLD:
                    end_cold()
                to_first, to_list = time_start(command)
                if number:
                    first[kind].append(to_first)
                    listed[kind].append(to_list)
                bar.advance(task)
    return Starts(
        {kind: Latency.of(taken) for kind, taken in first.items()},
        {kind: Latency.of(taken) for kind, taken in listed.items()},
    )


def time_start(command: Command) -> tuple[float, float]:
    """Return the seconds from the start of a server to its answers to `initialize` and the list."""
    with Clients(LOAD_SECONDS) as clients:
        began = time.perf_counter()
        client = clients.start(command)
        client.initialize()
        first = time.perf_counter() - began
        client.ask("tools/list", {})
        listed = time.perf_counter() - began
        client.close()
    return first, listed


def first_run(command: Command, db: Path) -> None:
    """Make the database, and wait until the owner has left what the next start needs.

    Raises:
        BenchmarkFault: It leaves nothing.
    """
    with Clients(LOAD_SECONDS) as clients:
        client = clients.start(command)
        client.initialize()
        client.tool(FLOOR_TOOL, {})
        deadline = time.monotonic() + READY_SECONDS
        while not any(db.with_name(f"{db.name}.owner").glob("answers-*")):
            if time.monotonic() > deadline:
                raise BenchmarkFault("the owner leaves no answers for the next start")
            time.sleep(0.05)
        client.close()


def time_calls(calls: Mapping[str, Call], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Time calls of several servers by the same client, in blocks of one kind, in turn.

    Returns:
        The seconds of each call by the names in `calls`, without the first of each block.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        # From round to round the order is reversed: each follows each.
        for name, (client, tool) in list(calls.items())[:: -1 if number % 2 else 1]:
            for call in range(BLOCK_CALLS):
                began = time.perf_counter()
                client.answer("tools/call", {"name": tool, "arguments": {}})
                if call >= SETTLING_CALLS:
                    seconds[name].append(time.perf_counter() - began)
    return seconds


def verdicts(loads: Sequence[Load], started: Starts, trivial: Trivial) -> list[str]:
    """Return a line for each goal; ratios are of medians, to the bare server of the same run."""
    lines = [
        harness.verdict(
            f"kept with {load.clients} clients",
            f"{load.kept} of {load.acknowledged} acknowledged, {load.total} stored, "
            f"{load.refused} refused",
            "all once",
            met=load.is_whole,
        )
        for load in loads
    ]
    lines += [
        harness.verdict(name, f"{value:.3f}", f"{goal:g}", met=value <= goal)
        for name, value, goal in (
            ("warm, first reply / bare", started.ratio(WARM), GOAL_WARM),
            ("warm, tools/list / bare", started.listed_ratio(WARM), GOAL_WARM),
            ("cold, first reply / bare", started.ratio(COLD), GOAL_COLD),
            ("cold, tools/list / bare", started.listed_ratio(COLD), GOAL_COLD),
            ("core_memory_view / the same reply of the bare server", trivial.ratio, GOAL_TRIVIAL),
        )
    ]
    sizes = [load.shim_mb for load in loads if load.shim_mb is not None]
    if not sizes:
        return [*lines, "memory of a shim: no verdict, there is no /proc here"]
    return [
        *lines,
        harness.verdict(
            "memory of a shim",
            f"{max(sizes):.1f} MB",
            f"{GOAL_SHIM_MB:g} MB",
            met=max(sizes) <= GOAL_SHIM_MB,
        ),
    ]


def show(loads: Sequence[Load], started: Starts, trivial: Trivial) -> None:
    """Print the tables."""
    rows: list[tuple[str, Callable[[Load], object]]] = [
        ("store", lambda load: load.store),
        ("search", lambda load: load.search),
        ("calls a second", lambda load: f"{load.calls_per_second:.1f}"),
        ("kept / acknowledged", lambda load: f"{load.kept} / {load.acknowledged}"),
        ("shim, MB resident", lambda load: _mb([shim.rss_kb for shim in load.shims])),
        ("shim, MB by its share", lambda load: _mb([shim.pss_kb for shim in load.shims])),
        ("owner, MB resident", lambda load: _mb([load.owner.rss_kb] if load.owner else [])),
    ]
    harness.table(
        "Clients at the same time; milliseconds, p50 / p95",
        ["clients", *(str(load.clients) for load in loads)],
        [(label, *map(cell, loads)) for label, cell in rows],
    )
    harness.table(
        "Start to the answers, milliseconds, p50 / p95",
        ["", "initialize", "x bare", "tools/list", "x bare"],
        [
            (
                LABELS[kind],
                latency,
                f"{started.ratio(kind):.3f}",
                started.listed[kind],
                f"{started.listed_ratio(kind):.3f}",
            )
            for kind, latency in started.kinds.items()
        ],
    )
    harness.table(
        "A trivial call, milliseconds, p50 / p95",
        ["", "ours", "bare", "x bare"],
        [
            (FLOOR_TOOL, trivial.view, trivial.bare_view, f"{trivial.ratio:.2f}"),
            (
                "a refused call",
                trivial.refused,
                trivial.bare_refused,
                f"{trivial.refused_ratio:.2f}",
            ),
        ],
    )


def _mb(kilobytes: Sequence[int]) -> str | None:
    return f"{max(kilobytes) / 1_024:.1f}" if kilobytes else None


def _benchmark(options: argparse.Namespace) -> None:
    loads: list[Load] = []
    with harness.temporary() as folder:
        started, trivial = measure_beside(folder, options.starts)
        for count in options.clients:
            err.print(f"{count} clients")
            with database(folder, f"load-{count}") as db:
                loads.append(put_load(db, count, options.calls))
    show(loads, started, trivial)
    report = {
        "calls": options.calls,
        "loads": [plain(load) | {"calls_per_second": load.calls_per_second} for load in loads],
        "starts": {
            kind: plain(latency)
            | {
                "ratio": started.ratio(kind),
                "listed": plain(started.listed[kind]),
                "listed_ratio": started.listed_ratio(kind),
            }
            for kind, latency in started.kinds.items()
        },
        "trivial": plain(trivial)
        | {"ratio": trivial.ratio, "refused_ratio": trivial.refused_ratio},
    }
    harness.finish("clients", options, report, verdicts(loads, started, trivial))
    if not all(load.is_whole for load in loads):
        raise BenchmarkFault("something acknowledged was lost, doubled or refused")


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return its exit status."""
    parser = harness.parser("clients", __doc__)
    parser.add_argument("--clients", type=harness.numbers, default=CLIENTS, help="default: 1,4,16")
    parser.add_argument(
        "--calls", type=harness.positive, default=CALLS, help="stores each; default: 50"
    )
    parser.add_argument(
        "--starts", type=harness.positive, default=STARTS, help="default: 10 of each kind"
    )
    return harness.run(partial(_benchmark, parser.parse_args(argv)))
