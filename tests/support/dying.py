"""Kills a process at every step of a façade call, each time on a copy of one database.

Run as a script, `python dying.py FOLDER`, because a process that forks must not have
opened a database before. `FOLDER/before` is the database that the calls start from. For
each entry of `CALLS`, `FOLDER/NAME/001`, `002`, … hold what a kill at the first, second, …
step leaves, with the names of the steps. In the last one the call ran to its end.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import duckdb
from fakes import HashEmbedder, memory_of

from mcp_memory.agent import AgentMemory
from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.settings import load_settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import NotFound
from mcp_memory.values.records import Kind, NewMessage, Role, StoreChunk

BEFORE: Final = "before"
STEPS: Final = "steps"
"""File beside a database with the steps that were reached, one a line."""

MAX_STEPS: Final = 200
"""By judgement: far more than any call has."""

_WRITES: Final = ("begin", "commit", "execute", "executemany")
_NOT_KEPT: Final = ("PRAGMA", "SET ", "SELECT")
_BEGINNING: Final = datetime(2026, 3, 1, 9, tzinfo=UTC)

Call = Callable[[AgentMemory], object]


@dataclass(frozen=True)
class Calls:
    """One case: calls to kill.

    Args:
        calls: Made in this order; when the process dies, each is done or not.
        settings: Settings of the process that dies and of the one that opens its database.
        stops: Settings under which a call stops after the first of several transactions; a
            kill between two transactions may leave that state too.
        idempotent: Whether repeating all calls after a kill gives the same as one run.
    """

    calls: tuple[Call, ...]
    settings: dict[str, object] = field(default_factory=dict)
    stops: tuple[dict[str, object], ...] = ()
    idempotent: bool = False


def said(first: int, count: int, words: int = 20) -> list[NewMessage]:
    """Return turns of a conversation, every fourth one a tool result."""
    roles: tuple[Role, ...] = ("user", "assistant", "tool", "assistant")
    return [
        NewMessage(
            roles[at % 4],
            f"Turn {at} of the kettle ERR-{at}. " + f"It whistles at step {at}. " * (words // 5),
            created_at=_BEGINNING + timedelta(minutes=at),
        )
        for at in range(first, first + count)
    ]


def prepare(memory: AgentMemory) -> None:
    """Fill a memory with rows of every sort, a summary with a parent included."""
    memory.core.append("human", "Drinks tea.")
    memory.core.rethink("notes", "Nothing yet.", "What is noted.")
    memory.core.finish_rethinking()
    for first in (0, 10):
        memory.conversations.append(said(first, 10))
        memory.conversations.flush()
    memory.conversations.append(said(20, 6))
    memory.conversations.append(said(0, 2), "other")
    memory.archive.insert("The kettle is from Porto.", tags=["kitchen"])
    memory.archive.insert("The old kettle leaks.", kind=Kind.TECHNICAL)


def _id_of(memory: AgentMemory, content: str) -> str:
    for hit in memory.archive.search().items:
        if hit.memory.content == content:
            return hit.memory.id
    raise NotFound(f"no memory says {content!r}", key=content, hint="")


CALLS: Final[dict[str, Calls]] = {
    "append that overflows": Calls(
        (lambda m: m.conversations.append(said(26, 2, words=350)),),
        stops=({"context_window": 100_000},),
    ),
    "append that warns": Calls(
        (lambda m: m.conversations.append(said(26, 1)),),
        settings={"warn_at": 0.1},
        stops=({"warn_at": 1.0},),
    ),
    "append that reminds": Calls(
        (lambda m: m.conversations.append(said(28, 1)),),
        settings={"rethink_every": 3},
        stops=({"rethink_every": 0},),
    ),
    "flush": Calls((lambda m: m.conversations.flush(),)),
    "flush with a summary": Calls((lambda m: m.conversations.flush(summary="The kettle."),)),
    "consolidation": Calls(
        (
            lambda m: m.core.rethink("human", "Drinks coffee by now."),
            lambda m: m.core.rethink("notes", "The kettle whistles.", "What is known."),
            lambda m: m.core.finish_rethinking("The kettle is known by now."),
        ),
        idempotent=True,
    ),
    "store_memories": Calls(
        (
            lambda m: m.conversations.store(
                [StoreChunk(20, 21, "Of the kettle."), StoreChunk(22, 25, "Of its whistle.")]
            ),
        ),
        idempotent=True,
    ),
    "archival update": Calls(
        (
            lambda m: m.archive.update(
                _id_of(m, "The kettle is from Porto."),
                content="The kettle is from Lisbon.",
                tags=["kitchen", "travel"],
            ),
        ),
    ),
    "archival delete": Calls(
        (lambda m: m.archive.delete(_id_of(m, "The old kettle leaks.")),),
    ),
    "block edits": Calls(
        (
            lambda m: m.core.append("human", "Lives in Porto."),
            lambda m: m.core.replace("notes", "Nothing yet.", "A kettle."),
        ),
    ),
}
"""All cases, by name."""


def open_memory(folder: Path, tokenizer: Tokenizer, **settings: object) -> AgentMemory:
    """Open the memory in a folder's database; closing it closes the database."""
    given = {"context_window": 1_000, "rethink_every": 0} | settings
    loaded = load_settings(
        db=folder / "memory.duckdb", offline=True, embedding_model="fake/hash", **given
    )
    return memory_of(Engine(loaded, embedder=HashEmbedder(), tokenizer=tokenizer))


