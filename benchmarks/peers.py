"""How does the memory stand beside others that one can install?

The same texts and the same questions go to each server over stdio, and where it
can take it, it has the same model file: start, store, search, the size of
replies, questions in other words, two clients at the same time, parallel calls.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from mcp.client.stdio import get_default_environment
from rich.progress import Progress

from benchmarks import servers, texts
from benchmarks.client import Clients, RawClient
from benchmarks.harness import BenchmarkFault, err, machine, out, progress, run_blocking, write_json
from benchmarks.metrics import Latency, percentile
from benchmarks.peerloss import (
    LIMIT_SECONDS,
    Refused,
    connect,
    parallel,
    place,
    tell,
    time_block,
    two_clients,
)
from benchmarks.peerreport import Loss, Result, show, verdicts
from benchmarks.servers import Peer
from benchmarks.starts import time_start
from mcp_memory.models.files import ModelFiles, find_model
from mcp_memory.settings import load_settings

SIZES: Final = (1_000, 10_000)
NAMES: Final = (
    servers.OURS,
    "server-memory",
    servers.QDRANT_PACKAGE,
    servers.SERVICE_PACKAGE,
)
STARTS: Final = 5
ROUNDS: Final = 5
BLOCK_CALLS: Final = 10
SEED: Final = 20_231_012

PARAPHRASES: Final = (
    (
        "Ingrid is allergic to peanuts, badly enough that she always carries a syringe in her bag.",
        "peanuts",
        "Which food must I keep away from my guest?",
    ),
    (
        "The wifi password is written on the fridge, on the yellow note behind the calendar.",
        "fridge",
        "How does a visitor get online here?",
    ),
    (
        "Tomas proposed to Lena on the pier in August, while his brother was hiding with a camera.",
        "pier",
        "Where did the couple get engaged?",
    ),
    (
        "Our dog Biscuit was put to sleep last winter, and the children planted a tree for her.",
        "Biscuit",
        "Has a pet of ours died?",
    ),
    (
        "The car makes a grinding noise when braking downhill, so I have it looked at on Friday.",
        "grinding",
        "What is wrong with my vehicle?",
    ),
    (
        "Priya gave up law for carpentry after her burnout and now builds kitchens with an uncle.",
        "carpentry",
        "Who went into a completely different profession?",
    ),
    (
        "Since the big outage we deploy on Tuesdays only, never before noon, and two of us watch.",
        "Tuesdays",
        "On which day may new software be released?",
    ),
    (
        "Grandfather's watch is at the pawnbroker in the old town until I have paid off the loan.",
        "pawnbroker",
        "What became of the family heirloom?",
    ),
    (
        "Noah can't tell red from green, which only came out when he sorted the cables at work.",
        "red from green",
        "Which of my colleagues is colour-blind?",
    ),
    (
        "The landlord raised the rent by twelve percent and gave us until Easter to sign or leave.",
        "twelve",
        "How much more expensive has our flat become?",
    ),
)
"""A fact, what its answer has in it, and a question in other words. The facts are as long as
other texts: short ones would be found by being short, as a question is."""


Timed = dict[str, list[float]]


def time_starts(peer: Peer, folder: Path) -> float:
    """Return the median seconds from start to the answer to `initialize`; the first is left out."""
    with place(folder, "start") as own:
        command = peer.command(own)
        taken = [time_start(command) for _ in range(STARTS + 1)]
    return percentile(taken[1:], 0.5)


class Run:
    """Servers that are all open at the same time, each with its own result."""

    def __init__(self, peers: Mapping[str, Peer], results: Mapping[str, Result]) -> None:
        self._peers = dict(peers)
        self._results = results
        self._clients: dict[str, RawClient] = {}
        rng = random.Random(SEED)
        self._contents = partial(texts.memory, rng)
        self._queries = partial(texts.query, rng)
        self._stored = 0

    def open(self, clients: Clients, stack: ExitStack, folder: Path) -> None:
        """Start all servers; one that fails is left out from here on."""
        for name, peer in list(self._peers.items()):
            own = stack.enter_context(place(folder / name, "load"))
            with self._noting(name):
                self._clients[name] = connect(clients, peer, own)
                tools = self._clients[name].ask("tools/list", {})
                self._results[name].tools_bytes = len(str(tools).encode())

    def fill(self, size: int, bar: Progress) -> None:
        """Store texts until there are `size`, the facts among the first."""
        wanted = [self._contents() for _ in range(max(size - self._stored, 0))]
        if not self._stored:
            for at, (fact, _, _) in enumerate(PARAPHRASES):
                wanted.insert(at * max(len(wanted) // len(PARAPHRASES), 1), fact)
        task = bar.add_task(f"storing to {size:,}", total=len(wanted) * len(self._clients))
        for name, client in list(self._clients.items()):
            peer = self._peers[name]
            with self._noting(name):
                for number, text in enumerate(wanted, self._stored):
                    try:
                        tell(client, peer.store(text, number))
                    except Refused:
                        self._results[name].refused += 1
                    bar.advance(task)
        self._stored += len(wanted)
        bar.remove_task(task)

    def time(self, size: int, bar: Progress) -> None:
        """Time stores and searches of all servers, in blocks of one kind, in turn."""
        task = bar.add_task(f"timing at {size:,}", total=ROUNDS)
        stores: Timed = {name: [] for name in self._clients}
        searches: Timed = {name: [] for name in self._clients}
        for _ in range(ROUNDS):
            contents = [self._contents() for _ in range(BLOCK_CALLS)]
            queries = [self._queries() for _ in range(BLOCK_CALLS)]
            for name, client in list(self._clients.items()):
                peer, result = self._peers[name], self._results[name]
                with self._noting(name):
                    numbered = enumerate(contents, self._stored)
                    calls = [peer.store(text, number) for number, text in numbered]
                    time_block(client, calls, stores[name])
                    replies = time_block(client, list(map(peer.search, queries)), searches[name])
                    result.longest = max(result.longest, *map(len, replies))
            self._stored += BLOCK_CALLS
            bar.advance(task)
        for name in self._clients:
            self._results[name].store[size] = Latency.of(stores[name])
            self._results[name].search[size] = Latency.of(searches[name])
        bar.remove_task(task)

    def ask(self) -> None:
        """Ask the questions in other words, and for everything."""
        for name, client in list(self._clients.items()):
            peer, result = self._peers[name], self._results[name]
            with self._noting(name):
                result.paraphrases = sum(
                    answer in tell(client, peer.search(question))
                    for _, answer, question in PARAPHRASES
                )
                if peer.everything is not None:
                    result.everything = len(tell(client, peer.everything))

    @contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        """Note why a server fails, and go on without it."""
        try:
            yield
        except BenchmarkFault as fault:
            err.print(f"{name} is left out from here on: {fault}", markup=False)
            self._results[name].trouble.append(str(fault))
            self._clients.pop(name, None)


def losses(peers: Mapping[str, Peer], results: Mapping[str, Result], folder: Path) -> None:
    """Measure for each server what gets lost."""
    jobs: dict[str, Callable[[Peer, Path], Loss]] = {
        "two_clients": two_clients,
        "parallel": parallel,
    }
    for name, peer in peers.items():
        for job, measure_ in jobs.items():
            err.print(f"{name}: {job.replace('_', ' ')}")
            try:
                setattr(results[name], job, measure_(peer, folder / name))
            except BenchmarkFault as fault:
                err.print(f"{name}: {fault}", markup=False)
                results[name].trouble.append(f"{job}: {fault}")


def install(
    names: Sequence[str], folder: Path, python: str, model: ModelFiles
) -> tuple[dict[str, Peer], dict[str, str]]:
    """Install what is asked for; return the servers, and why others could not be."""
    base = get_default_environment()
    makers: dict[str, Callable[[], Peer]] = {
        NAMES[0]: servers.ours,
        NAMES[1]: lambda: servers.server_memory(folder / "npm", base),
        NAMES[2]: lambda: servers.server_qdrant(folder / NAMES[2], base, python, model),
        NAMES[3]: lambda: servers.memory_service(folder / NAMES[3], base, python, model),
    }
    peers: dict[str, Peer] = {}
    absent: dict[str, str] = {}
    for name in names:
        err.print(f"{name}: installing")
        try:
            peers[name] = makers[name]()
        except BenchmarkFault as fault:
            absent[name] = str(fault)
    return peers, absent


def measure(peers: Mapping[str, Peer], sizes: Sequence[int], folder: Path) -> dict[str, Result]:
    """Measure all servers."""
    results = {name: Result(peer.name) for name, peer in peers.items()}
    for name, peer in peers.items():
        err.print(f"{name}: starting")
        try:
            results[name].start_seconds = time_starts(peer, folder / name)
        except BenchmarkFault as fault:
            results[name].trouble.append(str(fault))
    losses(peers, results, folder)
    run = Run(peers, results)
    with ExitStack() as stack, Clients(LIMIT_SECONDS) as clients, progress() as bar:
        run.open(clients, stack, folder)
        for size in sizes:
            run.fill(size, bar)
            run.time(size, bar)
            if size == sizes[0]:
                run.ask()
    return results


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        sizes = (0,)
    if sizes[0] < len(PARAPHRASES):
        raise argparse.ArgumentTypeError(f"{text!r}: give numbers from {len(PARAPHRASES)}")
    return sizes


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(NAMES) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"{text!r}: choose from {','.join(NAMES)}")
    return names


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks peers", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--install", type=Path, help="install into this folder and keep it")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the others")
    parser.add_argument("--peers", type=_names, default=NAMES, help="default: all four")
    parser.add_argument("--sizes", type=_sizes, default=SIZES, help="default: 1000,10000")
    parser.add_argument("--out", type=Path, help="write the report to this JSON file")
    return parser.parse_args(argv)


def _benchmark(options: argparse.Namespace) -> None:
    settings = load_settings()
    model = find_model(settings.embedding_model, settings.cache_dir)
    if model is None:
        raise BenchmarkFault("the model's files are missing: run `mcp-memory models fetch` first")
    with tempfile.TemporaryDirectory(prefix="mcp-memory-peers-") as name:
        folder = Path(name)
        where = (options.install or folder / "install").absolute()
        where.mkdir(parents=True, exist_ok=True)
        peers, absent = install(options.peers, where, options.python, model)
        results = measure(peers, options.sizes, folder / "data")
    show(results, absent, options.sizes)
    lines = verdicts(results, options.sizes)
    for line in lines:
        out.print(line, highlight=False)
    write_json(
        options.out,
        {
            "benchmark": "peers",
            **machine(),
            "model": settings.embedding_model,
            "servers": {server: result.as_dict() for server, result in results.items()},
            "not_installed": absent,
            "verdicts": lines,
        },
    )


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return its exit status."""
    options = parse_arguments(argv)
    return run_blocking(partial(_benchmark, options))
