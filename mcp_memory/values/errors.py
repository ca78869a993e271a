"""The errors that callers see, each with the next step.

MemoryFault
├── InvalidInput          an argument that is wrong
│   ├── OverLimit         a text longer than its limit
│   ├── MatchFault        text to replace that is absent or not unique
│   ├── Conflict          an edit of a block that another client has changed
│   └── BadCursor         a cursor of another search
├── NotFound              an id, block or conversation that does not exist
├── ReadOnly              an edit of a read-only block
├── AccessDenied          a token that is not accepted
├── ModelFault            the embedding model
│   ├── ModelUnavailable  its files are not available
│   └── ModelMismatch     the database was made with another one
├── StorageFault          the database
│   ├── DatabaseLocked    another process has it open
│   ├── DatabaseCorrupt   it can't be read
│   ├── DataMissing       what was acknowledged isn't there
│   ├── DiskFull          no room to write
│   └── SchemaTooNew      written by a newer version of this program
├── EndpointFault         the model that writes summaries gave no usable answer
├── OwnerFault            the process that owns the database can't be reached
└── SettingsFault         a setting with a wrong value
"""

from __future__ import annotations

import sys

from mcp_memory.values.visible import visible


class MemoryFault(Exception):
    """What this program refuses or fails to do, in words that a model or a person can act on.

    Args:
        message: What is wrong, with the value and the limit.
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
    """An argument that is wrong; `field` names it."""

    def __init__(self, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class OverLimit(InvalidInput):
    """A text that is longer than its limit; nothing was changed.

    Args:
        what: What is too long, for the message.
        used: Its size.
        limit: The largest size that is accepted.
        unit: The unit of both.
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
    """The text to replace is absent, or occurs more than once.

    `lines` are the numbers of the lines where it was found, from 1.
    """

    def __init__(self, message: str, *, lines: tuple[int, ...], field: str, hint: str) -> None:
        super().__init__(message, field=field, hint=hint)
        self.lines = lines


class Conflict(InvalidInput):
    """An edit of a block that another client has changed since; nothing was changed.

    Args:
        label: The block.
        value: Its current value.
    """

    def __init__(self, label: str, *, value: str, field: str) -> None:
        super().__init__(
            f"the block {label!r} was changed by another client since you read it",
            field=field,
            hint="Merge your change into its current value, and call again",
        )
        self.label = label
        self.value = value


class BadCursor(InvalidInput):
    """A cursor that this search did not return."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"this cursor can't be used: {reason}",
            field="cursor",
            hint="Repeat the call without a cursor and with the same other arguments",
        )


class NotFound(MemoryFault):
    """This agent has no such thing; `key` is what was asked for."""

    def __init__(self, message: str, *, key: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.key = key


class ReadOnly(MemoryFault):
    """The block `label` can't be edited by an agent."""

    def __init__(self, label: str) -> None:
        super().__init__(
            f"the block {label!r} is read-only",
            hint="Store it in another block or in archival memory",
        )
        self.label = label


class AccessDenied(MemoryFault):
    """A token that is not accepted; `reason` is `unknown`, `expired` or `revoked`."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the access token is {reason}",
            hint="Ask for another one, which `mcp-memory token create` creates",
        )
        self.reason = reason


class ModelFault(MemoryFault):
    """A fault of the embedding model."""


class ModelUnavailable(ModelFault):
    """The files of the embedding model are not available; `reasons` has a line per source."""

    def __init__(self, message: str, *, reasons: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reasons = reasons


class ModelMismatch(ModelFault):
    """The vectors in the database are of another model than the one that is set."""

    def __init__(self, *, stored: str, wanted: str) -> None:
        super().__init__(
            f"the database was embedded with {stored}, but the model set is {wanted}",
            hint="Set MCP_MEMORY_EMBEDDING_MODEL back, "
            "or run `mcp-memory reembed` to compute all vectors with the model that is set",
        )
        self.stored = stored
        self.wanted = wanted


class StorageFault(MemoryFault):
    """A fault of the database file."""


class DatabaseLocked(StorageFault):
    """Another process has the database open; `pid` is its number if the driver names it."""

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
            hint="Move the file, its .wal and its .witness aside and restore a backup, "
            "or set MCP_MEMORY_DB to a new file",
        )
        self.path = path
        self.detail = detail


class DataMissing(StorageFault):
    """A file of the database is gone, replaced, cut short or damaged; it was not changed."""


class DiskFull(StorageFault):
    """The disk is full; nothing of this call was stored."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"no space left on the device of {path}: nothing was stored",
            hint="Free some space and repeat the call; everything acknowledged before is safe",
        )
        self.path = path


class SchemaTooNew(StorageFault):
    """The database was written by a newer version; it was not changed."""

    def __init__(self, path: str, *, found: int, known: int) -> None:
        super().__init__(
            f"the database {path} has schema {found}, and this version knows up to {known}",
            hint="Update mcp-memory, or set MCP_MEMORY_DB to another file",
        )
        self.found = found
        self.known = known


class EndpointFault(MemoryFault):
    """The model behind the endpoint gave no usable answer.

    `reason` is a word or two that contain nothing of the request, so it may be logged.
    """

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(f"the summarizer's endpoint: {reason}", hint=hint)
        self.reason = reason


class OwnerFault(MemoryFault):
    """The owner of the database can't be reached or started, or refuses.

    `status` is the exit status of the command.
    """

    def __init__(self, message: str, *, hint: str = "", status: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class SettingsFault(MemoryFault):
    """A setting has a wrong value; `setting` is the environment variable."""

    def __init__(self, setting: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{setting}: {message}", hint=hint)
        self.setting = setting


def report(message: str, status: int) -> int:
    """Write one line to stderr, for the person who runs the program; return the exit status."""
    sys.stderr.write(f"mcp-memory: {visible(message, lines=True)}\n")
    sys.stderr.flush()
    return status
