"""The schema, built step by step: each step and its record are one transaction.

A released step is never edited; a new one is added below it. Every key
begins with the agent. There are no foreign keys and no secondary indexes, and
nothing is overwritten: blocks and memories are rows of versions.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import duckdb

from mcp_memory.store.duckdb.faults import too_new
from mcp_memory.values.dates import now
from mcp_memory.values.errors import StorageFault


@dataclass(frozen=True, slots=True)
class Migration:
    """One step; versions count up by one."""

    version: int
    name: str
    statements: tuple[str, ...]


MIGRATIONS: Final = (
    Migration(
        1,
        "core, recall and archival memory",
        (
            """CREATE TABLE settings (key text PRIMARY KEY, value text NOT NULL)""",
            """CREATE TABLE blocks (
                agent text NOT NULL, conversation text NOT NULL, label text NOT NULL,
                version integer NOT NULL, value text NOT NULL, tokens integer NOT NULL,
                limit_tokens integer NOT NULL, description text NOT NULL,
                read_only boolean NOT NULL, changed_at timestamptz NOT NULL,
                PRIMARY KEY (agent, conversation, label, version))""",
            """CREATE TABLE messages (
                agent text NOT NULL, conversation text NOT NULL, position integer NOT NULL,
                id text NOT NULL, role text NOT NULL, name text, content text NOT NULL,
                tokens integer NOT NULL, searchable boolean NOT NULL,
                created_at timestamptz NOT NULL, recorded_at timestamptz NOT NULL,
                PRIMARY KEY (agent, conversation, position))""",
            """CREATE TABLE summaries (
                agent text NOT NULL, conversation text NOT NULL, id text NOT NULL, parent text,
                first_position integer NOT NULL, last_position integer NOT NULL,
                content text NOT NULL, tokens integer NOT NULL, author text NOT NULL,
                created_at timestamptz NOT NULL,
                PRIMARY KEY (agent, conversation, id))""",
            """CREATE TABLE memories (
                agent text NOT NULL, id text NOT NULL, version integer NOT NULL,
                content text NOT NULL, content_hash text NOT NULL, kind text NOT NULL,
                tags text[] NOT NULL, tokens integer NOT NULL,
                happened_at timestamptz NOT NULL, recorded_at timestamptz NOT NULL,
                retired_at timestamptz,
                PRIMARY KEY (agent, id, version))""",
            """CREATE TABLE pending_vectors (
                agent text NOT NULL, source text NOT NULL, id text NOT NULL,
                version integer NOT NULL)""",
        ),
    ),
    Migration(
        2,
        "events",
        (
            """CREATE TABLE events (
                agent text NOT NULL, id text NOT NULL, kind text NOT NULL, conversation text,
                text text NOT NULL, data text NOT NULL, created_at timestamptz NOT NULL,
                PRIMARY KEY (agent, id))""",
        ),
    ),
    Migration(
        3,
        "access tokens",
        (
            """CREATE TABLE tokens (
                agent text NOT NULL, id text NOT NULL, name text NOT NULL, scope text NOT NULL,
                hash text NOT NULL, created_at timestamptz NOT NULL, expires_at timestamptz,
                revoked_at timestamptz, last_used_at timestamptz,
                PRIMARY KEY (agent, id))""",
        ),
    ),
    Migration(4, "who edited a block", ("ALTER TABLE blocks ADD COLUMN editor text",)),
    Migration(
        5,
        "what the endpoint has cost",
        (
            """CREATE TABLE endpoint_usage (
                agent text NOT NULL, day date NOT NULL, requests integer NOT NULL,
                input_tokens bigint NOT NULL, output_tokens bigint NOT NULL,
                PRIMARY KEY (agent, day))""",
        ),
    ),
    Migration(
        6,
        "consolidations",
        (
            """CREATE TABLE consolidations (
                agent text NOT NULL, id text NOT NULL, author text NOT NULL,
                began_at timestamptz, began_by text, finished_at timestamptz, finished_by text,
                reason text, changed text NOT NULL, tokens integer NOT NULL,
                PRIMARY KEY (agent, id))""",
            # Before this step, a finished consolidation had only its event.
            """INSERT INTO consolidations (agent, id, author, began_at, began_by, finished_at,
                finished_by, reason, changed, tokens)
                SELECT agent, id, 'client', NULL, NULL, created_at, NULL, NULL, '[]', 0
                FROM events WHERE kind = 'rethought'""",
        ),
    ),
    Migration(
        7,
        "texts by id",
        (
            # The driver doesn't use a key of several columns to look up a row.
            "CREATE INDEX memories_by_id ON memories (id)",
            "CREATE INDEX messages_by_id ON messages (id)",
        ),
    ),
    Migration(
        8,
        "kept search indexes",
        (
            """CREATE TABLE kept_indexes (
                agent text NOT NULL, tier text NOT NULL, number bigint NOT NULL,
                part integer NOT NULL, data blob NOT NULL)""",
        ),
    ),
    Migration(
        9,
        "change numbers",
        (
            # Existing rows become one change, the first of their agent.
            *(
                f"ALTER TABLE IF EXISTS {table} ADD COLUMN seq bigint DEFAULT 1"
                for table in (
                    "blocks",
                    "messages",
                    "memories",
                    "summaries",
                    "events",
                    "consolidations",
                    "tokens",
                    "vectors",
                )
            ),
            "ALTER TABLE memories ADD COLUMN retired_seq bigint",
            "UPDATE memories SET retired_seq = 1 WHERE retired_at IS NOT NULL",
            # An agent's number never falls: when rows with numbers are deleted, it is stored here.
            "CREATE TABLE agents (agent text PRIMARY KEY, seq bigint NOT NULL)",
            "DROP TABLE kept_indexes",
            """CREATE TABLE search_indexes (
                agent text NOT NULL, tier text NOT NULL, number bigint NOT NULL,
                part integer NOT NULL, data blob NOT NULL)""",
        ),
    ),
)

SCHEMA_VERSION: Final = MIGRATIONS[-1].version

TABLES: Final = "SELECT table_name FROM duckdb_tables()"
"""The query for the names of all tables."""

_SHOWN: Final = 3
"""How many tables of another program a message names; by judgement."""


def is_foreign(tables: Collection[str]) -> bool:
    """Return whether a database with these tables belongs to another program."""
    # The first thing that this program makes in a new file.
    return bool(tables) and "migrations" not in tables


def migrate(
    connection: duckdb.DuckDBPyConnection, path: str, *, upto: int = SCHEMA_VERSION
) -> bool:
    """Bring a database to the present schema; return whether anything was changed.

    Raises:
        SchemaTooNew: A later version wrote it; nothing was changed.
        StorageFault: It belongs to another program; nothing was changed.
    """
    tables = {row[0] for row in connection.execute(TABLES).fetchall()}
    if is_foreign(tables):
        raise StorageFault(
            f"the database {path} belongs to another program: it has the tables"
            f" {', '.join(sorted(tables)[:_SHOWN])}",
            hint="Set MCP_MEMORY_DB to another file; nothing was changed",
        )
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations"
        " (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL)"
    )
    row = connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()
    found = int(row[0]) if row else 0
    if found > SCHEMA_VERSION:
        raise too_new(path, found=found, known=SCHEMA_VERSION)
    steps = [step for step in MIGRATIONS if found < step.version <= upto]
    for step in steps:
        connection.begin()
        try:
            for statement in step.statements:
                connection.execute(statement)
            connection.execute(
                "INSERT INTO migrations (version, name, applied_at) VALUES ($1, $2, $3)",
                (step.version, step.name, now()),
            )
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
    return bool(steps)
