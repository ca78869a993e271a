"""Is another version of the server faster, or smaller? Both run in turn, in the same run.

Two interpreters have a version each: the one that runs this, and `--other`. Inserts,
appends, searches and a trivial call alternate between them in short blocks, with the same
texts; then the memory of owner and shim is read. In pairs of new processes the trivial call
is timed beside a bare stdio server of the SDK that gives the same reply.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks import BenchmarkFault, harness, servers
from benchmarks.client import Clients, RawClient
from benchmarks.clients import time_calls
from benchmarks.latency import FLOOR_TOOL
from benchmarks.metrics import Latency, percentile, ratio_of_medians
from benchmarks.procfs import Usage, usage

MEMORIES: Final = 1_000
ROUNDS: Final = 10
BLOCK_CALLS: Final = 15
SETTLING_CALLS: Final = 3
PAIRS: Final = 5
LIMIT_SECONDS: Final = 2 * 3_600.0

GOAL_P50: Final = 1.05
GOAL_TRIVIAL: Final = 0.9
GOAL_MEMORY: Final = 1.0
"""What a new version may take of the other's p50, of the bare server's, of the other's memory."""

NAMES: Final = ("this", "other")

Seconds = dict[str, dict[str, list[float]]]
"""Of each call, by kind of call and name of the version."""


@dataclass(frozen=True, slots=True)
class Version:
    """A server that is compared; `label` is what it says of itself."""

    name: str
    python: str
    label: str


@dataclass(frozen=True, slots=True)
class Memory:
    """What the processes of a version hold once all calls are done."""

    owner: Usage
    shim: Usage


def actions(client: RawClient, texts: harness.Texts) -> dict[str, Callable[[], object]]:
    """Return the calls that are timed, by kind; each takes the next of the texts."""

    def insert() -> object:
        return client.tool("archival_memory_insert", {"content": texts.contents(1)[0]})

    def append() -> object:
        message = {"role": "user", "content": texts.contents(1)[0]}
        return client.tool("conversation_append", {"messages": [message]})

    def search() -> object:
        return client.tool("archival_memory_search", {"query": texts.queries(1)[0]})

    def view() -> object:
        return client.tool(FLOOR_TOOL, {})

    return {"insert": insert, "append": append, "search": search, "trivial": view}


def measure(
    versions: Sequence[Version], memories: int, rounds: int
) -> tuple[Seconds, dict[str, Memory]]:
    """Time all kinds of calls of all versions, and read their memory.

    Args:
        versions: Each with an owner, a shim and a database of its own.
        memories: How many each has before the first call is timed.
        rounds: Blocks of each kind and version.

    Raises:
        BenchmarkFault: A server fails.
    """
    memory: dict[str, Memory] = {}
    with (
        harness.progress() as bar,
        harness.temporary() as folder,
        ExitStack() as stack,
        Clients(LIMIT_SECONDS) as clients,
    ):
        dbs = {
            one.name: stack.enter_context(harness.database(folder, one.name, one.python))
            for one in versions
        }
        opened = {
            one.name: clients.start(harness.server(dbs[one.name], one.python)) for one in versions
        }
        for client in opened.values():
            client.initialize()
            client.wait_until_embedded()
        # From the same seed each version gets the same texts.
        acts = {name: actions(client, harness.Texts()) for name, client in opened.items()}
        task = bar.add_task("storing", total=memories)
        for _ in range(memories):
            for act in acts.values():
                act["insert"]()
            bar.advance(task)
        kinds = list(next(iter(acts.values())))
        seconds: Seconds = {kind: {name: [] for name in acts} for kind in kinds}
        task = bar.add_task("timing", total=rounds)
        for number in range(rounds):
            for kind in kinds:
                # Who comes first meets another load than who comes second.
                for name in list(acts)[:: -1 if number % 2 else 1]:
                    seconds[kind][name] += _timed(acts[name][kind])
            bar.advance(task)
        for one in versions:
            opened[one.name].wait_until_embedded()
            pid = harness.owner_pid(dbs[one.name], one.python)
            owner = usage(pid) if pid is not None else None
            shim = usage(opened[one.name].pid)
            if owner is not None and shim is not None:
                memory[one.name] = Memory(owner, shim)
    return seconds, memory


def _timed(act: Callable[[], object]) -> list[float]:
    taken: list[float] = []
    for number in range(BLOCK_CALLS + SETTLING_CALLS):
        began = time.perf_counter()
        act()
        if number >= SETTLING_CALLS:
            taken.append(time.perf_counter() - began)
    return taken


def trivial_pairs(versions: Sequence[Version], pairs: int) -> list[dict[str, float]]:
    """Return the ratio of each version's trivial call to the bare server's, in each pair.

    Raises:
        BenchmarkFault: A server fails.
    """
    ratios: list[dict[str, float]] = []
    with harness.progress() as bar:
        task = bar.add_task("trivial call", total=pairs)
        for _ in range(pairs):
            with (
                harness.temporary() as folder,
                ExitStack() as stack,
                Clients(LIMIT_SECONDS) as clients,
            ):
                calls: dict[str, tuple[RawClient, str]] = {}
                for one in versions:
                    db = stack.enter_context(harness.database(folder, one.name, one.python))
                    command = harness.server(db, one.python)
                    client = clients.start(command)
                    client.initialize()
                    client.wait_until_embedded()
                    calls[one.name] = (client, FLOOR_TOOL)
                reply = client.ask("tools/call", {"name": FLOOR_TOOL, "arguments": {}})
                bare = clients.start(servers.bare_server(folder, reply, command.environment))
                bare.initialize()
                calls["bare"] = (bare, servers.BARE_TOOL)
                seconds = time_calls(calls)
            ratios.append(
                {
                    one.name: percentile(seconds[one.name], 0.5) / percentile(seconds["bare"], 0.5)
                    for one in versions
                }
            )
            bar.advance(task)
    return ratios


