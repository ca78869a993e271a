"""Search indexes that are kept, so that not all texts are read again at each start.

What is kept is in parts, a transaction each, so that no writer waits for long. The
manifest comes last, in one transaction with the deletion of what was there before:
whenever the process dies, the old one, the new one or none is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any, Final

import duckdb

from mcp_memory.store.duckdb.database import Database
from mcp_memory.values.errors import StorageFault

PART_BYTES: Final = 1 << 20

SPARE_BYTES: Final = 64 * 1024 * 1024
"""So much of the disk is left to what can't be made anew."""

DRIVER: Final = duckdb.__version__
"""Hashes of another version of the driver may be others."""

_MANIFEST: Final = -1
"""The number of the part that says that all the others are there."""

_OF: Final = "FROM kept_indexes WHERE agent = $1 AND tier = $2"


class KeptIndexes:
    """The table of kept indexes: one for each agent and tier at most."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def write(
        self,
        agent: str,
        tier: str,
        blocks: Iterator[bytes],
        manifest: Callable[[], dict[str, Any]],
        go_on: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Keep an index in the place of the one before.

        Args:
            blocks: Its bytes, in pieces of any size.
            manifest: Gives what has to be known to read them, once all were taken.
            go_on: Asked before each part whether to go on.

        Returns:
            Whether it was kept; if not, the one before still is.

        Raises:
            StorageFault: It can't be written; the one before is still there.
        """
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
        said = json.dumps({**manifest(), "parts": parts}).encode()
        with self._db.transaction() as tx:
            tx.insert(_INSERT, (agent, tier, number, _MANIFEST, said))
            tx.run(f"DELETE {_OF} AND number <> $3", agent, tier, number)
        return True

    def _write_parts(
        self,
        agent: str,
        tier: str,
        number: int,
        blocks: Iterator[bytes],
        go_on: Callable[[], bool],
    ) -> int | None:
        """Return how many parts were written, None if it was not to go on."""
        parts = 0
        for part in _parts(blocks):
            if not go_on():
                return None
            self._check_room()
            with self._db.transaction() as tx:
                tx.insert(_INSERT, (agent, tier, number, parts, part))
            parts += 1
        return parts

    def _drop(self, agent: str, tier: str, number: int) -> None:
        """Drop the parts of what is not to be kept after all; else the next one does."""
        with contextlib.suppress(StorageFault), self._db.transaction() as tx:
            tx.run(f"DELETE {_OF} AND number = $3", agent, tier, number)

    def _check_room(self) -> None:
        """Check that enough of the disk is left for what clients write.

        Raises:
            StorageFault: It isn't.
        """
        if self._db.path == ":memory:":
            return
        free = shutil.disk_usage(os.path.dirname(os.path.realpath(self._db.path))).free
        if free < SPARE_BYTES:
            raise StorageFault(f"{free / 1e6:.0f} MB of the disk are free", hint="Free some space")

    def manifest(self, agent: str, tier: str) -> tuple[int, dict[str, Any]] | None:
        """Return the number of what is kept and what was said of it; None if nothing is.

        Raises:
            StorageFault: It can't be read.
            ValueError: It is damaged.
        """
        rows = self._db.read(
            f"SELECT number, data {_OF} AND part = $3 ORDER BY number DESC LIMIT 1",
            agent,
            tier,
            _MANIFEST,
        )
        if not rows:
            return None
        said: dict[str, Any] = json.loads(rows[0][1])
        return int(rows[0][0]), said

    def read(self, agent: str, tier: str, number: int, parts: int) -> bytes:
        """Return the bytes of what is kept.

        Raises:
            StorageFault: They can't be read.
            ValueError: Some are missing.
        """
        rows = self._db.read(
            f"SELECT data {_OF} AND number = $3 AND part >= 0 ORDER BY part", agent, tier, number
        )
        if len(rows) != parts:
            raise ValueError(f"{len(rows)} parts of {parts}")
        return b"".join(row[0] for row in rows)


_INSERT: Final = "INSERT INTO kept_indexes VALUES ($1, $2, $3, $4, $5)"


def _parts(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Give the same bytes in pieces of equal size."""
    held = bytearray()
    for block in blocks:
        held += block
        while len(held) >= PART_BYTES:
            yield bytes(held[:PART_BYTES])
            del held[:PART_BYTES]
    if held:
        yield bytes(held)
