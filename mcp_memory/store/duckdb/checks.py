"""Counts what is in a database, and checks that its parts are consistent.

Only reads: counts and joins over keys, and every text and vector once, so that a
damaged block of the file is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import duckdb

from mcp_memory.store.duckdb.database import CONFIG, Row
from mcp_memory.store.duckdb.faults import translate
from mcp_memory.store.duckdb.files import address
from mcp_memory.store.duckdb.migrations import SCHEMA_VERSION, TABLES, is_foreign
from mcp_memory.store.duckdb.space import space
from mcp_memory.store.duckdb.vectors import SEARCHABLE
from mcp_memory.store.duckdb.witness import Witness
from mcp_memory.store.ports import Finding
from mcp_memory.values.errors import DatabaseCorrupt, ModelMismatch, StorageFault
from mcp_memory.values.records import SHARED

Read = Callable[..., list[Row]]
"""Runs a query with its values, such as `Database.read`."""

_FIRST_MESSAGES_SCHEMA: Final = 1
_SHOWN: Final = 3
"""Examples named in a message; by judgement."""


def schema_version(read: Read) -> int:
    """Return the schema of an open database, 0 for one that is empty."""
    if not _columns(read, "migrations"):
        return 0
    return int(read("SELECT coalesce(max(version), 0) FROM migrations")[0][0])


def row_counts(read: Read) -> dict[str, int]:
    """Return the number of rows of every table, by name."""
    names = [
        row[0]
        for row in read(
            "SELECT table_name FROM information_schema.tables"
            " WHERE table_schema = 'main' ORDER BY table_name"
        )
    ]
    return {
        name: int(read(f'SELECT count(*) FROM "{name}"')[0][0]) for name in names if '"' not in name
    }


def agents(read: Read) -> list[str]:
    """Return the agents with anything in the database, by name."""
    rows = read(
        "SELECT agent FROM (SELECT agent FROM blocks UNION SELECT agent FROM messages"
        " UNION SELECT agent FROM memories) AS found WHERE agent <> $1 ORDER BY agent",
        SHARED,
    )
    return [row[0] for row in rows]


def inspect(path: Path, model: str | None = None) -> list[Finding]:
    """Check a database that no process has open, without changing it.

    It is opened for reading only, so that an older schema is not migrated. The caller
    holds the owner's lock.

    Args:
        model: The embedding model that it will be used with.

    Raises:
        StorageFault: It can't be opened, or something that was acknowledged isn't there.
    """
    Witness(path).check()
    if not path.exists():
        return [Finding("ok", f"{path} does not exist yet; the first call creates it")]
    try:
        connection = duckdb.connect(address(path), read_only=True, config=CONFIG)
    except duckdb.Error as error:
        raise translate(error, str(path)) from error

    def read(sql: str, *values: object) -> list[Row]:
        try:
            return connection.execute(sql, values).fetchall()
        except duckdb.Error as error:
            raise translate(error, str(path)) from error

    try:
        return check(read, model)
    finally:
        connection.close()


def check(read: Read, model: str | None = None) -> list[Finding]:
    """Return the results of all checks of an open database.

    Args:
        model: The embedding model that it will be used with; None for the one it has.
    """
    found = schema_version(read)
    if found > SCHEMA_VERSION:
        return [
            Finding(
                "problem",
                f"schema {found}, and this version knows up to {SCHEMA_VERSION}",
                "Update mcp-memory, or set MCP_MEMORY_DB to another file",
            )
        ]
    if found < _FIRST_MESSAGES_SCHEMA:
        if is_foreign([row[0] for row in read(TABLES)]):
            return [
                Finding(
                    "problem",
                    "the database belongs to another program",
                    "Set MCP_MEMORY_DB to another file",
                )
            ]
        return [Finding("ok", "the database is empty")]
    older = f", {SCHEMA_VERSION} after the next start" if found < SCHEMA_VERSION else ""
    findings = [Finding("ok", f"schema {found}{older}")]
    try:
        findings.extend(_model(read, model))
        for look in (_blocks, _messages, _summaries, _memories, _vectors, _readable):
            findings.extend(look(read))
        findings.extend(_space(read))
    except DatabaseCorrupt as fault:
        findings.append(Finding("problem", fault.message, fault.hint))
    except StorageFault as fault:
        findings.append(
            Finding(
                "problem",
                f"the database could not be read through: {fault.message}",
                fault.hint or "Run the check again; if it fails again, restore a backup",
            )
        )
    return findings


def _model(read: Read, wanted: str | None) -> Iterator[Finding]:
    record: dict[str, str] = dict(
        read("SELECT key, value FROM settings WHERE key LIKE 'embedding_%'")
    )
    columns = _columns(read, "vectors")
    if not record and not columns:
        yield Finding("ok", "no embedding model was used yet")
        return
    name = record.get("embedding_model")
    if wanted is not None and name is not None and wanted != name:
        mismatch = ModelMismatch(stored=name, wanted=wanted)
        yield Finding("problem", mismatch.message, mismatch.hint)
    dimension = record.get("embedding_dimension")
    column_type = columns.get("embedding", "no vectors at all")
    if column_type.upper() == f"FLOAT[{dimension}]":
        yield Finding("ok", f"vectors have the {dimension} dimensions of the model")
    else:
        yield Finding(
            "problem",
            f"the model has {dimension} dimensions, the table of vectors {column_type}",
            "Run `mcp-memory reembed` to compute all vectors again",
        )


def _blocks(read: Read) -> Iterator[Finding]:
    over = read(
        "SELECT label, tokens, limit_tokens FROM (SELECT DISTINCT ON (agent, conversation, label)"
        " label, tokens, limit_tokens FROM blocks"
        " ORDER BY agent, conversation, label, version DESC) AS present"
        " WHERE tokens > limit_tokens ORDER BY label"
    )
    if not over:
        yield Finding("ok", "every block is within its limit")
    else:
        yield Finding(
            "warning",
            f"{_times(len(over), 'block')} over the limit: {_some(over, 0)}",
            "Shorten them with rethink_memory, or raise the limit with `mcp-memory block set`",
        )


def _messages(read: Read) -> Iterator[Finding]:
    gaps = read(
        "SELECT conversation FROM messages GROUP BY agent, conversation"
        " HAVING min(position) <> 0 OR max(position) + 1 <> count(*) ORDER BY conversation"
    )
    twins = read("SELECT id FROM messages GROUP BY agent, id HAVING count(*) > 1")
    if gaps:
        yield Finding(
            "problem",
            f"messages are missing in {_times(len(gaps), 'conversation')}: {_some(gaps, 0)}",
            "Restore an earlier backup; the other messages stay readable",
        )
    if twins:
        yield Finding(
            "problem",
            f"{_times(len(twins), 'message id')} used more than once",
            "Restore an earlier backup; the other messages stay readable",
        )
    if not gaps and not twins:
        yield Finding("ok", "every conversation has its messages without a gap")


def _summaries(read: Read) -> Iterator[Finding]:
    lost = read(
        "SELECT s.id FROM summaries AS s WHERE s.first_position > s.last_position"
        " OR (s.parent IS NOT NULL AND NOT EXISTS (SELECT 1 FROM summaries AS p"
        " WHERE p.agent = s.agent AND p.conversation = s.conversation AND p.id = s.parent))"
        " OR NOT EXISTS (SELECT 1 FROM messages AS m WHERE m.agent = s.agent"
        " AND m.conversation = s.conversation AND m.position = s.last_position)"
    )
    if lost:
        yield Finding(
            "problem",
            f"{_times(len(lost), 'summary', 'summaries')} without a parent or messages",
            "Restore an earlier backup; the messages themselves are searchable",
        )
    else:
        yield Finding("ok", "every summary has its parent and its messages")


def _memories(read: Read) -> Iterator[Finding]:
    twins = read(
        "SELECT id FROM memories WHERE retired_at IS NULL GROUP BY agent, id HAVING count(*) > 1"
    )
    if twins:
        yield Finding(
            "problem",
            f"{_times(len(twins), 'memory', 'memories')} with two current versions: "
            f"{_some(twins, 0)}",
            "Delete and insert the memory again",
        )
    else:
        yield Finding("ok", "every memory has one current version")


_HAVE_VECTORS: Final = (
    f"({SEARCHABLE} UNION ALL SELECT agent, 'window', id, 1 FROM messages WHERE searchable)"
)
"""What has vectors: each text, and each message together with those before it."""

_SAME: Final = (
    " WHERE {b}.agent = {a}.agent AND {b}.source = {a}.source"
    " AND {b}.id = {a}.id AND {b}.version = {a}.version"
)


def _vectors(read: Read) -> Iterator[Finding]:
    has_vectors = bool(_columns(read, "vectors"))
    tables = {"pending_vectors": "pending entries"} | (
        {"vectors": "vectors"} if has_vectors else {}
    )
    # Listed as pending or not: after a crash the next start lists a text that has none.
    waiting = f"SELECT count(*) FROM ({SEARCHABLE}) AS t"
    if has_vectors:
        waiting += f" WHERE NOT EXISTS (SELECT 1 FROM vectors AS v{_SAME.format(a='t', b='v')})"
    count = int(read(waiting)[0][0])
    for table, what in tables.items():
        same = _SAME.format(a="x", b="t")
        idle = int(
            read(
                f"SELECT count(DISTINCT (x.agent, x.source, x.id)) FROM {table} AS x"
                f" WHERE NOT EXISTS (SELECT 1 FROM {_HAVE_VECTORS} AS t{same})"
            )[0][0]
        )
        if idle:
            yield Finding(
                "warning",
                f"{what} of {_times(idle, 'text')} that no longer exist",
                "Harmless; `mcp-memory reembed` deletes them",
            )
    if count:
        yield Finding(
            "ok", f"{_times(count, 'text')} pending: the server computes their vectors by itself"
        )
    else:
        yield Finding("ok", "every text has its vectors")


def _readable(read: Read) -> Iterator[Finding]:
    """Read every text and vector: a damaged block raises an error when it is read."""
    for table, column in (
        ("blocks", "value"),
        ("messages", "content"),
        ("memories", "content"),
        ("summaries", "content"),
        ("events", "data"),
        ("search_indexes", "data"),
    ):
        if _columns(read, table):
            read(f"SELECT sum(hash({column}) % 97) FROM {table}")
    if _columns(read, "vectors"):
        read("SELECT sum(embedding[1]) FROM vectors")
    yield Finding("ok", "every text and vector can be read")


def _space(read: Read) -> Iterator[Finding]:
    found = space(read)
    if found.is_wasteful:
        yield Finding(
            "warning",
            f"{found.dead_frac:.0%} of the {found.file_bytes / 1e6:.0f} MB are dead",
            "Harmless; the server compacts the file when idle, `mcp-memory compact` at once",
        )


def _columns(read: Read, table: str) -> dict[str, str]:
    """Return the types of a table's columns by name, empty if there is no such table."""
    return dict(
        read(
            "SELECT column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = 'main' AND table_name = $1",
            table,
        )
    )


def _times(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def _some(rows: list[Row], column: int) -> str:
    """Return the first few values of a column, for a message."""
    shown = ", ".join(str(row[column]) for row in rows[:_SHOWN])
    return f"{shown}, and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else shown
