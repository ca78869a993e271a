"""How does the memory compare with others that one can install?

The same texts and the same questions go to each server over stdio, and where it
can take it, it has the same model file: start, store, search, the size of
replies, questions in other words, two clients at the same time, parallel calls.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from rich.progress import Progress

from benchmarks import BenchmarkFault, harness, servers, texts
from benchmarks.client import Clients, RawClient
from benchmarks.clients import time_start
from benchmarks.harness import err
from benchmarks.metrics import Latency, percentile
from benchmarks.model import model
from benchmarks.servers import OURS, Call, Model, Peer

SIZES: Final = (1_000, 10_000)
NAMES: Final = (OURS, "server-memory", servers.QDRANT_PACKAGE, servers.SERVICE_PACKAGE)
STARTS: Final = 5
ROUNDS: Final = 5
BLOCK_CALLS: Final = 10
STORES_EACH: Final = 50
AT_ONCE: Final = 20
LIMIT_SECONDS: Final = 3 * 3_600.0

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


@dataclass(frozen=True, slots=True)
class Loss:
    """How many of `sent` stores were acknowledged, and how many of those found again."""

    sent: int
    acknowledged: int
    kept: int

    def __str__(self) -> str:
        """Return it for the table."""
        return f"{self.sent} / {self.acknowledged} / {self.kept}"


@dataclass
class Result:
    """What one server did, filled as it goes; characters are those of a reply's text.

    `trouble` says why something is missing.
    """

    name: str
    start_seconds: float | None = None
    tools_bytes: int | None = None
    store: dict[int, Latency] = field(default_factory=dict)
    search: dict[int, Latency] = field(default_factory=dict)
    refused: int = 0
    longest: int = 0
    everything: int | None = None
    paraphrases: int | None = None
    two_clients: Loss | None = None
    parallel: Loss | None = None
    trouble: list[str] = field(default_factory=list)


class Refused(BenchmarkFault):
    """A server doesn't do what it is asked, and says so."""


def text_of(reply: Mapping[str, object]) -> str:
    """Return all text of a tool's reply."""
    content = reply.get("content")
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts)


def tell(client: RawClient, call: Call) -> str:
    """Call a tool and return the text of its reply.

    Raises:
        BenchmarkFault: The server has ended.
        Refused: The tool refuses.
    """
    name, arguments = call
    return accepted(name, client.ask("tools/call", {"name": name, "arguments": arguments}))


def accepted(name: str, reply: Mapping[str, object]) -> str:
    """Return the text of a reply that is no refusal.

    Raises:
        Refused: It is one, whether it says so in its flag or in its words.
    """
    text = text_of(reply)
    start = text[:400].lower()
    if reply.get("isError") or start.startswith(("error", "failed")) or "not stored" in start:
        raise Refused(f"{name} was refused: {text[:200]}")
    return text


def connect(clients: Clients, peer: Peer, folder: Path) -> RawClient:
    """Start a server on a folder and let it get ready: its first store and search.

    Raises:
        BenchmarkFault: It doesn't get there.
    """
    client = clients.start(peer.command(folder))
    client.initialize()
    tell(client, peer.store("The first thing to remember.", -1))
    tell(client, peer.search("What came first?"))
    return client


def time_block(client: RawClient, calls: Sequence[Call], seconds: list[float]) -> list[str]:
    """Time calls one after the other; return their replies."""
    replies: list[str] = []
    for call in calls:
        began = time.perf_counter()
        replies.append(tell(client, call))
        seconds.append(time.perf_counter() - began)
    return replies


def two_clients(peer: Peer, folder: Path) -> Loss:
    """Let two clients store at the same time, and count what a new one finds."""
    with place(folder, "two") as own:
        marked = marks(2 * STORES_EACH)
        pairs = list(enumerate(marked.items()))
        kept: dict[str, str] = {}
        with Clients(LIMIT_SECONDS) as clients, ThreadPoolExecutor(2) as threads:
            connect(clients, peer, own).close()

            def job(client: RawClient, first: int) -> None:
                for number, (mark, text) in pairs[first : first + STORES_EACH]:
                    with suppress(Refused):
                        tell(client, peer.store(text, number))
                        kept[mark] = text

            both = [clients.start(peer.command(own)) for _ in range(2)]
            started: list[RawClient] = []
            for client in both:
                # One that dies beside the other has acknowledged nothing.
                with suppress(BenchmarkFault):
                    client.initialize()
                    started.append(client)
            jobs = [threads.submit(job, one, at * STORES_EACH) for at, one in enumerate(started)]
            for done in jobs:
                # One that dies later has acknowledged what it has answered.
                with suppress(BenchmarkFault):
                    done.result()
        harness.kill_owner(own / "memory.duckdb")
        return Loss(len(marked), len(kept), count_kept(peer, own, kept))


