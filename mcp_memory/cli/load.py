"""`mcp-memory load`: many memories and messages from files."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from mcp_memory.cli.loadlines import Defaults, Read, read, total_bytes
from mcp_memory.owner.client import session
from mcp_memory.owner.places import Places
from mcp_memory.settings import load_settings

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mcp_memory.owner.client import Session
    from mcp_memory.settings import Settings

_BATCH_ENTRIES: Final = 256
"""By judgement: a batch is one transaction, and what a stopped command repeats at most."""

_BATCH_BYTES: Final = 2_000_000
"""By judgement, for the same reason."""

_BATCH_SECONDS: Final = 600.0
"""How long a batch may take, by judgement: it waits for other writers."""

_POLL_SECONDS: Final = 0.3
_LINE_SECONDS: Final = 5.0
"""How often progress is a line where there is no terminal, by judgement."""

_INTERRUPTED: Final = 130
"""The shell's exit status for SIGINT."""


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--tag", "tags", multiple=True, help="A tag for every memory; can be repeated.")
@click.option("--kind", help="For memories without a kind; default: fact.")
@click.option("--conversation", help="For messages without one; default: main.")
@click.option("--skip-bad", is_flag=True, help="Report bad lines and go on.")
@click.option("--no-wait", is_flag=True, help="Do not wait for the vectors.")
def load(
    files: tuple[str, ...],
    tags: tuple[str, ...],
    kind: str | None,
    conversation: str | None,
    *,
    skip_bad: bool,
    no_wait: bool,
) -> None:
    """Load memories and messages from files; `-` reads lines from stdin.

    A line of a .jsonl file is a memory {content, tags, kind, happened_at} or a message
    {role, content, name, created_at, conversation}; any other file is one memory. Loaded
    texts are found by their words at once, and by meaning when their vectors are ready.

    What is already in the database is skipped: after a stop, run the same command again.
    """
    settings = load_settings()
    try:
        size = total_bytes(files)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    defaults = Defaults(tags, kind, conversation)
    start = settings.owner != "off"
    with session(settings, "load", start=start, background=True) as opened, _Display() as display:
        work = _Load(settings, opened, display, skip_bad=skip_bad)
        try:
            display.begin("loading", size)
            for path in files:
                for item in read(path, sys.stdin.buffer, defaults):
                    work.take(item)
            work.flush()
            if not no_wait:
                work.wait()
        except OSError as error:
            raise click.ClickException(f"{error.filename}: {error.strerror}") from error
        except KeyboardInterrupt:
            display.end()
            click.echo(
                f"stopped: {work.summary()}; run the same command again to load the rest",
                err=True,
            )
            sys.exit(_INTERRUPTED)
    click.echo(work.summary())


@dataclass(slots=True)
class _Load:
    """One run of the command."""

    settings: Settings
    session: Session
    display: _Display
    skip_bad: bool
    batch: list[Read] = field(default_factory=list)
    size: int = 0
    added: int = 0
    known: int = 0
    bad: int = 0

    def take(self, item: Read) -> None:
        """Add an entry to the batch, which is stored once it is full."""
        if item.entry is None:
            self.flush()
            self.refuse(item, item.reason)
            return
        if self.batch and self.batch[0].what != item.what:
            self.flush()
        self.batch.append(item)
        self.size += item.size
        if len(self.batch) >= _BATCH_ENTRIES or self.size >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Store the batch."""
        batch, size = self.batch, self.size
        self.batch, self.size = [], 0
        if not batch:
            return
        done = self._store(batch)
        self.added += done["added"]
        self.known += done["known"]
        for place, reason in done["refused"]:
            self.refuse(batch[place], reason)
        self.display.advance(size, self.summary())

    def _store(self, batch: list[Read]) -> dict[str, Any]:
        # Through a file: the line of an operation is too short for a book.
        folder = Places(str(self.settings.db)).folder
        path = os.path.join(folder, f"load-{os.getpid()}.json")
        asked = {
            "agent": self.settings.agent,
            "settings": {
                "context_window": self.settings.context_window,
                "timezone": self.settings.timezone,
            },
            "what": batch[0].what,
            "skip_bad": self.skip_bad,
            "file": os.path.basename(path),
        }
        try:
            with open(path, "w", encoding="utf-8") as file:
                json.dump([item.entry for item in batch], file)
            return self.session.operate("load", asked, _BATCH_SECONDS)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def refuse(self, item: Read, reason: str) -> None:
        """Report a line that can't be loaded.

        Raises:
            ClickException: Bad lines are not to be skipped.
        """
        self.bad += 1
        if not self.skip_bad:
            raise click.ClickException(
                f"{item.where}: {reason}\n{self.summary()}."
                " Correct the line and run the command again, or skip bad lines with --skip-bad"
            )
        click.echo(f"{item.where}: {reason}", err=True)

    def wait(self) -> None:
        """Wait until all texts have their vectors."""
        agent = {"agent": self.settings.agent}
        found = self.session.operate("model", agent)
        total = left = int(found["pending"])
        self.display.begin("embedding", total)
        while left:
            if found["state"] == "unavailable":
                click.echo(
                    f"{left} texts are found by words only: the embedding model is unavailable",
                    err=True,
                )
                return
            time.sleep(_POLL_SECONDS)
            found = self.session.operate("model", agent)
            done, left = left - int(found["pending"]), int(found["pending"])
            self.display.advance(done, f"{left} texts without vectors")

    def summary(self) -> str:
        """Return what was done so far."""
        text = f"{self.added} loaded, {self.known} already there"
        return f"{text}, {self.bad} bad lines skipped" if self.bad and self.skip_bad else text


class _Display:
    """Progress for a person: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._bars: Progress | None = None
        self._task: TaskID | None = None
        self._said_at = time.monotonic()

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self, name: str, total: int | None) -> None:
        """Begin another part of the work; `total` is None if its size is not known."""
        self.end()
        if not self._console.is_terminal:
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}"),
            console=self._console,
        )
        self._task = self._bars.add_task(name, total=total, said="")
        self._bars.start()

    def advance(self, done: int, said: str) -> None:
        """Show progress."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, advance=done, said=said)
        elif time.monotonic() - self._said_at > _LINE_SECONDS:
            self._said_at = time.monotonic()
            click.echo(said, err=True)

    def end(self) -> None:
        """Remove the bar from the terminal."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
