"""One measurement of `scale.py` in a process of its own, so that its memory is its own.

It prints a line of JSON. The vectors of the questions are known before: what is timed
is the search, not the model.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import procfs
from benchmarks.metrics import Latency
from benchmarks.scaledata import KnownVectors, Sample, stored_vectors
from mcp_memory.agent import Memories
from mcp_memory.search.vectors import VectorIndex
from mcp_memory.settings import load_settings
from mcp_memory.tiers.engine import Engine

SEARCHES: Final = 200
SETTLING: Final = 20
HITS: Final = 10
POLL_SECONDS: Final = 0.02
DECILES: Final = 10
DEPTHS: Final = (10, 50)
RECALL_QUESTIONS: Final = 100
SEED: Final = 5


def first(db: Path, sample: Sample, agents: Sequence[str]) -> dict[str, Any]:
    """Time the first search of all, for which an index is made, and keep all indexes."""
    began = time.perf_counter()
    engine = Engine(load_settings(db=db), embedder=KnownVectors(sample))
    memories = Memories(engine)
    try:
        memories.open(agents[0]).archive.search(sample.questions[0], limit=HITS)
        searched = time.perf_counter() - began
        keeping = 0.0
        for agent in agents:
            memories.open(agent).archive.search(sample.questions[0], limit=HITS)
            asked = time.perf_counter()
            engine.keeping.keep(("memory", agent), engine.lock)
            keeping += time.perf_counter() - asked
    finally:
        memories.close()
    return {"made_first_ms": round(1_000 * searched, 1), "keeping_seconds": round(keeping, 2)}


def search(db: Path, sample: Sample, agents: Sequence[str]) -> dict[str, Any]:
    """Time the first search after a start, then others, each of a random agent."""
    rng = random.Random(SEED)
    began = time.perf_counter()
    engine = Engine(load_settings(db=db), embedder=KnownVectors(sample))
    engine.start()
    memories = Memories(engine)
    try:
        first: list[float] = []
        opened = {}
        for agent in agents:
            opened[agent] = memories.open(agent)
            asked = time.perf_counter() if first else began
            opened[agent].archive.search(sample.questions[0], limit=HITS)
            first.append(time.perf_counter() - asked)
        whole = _wait_for_vectors(engine, agents, began)
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
        "search": Latency.of(seconds).as_dict(),
        "first_search_ms": round(1_000 * first[0], 1),
        "first_of_an_agent_ms": round(1_000 * float(np.median(first)), 1),
        "whole_after_seconds": round(whole, 2),
        "rss_mb": None if usage is None else round(usage.rss_kb / 1_024),
    }


def _wait_for_vectors(engine: Engine, agents: Sequence[str], began: float) -> float:
    """Wait until each index in memory has all its vectors; return how long after the start."""
    while True:
        with engine.lock:
            held = [engine.indexes.peek(("memory", agent)) for agent in agents]
            if all(index is None or index.complete for index in held):
                return time.perf_counter() - began
        time.sleep(POLL_SECONDS)


def recall(db: Path, sample: Sample, agents: Sequence[str]) -> dict[str, Any]:
    """Compare the nearest of the index with the nearest by exact cosines."""
    questions = sample.question_vectors[:RECALL_QUESTIONS]
    deepest = max(DEPTHS)
    index = VectorIndex(questions.shape[1], folder=db.parent / "vectors")
    scores = np.empty((len(questions), 0), dtype=np.float32)
    rows = np.empty((len(questions), 0), dtype=np.intp)
    adding = 0.0
    for block in stored_vectors(db, agents[0]):
        numbers = np.broadcast_to(np.arange(len(block)) + len(index), (len(questions), len(block)))
        scores = np.concatenate([scores, questions @ block.T], axis=1)
        rows = np.concatenate([rows, numbers], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :deepest]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
        began = time.perf_counter()
        index.add(block)
        adding += time.perf_counter() - began
    hits = dict.fromkeys(DEPTHS, 0.0)
    seconds: list[float] = []
    for question, exact in zip(questions, rows, strict=True):
        for depth in DEPTHS:
            began = time.perf_counter()
            found, _ = index.top(question, depth)
            seconds.append(time.perf_counter() - began)
            hits[depth] += len(set(found.tolist()) & set(exact[:depth].tolist())) / depth
    return {
        "compressed": index.compressed,
        "recall": {str(depth): round(hits[depth] / len(questions), 4) for depth in DEPTHS},
        "top": Latency.of(seconds).as_dict(),
        "add_us": round(1e6 * adding / max(len(index), 1), 2),
        "index_mb": round(index.nbytes / 1e6, 1),
        "mapped_mb": round(index.mapped_bytes / 1e6, 1),
    }


def inserts(db: Path, sample: Sample, count: int) -> dict[str, Any]:
    """Keep so many memories one by one in an empty database; return each tenth's latency."""
    rng = random.Random(SEED)
    memories = Memories(Engine(load_settings(db=db), embedder=KnownVectors(sample, SEED)))
    try:
        archive = memories.open("default").archive
        archive.search(sample.questions[0])  # From here on there is an index to be kept up.
        tenths: list[dict[str, float]] = []
        number = 0
        for _ in range(DECILES):
            seconds = []
            for _ in range(count // DECILES):
                text = sample.text(number, rng)
                began = time.perf_counter()
                archive.insert(text, tags=[f"topic{number % 20}"])
                seconds.append(time.perf_counter() - began)
                number += 1
            tenths.append(Latency.of(seconds).as_dict())
    finally:
        memories.close()
    return {
        "inserts": count,
        "tenths": tenths,
        "ratio": round(tenths[-1]["p50_ms"] / tenths[0]["p50_ms"], 3),
    }


def main(argv: Sequence[str]) -> int:
    """Measure what is asked for: KIND DATABASE SAMPLE, then the agents or a number."""
    kind, db, path, *rest = argv
    sample = Sample.load(Path(path))
    if kind == "inserts":
        done = inserts(Path(db), sample, int(rest[0]))
    else:
        done = {"first": first, "search": search, "recall": recall}[kind](Path(db), sample, rest)
    print(json.dumps(done))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