def by_round(taken: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Return the ratio of medians of each round: how much it depends on the load."""
    return [
        percentile(taken[at : at + BLOCK_CALLS], 0.5)
        / percentile(reference[at : at + BLOCK_CALLS], 0.5)
        for at in range(0, len(taken), BLOCK_CALLS)
    ]


def verdicts(
    seconds: Seconds, memory: dict[str, Memory], ratios: Sequence[dict[str, float]]
) -> list[str]:
    """Return a line for each goal."""
    this, other = NAMES
    lines: list[str] = []
    for kind, taken in seconds.items():
        ratio = ratio_of_medians(taken[this], taken[other])
        if ratio is not None:
            met = ratio <= GOAL_P50
            lines.append(
                harness.verdict(
                    f"{kind}, p50 by the other's", f"{ratio:.2f}", f"{GOAL_P50}", met=met
                )
            )
    if memory.keys() >= set(NAMES):
        for part in ("owner", "shim"):
            mine, its = (getattr(memory[name], part).rss_kb for name in NAMES)
            lines.append(
                harness.verdict(
                    f"{part}, resident, by the other's",
                    f"{mine / its:.3f}",
                    f"{GOAL_MEMORY:g}",
                    met=mine <= GOAL_MEMORY * its,
                )
            )
    else:
        lines.append("memory: no verdict, there is no /proc here")
    if ratios:
        reached = sum(pair[this] <= GOAL_TRIVIAL for pair in ratios)
        lines.append(
            harness.verdict(
                f"trivial call at most {GOAL_TRIVIAL} of the bare server's",
                f"in {reached} of {len(ratios)} pairs",
                "all",
                met=reached == len(ratios),
            )
        )
    return lines


def show(seconds: Seconds, memory: dict[str, Memory], ratios: Sequence[dict[str, float]]) -> None:
    """Print the tables."""
    this, other = NAMES
    rows = []
    for kind, taken in seconds.items():
        rounds = by_round(taken[this], taken[other])
        rows.append(
            (
                kind,
                Latency.of(taken[this]),
                Latency.of(taken[other]),
                f"{ratio_of_medians(taken[this], taken[other]):.2f}",
                f"{percentile(rounds, 0.25):.2f} to {percentile(rounds, 0.75):.2f}",
            )
        )
    harness.table(
        "Calls through shim and owner, milliseconds, p50 / p95",
        ("", *NAMES, "ratio of p50", "middle half of the rounds"),
        rows,
    )
    harness.table(
        "Memory, MB: resident / by its share",
        ("", *NAMES, "ratio"),
        [
            (
                part,
                *(_mb(getattr(memory[name], part)) for name in NAMES),
                f"{getattr(memory[this], part).rss_kb / getattr(memory[other], part).rss_kb:.3f}",
            )
            for part in ("owner", "shim")
            if memory.keys() >= set(NAMES)
        ],
    )
    harness.table(
        "A trivial call by that of a bare server of the SDK",
        ("", *(f"pair {number}" for number in range(1, len(ratios) + 1))),
        [(name, *(f"{pair[name]:.2f}" for pair in ratios)) for name in NAMES],
    )


def _mb(memory: Usage) -> str:
    return f"{memory.rss_kb / 1_024:.1f} / {memory.pss_kb / 1_024:.1f}"


def _label(python: str) -> str:
    """Return the version of the server that an interpreter has.

    Raises:
        BenchmarkFault: It has none.
    """
    try:
        done = subprocess.run(  # noqa: S603  # the interpreter that the user names
            [python, "-m", "mcp_memory", "--version"],
            capture_output=True,
            text=True,
            check=True,
            # Not the current folder: `-m` would prefer a checkout there.
            cwd=Path(python).resolve().parent,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchmarkFault(f"{python} has no mcp_memory installed: {error}") from error
    return done.stdout.strip()


def _benchmark(options: argparse.Namespace) -> None:
    pythons = dict(zip(NAMES, (sys.executable, options.other), strict=True))
    versions = [Version(name, python, _label(python)) for name, python in pythons.items()]
    seconds, memory = measure(versions, options.memories, options.rounds)
    ratios = trivial_pairs(versions, options.pairs)
    show(seconds, memory, ratios)
    report: dict[str, Any] = {
        "compared": {one.name: one.label for one in versions},
        "memories": options.memories,
        "calls": {
            kind: {name: Latency.of(some) for name, some in taken.items()}
            | {"ratio": ratio_of_medians(*(taken[name] for name in NAMES))}
            for kind, taken in seconds.items()
        },
        "memory": memory,
        "trivial_by_bare": ratios,
    }
    harness.finish("compare", options, report, verdicts(seconds, memory, ratios))


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return its exit status."""
    parser = harness.parser("compare", __doc__)
    parser.add_argument(
        "--other", required=True, help="the interpreter for which the other version is installed"
    )
    for name, default, text in (
        ("memories", MEMORIES, "that each has before calls are timed"),
        ("rounds", ROUNDS, "blocks of each kind of call"),
        ("pairs", PAIRS, "of new processes for the trivial call"),
    ):
        parser.add_argument(
            f"--{name}", type=harness.positive, default=default, help=f"{text}; default: {default}"
        )
    return harness.run(partial(_benchmark, parser.parse_args(argv)))
