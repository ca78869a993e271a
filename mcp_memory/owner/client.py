"""The command line's way to a database that an owner may hold."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mcp_memory.owner.connect import reach, refusal, retire
from mcp_memory.owner.locks import ProcessLock, read_note
from mcp_memory.owner.places import Places
from mcp_memory.owner.seat import Seat
from mcp_memory.values.errors import OwnerFault

if TYPE_CHECKING:
    from mcp_memory.settings import Settings

_WAIT_SECONDS = 20.0


def ask(
    settings: Settings, op: str, params: dict[str, Any] | None = None, seconds: float = 10.0
) -> dict[str, Any]:
    """Do an operation in the owner, or in this process if there is none; return its result.

    Args:
        seconds: How long the owner may take.

    Raises:
        MemoryFault: It was refused, or the owner doesn't answer.
    """
    places = Places(str(settings.db))
    if places.read_address() is not None:
        try:
            return ask_owner(settings, op, params, seconds)
        except OwnerFault:
            if places.read_address() is not None:
                raise
    from mcp_memory.owner.ops import OPS
    from mcp_memory.server.servers import Servers

    with exclusive(settings, op):
        servers = Servers(settings)
        try:
            return OPS[op](servers, params or {})
        finally:
            servers.close()


def ask_owner(
    settings: Settings, op: str, params: dict[str, Any] | None = None, seconds: float = 10.0
) -> dict[str, Any]:
    """Do an operation in the owner that runs.

    Raises:
        OwnerFault: None runs, it doesn't answer, or it has refused.
    """
    places = Places(str(settings.db))
    hello: dict[str, object] = {"op": op, "params": params or {}}
    reached = reach(places, hello, os.environ, start=False, seconds=seconds)
    reached.connection.close()
    error = reached.answer.get("error")
    if error is not None:
        raise refusal(error)
    result = reached.answer.get("result")
    return result if isinstance(result, dict) else {}


@contextmanager
def exclusive(settings: Settings, purpose: str) -> Iterator[None]:
    """Hold the place of the owner without serving anybody, for what needs the database alone.

    An owner that clients have started leaves for it; they wait for a while.

    Raises:
        OwnerFault: A server that a person has started, or another command, keeps the database.
    """
    with election(settings) as places:
        lock = ProcessLock(places.lock)
        deadline = time.monotonic() + _WAIT_SECONDS
        while not lock.acquire():
            if time.monotonic() > deadline:
                raise OwnerFault(
                    f"the database {places.db} is held by {read_note(places.lock)}",
                    hint="Wait until it is done, or end it",
                )
            time.sleep(0.01)
        lock.note(f"process {os.getpid()} ({purpose})")
        try:
            yield
        finally:
            lock.release()


@contextmanager
def election(settings: Settings) -> Iterator[Places]:
    """Keep clients from starting an owner, and let the present one leave.

    Raises:
        OwnerFault: A person has started it: it stays.
    """
    places = Places(str(settings.db))
    places.make()
    lock = ProcessLock(places.election)
    deadline = time.monotonic() + _WAIT_SECONDS
    while not lock.acquire():
        if time.monotonic() > deadline:
            raise OwnerFault(
                f"another process is about to open {places.db}", hint="Try again in a moment"
            )
        time.sleep(0.01)
    try:
        address = places.read_address()
        if address is not None:
            taken = ProcessLock(places.lock)
            if taken.acquire():
                taken.release()  # A dead owner has left it.
            elif address.get("kind") != "detached":
                raise OwnerFault(
                    f"the database {places.db} is served by process {address.get('pid')}",
                    hint="End that server first",
                )
            else:
                retire(places, address)
        yield places
    finally:
        lock.release()


def take_seat(settings: Settings) -> Seat:
    """Take the owner's place for a server that a person starts.

    Raises:
        OwnerFault: Another such server has it.
    """
    with election(settings) as places:
        taken = Seat(places, "serve")
        taken.take(_WAIT_SECONDS)
        return taken
