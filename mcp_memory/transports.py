"""How the one client of a process reaches it: stdio, without an owner."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage

from mcp_memory.server.parsing import parse_error
from mcp_memory.server.servers import Servers


async def serve_stdio(servers: Servers) -> None:
    """Serve one client over stdin and stdout until it closes them or the process is told to end."""
    server = servers.server()
    async with anyio.create_task_group() as group, _stdio_streams() as (read, write):
        group.start_soon(_leave_on_signal, servers)
        await server.run(read, write, server.create_initialization_options())
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


@asynccontextmanager
async def _stdio_streams() -> AsyncIterator[tuple[Any, Any]]:
    """Give the SDK's stdio streams; a line that is no message is answered, not dropped."""
    send, receive = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    async with stdio_server() as (read, write), anyio.create_task_group() as group:

        async def relay() -> None:
            async with send:
                async for item in read:
                    if isinstance(item, Exception):
                        await write.send(SessionMessage(parse_error(item)))
                    else:
                        await send.send(item)

        group.start_soon(relay)
        yield receive, write
        group.cancel_scope.cancel()
