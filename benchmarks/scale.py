"""What does a search cost when there are a thousand, ten thousand, a million memories?

At each size, in one agent's hands and spread over a hundred, a process loads memories
through the library's facade, and another times searches: the first after a start, then
others, with the vectors of questions known, so that the model takes no time. Then a client
on stdio searches beside the floor and the bare embedding, and memories are inserted one by one.

Vectors are mixed from those of real texts, so that they lie about as densely.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import BenchmarkFault, harness, procfs
from benchmarks.client import Clients
from benchmarks.harness import err
from benchmarks.latency import FLOOR_TOOL
from benchmarks.metrics import Latency, milliseconds, plain
from benchmarks.model import load_embedder
from mcp_memory.agent import Memories
from mcp_memory.models.embedding import Embedder
from mcp_memory.settings import load_settings
from mcp_memory.tiers.engine import Engine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Vectors = NDArray[np.float32]

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
AGENTS: Final = 100
LEAST_EACH: Final = 100
"""With fewer memories each, agents are not worth a case."""

INSERTS: Final = 100_000
STDIO_CALLS: Final = 100
STDIO_SETTLING: Final = 10
WORKER_SECONDS: Final = 3 * 3_600.0

SAMPLE_TEXTS: Final = 1_500
QUESTIONS: Final = 200
NOISE: Final = 0.012
NOISES: Final = 1_024
LOADED_AT_ONCE: Final = 2_000
POLL_SECONDS: Final = 0.05

SEARCHES: Final = 200
SETTLING: Final = 20
HITS: Final = 10
DECILES: Final = 10
SEED: Final = 5

GOALS_MS: Final = {
    (10_000, 1): 3.0,
    (100_000, 1): 8.0,
    (1_000_000, 1): 30.0,
    (1_000_000, AGENTS): 8.0,
}
"""Search p50 through the facade, by memories and agents; by judgement, as the one below."""
GOAL_RATIO: Final = 1.3

ROOT: Final = Path(__file__).resolve().parents[1]

_EMBED_AT_ONCE: Final = 16
_SENTENCE: Final = re.compile(r"(?<=[.?!]) ")
_NUMBER: Final = re.compile(r"Reference (\d+)\.$")


@dataclass(frozen=True, slots=True)
class Case:
    """A number of memories, spread over a number of agents."""

    size: int
    agents: int

    @property
    def names(self) -> list[str]:
        """The agents; a single one is the server's default."""
        return ["default"] if self.agents == 1 else [f"a{n:03d}" for n in range(self.agents)]


@dataclass(frozen=True, slots=True)
class Sample:
    """Sentences, vectors of texts (n, dim), and questions with their vectors; of which model."""

    sentences: list[str]
    vectors: Vectors
    questions: list[str]
    question_vectors: Vectors
    name: str
    fingerprint: str

    @classmethod
    def make(cls, embedder: Embedder) -> Sample:
        """Embed invented texts and questions."""
        texts = harness.Texts()
        contents, questions = texts.contents(SAMPLE_TEXTS), texts.queries(QUESTIONS)
        vectors = [
            embedder.embed_passages(contents[first : first + _EMBED_AT_ONCE])
            for first in range(0, len(contents), _EMBED_AT_ONCE)
        ]
        return cls(
            sorted({part for text in contents for part in _SENTENCE.split(text)}),
            np.concatenate(vectors),
            questions,
            np.stack([embedder.embed_query(question, of_facts=True) for question in questions]),
            embedder.name,
            embedder.fingerprint,
        )

    def save(self, path: Path) -> None:
        """Write the sample to a file for other processes."""
        np.savez(
            path,
            sentences=self.sentences,
            vectors=self.vectors,
            questions=self.questions,
            question_vectors=self.question_vectors,
            model=[self.name, self.fingerprint],
        )

    @classmethod
    def load(cls, path: Path) -> Sample:
        """Return what `save` has written."""
        with np.load(path) as saved:
            name, fingerprint = saved["model"].tolist()
            return cls(
                saved["sentences"].tolist(),
                saved["vectors"],
                saved["questions"].tolist(),
                saved["question_vectors"],
                name,
                fingerprint,
            )

    def text(self, number: int, rng: random.Random) -> str:
        """Return a text that no other number has."""
        return f"{' '.join(rng.choices(self.sentences, k=3))} Reference {number:07d}."

    def vectors_of(self, numbers: Sequence[int] | NDArray[np.int64]) -> Vectors:
        """Return the vectors (n, dim) of unit length of the texts with these numbers.

        Each is a text's of the sample, moved by half of the difference of two others and a
        little noise, all chosen by the number.
        """
        dim = self.vectors.shape[1]
        noises = np.random.default_rng(SEED).standard_normal((NOISES, dim), dtype=np.float32)
        # Multiplicative hashing (Knuth): neighbouring numbers choose unrelated texts.
        mixed = np.asarray(numbers, dtype=np.uint64)[:, np.newaxis] + np.uint64(1)
        mixed = mixed * np.array(_MULTIPLIERS, dtype=np.uint64) >> np.uint64(20)
        count = np.uint64(len(self.vectors))
        one, two, three = (mixed[:, at] % count for at in range(3))
        rows: Vectors = self.vectors[one] + 0.5 * (self.vectors[two] - self.vectors[three])
        rows += NOISE * noises[mixed[:, 3] % np.uint64(NOISES)]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


