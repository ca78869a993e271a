"""Accepting clients: how many files may be open for them, and a loop that nothing can end.

The loop of asyncio can't be used: when no file is left, it logs the failure a hundred times and
schedules as many further tries, each of which does the same.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 1_000
"""By judgement: more programs than one person runs, or a team behind one listener."""

_RESERVED_FILES: Final = 32
"""Files that are open without a client, and room for what opens one for a moment: an owner that
listens on HTTP, with its model loaded, has 20."""

_WANTED_FILES: Final = 4_096
"""By judgement: `MAX_CONNECTIONS`, and much beside."""

# By judgement: when the system is out of something, these are refused, and then there is a pause.
_AT_ONCE: Final = 128
_PAUSE_SECONDS: Final = 0.5

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def raise_file_limit() -> int:
    """Raise the limit of open files as far as is allowed; return how many connections fit."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    if soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return max(min(soft - _RESERVED_FILES, MAX_CONNECTIONS), 1)


async def accept_all(
    listener: socket.socket, protocol: Callable[[], asyncio.BaseProtocol], refusal: bytes
) -> None:
    """Accept connections until cancelled.

    While the system has no file or memory left, new clients are told so and closed.

    Args:
        listener: The socket; it is not closed.
        protocol: Makes the protocol of a connection.
        refusal: What a client is told for which no file is left.
    """
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    # Given up for a moment when there is no other, to accept a client and tell it.
    spare = _spare_file()
    try:
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
                await loop.connect_accepted_socket(protocol, connection)
            except OSError as error:
                # Any other is of one client, such as that it has gone already.
                if error.errno in _EXHAUSTED:
                    logger.warning("a client can't be accepted: %s", error.strerror)
                    _close(spare)
                    _refuse_waiting(listener, refusal)
                    spare = _spare_file()
                    await asyncio.sleep(_PAUSE_SECONDS)
            # Clients that have connected already must not keep the others waiting.
            await asyncio.sleep(0)
    finally:
        _close(spare)


def _spare_file() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return None


def _close(file: int | None) -> None:
    if file is not None:
        os.close(file)


def _refuse_waiting(listener: socket.socket, refusal: bytes) -> None:
    with suppress(OSError):  # None waits any more.
        for _ in range(_AT_ONCE):
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.setblocking(False)
                connection.send(refusal)
