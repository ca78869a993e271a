"""What the owner tells the user of the machine: who is connected, what is kept, whether it fits."""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_memory import __version__

if TYPE_CHECKING:
    # The command line uses `sizes` too, and need not wait for the SDK.
    from mcp_memory.server.servers import ConnectionInfo, Servers


def status(servers: Servers, params: dict[str, Any]) -> dict[str, Any]:
    """Return `{owner, clients, database, embedding, tokenizer}`.

    A database that no call has needed yet is not opened: its `schema`, `agents` and
    `rows`, and the model's `pending`, are None then.
    """
    settings = servers.settings
    connections: list[ConnectionInfo] = list(servers.connections)
    database: dict[str, Any] = sizes(settings.db)
    embedding: dict[str, Any] = {
        "model": settings.embedding_model,
        "state": "loading",
        "detail": None,
        "pending": None,
    }
    memories = servers.opened
    if memories is not None:
        from mcp_memory.storage.checks import agent_count, row_counts, schema_version

        engine = memories.engine
        read = engine.database.read
        database |= {
            "schema": schema_version(read),
            "agents": agent_count(read),
            "rows": row_counts(read),
        }
        state = engine.state(settings.agent)
        embedding |= {
            "state": state.state,
            "detail": state.detail,
            "pending": engine.vectors.pending_count(),
        }
    return {
        "owner": {
            "pid": os.getpid(),
            "version": __version__,
            "idle_seconds": settings.owner_idle_seconds,
        },
        "clients": [_connection(connection) for connection in connections],
        "database": database,
        "embedding": embedding,
        "tokenizer": settings.tokenizer,
    }


def check(servers: Servers, params: dict[str, Any]) -> dict[str, Any]:
    """Return `{findings: [{level, text, hint}], embedding}` of the database.

    Raises:
        MemoryFault: It can't be opened.
    """
    from mcp_memory.storage.checks import check_database

    engine = servers.memories().engine
    return {
        "findings": [asdict(finding) for finding in check_database(engine.database)],
        "embedding": asdict(engine.state(servers.settings.agent)),
    }


def sizes(db: Path) -> dict[str, Any]:
    """Return what is known of a database without opening it: `{path, bytes, wal_bytes, …}`.

    `bytes` is None if there is no such file.
    """
    return {
        "path": str(db),
        "bytes": _size(db),
        "wal_bytes": _size(db.with_name(f"{db.name}.wal")) or 0,
        "schema": None,
        "agents": None,
        "rows": None,
    }


def _size(path: Path) -> int | None:
    # Only the metadata is read: opening the file would drop the driver's lock.
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return None


def _connection(connection: ConnectionInfo) -> dict[str, Any]:
    return {
        "agent": connection.agent,
        "client": connection.client,
        "version": connection.version,
        "since": connection.since.isoformat(),
    }