_MULTIPLIERS: Final = (
    0x9E3779B97F4A7C15,
    0xBF58476D1CE4E5B9,
    0x94D049BB133111EB,
    0xD6E8FEB86659FD93,
)
"""Odd constants of splitmix64 and its relatives."""


class KnownVectors:
    """An embedder that has looked everything up before: what is measured is the rest."""

    max_tokens = 512
    near_duplicate_at = 0.95

    def __init__(self, sample: Sample) -> None:
        self.name = sample.name
        self.fingerprint = sample.fingerprint
        self.dimension = int(sample.vectors.shape[1])
        self._sample = sample
        self._questions = dict(zip(sample.questions, sample.question_vectors, strict=True))

    def embed_query(self, text: str, *, of_facts: bool = False) -> Vectors:
        """Return the vector of a question of the sample."""
        vector: Vectors = self._questions[text]
        return vector

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = True) -> Vectors:
        """Return the vectors that follow from the numbers of the texts."""
        return self._sample.vectors_of([number_of(text) for text in texts])

    def chunk(self, text: str, chunk_tokens: int | None = None) -> list[tuple[int, int]]:
        """Return the whole of a text as its only chunk."""
        return [(0, len(text))]


def number_of(text: str) -> int:
    """Return the number at the end of a text that `Sample.text` has made."""
    found = _NUMBER.search(text)
    return int(found[1]) if found else 0


def open_memories(db: Path, sample: Sample) -> Memories:
    """Open a database with the vectors known: the one place that builds a facade by itself."""
    engine = Engine(load_settings(db=db), embedder=KnownVectors(sample))
    engine.start()
    return Memories(engine)


def load(db: Path, sample: Sample, size: int, agents: Sequence[str]) -> dict[str, Any]:
    """Load memories, the same number for each agent, until all have their vectors."""
    rng = random.Random(SEED)
    began = time.perf_counter()
    memories = open_memories(db, sample)
    share = size // len(agents)
    try:
        for at, agent in enumerate(agents):
            memory = memories.open(agent)
            for first in range(0, share, LOADED_AT_ONCE):
                last = min(first + LOADED_AT_ONCE, share)
                numbers = range(at * share + first, at * share + last)
                memory.loader.memories(
                    [
                        {"content": sample.text(number, rng), "tags": [f"topic{number % 20}"]}
                        for number in numbers
                    ]
                )
            while memory.embedding_state().pending:
                time.sleep(POLL_SECONDS)
            memory.close()
    finally:
        memories.close()
    seconds = time.perf_counter() - began
    return {"load_seconds": round(seconds, 1), "disk_mb": round(db.stat().st_size / 1e6, 1)}


def search(db: Path, sample: Sample, _: int, agents: Sequence[str]) -> dict[str, Any]:
    """Time the first search after a start, then others, each of a random agent."""
    rng = random.Random(SEED)
    began = time.perf_counter()
    memories = open_memories(db, sample)
    try:
        opened = {agent: memories.open(agent) for agent in agents}
        opened[agents[0]].archive.search(sample.questions[0], limit=HITS)
        first = time.perf_counter() - began
        for memory in opened.values():
            memory.archive.search(sample.questions[0], limit=HITS)
        seconds: list[float] = []
        for number in range(SETTLING + SEARCHES):
            archive = opened[rng.choice(agents)].archive
            question = sample.questions[number % len(sample.questions)]
            asked = time.perf_counter()
            archive.search(question, limit=HITS)
            if number >= SETTLING:
                seconds.append(time.perf_counter() - asked)
        usage = procfs.usage(os.getpid())
    finally:
        memories.close()
    return {
        "search": Latency.of(seconds),
        "first_search_ms": round(1_000 * first, 1),
        "rss_mb": None if usage is None else round(usage.rss_kb / 1_024),
    }


