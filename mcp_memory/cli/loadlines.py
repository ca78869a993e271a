"""The files that `mcp-memory load` reads: lines of JSON, or one memory a file.

A message gets its id from its content, so that a line is the same message however often
it is loaded: from all its fields and, if it has no date, from the name of its file or
from the first line of stdin. Identical lines of one file are different messages.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

from mcp_memory.values.ids import id_of

What = Literal["memories", "messages"]

_LINES: Final = frozenset({".jsonl", ".ndjson"})
_STDIN: Final = "-"


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
        if not isinstance(found, dict) or not isinstance(found.get("content"), str):
            yield Read(where, len(line), reason='it is not an object with a text "content"')
        elif "role" in found:
            entry = _message(found, source, defaults, seen)
            yield Read(where, len(line), "messages", entry)
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
    entry = {
        "role": found["role"],
        "content": found["content"],
        "name": found.get("name"),
        "created_at": found.get("created_at"),
        "conversation": found.get("conversation") or defaults.conversation,
    }
    # Without a date "yes" of two files are two messages.
    fields = [source if entry["created_at"] is None else "", *entry.values()]
    digest = hashlib.sha256(json.dumps(fields).encode()).digest()[:16]
    again = seen[digest]
    seen[digest] += 1
    if again:
        digest = hashlib.sha256(digest + str(again).encode()).digest()
    return entry | {"id": id_of(digest)}
