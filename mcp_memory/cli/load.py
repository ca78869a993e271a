"""`mcp-memory load`: many memories and messages from files."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from mcp_memory.cli.loadlines import Defaults, Read, read, total_bytes
from mcp_memory.settings import load_settings

if TYPE_CHECKING:
    import socket

    from rich.progress import Progress, TaskID

    from mcp_memory.owner.places import Places
    from mcp_memory.settings import Settings

Call = Callable[[str, dict[str, Any]], dict[str, Any]]

_BATCH_ENTRIES: Final = 256
_BATCH_BYTES: Final = 2_000_000
_OPERATION_SECONDS: Final = 600.0
_CONNECT_SECONDS: Final = 10.0
_TRIES: Final = 3
_POLL_SECONDS: Final = 0.3
_LINE_SECONDS: Final = 5.0
"""So often a line says how far it is, where there is no terminal."""

_INTERRUPTED: Final = 130


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--tag", "tags", multiple=True, help="For every memory; may be given again.")
@click.option("--kind", help="Of memories that name none; fact without.")
@click.option("--conversation", help="Of messages that name none; main without.")
@click.option("--skip-bad", is_flag=True, help="Name lines that can't be taken, and go on.")
@click.option("--no-wait", is_flag=True, help="Leave the vectors to the background.")
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
    {role, content, name, created_at, conversation}; any other file is one memory. What is
    loaded is found by its words at once, and by its meaning when the vectors are there.

    What is there already is passed over: after a stop the same command goes on.
    """
    settings = load_settings()
    try:
        size = total_bytes(files)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    defaults = Defaults(tags, kind, conversation)
    with _session(settings) as call, _Display() as display:
        work = _Load(settings, call, display, skip_bad=skip_bad)
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
                f"stopped: {work.said()}; what was loaded is kept, the same command goes on",
                err=True,
            )
            sys.exit(_INTERRUPTED)
    click.echo(work.said())


@dataclass(slots=True)
class _Load:
    """One run of the command."""

    settings: Settings
    call: Call
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
        done = self.call(
            "load.put",
            {
                "agent": self.settings.agent,
                "window": self.settings.context_window,
                "timezone": self.settings.timezone,
                "what": batch[0].what,
                "skip_bad": self.skip_bad,
                "entries": [item.entry for item in batch],
            },
        )
        self.added += done["added"]
        self.known += done["known"]
        for place, reason in done["refused"]:
            self.refuse(batch[place], reason)
        self.display.advance(size, self.said())

    def refuse(self, item: Read, reason: str) -> None:
        """Name a line that can't be taken.

        Raises:
            ClickException: That is the end of it.
        """
        self.bad += 1
        if not self.skip_bad:
            raise click.ClickException(
                f"{item.where}: {reason}\n{self.said()}; what stands before is kept."
                " Repair the line and repeat the command, or pass over such lines with --skip-bad"
            )
        click.echo(f"{item.where}: {reason}", err=True)

    def wait(self) -> None:
        """Wait until all vectors are there."""
        agent = {"agent": self.settings.agent}
        found = self.call("load.state", agent)
        total = left = int(found["pending"])
        self.display.begin("embedding", total)
        while left:
            if found["state"] == "unavailable":
                click.echo(
                    f"{left} texts are found by words alone: the embedding model is unavailable",
                    err=True,
                )
                return
            time.sleep(_POLL_SECONDS)
            found = self.call("load.state", agent)
            done, left = left - int(found["pending"]), int(found["pending"])
            self.display.advance(done, f"{left} texts wait for their vectors")

    def said(self) -> str:
        """Return what was done."""
        text = f"{self.added} loaded, {self.known} were there already"
        return f"{text}, {self.bad} bad lines passed over" if self.bad and self.skip_bad else text


@contextlib.contextmanager
def _session(settings: Settings) -> Iterator[Call]:
    """Give a way to the owner, which is started if there is none, or to the database itself."""
    from mcp_memory.owner.look import State, look
    from mcp_memory.owner.places import Places

    places = Places(str(settings.db))
    places.make()
    running = look(places, seconds=_CONNECT_SECONDS).state is State.RUNNING
    if settings.owner != "off" or running:
        owner = _Owner(places)
        try:
            yield _spooled(places, owner.call)
        finally:
            owner.close()
        return
    from mcp_memory.owner.client import exclusive
    from mcp_memory.owner.ops import OPS
    from mcp_memory.server.servers import Servers

    with exclusive(settings, "load"):
        servers = Servers(settings)
        try:
            yield _spooled(places, lambda op, params: OPS[op](servers, params))
        finally:
            servers.close()


def _spooled(places: Places, call: Call) -> Call:
    """Let the entries of an operation go through a file: its line has no room for a book."""

    def spooling(op: str, params: dict[str, Any]) -> dict[str, Any]:
        if "entries" not in params:
            return call(op, params)
        path = os.path.join(places.folder, f"load-{os.getpid()}.json")
        try:
            with open(path, "w", encoding="utf-8") as file:
                json.dump(params["entries"], file)
            rest = {name: value for name, value in params.items() if name != "entries"}
            return call(op, {**rest, "file": os.path.basename(path)})
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)

    return spooling


class _Owner:
    """Operations of an owner, which stays as long as this is connected."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._connection: socket.socket | None = None
        self._reach()

    def call(self, op: str, params: dict[str, Any]) -> dict[str, Any]:
        """Return the result of an operation; another owner does it if this one has died.

        Raises:
            MemoryFault: It was refused, or no owner answers.
        """
        from mcp_memory.owner.connect import refusal
        from mcp_memory.owner.wire import Gone, Silent, dial, greet
        from mcp_memory.values.errors import OwnerFault

        for _ in range(_TRIES):
            address = self._places.read_address()
            try:
                if address is None:
                    raise Gone
                with dial(address, _CONNECT_SECONDS) as connection:
                    connection.settimeout(_OPERATION_SECONDS)
                    answer = greet(connection, address, {"op": op, "params": params})
            except Gone:
                # A batch that was stored all the same is known when it comes again.
                self._reach()
                continue
            except Silent:
                break
            if answer.get("error") is not None:
                raise refusal(answer["error"])
            result = answer.get("result")
            return result if isinstance(result, dict) else {}
        raise OwnerFault(
            f"the owner of {self._places.db} does not answer",
            hint="Run `mcp-memory doctor`; the same command goes on",
        )

    def close(self) -> None:
        """Let the owner go when nobody else needs it."""
        if self._connection is not None:
            self._connection.close()

    def _reach(self) -> None:
        from mcp_memory.owner.connect import reach
        from mcp_memory.values.locations import own_settings

        self.close()
        hello: dict[str, object] = {"settings": own_settings(os.environ), "since": time.time()}
        self._connection = reach(self._places, hello, os.environ).connection


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
        """Show another part of the work; `total` is None if nobody knows how much it is."""
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
        """Show that there is less to be done."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, advance=done, said=said)
        elif time.monotonic() - self._said_at > _LINE_SECONDS:
            self._said_at = time.monotonic()
            click.echo(said, err=True)

    def end(self) -> None:
        """Leave the terminal as it was."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
