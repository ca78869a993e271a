"""The log of a server: nobody can flood it, fill the disk with it, or write a line of it.

A record is one line, with what clients have given escaped and cut; the lines of a traceback are
indented. Of the same kind, few are written in a minute.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import Final

from mcp_memory.values.visible import visible

MAX_CHARS: Final = 2_000
"""Of one record; by judgement more than any message of this program has."""

_MAX_TRACEBACK_CHARS: Final = 20_000
"""By judgement: the end of a deep one, which says what happened."""

MAX_ALIKE: Final = 20
"""Records of one kind in a minute; by judgement more than a person reads."""

_WINDOW_SECONDS: Final = 60.0
_MAX_KINDS: Final = 1_000
"""By judgement: ten times the places in this program that log something."""

MAX_FILE_BYTES: Final = 1_000_000
"""Of the owner's log, and of the one before it; by judgement weeks of it."""


def set_up(level: str, style: str, file: str | None = None) -> None:
    """Log to stderr.

    Args:
        level: What is less important is not logged.
        style: The format of a record.
        file: The file that stderr may be; it is begun again when it has become too large.
    """
    handler = _Handler(file)
    handler.setFormatter(_Formatter(style))
    handler.addFilter(_Seldom())
    logging.basicConfig(handlers=[handler], level=level.upper())


class _Seldom(logging.Filter):
    """Passes few records of a kind: of the same logger with the same text before its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a record."""
        kind = record.name, str(record.msg)[:MAX_CHARS]
        begun, count = self._windows.get(kind, (record.created, 0))
        if not 0 <= record.created - begun < _WINDOW_SECONDS:
            record.left_out = max(count - MAX_ALIKE, 0)
            begun, count = record.created, 0
        if len(self._windows) >= _MAX_KINDS:
            self._windows.clear()
        self._windows[kind] = begun, count + 1
        return count < MAX_ALIKE


class _Formatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # of the base class
        record.message = visible(record.message[:MAX_CHARS])
        left_out = getattr(record, "left_out", 0)
        if left_out:
            record.message += f" (and {left_out} more of this kind, which were left out)"
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # of the base class
        text = super().formatException(ei)  # type: ignore[arg-type]  # what it was given
        lines = text[-_MAX_TRACEBACK_CHARS:].split("\n")
        return "\n".join(f"    {visible(line)}" for line in lines)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # generic for the type checker only
    def __init__(self, file: str | None) -> None:
        super().__init__(sys.stderr)
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if self._file is not None:
            with suppress(OSError, ValueError):
                self._begin_again(self._file)

    def _begin_again(self, file: str) -> None:
        number = sys.stderr.fileno()
        here, there = os.fstat(number), os.stat(file)
        if here.st_size <= MAX_FILE_BYTES or not os.path.samestat(here, there):
            return
        os.replace(file, f"{file}.1")
        new = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(new, number)
        os.close(new)
