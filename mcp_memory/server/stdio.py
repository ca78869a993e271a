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
from mcp_types import JSONRPCError
from pydantic import ValidationError

from mcp_memory.server.parsing import unreadable
from mcp_memory.server.servers import Servers


async def serve_stdio(servers: Servers) -> None:
    """Serve one client over stdin and stdout until it closes them or the process is told to end."""
    server = servers.server()
    async with anyio.create_task_group() as group, stdio_server() as (read, write):
        group.start_soon(_leave_on_signal, servers)
        messages = _Checked(read, write)
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


class MessageStream:
    """Messages for the SDK, one `receive` a message: a stream that needs no task of its own."""

    async def receive(self) -> SessionMessage:
        """Return the next message.

        Raises:
            EndOfStream: The client has closed its end.
        """
        raise NotImplementedError

    async def aclose(self) -> None:
        """Do nothing: the stream is closed where it was opened."""

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> SessionMessage:
        """Return the next message."""
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.aclose()


class _Checked(MessageStream):
    """The messages of a stream of the SDK; a line that is no message is answered, not dropped."""

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
            await self._write.send(SessionMessage(_answer_to(item)))
        message: SessionMessage = item
        return message

    async def aclose(self) -> None:
        await self._read.aclose()


def _answer_to(error: Exception) -> JSONRPCError:
    """Return the answer to a line that the SDK could not read."""
    line, reason = "", ""
    if isinstance(error, ValidationError):
        details = error.errors()[0]
        line, reason = str(details["input"]), details["msg"]
    return JSONRPCError.model_validate(unreadable(line.encode("utf-8", "replace"), reason))
