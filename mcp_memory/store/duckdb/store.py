"""The DuckDB engine: one file, one process, all ports."""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from mcp_memory.store.duckdb.blocks import DuckDBBlocks
from mcp_memory.store.duckdb.checks import agents, check, row_counts, schema_version
from mcp_memory.store.duckdb.compaction import compact
from mcp_memory.store.duckdb.database import Database
from mcp_memory.store.duckdb.events import DuckDBConsolidations, DuckDBEvents
from mcp_memory.store.duckdb.files import size_bytes
from mcp_memory.store.duckdb.indexes import DuckDBSearchIndexes
from mcp_memory.store.duckdb.memories import DuckDBMemories
from mcp_memory.store.duckdb.messages import DuckDBMessages, DuckDBSummaries
from mcp_memory.store.duckdb.recounting import recount
from mcp_memory.store.duckdb.space import space
from mcp_memory.store.duckdb.transaction import Transaction
from mcp_memory.store.duckdb.values import (
    DuckDBAccessTokens,
    DuckDBEndpointUsage,
    DuckDBKeyValues,
)
from mcp_memory.store.duckdb.vectors import DuckDBVectors
from mcp_memory.store.ports import Change, Compacted, Finding, Statistics
from mcp_memory.values.errors import StorageFault
from mcp_memory.values.records import SHARED

logger = logging.getLogger(__name__)

BIG_LOG_BYTES: Final = 8 * 1024 * 1024
"""From this size the log is moved into the file even while clients are active: at twice the
size, its default, the driver does it within a commit."""

_NUMBERED: Final = (
    "blocks",
    "messages",
    "memories",
    "summaries",
    "events",
    "consolidations",
)
"""The tables with the change numbers of their agent, except vectors, which may not exist yet."""


class DuckDBStore:
    """A store in one DuckDB file, or in memory; it implements `store.ports.Store`.

    Args:
        path: The file, created if it is missing; None for a store in memory.

    Raises:
        StorageFault: It is locked, corrupt, of a newer version or can't be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.database = Database(path)
        self.path = path
        self._seqs: dict[str, int] = {}
        self.database.on_reopened = self._reopened
        self.on_reopened: Callable[[], None] | None = None
        self.blocks = DuckDBBlocks(self.database)
        self.messages = DuckDBMessages(self.database)
        self.memories = DuckDBMemories(self.database)
        self.summaries = DuckDBSummaries(self.database)
        self.events = DuckDBEvents(self.database)
        self.consolidations = DuckDBConsolidations(self.database)
        self.tokens = DuckDBAccessTokens(self.database)
        self.values = DuckDBKeyValues(self.database)
        self.usage = DuckDBEndpointUsage(self.database)
        self.vectors = DuckDBVectors(self.database)
        self.indexes = DuckDBSearchIndexes(self.database)

    @property
    def generation(self) -> int:
        """Counts up when the file is reopened: rows read before are no longer valid."""
        return self.database.generation

    @property
    def on_commit(self) -> Callable[[], None] | None:
        """Called after each commit, with the write lock held: must be quick."""
        return self.database.on_commit

    @on_commit.setter
    def on_commit(self, call: Callable[[], None] | None) -> None:
        self.database.on_commit = call

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Begin a unit of work; see the port."""
        with self.database.transaction(self.seq) as tx:
            # Still under the write lock: the next unit of work continues from this number.
            tx.on_commit(lambda: self._seqs.update(tx.seqs))
            yield tx

    def seq(self, agent: str) -> int:
        """Return the newest change number of an agent, 0 if nothing was ever written.

        Only this process writes: the number is read once, and then counted in memory.
        """
        known = self._seqs.get(agent)
        if known is None:
            # A commit may have come meanwhile, which knows better.
            known = self._seqs.setdefault(agent, self._read_seq(agent))
        return known

    def changes(self, agent: str, after: int) -> Iterator[Change]:
        """Yield the changes committed after a change number, in order."""
        rows: defaultdict[int, defaultdict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
        ports: dict[str, Callable[[str, int], list[tuple[int, Any]]]] = {
            "blocks": self.blocks.changed,
            "messages": self.messages.changed,
            "memories": self.memories.changed,
            "deleted": self.memories.deleted,
            "summaries": self.summaries.changed,
            "events": self.events.changed,
            "consolidations": self.consolidations.changed,
            "tokens": self.tokens.changed,
            "vectors": self.vectors.changed,
        }
        for kind, changed in ports.items():
            for seq, row in changed(agent, after):
                rows[seq][kind].append(row)
        for seq in sorted(rows):
            yield Change(agent, seq, **{kind: tuple(items) for kind, items in rows[seq].items()})

    def recount(self, count: Callable[[str], int], tokenizer: str) -> int:
        """Count the tokens of every text again if another tokenizer has counted them."""
        return recount(self.database, count, tokenizer)

    def probe(self) -> None:
        """Check that the database can be read and written, without writing."""
        self.database.probe()

    def maintain(self, *, quiet: bool) -> bool:
        """Move the log into the file if that is due; return whether it was postponed."""
        if self.path is None:
            return False
        log_bytes = size_bytes(f"{self.path}.wal")
        if log_bytes >= (1 if quiet else BIG_LOG_BYTES):
            return not self.database.checkpoint(wait=False)
        return log_bytes > 0

    def compact(self, *, only_if_wasteful: bool = False) -> Compacted | None:
        """Rewrite the file without deleted rows; all other calls wait meanwhile."""
        if self.path is None:
            raise StorageFault("a database in memory has no file", hint="Nothing was changed")
        if only_if_wasteful and not space(self.database.read).is_wasteful:
            return None
        with self.database.closed() as path:
            return compact(path)

    def agents(self) -> list[str]:
        """Return the agents with anything in the database, by name."""
        return agents(self.database.read)

    def statistics(self) -> Statistics:
        """Return what the database has, for people."""
        read = self.database.read
        return Statistics(
            schema=schema_version(read),
            rows=row_counts(read),
            file_bytes=0 if self.path is None else size_bytes(self.path),
            log_bytes=0 if self.path is None else size_bytes(f"{self.path}.wal"),
            dead_frac=0.0 if self.path is None else space(read).dead_frac,
        )

    def check(self) -> list[Finding]:
        """Check that the parts of the database are consistent; reads all of it."""
        self.database.verify()
        return check(self.database.read)

    def close(self) -> None:
        """Close the file; closing again does nothing."""
        self.database.close()

    def _read_seq(self, agent: str) -> int:
        tables = (*_NUMBERED, *(("vectors",) if self.vectors.model() is not None else ()))
        parts = [f"SELECT max(seq) AS seq FROM {table} WHERE agent = $1" for table in tables]
        parts.append("SELECT max(retired_seq) FROM memories WHERE agent = $1")
        if agent == SHARED:
            # Tokens are numbered together: a check must see those of every agent.
            parts.append("SELECT max(seq) FROM tokens")
        parts.append("SELECT seq FROM agents WHERE agent = $1")
        found = self.database.read(
            f"SELECT coalesce(max(seq), 0) FROM ({' UNION ALL '.join(parts)}) AS t", agent
        )
        return int(found[0][0])

    def _reopened(self) -> None:
        self._seqs.clear()
        if self.on_reopened is not None:
            self.on_reopened()