def parallel(peer: Peer, folder: Path) -> Loss:
    """Send stores without waiting for answers, and count what a new client finds."""
    with place(folder, "parallel") as own:
        marked = marks(AT_ONCE)
        with Clients(LIMIT_SECONDS) as clients:
            client = connect(clients, peer, own)
            calls = [peer.store(text, number) for number, text in enumerate(marked.values())]
            replies = client.ask_at_once(
                "tools/call", [{"name": name, "arguments": given} for name, given in calls]
            )
            client.close()
        harness.kill_owner(own / "memory.duckdb")
        acknowledged: dict[str, str] = {}
        for (mark, text), reply in zip(marked.items(), replies, strict=True):
            with suppress(BenchmarkFault):
                accepted("a store", reply or {"isError": True})
                acknowledged[mark] = text
        return Loss(len(marked), len(acknowledged), count_kept(peer, own, acknowledged))


def count_kept(peer: Peer, folder: Path, acknowledged: Mapping[str, str]) -> int:
    """Return how many of the texts a new client finds, each by its own words."""
    with Clients(LIMIT_SECONDS) as clients:
        client = clients.start(peer.command(folder))
        client.initialize()
        return sum(mark in tell(client, peer.search(text)) for mark, text in acknowledged.items())


def marks(count: int) -> dict[str, str]:
    """Return short texts that differ in all their words, each by a mark of its own in it."""
    rng = random.Random(harness.SEED)
    made: dict[str, str] = {}
    while len(made) < count:
        mark = f"K{rng.randrange(10_000):04}"
        words = " ".join(texts.name(rng) for _ in range(5))
        made[mark] = f"{mark} {words}"
    return made


@contextmanager
def place(folder: Path, name: str) -> Iterator[Path]:
    """Give a new folder for a server's data; an owner of ours ends with the block."""
    with harness.database(folder, name) as db:
        yield db.parent


def time_starts(peer: Peer, folder: Path) -> float:
    """Return the median seconds from start to the answer to `initialize`; the first is left out."""
    with place(folder, "start") as own:
        command = peer.command(own)
        taken = [time_start(command)[0] for _ in range(STARTS + 1)]
    return percentile(taken[1:], 0.5)


class Run:
    """Servers that are all open at the same time, each with its own result."""

    def __init__(self, peers: Mapping[str, Peer], results: Mapping[str, Result]) -> None:
        self._peers = dict(peers)
        self._results = results
        self._clients: dict[str, RawClient] = {}
        rng = random.Random(harness.SEED)
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
    names: Sequence[str], folder: Path, python: str, found: Model
) -> tuple[dict[str, Peer], dict[str, str]]:
    """Install what is asked for; return the servers, and why others could not be."""
    base = harness.system_environment()
    makers: dict[str, Callable[[], Peer]] = {
        NAMES[0]: servers.ours,
        NAMES[1]: lambda: servers.server_memory(folder / "npm", base),
        NAMES[2]: lambda: servers.server_qdrant(folder / NAMES[2], base, python, found),
        NAMES[3]: lambda: servers.memory_service(folder / NAMES[3], base, python, found),
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
    with ExitStack() as stack, Clients(LIMIT_SECONDS) as clients, harness.progress() as bar:
        run.open(clients, stack, folder)
        for size in sizes:
            run.fill(size, bar)
            run.time(size, bar)
            if size == sizes[0]:
                run.ask()
    return results


def show(results: Mapping[str, Result], absent: Mapping[str, str], sizes: Sequence[int]) -> None:
    """Print the table; what could not be installed says so."""
    rows: list[tuple[str, Callable[[Result], object]]] = [
        ("start to initialize, s", lambda one: _number(one.start_seconds, ".2f")),
        ("tools/list, bytes", lambda one: _number(one.tools_bytes, ",")),
    ]
    for size in sizes:
        rows.append((f"store at {size:,}", partial(_latency, "store", size)))
        rows.append((f"search at {size:,}", partial(_latency, "search", size)))
    rows += [
        ("stores refused", lambda one: one.refused),
        ("longest search reply, characters", lambda one: _number(one.longest or None, ",")),
        ("asked for everything, characters", lambda one: _number(one.everything, ",")),
        ("in other words, of 10", lambda one: one.paraphrases),
        ("two clients: sent / acknowledged / kept", lambda one: one.two_clients),
        ("parallel calls: the same", lambda one: one.parallel),
    ]
    harness.table(
        "Beside others; milliseconds are p50 / p95",
        ["", *(result.name for result in results.values())],
        [(label, *map(cell, results.values())) for label, cell in rows],
    )
    for name, reason in absent.items():
        harness.out.print(f"{name} is not in it: {reason}", markup=False, highlight=False)
    for name, result in results.items():
        for line in result.trouble:
            harness.out.print(f"{name}: {line}", markup=False, highlight=False)


def _latency(kind: str, size: int, result: Result) -> Latency | None:
    found: Latency | None = getattr(result, kind).get(size)
    return found


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)


