"""The state of a database's owner, seen from outside; an owner is never started or ended here.

A hanging owner is only reported, which is why this is not `reach`.
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
    """What there is of an owner."""

    NONE = "none"
    STALE = "stale"
    """A dead owner's address is still there; the next owner removes it."""
    BUSY = "busy"
    """An owner is starting or leaving, or a command keeps owners away."""
    SILENT = "silent"
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Look:
    """The state of an owner, and its answer.

    Attributes:
        address: The owner's published address without the secret; None if there is none.
        result: Its answer; empty if there is none.
        refusal: Why it refused the operation; empty if it did not.
        holder: The process that has the owner's lock, as it names itself; empty if none has.
    """

    state: State
    address: Address | None = None
    result: dict[str, Any] = field(default_factory=dict)
    refusal: str = ""
    holder: str = ""


_POLL_SECONDS: Final = 0.01
"""By judgement: a lock is free within milliseconds."""


def look(places: Places, op: str = "ping", *, seconds: float) -> Look:
    """Ask the owner for an operation, if there is an owner.

    Args:
        places: The files of the database's owner.
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
        fault = error if isinstance(error, dict) else {"message": error}
        refusal = ". ".join(str(fault[name]) for name in ("message", "hint") if fault.get(name))
        return Look(State.RUNNING, shown, refusal=refusal or "it refused")
    result = answer.get("result")
    return Look(State.RUNNING, shown, result if isinstance(result, dict) else {})


def holder_of(places: Places) -> str:
    """Return the process that has the owner's lock, as it names itself; empty if none has."""
    lock = ProcessLock(places.lock)
    try:
        # Trying to lock would create the file.
        if not os.path.exists(places.lock) or lock.acquire():
            return ""
    except StorageFault:
        return ""
    finally:
        lock.release()
    return read_note(places.lock) or "another process"


@contextmanager
def alone(places: Places, *, seconds: float) -> Iterator[bool]:
    """Keep owners away while the body runs; yields whether that was possible.

    Clients that come meanwhile wait.

    Args:
        places: The files of the database's owner.
        seconds: How long to wait for an owner that is starting or leaving.

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