def inserts(db: Path, sample: Sample, size: int, agents: Sequence[str]) -> dict[str, Any]:
    """Insert memories one by one into an empty database; return each tenth's latency."""
    rng = random.Random(SEED)
    memories = open_memories(db, sample)
    try:
        archive = memories.open(agents[0]).archive
        archive.search(sample.questions[0])  # From here on there is an index to update.
        tenths: list[Latency] = []
        for tenth in range(DECILES):
            seconds = []
            for number in range(tenth * size // DECILES, (tenth + 1) * size // DECILES):
                text = sample.text(number, rng)
                began = time.perf_counter()
                archive.insert(text, tags=[f"topic{number % 20}"])
                seconds.append(time.perf_counter() - began)
            tenths.append(Latency.of(seconds))
    finally:
        memories.close()
    ratio = tenths[-1].p50_ms / tenths[0].p50_ms
    return {"inserts": size, "tenths": tenths, "ratio": ratio}


def worker(kind: str, db: Path, sample: Path, case: Case) -> dict[str, Any]:
    """Run one measurement in a process of its own, so that its memory is its own.

    Raises:
        BenchmarkFault: It failed; the message has the end of what it wrote.
    """
    arguments = ["--worker", kind, str(db), str(sample), str(case.size), *case.names]
    done = subprocess.run(  # noqa: S603  # our own module
        [sys.executable, "-m", "benchmarks", "scale", *arguments],
        # As the server is started.
        env=harness.environment(db) | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
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


def _work(kind: str, db: str, sample: str, size: str, *agents: str) -> int:
    run = {"load": load, "search": search, "inserts": inserts}[kind]
    print(json.dumps(plain(run(Path(db), Sample.load(Path(sample)), int(size), agents))))
    return 0


def through_stdio(db: Path, embedder: Embedder, sample: Sample) -> dict[str, Any]:
    """Time a client's searches; what is left without floor and embedding is the server's own."""
    taken: dict[str, list[float]] = {"search": [], "floor": [], "embedding": []}
    with Clients(WORKER_SECONDS) as clients:
        client = clients.start(harness.server(db, owner="off"))
        client.initialize()
        client.wait_until_embedded()
        for number, question in enumerate(sample.questions[: STDIO_SETTLING + STDIO_CALLS]):
            for name, act in (
                ("search", partial(client.tool, "archival_memory_search", {"query": question})),
                ("floor", partial(client.tool, FLOOR_TOOL, {})),
                ("embedding", partial(embedder.embed_query, question, of_facts=True)),
            ):
                began = time.perf_counter()
                act()
                if number >= STDIO_SETTLING:
                    taken[name].append(time.perf_counter() - began)
        client.close()
    latencies = {name: Latency.of(seconds) for name, seconds in taken.items()}
    own_ms = latencies["search"].p50_ms - sum(latencies[n].p50_ms for n in ("floor", "embedding"))
    return {**latencies, "own_p50_ms": own_ms}


def measure(case: Case, folder: Path, embedder: Embedder, sample: Sample) -> dict[str, Any]:
    """Make a database of a case and return what was measured on it."""
    db, saved = folder / f"{case.size}-{case.agents}.duckdb", folder / "sample.npz"
    row: dict[str, Any] = {"size": case.size, "agents": case.agents}
    for kind in ("load", "search"):
        err.print(f"{case.size:,} memories, {case.agents} agents: {kind}")
        row |= worker(kind, db, saved, case)
    if case.agents == 1:
        err.print("searching as a client")
        row |= {"stdio": through_stdio(db, embedder, sample)}
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


def verdicts(rows: Sequence[Mapping[str, Any]], inserted: Mapping[str, Any] | None) -> list[str]:
    """Return a line for each goal that was measured."""
    lines = []
    for row in rows:
        where = f"{row['size']:,} memories of {row['agents']} agent(s)"
        goal_ms = GOALS_MS.get((row["size"], row["agents"]))
        if goal_ms is not None:
            p50_ms = row["search"]["p50_ms"]
            label, shown = f"search p50, {where}", f"{p50_ms:.2f} ms"
            lines.append(harness.verdict(label, shown, f"{goal_ms:g} ms", met=p50_ms <= goal_ms))
    if inserted is not None:
        label = f"last tenth of {inserted['inserts']:,} inserts / first"
        ratio = inserted["ratio"]
        lines.append(
            harness.verdict(label, f"{ratio:.2f}", f"{GOAL_RATIO}", met=ratio <= GOAL_RATIO)
        )
    return lines


def show(rows: Sequence[Mapping[str, Any]], inserted: Mapping[str, Any] | None) -> None:
    """Print the tables."""
    harness.table(
        "A search, milliseconds; the model's part left out",
        ("memories", "agents", "p50", "p95", "through stdio"),
        [
            (
                f"{row['size']:,}",
                row["agents"],
                milliseconds(row["search"]["p50_ms"]),
                milliseconds(row["search"]["p95_ms"]),
                milliseconds(row["stdio"]["own_p50_ms"]) if "stdio" in row else None,
            )
            for row in rows
        ],
    )
    harness.table(
        "Indexes, seconds and megabytes",
        ("memories", "agents", "loaded in", "first search after a start", "RAM", "disk"),
        [
            (
                f"{row['size']:,}",
                row["agents"],
                row["load_seconds"],
                f"{row['first_search_ms'] / 1_000:.1f}",
                row["rss_mb"],
                row["disk_mb"],
            )
            for row in rows
        ],
    )
    if inserted is not None:
        harness.table(
            "Inserts one by one, milliseconds",
            ("tenth", "p50"),
            [(at, tenth["p50_ms"]) for at, tenth in enumerate(inserted["tenths"], 1)],
        )


SIZE_INCHES: Final = (9.0, 3.6)
DPI: Final = 160
THEMES: Final = {
    "light": {
        "ground": "#ffffff",
        "ink": "#24292f",
        "grid": "#d0d7de",
        "one": "#0969da",
        "many": "#bc4c00",
    },
    "dark": {
        "ground": "#0d1117",
        "ink": "#e6edf3",
        "grid": "#30363d",
        "one": "#58a6ff",
        "many": "#f0883e",
    },
}


def plot(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `scale-light.png` and `scale-dark.png` and return their paths."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    done = []
    for theme, colors in THEMES.items():
        figure = Figure(figsize=SIZE_INCHES, dpi=DPI, facecolor=colors["ground"])
        left, right = figure.subplots(1, 2)
        for axes, title, unit in ((left, "A search", "ms"), (right, "Memory and disk", "MB")):
            _dress(axes, title, unit, colors)
        for spread, color in (("one", colors["one"]), ("many", colors["many"])):
            rows = [row for row in report["sizes"] if (row["agents"] == 1) == (spread == "one")]
            if rows:
                _draw(left, right, rows, color)
        for axes in (left, right):
            axes.legend(frameon=False, labelcolor=colors["ink"], fontsize=8)
        figure.tight_layout()
        path = folder / f"scale-{theme}.png"
        figure.savefig(path, facecolor=colors["ground"])
        done.append(path)
    return done


def _draw(left: Axes, right: Axes, rows: Sequence[Mapping[str, Any]], color: str) -> None:
    sizes = [row["size"] for row in rows]
    name = "one agent" if rows[0]["agents"] == 1 else f"{rows[0]['agents']} agents"
    for part, style in (("p50_ms", "-o"), ("p95_ms", ":o")):
        values = [row["search"][part] for row in rows]
        left.plot(sizes, values, style, color=color, label=f"{name}, {part[:3]}", markersize=4)
    for part, label, style in (("rss_mb", "memory", "-o"), ("disk_mb", "disk", ":o")):
        values = [row[part] for row in rows]
        if None not in values:
            right.plot(sizes, values, style, color=color, label=f"{name}, {label}", markersize=4)


def _dress(axes: Axes, title: str, unit: str, colors: Mapping[str, str]) -> None:
    axes.set_title(title, color=colors["ink"], fontsize=11)
    axes.set_xlabel("memories", color=colors["ink"])
    axes.set_ylabel(unit, color=colors["ink"])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_facecolor(colors["ground"])
    axes.grid(visible=True, color=colors["grid"], linewidth=0.6)
    axes.tick_params(colors=colors["ink"], which="both", labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(colors["grid"])


def _benchmark(options: argparse.Namespace) -> None:
    embedder = load_embedder()
    err.print("embedding a sample")
    sample = Sample.make(embedder)
    with harness.temporary() as folder:
        sample.save(folder / "sample.npz")
        rows = [
            measure(case, folder, embedder, sample) for case in cases(options.sizes, options.agents)
        ]
        inserted = None
        if options.inserts:
            err.print(f"inserting {options.inserts:,} memories one by one")
            case = Case(options.inserts, 1)
            inserted = worker("inserts", folder / "inserts.duckdb", folder / "sample.npz", case)
    show(rows, inserted)
    report = {"model": sample.name, "sizes": rows, "inserts": inserted}
    harness.finish("scale", options, report, verdicts(rows, inserted))
    if options.plot:
        for path in plot(report, options.plot):
            err.print(f"wrote {path}")


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return its exit status."""
    if argv[:1] == ["--worker"]:
        return _work(*argv[1:])
    parser = harness.parser("scale", __doc__)
    parser.add_argument("--sizes", type=harness.numbers, default=SIZES, help="default: all four")
    parser.add_argument(
        "--agents", type=harness.positive, default=AGENTS, help="in how many hands; default: 100"
    )
    parser.add_argument("--inserts", type=int, default=INSERTS, help="0 for none; default: 100000")
    parser.add_argument("--plot", type=Path, help="draw the cost of growth into this folder")
    return harness.run(partial(_benchmark, parser.parse_args(argv)))