def verdicts(results: Mapping[str, Result], sizes: Sequence[int]) -> list[str]:
    """Return a line for each row in which ours has to lead; nothing without others."""
    ours = results.get(OURS)
    others = {name: result for name, result in results.items() if name != OURS}
    if ours is None or not others:
        return ["no verdict: there is nothing to compare"]
    lines: list[str] = []
    for size in sizes:
        for kind in ("store", "search"):
            values = {
                name: getattr(result, kind)[size].p50_ms
                for name, result in results.items()
                if size in getattr(result, kind)
            }
            lines.append(_leads(f"{kind} at {size:,}, p50 ms", values, less=True))
    values = {name: one.paraphrases for name, one in results.items() if one.paraphrases is not None}
    lines.append(_leads("in other words", values))
    for kind in ("two_clients", "parallel"):
        values = {
            name: loss.kept
            for name, result in results.items()
            if (loss := getattr(result, kind)) is not None
        }
        lines.append(_leads(f"kept, {kind.replace('_', ' ')}", values))
    return lines


def _leads(label: str, values: Mapping[str, float], *, less: bool = False) -> str:
    if OURS not in values or len(values) < 2:
        return f"{label}: no verdict"
    best = (min if less else max)(value for name, value in values.items() if name != OURS)
    first = values[OURS] <= best if less else values[OURS] >= best
    mine, its = (f"{value:.1f}" if less else f"{value}" for value in (values[OURS], best))
    return harness.verdict(label, f"ours {mine}", f"the best other, {its}", met=first)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(NAMES) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"{text!r}: choose from {','.join(NAMES)}")
    return names


def _sizes(text: str) -> tuple[int, ...]:
    sizes = harness.numbers(text)
    if sizes[0] < len(PARAPHRASES):
        raise argparse.ArgumentTypeError(f"{text!r}: give numbers from {len(PARAPHRASES)}")
    return sizes


def _benchmark(options: argparse.Namespace) -> None:
    found = model()
    with harness.temporary() as folder:
        where = (options.install or folder / "install").absolute()
        where.mkdir(parents=True, exist_ok=True)
        peers, absent = install(options.peers, where, options.others_python, found)
        results = measure(peers, options.sizes, folder / "data")
    show(results, absent, options.sizes)
    report = {
        "model": found.name,
        "servers": results,
        "not_installed": absent,
    }
    harness.finish("peers", options, report, verdicts(results, options.sizes))


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return its exit status."""
    parser = harness.parser("peers", __doc__)
    parser.add_argument("--install", type=Path, help="install into this folder and keep it")
    parser.add_argument("--others-python", default=sys.executable, help="interpreter of the others")
    parser.add_argument("--peers", type=_names, default=NAMES, help="default: all four")
    parser.add_argument("--sizes", type=_sizes, default=SIZES, help="default: 1000,10000")
    return harness.run(partial(_benchmark, parser.parse_args(argv)))
