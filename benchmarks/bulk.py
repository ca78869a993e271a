"""Bulk: how near loading many texts comes to what the bare model can embed.

Three ways take turns in one process, on the same texts: fastembed as it comes, the same
with the product's small batches of like length, and the product: insert, embed, write the
vectors, with the search index in memory. Who begins changes from round to round.
Messages are measured beside, with and without the vectors of what surrounds them.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import common
import texts
from rich.table import Table

from mcp_memory.agent import AgentMemory, Memories
from mcp_memory.models.embedding import FastEmbedder
from mcp_memory.models.fetching import find_model
from mcp_memory.settings import Settings, load_settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.ids import new_id

BATCH_TEXTS: Final = 16
INSERTED_AT_ONCE: Final = 256
BAR: Final = 0.9

_COLUMNS: Final = (
    "way",
    "texts/s",
    "least",
    "most",
    "of fastembed",
    "of like length",
    "cpu ms/text",
)

Report = dict[str, list[float]]
"""By way a number for each round."""

PLAIN: Final = "fastembed as it comes"
SORTED: Final = "fastembed in batches of like length"
LOADED: Final = "memories loaded"
MESSAGES: Final = "messages loaded"
WINDOWS: Final = "messages loaded, with windows"


class Plain:
    """The bare model: one session of so many threads, batches in the order of the texts."""

    def __init__(self, embedder: FastEmbedder, directory: Path, threads: int) -> None:
        from fastembed import TextEmbedding

        # Registered by the product's own loading, which comes first.
        self._model: Any = TextEmbedding(
            embedder.name,
            cache_dir=str(directory),
            specific_model_path=str(directory),
            threads=threads,
        )

    def embed(self, batch: list[str]) -> None:
        """Embed texts and keep nothing."""
        for _ in self._model.passage_embed(batch, batch_size=BATCH_TEXTS):
            pass


def load(memory: AgentMemory, engine: Engine, batch: list[str]) -> None:
    """Insert memories, then compute and write their vectors."""
    for first in range(0, len(batch), INSERTED_AT_ONCE):
        entries = [{"content": text} for text in batch[first : first + INSERTED_AT_ONCE]]
        memory.loader.memories(entries)
    engine.fill_pending()


def say(
    memory: AgentMemory, engine: Engine, batch: list[str], *, windows: FastEmbedder | None
) -> None:
    """Record messages, then compute and write their vectors, those of windows too if asked."""
    for first in range(0, len(batch), INSERTED_AT_ONCE):
        entries = [
            {
                "role": ("user", "assistant")[number % 2],
                "content": text,
                "conversation": "bulk",
                "id": new_id(),
            }
            for number, text in enumerate(batch[first : first + INSERTED_AT_ONCE])
        ]
        memory.loader.messages(entries)
    engine.fill_pending()
    while windows is not None and engine.recall.without_window:
        # The engine does this between other work, and waits for whoever asks something.
        engine._backlog.fill_windows(windows)
    engine.vectors.write_held()
    engine.recall.without_window.clear()


def measure(
    settings: Settings, rounds: int, count: int, seed: int, *, with_messages: bool
) -> tuple[Report, Report]:
    """Return texts a second, and processor milliseconds a text."""
    files = find_model(settings.embedding_model, settings.cache_dir)
    if files is None:
        raise common.BenchmarkFault("no model: run `mcp-memory models fetch` first")
    threads = settings.threads or min(os.cpu_count() or 1, 4)
    embedder = FastEmbedder.load(files, threads=threads)
    plain = Plain(embedder, files.directory, threads)
    engine = Engine(settings, embedder=embedder)
    memories = Memories(engine)
    memory = memories.open("default")
    engine.archival.index("default")
    engine.recall.index("default")
    ways: dict[str, Callable[[list[str]], object]] = {
        PLAIN: plain.embed,
        SORTED: embedder.embed_passages,
        LOADED: partial(load, memory, engine),
    }
    if with_messages:
        ways[MESSAGES] = partial(say, memory, engine, windows=None)
        ways[WINDOWS] = partial(say, memory, engine, windows=embedder)
    rng = random.Random(seed)
    every = texts.distinct(lambda: texts.memory(rng), (rounds + 1) * count)
    rates: Report = {name: [] for name in ways}
    costs: Report = {name: [] for name in ways}
    try:
        with common.progress() as progress:
            task = progress.add_task("rounds", total=rounds + 1)
            for turn in range(rounds + 1):
                batch = every[turn * count : (turn + 1) * count]
                names = list(ways)
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    began, used = time.perf_counter(), time.process_time()
                    ways[name](batch)
                    if turn:  # The first is to warm up.
                        rates[name].append(count / (time.perf_counter() - began))
                        costs[name].append((time.process_time() - used) / count * 1e3)
                progress.advance(task)
            _check(engine, (rounds + 1) * count)
    finally:
        memory.close()
        memories.close()
    return rates, costs


def _check(engine: Engine, count: int) -> None:
    """Check that what was loaded is there, with its vectors.

    Raises:
        BenchmarkFault: It is not.
    """
    engine.vectors.write_held()
    rows = engine.database.read("SELECT count(DISTINCT id) FROM vectors WHERE source = 'memory'")
    if rows[0][0] != count or engine.vectors.pending_count():
        raise common.BenchmarkFault(f"{rows[0][0]} of {count} memories have vectors")


def main() -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=1_000, help="texts a round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-messages", action="store_true", help="measure memories alone")
    parser.add_argument("--out", type=Path, help="write the report to this JSON file")
    given = parser.parse_args()
    return common.run_blocking(partial(_run, given))


def _run(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(db=Path(folder) / "memory.duckdb", offline=True)
        rates, costs = measure(
            settings, given.rounds, given.texts, given.seed, with_messages=not given.no_messages
        )
    table = Table(title=f"{given.rounds} rounds of {given.texts} texts")
    for column in (
        "way",
        "texts/s",
        "least",
        "most",
        "of fastembed",
        "of like length",
        "cpu ms/text",
    ):
        table.add_column(column, justify="left" if column == "way" else "right")
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ratios = {
        name: {
            # By round: what else the machine does changes over minutes.
            base: statistics.median(a / b for a, b in zip(found, rates[base], strict=True))
            for base in (PLAIN, SORTED)
        }
        for name, found in rates.items()
    }
    for name, found in rates.items():
        table.add_row(
            name,
            f"{medians[name]:.0f}",
            f"{min(found):.0f}",
            f"{max(found):.0f}",
            f"{ratios[name][PLAIN]:.0%}",
            f"{ratios[name][SORTED]:.0%}",
            f"{statistics.median(costs[name]):.1f}",
        )
    common.out.print(table)
    held = ratios[LOADED][PLAIN] >= BAR and ratios[LOADED][SORTED] >= BAR
    common.out.print(f"bar of {BAR:.0%}: {'held' if held else 'missed'}")
    report = {
        "texts_per_second": rates,
        "cpu_ms_a_text": costs,
        "ratios": ratios,
        "bar": BAR,
        "held": held,
    }
    common.write_json(given.out, {"machine": common.machine(), **report})


if __name__ == "__main__":
    raise SystemExit(main())
