"""How much of what is asked for does `conversation_search` find?

Every turn of every conversation goes in through `conversation_append`, every
question through `conversation_search`, once per search mode, on the same stored
vectors. A conversation of the data set has a server and a database of its own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from mcp import Client
from rich.progress import Progress

from benchmarks.formats import HINTS, LOADERS
from benchmarks.harness import (
    EXIT_USAGE,
    BenchmarkFault,
    call,
    embedding_status,
    err,
    machine,
    out,
    positive,
    progress,
    run,
    serve,
    wait_until_embedded,
    without_model,
    write_json,
)
from benchmarks.locomo import DataFault
from benchmarks.recallreport import Measured, by_kind, latencies, show, verdicts
from benchmarks.talks import Talk, spread
from benchmarks.vectorsizes import stored_vectors

MODES: Final = ("lexical", "hybrid")
HITS: Final = 20
EMBEDDING_TIMEOUT_SECONDS: Final = 3_600.0
LOCOMO_QUESTIONS: Final = 1_982
NO_DATA_HINT: Final = HINTS["locomo"]


async def append_turns(
    client: Client, talk: Talk, measured: Measured, bar: Progress
) -> dict[str, str]:
    """Append every turn by a call of its own; return which place the id of each stands for."""
    task = bar.add_task(f"{talk.name} append", total=len(talk.turns))
    placed: dict[str, str] = {}
    for turn in talk.turns:
        message = {
            "role": turn.role,
            "content": turn.content,
            "created_at": turn.created_at.isoformat(),
            **({"name": turn.name} if turn.name else {}),
        }
        began = time.perf_counter()
        reply = await call(client, "conversation_append", {"messages": [message]})
        measured.appends.append(time.perf_counter() - began)
        placed[reply["ids"][0]] = turn.place
        bar.advance(task)
    return placed


async def search(client: Client, question: str, mode: str) -> tuple[list[str], int]:
    """Return the ids of the first 20 hits, best first, and how many pages they took.

    Raises:
        BenchmarkFault: The server searched otherwise than it was told to.
    """
    arguments: dict[str, Any] = {"query": question, "limit": HITS}
    ids: list[str] = []
    pages = 0
    while True:
        reply = await call(client, "conversation_search", arguments)
        pages += 1
        if mode != "lexical" and reply["search"] == "lexical":
            raise BenchmarkFault(f"asked for {mode} search, but the server searched lexically")
        ids += [hit["id"] for hit in reply["results"]]
        cursor = reply.get("next_cursor")
        if len(ids) >= HITS or cursor is None:
            return ids[:HITS], pages
        arguments["cursor"] = cursor


async def ask(
    client: Client,
    talk: Talk,
    mode: str,
    placed: dict[str, str],
    measured: Measured,
    bar: Progress,
) -> None:
    """Ask every question of a talk in one mode."""
    task = bar.add_task(f"{talk.name} {mode}", total=len(talk.questions))
    session_of = talk.session_of()
    for question in talk.questions:
        began = time.perf_counter()
        ids, pages = await search(client, question.text, mode)
        measured.queries[mode].append(time.perf_counter() - began)
        measured.pages[mode] += pages
        places = [placed[found] for found in ids]
        measured.turns[mode].append((question, places))
        sessions = list(dict.fromkeys(session_of[place] for place in places))
        measured.sessions[mode].append((question, sessions))
        bar.advance(task)
    bar.remove_task(task)


async def measure(talks: Sequence[Talk], modes: Sequence[str]) -> Measured:
    """Store and ask all talks in all modes."""
    measured = Measured()
    with_vectors = set(modes) != {"lexical"}
    with progress() as bar, tempfile.TemporaryDirectory(prefix="mcp-memory-recall-") as folder:
        overall = bar.add_task("conversations", total=len(talks))
        for number, talk in enumerate(talks):
            db = Path(folder) / str(number) / "memory.duckdb"
            db.parent.mkdir()
            async with serve(db) as client:
                placed = await append_turns(client, talk, measured, bar)
                if with_vectors:
                    await _fill(client, measured, bar)
            measured.add_sizes(stored_vectors(db))
            # A restart on the same file, not a second import: only the query differs.
            for mode in modes:
                model = without_model(Path(folder) / "none") if mode == "lexical" else {}
                async with serve(db, **model) as client:
                    if mode != "lexical":
                        await _wait(client, measured, bar)
                    await ask(client, talk, mode, placed, measured, bar)
            bar.advance(overall)
    return measured


async def _fill(client: Client, measured: Measured, bar: Progress) -> None:
    """Wait for all vectors, those of windows too, and note what was left to the background."""
    status = await embedding_status(client)
    measured.windows_left += status.get("windows_pending", 0)
    began = time.perf_counter()
    await _wait(client, measured, bar)
    measured.background_seconds += time.perf_counter() - began


async def _wait(client: Client, measured: Measured, bar: Progress) -> None:
    task = bar.add_task("embedding", total=None)
    measured.model = await wait_until_embedded(
        client,
        timeout_seconds=EMBEDDING_TIMEOUT_SECONDS,
        on_wait=lambda state: bar.update(task, description=f"embedding: {state}"),
    )
    bar.remove_task(task)


def _modes(text: str) -> tuple[str, ...]:
    modes = tuple(text.split(","))
    if not set(modes) <= set(MODES) or len(set(modes)) != len(modes):
        raise argparse.ArgumentTypeError(f"{text!r}: choose from {','.join(MODES)}")
    return modes


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks recall", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--data", type=Path, help="the data set's file, or folder")
    parser.add_argument("--format", choices=LOADERS, default="locomo", help="default: locomo")
    parser.add_argument("--limit", type=positive, help="use N conversations, from all over it")
    parser.add_argument("--modes", type=_modes, default=MODES, help="default: both")
    parser.add_argument("--out", type=Path, help="write the report to this JSON file")
    return parser.parse_args(argv)


async def _benchmark(talks: Sequence[Talk], options: argparse.Namespace) -> None:
    began = time.perf_counter()
    measured = await measure(talks, options.modes)
    show(measured)
    # The bars are for all of LoCoMo, and its form is used by other sets as well.
    whole = sum(len(talk.questions) for talk in talks) == LOCOMO_QUESTIONS
    lines = verdicts(measured) if whole else []
    for line in lines:
        out.print(line, highlight=False)
    write_json(
        options.out,
        {
            "benchmark": "recall",
            **machine(),
            "model": measured.model,
            "format": options.format,
            "dialogues": len(talks),
            "turns": len(measured.appends),
            "duration_seconds": round(time.perf_counter() - began, 1),
            "quality": by_kind(measured.turns),
            "session_quality": by_kind(measured.sessions, sessions=True),
            "pages_per_question": {
                mode: round(pages / len(measured.queries[mode]), 2)
                for mode, pages in measured.pages.items()
            },
            "latency": {name: part.as_dict() for name, part in latencies(measured).items()},
            "insert": measured.insert_cost(),
            "verdicts": lines,
        },
    )


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return its exit status."""
    options = parse_arguments(argv)
    hint = HINTS[options.format]
    if options.data is None:
        err.print(f"error: --data is missing. {hint}", markup=False, soft_wrap=True)
        return EXIT_USAGE
    try:
        talks = spread(LOADERS[options.format](options.data), options.limit)
    except DataFault as error:
        err.print(f"error: {error}. {hint}", markup=False, soft_wrap=True)
        return EXIT_USAGE
    return run(partial(_benchmark, talks, options))