class Steps:
    """Counts the steps that change the disk, and kills the process at step `kill_at`."""

    def __init__(self, folder: Path, kill_at: int) -> None:
        self._file = os.open(folder / STEPS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._kill_at = kill_at
        self._count = 0
        self.counting = False

    def reached(self, name: str) -> None:
        """Record a step, and die if it is the chosen one."""
        if not self.counting:
            return
        self._count += 1
        os.write(self._file, f"{name}\n".encode())
        if self._count == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


class Watched:
    """A database connection that reports every statement which may change the file."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, steps: Steps) -> None:
        self._connection = connection
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._connection, name)
        if name not in _WRITES:
            return real

        def watched(*arguments: Any) -> Any:
            # A statement arrives as text or parsed; `begin` and `commit` have none.
            given = arguments[0] if arguments else name.upper()
            sql = " ".join(str(getattr(given, "query", given)).split()[:3])
            if sql.startswith(_NOT_KEPT):
                return real(*arguments)
            self._steps.reached(f"before {sql}")
            result = real(*arguments)
            if sql.startswith("COMMIT"):
                self._steps.reached("after COMMIT")
            return result

        return watched


def watch(steps: Steps) -> None:
    """Report statements and file replacements to `steps`, for the rest of the process."""
    connect, replace = duckdb.connect, os.replace

    def connect_watched(*arguments: Any, **named: Any) -> Any:
        return Watched(connect(*arguments, **named), steps)

    def replace_watched(*arguments: Any) -> None:
        steps.reached("before a file is replaced")
        replace(*arguments)
        steps.reached("after a file is replaced")

    duckdb.connect = connect_watched
    os.replace = replace_watched  # type: ignore[assignment]  # the part that is used


def in_a_fork(work: Callable[[], None]) -> int:
    """Run `work` in a forked process; return its exit status, or minus the signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_everywhere(before: Path, folder: Path, chosen: Calls, tokenizer: Tokenizer) -> None:
    """Repeat the calls on copies of a database, killing each run one step later."""

    def do(case: Path, kill_at: int) -> None:
        steps = Steps(case, kill_at)
        watch(steps)
        memory = open_memory(case, tokenizer, **chosen.settings)
        steps.counting = True
        for call in chosen.calls:
            call(memory)
        steps.counting = False
        memory.close()

    for number in range(1, MAX_STEPS + 1):
        case = folder / f"{number:03}"
        shutil.copytree(before, case)
        status = in_a_fork(partial(do, case, number))
        if status == 0:
            return
        if status != -signal.SIGKILL:
            sys.exit(f"{case}: ended with {status} instead of being killed")
    sys.exit(f"{folder}: more than {MAX_STEPS} steps")


def main(folder: Path) -> None:
    """Make the database to start from, and run every case."""
    tokenizer = Tokenizer(cache_dir=folder)
    tokenizer.count("")

    def make() -> None:
        memory = open_memory(folder / BEFORE, tokenizer)
        prepare(memory)
        memory.close()

    if in_a_fork(make) != 0:
        sys.exit("the database to start from was not made")
    for name, chosen in CALLS.items():
        kill_everywhere(folder / BEFORE, folder / name, chosen, tokenizer)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
