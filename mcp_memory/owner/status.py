"""What the owner tells the user of the machine: who is connected, what is kept, whether it fits."""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mcp_memory import __version__
from mcp_memory.settings import EXTRACTIVE, Settings

if TYPE_CHECKING:
    # The command line uses `sizes` too, and need not wait for the SDK.
    from mcp_memory.agent.rewriter import Rewriter
    from mcp_memory.server.servers import ConnectionInfo, Servers


def status(servers: Servers, params: dict[str, Any]) -> dict[str, Any]:
    """Return `{owner, clients, database, embedding, tokenizer}`.

    A database that no call has needed yet is not opened: its `schema`, `agents`, `rows`
    and `dead_frac`, and the model's `pending`, are None then.
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
        from mcp_memory.store.duckdb.checks import agent_count, row_counts, schema_version
        from mcp_memory.store.duckdb.space import space

        engine = memories.engine
        read = engine.database.read
        database |= {
            "schema": schema_version(read),
            "agents": agent_count(read),
            "rows": row_counts(read),
            "dead_frac": round(space(read).dead_frac, 3),
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
            "heartbeats": servers.heartbeats,
        },
        "clients": [_connection(connection) for connection in connections],
        "database": database,
        "embedding": embedding,
        "tokenizer": settings.tokenizer,
        "summarizer": summarizer(settings, servers.rewriter),
    }


def summarizer(settings: Settings, rewriter: Rewriter | None = None) -> dict[str, Any]:
    """Return who writes summaries; what the endpoint has cost only if the database is open."""
    if rewriter is not None:
        return rewriter.status()
    if settings.summarizer == EXTRACTIVE:
        return {"kind": EXTRACTIVE}
    host = urlsplit(settings.summarizer).hostname
    return {"kind": "endpoint", "host": host, "model": settings.summarizer_model}


def check(servers: Servers, params: dict[str, Any]) -> dict[str, Any]:
    """Return `{findings: [{level, text, hint}], embedding}` of the database.

    Raises:
        MemoryFault: It can't be opened.
    """
    from mcp_memory.store.duckdb.checks import check_database

    engine = servers.memories().engine
    return {
        "findings": [asdict(finding) for finding in check_database(engine.database)],
        "embedding": asdict(engine.state(servers.settings.agent)),
    }


def compact(servers: Servers, params: dict[str, Any]) -> dict[str, Any]:
    """Make the file as small as what is in it: `{before_bytes, after_bytes}`.

    If clients write all the while, they wait for the last attempt.

    Raises:
        StorageFault: It can't be done; nothing was changed.
    """
    from mcp_memory.store.duckdb.compaction import compact as compact_file
    from mcp_memory.values.errors import StorageFault

    database = servers.memories().engine.database
    done = None
    for hold in (False, False, True):
        done = done or compact_file(database, hold=hold)
    if done is None:
        raise StorageFault("somebody has read all the while", hint="Try again in a moment")
    return asdict(done)


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
        "dead_frac": None,
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
