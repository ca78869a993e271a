"""`mcp-memory load`: many memories and messages from files, of JSON lines or one memory each.

A message gets its id from its content, so that a line is the same message however often
it is loaded: from all its fields and, if it has no date, from the name of its file or
from the first line of stdin. Identical lines of one file are different messages.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal

import click

from mcp_memory.cli.output import echo
from mcp_memory.owner.client import session
from mcp_memory.owner.places import Places
from mcp_memory.settings import load_settings
from mcp_memory.values.ids import id_of

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mcp_memory.owner.client import CommandSession
    from mcp_memory.settings import Settings

What = Literal["memories", "messages"]

_LINES: Final = frozenset({".jsonl", ".ndjson"})
_STDIN: Final = "-"

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


@dataclass(frozen=True, slots=True)
class Read:
    """An entry of a file, or the reason why it is bad; `size` is in bytes."""

    where: str
    size: int
    what: What = "memories"
    entry: dict[str, Any] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Defaults:
    """The values for fields that an entry lacks; `tags` are added to those of a memory."""

    tags: tuple[str, ...] = ()
    kind: str | None = None
    conversation: str | None = None


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
    {role, content, name, created_at, conversation}, or one as OpenAI, Anthropic, Gemini or
    the Vercel AI SDK has it; any other file is one memory. Loaded texts are found by their
    words at once, and by meaning when their vectors are ready.

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
            echo(
                f"stopped: {work.summary()}; run the same command again to load the rest",
                err=True,
            )
            sys.exit(_INTERRUPTED)
    echo(work.summary())


@dataclass(slots=True)
class _Load:
    """One run of the command."""

    settings: Settings
    session: CommandSession
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
        echo(f"{item.where}: {reason}", err=True)

    def wait(self) -> None:
        """Wait until all texts have their vectors."""
        agent = {"agent": self.settings.agent}
        found = self.session.operate("model", agent)
        total = left = int(found["pending"])
        self.display.begin("embedding", total)
        while left:
            if found["state"] == "unavailable":
                echo(
                    f"{left} texts are found by words alone: the embedding model is unavailable",
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
            echo(said, err=True)

    def end(self) -> None:
        """Remove the bar from the terminal."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def read(path: str, stdin: IO[bytes], defaults: Defaults) -> Iterator[Read]:
    """Yield the entries of a file, or of `stdin` for `-`, in their order.

    Raises:
        OSError: The file can't be read.
    """
    if path == _STDIN:
        yield from _lines("stdin", stdin, defaults, None)
    elif Path(path).suffix.lower() in _LINES:
        with open(path, "rb") as file:
            yield from _lines(path, file, defaults, Path(path).name)
    else:
        content = Path(path).read_bytes()
        try:
            entry = _memory({"content": content.decode("utf-8-sig")}, defaults)
        except UnicodeDecodeError:
            yield Read(path, len(content), reason="it is not UTF-8")
        else:
            yield Read(path, len(content), entry=entry)


def total_bytes(paths: Sequence[str]) -> int | None:
    """Return the size of the files, None if one is stdin.

    Raises:
        OSError: A file is missing.
    """
    if _STDIN in paths:
        return None
    return sum(Path(path).stat().st_size for path in paths)


def _lines(name: str, file: IO[bytes], defaults: Defaults, source: str | None) -> Iterator[Read]:
    seen: Counter[bytes] = Counter()
    for number, line in enumerate(file, 1):
        where = f"{name}:{number}"
        if not line.strip():
            continue
        if source is None:
            source = hashlib.sha256(line).hexdigest()
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            yield Read(where, len(line), reason="it is not JSON")
            continue
        if isinstance(found, dict) and "role" in found:
            entry = _message(found, source, defaults, seen)
            yield Read(where, len(line), "messages", entry)
        elif not isinstance(found, dict) or not isinstance(found.get("content"), str):
            yield Read(where, len(line), reason='it is not an object with a text "content"')
        elif not isinstance(found.get("tags") or [], list):
            yield Read(where, len(line), reason='"tags" is not a list')
        else:
            yield Read(where, len(line), entry=_memory(found, defaults))


def _memory(found: dict[str, Any], defaults: Defaults) -> dict[str, Any]:
    return {
        "content": found["content"],
        "tags": [*(found.get("tags") or []), *defaults.tags],
        "kind": found.get("kind") or defaults.kind,
        "happened_at": found.get("happened_at"),
    }


def _message(
    found: dict[str, Any], source: str, defaults: Defaults, seen: Counter[bytes]
) -> dict[str, Any]:
    conversation = found.get("conversation") or defaults.conversation
    # Without a date "yes" of two files are two messages.
    fields: list[object] = [source if found.get("created_at") is None else ""]
    fields += [found.get(name) for name in ("role", "content", "name", "created_at")]
    fields.append(conversation)
    if not isinstance(found.get("content"), str):
        fields.append(found)  # Its text is elsewhere: in parts, or in calls of tools.
    digest = hashlib.sha256(json.dumps(fields).encode()).digest()[:16]
    again = seen[digest]
    seen[digest] += 1
    if again:
        digest = hashlib.sha256(digest + str(again).encode()).digest()
    return {"id": id_of(digest), "message": found, "conversation": conversation}
