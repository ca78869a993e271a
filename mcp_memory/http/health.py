"""Probes for whoever keeps the server running: is it alive, can it be used."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

import anyio.to_thread
from starlette.responses import JSONResponse, Response

from mcp_memory.values.errors import MemoryFault

if TYPE_CHECKING:
    from starlette.requests import Request

    from mcp_memory.server.servers import Servers

logger = logging.getLogger(__name__)

_SETTLED: Final = frozenset({"ready", "unavailable"})
"""Without its model search goes by words, and everything works: that is ready, too."""


async def healthz(request: Request) -> Response:
    """Answer that the process is alive."""
    return JSONResponse({"status": "alive"})


async def readyz(servers: Servers) -> Response:
    """Answer 200 once the database takes writes and the model has been looked for, else 503."""
    database, embedding = await anyio.to_thread.run_sync(_look, servers)
    ready = database == "writable" and embedding in _SETTLED
    body = {
        "status": "ready" if ready else "not ready",
        "database": database,
        "embedding": embedding,
    }
    return JSONResponse(body, 200 if ready else 503, headers={"Cache-Control": "no-store"})


def _look(servers: Servers) -> tuple[str, str]:
    """Return the states of the database and of the model."""
    memories = servers.opened
    if memories is None:
        return "closed", "unknown"
    engine = memories.engine
    try:
        with engine.database.transaction() as tx:
            # A row of its own, written anew: only a write tells that writing works.
            tx.run(
                "INSERT INTO settings VALUES ('probed_at', $1)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                str(int(time.time())),
            )
    except MemoryFault as fault:
        logger.warning("the database takes no writes: %s", fault)
        return "failing", engine.embedding
    return "writable", engine.embedding
