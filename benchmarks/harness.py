"""What every benchmark needs: how a server is started, options, tables, JSON and exit statuses."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import BenchmarkFault, procfs, texts
from benchmarks.client import Command
from benchmarks.metrics import plain
from mcp_memory import __version__

# Only what says where the model is reaches the server: any other setting of
# this machine would change the figures.
PASSED_ON: Final = (
    "MCP_MEMORY_CACHE_DIR",
    "MCP_MEMORY_EMBEDDING_MODEL",
    "MCP_MEMORY_OFFLINE",
    "XDG_CACHE_HOME",
)
# What any process needs to start, to find its home and its temporary files.
_SYSTEM: Final = ("HOME", "PATH", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "USERPROFILE", "APPDATA")

SERVER: Final = (sys.executable, "-m", "mcp_memory")
"""The installed server, as a client starts it."""

SEED: Final = 20_231_012
"""Of the texts and questions, so that every run has the same; the day of MemGPT's paper."""

PYTHON_HELP: Final = "measure the server that is installed for this interpreter"

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130

out = Console()
err = Console(stderr=True)


def system_environment() -> dict[str, str]:
    """Return the environment that any process needs, without settings of this machine."""
    return {name: os.environ[name] for name in _SYSTEM if name in os.environ}


def environment(db: Path, **settings: object) -> dict[str, str]:
    """Return the environment of a server on `db`, without other settings of this machine.

    Args:
        db: The database file.
        settings: Settings of the server by their name without prefix, in lower case.
    """
    env = system_environment()
    env |= {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    env["MCP_MEMORY_DB"] = str(db)
    return env | {f"MCP_MEMORY_{name.upper()}": str(value) for name, value in settings.items()}


def server(db: Path, python: str = sys.executable, **settings: object) -> Command:
    """Return how the server is started on a database, on stdio.

    Args:
        db: The database file; its folder has to exist.
        python: The interpreter in which the server is installed.
        settings: See `environment`.
    """
    # The folder of the database: `-m` would prefer a checkout in the current folder.
    return Command((python, *SERVER[1:]), environment(db, **settings), db.parent)


def owner_pid(db: Path, python: str = sys.executable) -> int | None:
    """Return the process that owns a database, by `status`; None if none runs.

    Raises:
        BenchmarkFault: The command fails.
    """
    command = server(db, python)
    done = subprocess.run(  # noqa: S603  # our own command
        [*command.arguments, "status", "--json"],
        env=dict(command.environment),
        cwd=command.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        pid = json.loads(done.stdout)["owner"]["pid"]
    except (ValueError, KeyError, TypeError) as error:
        raise BenchmarkFault(f"`status --json` says no owner: {done.stderr.strip()}") from error
    return pid if isinstance(pid, int) else None


def kill_owner(db: Path, python: str = sys.executable) -> None:
    """End the owner of a database at once, if one runs; it may not have made the file yet."""
    pid = owner_pid(db, python)
    if pid is not None:
        procfs.kill(pid)


@contextmanager
def database(folder: Path, name: str, python: str = sys.executable) -> Iterator[Path]:
    """Give the path of a new database in a folder of its own; its owner ends with the block."""
    db = folder / name / "memory.duckdb"
    db.parent.mkdir(parents=True)
    try:
        yield db
    finally:
        kill_owner(db, python)


@contextmanager
def temporary() -> Iterator[Path]:
    """Give a folder that is removed with the block."""
    with tempfile.TemporaryDirectory(prefix="mcp-memory-benchmark-") as name:
        yield Path(name)


class Texts:
    """Invented texts and questions, none of them twice, the same in every run."""

    def __init__(self, seed: int = SEED) -> None:
        rng = random.Random(seed)
        self._make = {"memory": partial(texts.memory, rng), "query": partial(texts.query, rng)}
        self._made: set[str] = set()

    def contents(self, count: int) -> list[str]:
        """Return the next `count` texts to store."""
        return self._next("memory", count)

    def queries(self, count: int) -> list[str]:
        """Return the next `count` questions about such texts."""
        return self._next("query", count)

    def _next(self, kind: str, count: int) -> list[str]:
        new: list[str] = []
        while len(new) < count:
            text = self._make[kind]()
            if text not in self._made:
                self._made.add(text)
                new.append(text)
        return new


def positive(text: str) -> int:
    """Return a number from 1 of the command line.

    Raises:
        ArgumentTypeError: It is something else.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def numbers(text: str) -> tuple[int, ...]:
    """Return a list of numbers of the command line, such as `100,1000`, ascending.

    Raises:
        ArgumentTypeError: It is something else.
    """
    return tuple(sorted({positive(part) for part in text.split(",")}))


def parser(name: str, doc: str | None, prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of a benchmark, with the option `--out` that all of them have."""
    prog = prog or f"python -m benchmarks {name}"
    made = argparse.ArgumentParser(prog=prog, description=doc, allow_abbrev=False)
    made.set_defaults(prog=prog)
    made.add_argument("--out", type=Path, help="write the report to this JSON file")
    return made


def progress() -> Progress:
    """Return a progress bar on stderr, so that stdout has the tables alone."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
    )


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table whose first column is text and whose others are figures; None is a dash."""
    shown = Table(title=title)
    for number, heading in enumerate(headings):
        shown.add_column(heading, justify="right" if number else "left")
    for row in rows:
        shown.add_row(*("-" if cell is None else str(cell) for cell in row))
    out.print(shown)


def verdict(label: str, value: str, goal: str, *, met: bool) -> str:
    """Return the line that says whether a goal was reached."""
    return f"{label}: {value}, goal {goal}: {'met' if met else 'MISSED'}"


def finish(
    name: str, options: argparse.Namespace, report: Mapping[str, Any], verdicts: Sequence[str]
) -> None:
    """Print the verdicts, and write the report with the machine and versions, if asked to."""
    for line in verdicts:
        out.print(line, highlight=False, soft_wrap=True)
    if options.out is None:
        return
    whole = {"benchmark": name, **machine(), "command": _command(name, options.prog), **report}
    text = json.dumps(plain({**whole, "verdicts": verdicts}), indent=2, ensure_ascii=False)
    options.out.write_text(text + "\n", encoding="utf-8")
    err.print(f"wrote {options.out}")


def machine() -> dict[str, Any]:
    """Return what belongs to every figure: when, on which machine, with which versions."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {
            "mcp_memory": __version__,
            **{name: version(name) for name in ("mcp", "duckdb", "fastembed")},
        },
    }


def run(benchmark: Callable[[], object]) -> int:
    """Run a benchmark and return its exit status; Ctrl-C stops the servers, too."""
    try:
        benchmark()
    except KeyboardInterrupt:
        err.print("interrupted")
        return EXIT_INTERRUPTED
    except BenchmarkFault as error:
        err.print(f"error: {error}", markup=False, soft_wrap=True)
        return EXIT_FAILED
    return 0


def _command(name: str, prog: str) -> str:
    """Return the command line, without `--out` and without the folders of paths."""
    words = sys.argv[1:]
    words = words[words.index(name) + 1 :] if name in words else words
    short = [Path(word).name if "/" in word else word for word in words]
    if "--out" in short:
        at = short.index("--out")
        del short[at : at + 2]
    return " ".join([prog, *short])
