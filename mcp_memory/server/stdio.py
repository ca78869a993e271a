"""How the one client of a process reaches it: stdio, without an owner."""

from __future__ import annotations

import os
import signal
import sys
from contextvars import Context
from typing import Any, Self

import anyio
import anyio.to_thread
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage

from mcp_memory.server.parsing import parse_error
from mcp_memory.server.servers import Servers


async def serve_stdio(servers: Servers) -> None:
    """Serve one client over stdin and stdout until it closes them or the process is told to end."""
    server = servers.server()
    async with anyio.create_task_group() as group, stdio_server() as (read, write):
        group.start_soon(_leave_on_signal, servers)
        messages = _Messages(read, write)
        await server.run(messages, write, server.create_initialization_options())
        group.cancel_scope.cancel()


async def _leave_on_signal(servers: Servers) -> None:
    """Close the memory and leave on SIGTERM or SIGINT.

    Cancelling is not enough: a thread waits in a read of stdin that nothing ends.
    """
    if sys.platform == "win32":
        return  # The console ends the process there; what was acknowledged is durable.
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            await anyio.to_thread.run_sync(servers.close)
            sys.stderr.flush()
            os._exit(0)


class _Messages:
    """The messages of a stream; what is none is answered, not dropped.

    A task between the two would do as well, and cost each call two more switches.
    """

    def __init__(self, read: Any, write: Any) -> None:
        self._read = read
        self._write = write

    @property
    def last_context(self) -> Context | None:
        """The sender's context, as the SDK asks for it."""
        context: Context | None = self._read.last_context
        return context

    async def receive(self) -> SessionMessage:
        while isinstance(item := await self._read.receive(), Exception):
            await self._write.send(SessionMessage(parse_error(item)))
        message: SessionMessage = item
        return message

    async def aclose(self) -> None:
        await self._read.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
