"""The one client of a process that has no owner: its stdin and stdout, served as a socket is."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Final

import anyio
import anyio.to_thread

from mcp_memory.owner.connection import serve_socket
from mcp_memory.owner.process import end_soon
from mcp_memory.server.servers import Servers

_CHUNK_BYTES: Final = 65_536
"""What a pipe holds."""

_WRITE_SECONDS: Final = 5.0
"""How long a client may take to read the last answers; by judgement."""


async def serve_alone(servers: Servers) -> None:
    """Serve the client until it closes stdin and has its answers, or the process is told to end."""
    ours, theirs = socket.socketpair()
    stdin, stdout = _claimed(0, os.open(os.devnull, os.O_RDONLY)), _claimed(1, os.dup(2))
    threading.Thread(target=_read, args=(stdin, ours), name="stdin", daemon=True).start()
    writer = threading.Thread(target=_write, args=(ours, stdout), name="stdout", daemon=True)
    writer.start()
    server = servers.server()
    async with anyio.create_task_group() as group:
        group.start_soon(_leave_on_signal, servers)
        await serve_socket(theirs, server)
        server.close()
        await anyio.to_thread.run_sync(writer.join, _WRITE_SECONDS)
        group.cancel_scope.cancel()


def _claimed(file: int, replacement: int) -> int:
    """Return a file of our own for a standard one; what else the process does can't disturb it."""
    own = os.dup(file)
    os.dup2(replacement, file)
    os.close(replacement)
    return own


def _read(stdin: int, connection: socket.socket) -> None:
    with suppress(OSError):
        while chunk := os.read(stdin, _CHUNK_BYTES):
            connection.sendall(chunk)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def _write(connection: socket.socket, stdout: int) -> None:
    with connection, suppress(OSError):  # The client may read no more.
        while chunk := connection.recv(_CHUNK_BYTES):
            while chunk:
                chunk = chunk[os.write(stdout, chunk) :]


async def _leave_on_signal(servers: Servers) -> None:
    """Close the memory and leave on SIGTERM or SIGINT.

    Cancelling is not enough: a thread waits in a read of stdin that nothing ends.
    """
    if sys.platform == "win32":
        return  # The console ends the process there; what was acknowledged is durable.
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            end_soon(servers)
            await anyio.to_thread.run_sync(servers.close)
            sys.stderr.flush()
            os._exit(0)
