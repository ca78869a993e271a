"""Looking at the owner of a database from outside: it is neither started nor ended nor waited for.

A hanging owner is reported and left alone, which is why this is not `reach`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from mcp_memory.owner.locks import ProcessLock, read_note
from mcp_memory.owner.places import Address, Places
from mcp_memory.owner.wire import Gone, Silent, dial, greet
from mcp_memory.values.errors import StorageFault


class State(StrEnum):
    """What there is in the owner's place."""

    NONE = "none"
    STALE = "stale"
    """An owner that has died has left its address; the next one clears it away."""
    BUSY = "busy"
    """It is starting, leaving, or another command has the place."""
    SILENT = "silent"
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen.

    Attributes:
        address: What the owner wrote of itself, without its secret; None if there is no address.
        result: What it answered, if it did.
        refusal: Why it refused what was asked, if it did.
        holder: Who has the place, as it says itself; empty if nobody has.
    """

    state: State
    address: Address | None = None
    result: dict[str, Any] = field(default_factory=dict)
    refusal: str = ""
    holder: str = ""


_POLL_SECONDS: Final = 0.01


def look(places: Places, op: str = "ping", *, seconds: float) -> Look:
    """Ask the owner something, if there is one.

    Args:
        op: An operation without parameters.
        seconds: How long each step may take: to connect, and to answer.
    """
    address = places.read_address()
    if address is None:
        holder = holder_of(places)
        return Look(State.BUSY if holder else State.NONE, holder=holder)
    shown = {name: value for name, value in address.items() if name != "secret"}
    try:
        with dial(address, seconds) as connection:
            answer = greet(connection, address, {"op": op})
    except Gone:
        holder = holder_of(places)
        return Look(State.BUSY if holder else State.STALE, shown, holder=holder)
    except Silent:
        return Look(State.SILENT, shown, holder=read_note(places.lock))
    error = answer.get("error")
    if error is not None:
        said = error if isinstance(error, dict) else {"message": error}
        refusal = ". ".join(str(said[name]) for name in ("message", "hint") if said.get(name))
        return Look(State.RUNNING, shown, refusal=refusal or "it refused")
    result = answer.get("result")
    return Look(State.RUNNING, shown, result if isinstance(result, dict) else {})


def holder_of(places: Places) -> str:
    """Return who holds the owner's lock, empty if nobody does."""
    lock = ProcessLock(places.lock)
    try:
        # Trying makes the file, and what only looks makes none.
        if not os.path.exists(places.lock) or lock.acquire():
            return ""
    except StorageFault:
        return ""
    finally:
        lock.release()
    return read_note(places.lock) or "another process"


@contextmanager
def alone(places: Places, *, seconds: float) -> Iterator[bool]:
    """Keep the owner's place empty for a moment; give whether that was possible.

    Clients that come meanwhile wait.

    Raises:
        StorageFault: The owner's files can't be written.
    """
    places.make()
    deadline = time.monotonic() + seconds
    election, lock = ProcessLock(places.election), ProcessLock(places.lock)
    try:
        while not (election.acquire() and lock.acquire()):
            if time.monotonic() > deadline:
                yield False
                return
            time.sleep(_POLL_SECONDS)
        yield True
    finally:
        lock.release()
        election.release()
