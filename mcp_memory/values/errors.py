"""The faults that a caller can meet, each with what to do next.

MemoryFault
├── InvalidInput          an argument that can't be taken
│   ├── OverLimit         a text longer than its limit
│   ├── MatchFault        text to replace that is absent or not unique
│   ├── Conflict          an edit of a block that another client has changed
│   └── BadCursor         a cursor that is not of this search
├── NotFound              an id, block or conversation that isn't there
├── ReadOnly              an edit of a read-only block
├── AccessDenied          a token that is not taken
├── ModelFault            the embedding model
│   ├── ModelUnavailable  its files can't be had
│   └── ModelMismatch     the database was made with another one
├── StorageFault          the database
│   ├── DatabaseLocked    another process holds it
│   ├── DatabaseCorrupt   it can't be read
│   ├── DiskFull          no room to write
│   └── SchemaTooNew      written by a newer version of this program
├── EndpointFault         the model that writes summaries has not given one
├── OwnerFault            the process that holds the database, seen from another one
└── SettingsFault         a setting with a wrong value
"""

from __future__ import annotations

import sys


class MemoryFault(Exception):
    """Anything this program refuses or fails to do, said so that a model or a person can act.

    Args:
        message: What was wrong, with the value and the limit.
        hint: The next step, one sentence.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return the message and the hint as one line."""
        return f"{self.message}. {self.hint}" if self.hint else self.message


class InvalidInput(MemoryFault):
    """An argument that can't be taken; `field` names it."""

    def __init__(self, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class OverLimit(InvalidInput):
    """A text that is longer than its limit; nothing was changed.

    Args:
        what: What is too long, for the message.
        used: Its size.
        limit: The largest size that is taken.
        unit: What both are counted in.
    """

    def __init__(
        self, what: str, *, used: int, limit: int, unit: str = "tokens", field: str = "", hint: str
    ) -> None:
        super().__init__(
            f"{what} would be over the limit of {limit} {unit} by {used - limit}",
            field=field,
            hint=hint,
        )
        self.used = used
        self.limit = limit
        self.unit = unit


class MatchFault(InvalidInput):
    """The text to replace is not there, or is there more than once.

    `lines` are the 1-based line numbers where it was found.
    """

    def __init__(self, message: str, *, lines: tuple[int, ...], field: str, hint: str) -> None:
        super().__init__(message, field=field, hint=hint)
        self.lines = lines


class Conflict(InvalidInput):
    """An edit of a block that somebody else has changed unseen; nothing was changed.

    Args:
        label: Which block.
        value: What it holds now.
    """

    def __init__(self, label: str, *, value: str, field: str) -> None:
        super().__init__(
            f"the block {label!r} was changed by another client since you read it",
            field=field,
            hint="Merge what you want to keep into its present value, and call again",
        )
        self.label = label
        self.value = value


class BadCursor(InvalidInput):
    """A cursor that this search did not give."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"this cursor can't be used: {reason}",
            field="cursor",
            hint="Repeat the call without a cursor, the other arguments as they were",
        )


class NotFound(MemoryFault):
    """There is no such thing for this agent; `key` is what was asked for."""

    def __init__(self, message: str, *, key: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.key = key


class ReadOnly(MemoryFault):
    """The block `label` can't be edited by an agent."""

    def __init__(self, label: str) -> None:
        super().__init__(
            f"the block {label!r} is read-only",
            hint="Keep what you wanted to note in another block or in archival memory",
        )
        self.label = label


class AccessDenied(MemoryFault):
    """A token that is not taken; `reason` is `unknown`, `expired` or `revoked`."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the access token is {reason}",
            hint="Ask for another one; `mcp-memory token create` makes it",
        )
        self.reason = reason


class ModelFault(MemoryFault):
    """Something about the embedding model."""


class ModelUnavailable(ModelFault):
    """The files of the embedding model can't be had; `reasons` tells why, a line a source."""

    def __init__(self, message: str, *, reasons: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reasons = reasons


class ModelMismatch(ModelFault):
    """The vectors in the database were made by another model than the one that is set."""

    def __init__(self, *, stored: str, wanted: str) -> None:
        super().__init__(
            f"the database was embedded with {stored}, but the model set is {wanted}",
            hint="Set MCP_MEMORY_EMBEDDING_MODEL back, "
            "or run `mcp-memory reembed` to compute all vectors anew with the model that is set",
        )
        self.stored = stored
        self.wanted = wanted


class StorageFault(MemoryFault):
    """Something about the database file."""


class DatabaseLocked(StorageFault):
    """Another process holds the database; `pid` is its number if the driver told it."""

    def __init__(self, path: str, *, pid: int | None) -> None:
        holder = f"process {pid}" if pid is not None else "another process"
        super().__init__(
            f"the database {path} is in use by {holder}",
            hint="Close the other client first, "
            "or give this one a database of its own with MCP_MEMORY_DB",
        )
        self.path = path
        self.pid = pid


class DatabaseCorrupt(StorageFault):
    """The database or its write-ahead log can't be read."""

    def __init__(self, path: str, *, detail: str) -> None:
        super().__init__(
            f"the database {path} can't be read: {detail}",
            hint="Move the file and its .wal aside and restore a backup, "
            "or set MCP_MEMORY_DB to a new file",
        )
        self.path = path
        self.detail = detail


class DiskFull(StorageFault):
    """There is no room to write; nothing of this call was kept."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"no space left on the device of {path}: nothing was stored",
            hint="Free some space and repeat the call; everything acknowledged before is kept",
        )
        self.path = path


class SchemaTooNew(StorageFault):
    """The database was written by a newer version; it was not touched."""

    def __init__(self, path: str, *, found: int, known: int) -> None:
        super().__init__(
            f"the database {path} has schema {found}, and this version knows up to {known}",
            hint="Update mcp-memory, or set MCP_MEMORY_DB to another file",
        )
        self.found = found
        self.known = known


class EndpointFault(MemoryFault):
    """The model behind the endpoint has given no answer that can be used.

    `reason` is a word or two without anything of the request: it may be logged.
    """

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(f"the summarizer's endpoint: {reason}", hint=hint)
        self.reason = reason


class OwnerFault(MemoryFault):
    """The owner of the database can't be reached or started, or has refused.

    `status` is the exit status that a command ends with.
    """

    def __init__(self, message: str, *, hint: str = "", status: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class SettingsFault(MemoryFault):
    """A setting has a value that can't be taken; `setting` is the environment variable."""

    def __init__(self, setting: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{setting}: {message}", hint=hint)
        self.setting = setting


def report(message: str, status: int) -> int:
    """Write one line to stderr, for the person who runs the program; return the exit status."""
    sys.stderr.write(f"mcp-memory: {message}\n")
    sys.stderr.flush()
    return status
