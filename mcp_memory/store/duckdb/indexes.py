"""Persisted search indexes, so that large ones are not rebuilt at each start.

An index is written in parts, one transaction each, so that no writer waits for long. The
manifest comes last, in one transaction with the deletion of the earlier index: after a crash
there is the old index, the new one or none, but never half of one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from mcp_memory.store.duckdb.database import Database
from mcp_memory.values.errors import StorageFault

PART_BYTES: Final = 1 << 20
"""Size of a part; by judgement: a commit of 1 MB takes some milliseconds."""

SPARE_BYTES: Final = 64 * 1024 * 1024
"""Free disk space left for data that can't be rebuilt; by judgement."""

_MANIFEST: Final = -1
"""The number of the manifest, which says that all other parts are written."""

_OF: Final = "FROM search_indexes WHERE agent = $1 AND tier = $2"
_COLUMNS: Final = "agent, tier, number, part, data"


class DuckDBSearchIndexes:
    """The table of persisted indexes: at most one for each agent and tier."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def write(
        self,
        agent: str,
        tier: str,
        blocks: Iterator[bytes],
        manifest: Callable[[], dict[str, Any]],
        go_on: Callable[[], bool],
    ) -> bool:
        """Persist an index, in place of an earlier one; see the port."""
        last = self._db.read(f"SELECT coalesce(max(number), 0) {_OF}", agent, tier)[0][0]
        number = int(last) + 1
        try:
            parts = self._write_parts(agent, tier, number, blocks, go_on)
        except StorageFault:
            self._drop(agent, tier, number)
            raise
        if parts is None:
            self._drop(agent, tier, number)
            return False
        last_part = json.dumps({**manifest(), "number": number, "parts": parts}).encode()
        with self._db.transaction() as tx:
            tx.insert("search_indexes", _COLUMNS, [(agent, tier, number, _MANIFEST, last_part)])
            tx.run(f"DELETE {_OF} AND number <> $3", agent, tier, number)
        return True

    def manifest(self, agent: str, tier: str) -> dict[str, Any] | None:
        """Return the manifest of the persisted index, None without one."""
        rows = self._db.read(
            f"SELECT data {_OF} AND part = $3 ORDER BY number DESC LIMIT 1", agent, tier, _MANIFEST
        )
        if not rows:
            return None
        manifest: dict[str, Any] = json.loads(rows[0][0])
        return manifest

    def read(self, agent: str, tier: str, manifest: Mapping[str, Any]) -> bytes:
        """Return the bytes that belong to a manifest."""
        rows = self._db.read(
            f"SELECT data {_OF} AND number = $3 AND part >= 0 ORDER BY part",
            agent,
            tier,
            int(manifest["number"]),
        )
        if len(rows) != int(manifest["parts"]):
            raise ValueError(f"{len(rows)} parts of {manifest['parts']}")
        return b"".join(row[0] for row in rows)

    def _write_parts(
        self,
        agent: str,
        tier: str,
        number: int,
        blocks: Iterator[bytes],
        go_on: Callable[[], bool],
    ) -> int | None:
        """Return the number of parts that were written, None if it was stopped."""
        parts = 0
        for part in _parts(blocks):
            if not go_on():
                return None
            self._check_room()
            with self._db.transaction() as tx:
                tx.insert("search_indexes", _COLUMNS, [(agent, tier, number, parts, part)])
            parts += 1
        return parts

    def _drop(self, agent: str, tier: str, number: int) -> None:
        """Delete the parts of an abandoned index; if that fails, the next write does it."""
        with contextlib.suppress(StorageFault), self._db.transaction() as tx:
            tx.run(f"DELETE {_OF} AND number = $3", agent, tier, number)

    def _check_room(self) -> None:
        """Check that enough disk space is left for the writes of clients.

        Raises:
            StorageFault: There is too little.
        """
        if self._db.path == ":memory:":
            return
        free = shutil.disk_usage(os.path.dirname(os.path.realpath(self._db.path))).free
        if free < SPARE_BYTES:
            raise StorageFault(
                f"only {free / 1e6:.0f} MB of the disk are free", hint="Free some space"
            )


def _parts(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in pieces of equal size."""
    waiting = bytearray()
    for block in blocks:
        waiting += block
        while len(waiting) >= PART_BYTES:
            yield bytes(waiting[:PART_BYTES])
            del waiting[:PART_BYTES]
    if waiting:
        yield bytes(waiting)
