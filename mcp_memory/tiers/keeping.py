"""Search indexes that outlive the process: kept in the database, and taken up again.

What is kept has a moment, and says what the database had by then. It is taken only
if the database says the same of that moment, which no clock decides; what came and
went since is then added and taken out, and the index answers as one made anew.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any, Final

from mcp_memory.search.caches import Indexes
from mcp_memory.search.index import Ageing, SearchIndex
from mcp_memory.search.kept import KeptIndex
from mcp_memory.search.packing import Packer, unpack
from mcp_memory.store.duckdb import Database
from mcp_memory.store.duckdb.database import Row
from mcp_memory.store.duckdb.keptindexes import DRIVER, KeptIndexes
from mcp_memory.values.dates import EPOCH
from mcp_memory.values.errors import StorageFault

logger = logging.getLogger(__name__)

KEPT_DOCUMENTS: Final = 4_096
"""An index of fewer is made anew in less time than is worth keeping it."""
KEPT_AGAIN_PART: Final = 4
"""It is kept again once one of so many of its documents has come or gone."""

READ_ROWS: Final = 50_000
"""About so many texts are in memory at once while an index is made."""

QUIET_SECONDS: Final = 1.0
"""After about so long without a request nobody is taken to be at work."""
_PATIENCE_SECONDS: Final = 60.0

# Of these an index is made: when one changes, what it has made is not used.
_SOURCES: Final = (
    "tiers.findable",
    "tiers.keeping",
    "values.render",
    "search.index",
    "search.kept",
    "search.language.analysis",
    "search.language.languages",
    "search.lexical",
    "search.neighbours",
    "search.packing",
    "search.postings",
)

_KEYS: Final = "id, epoch_us(recorded_at) AS recorded"

Document = tuple[str, str, Mapping[str, Any]]
"""Key, text, and what else `SearchIndex.add` takes."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Where the texts of a tier stand: pieces of SQL; $1 is the agent.

    Attributes:
        columns: What is read of a text; none of it is NULL.
        live: Which texts a search may find.
        at: Which of them it might find at a moment $2.
        version: What tells one version of a text from all others.
        gone: Which of those of the moment $2 it may find no more.
    """

    tier: str
    table: str
    columns: str
    live: str
    at: str
    version: str
    order: str
    gone: str


class Keeping:
    """Makes the indexes of all agents and tiers, and keeps the large ones.

    Args:
        indexes: Where they are while they are in memory.
    """

    def __init__(self, database: Database, indexes: Indexes) -> None:
        self.on_due: Callable[[], None] | None = None
        """Called when an index was made that is to be kept: `keep` has to be called soon."""
        self._db = database
        self._indexes = indexes
        self._kept = KeptIndexes(database)
        self._made: dict[tuple[str, str], tuple[Texts, int | None]] = {}
        """By tier and agent, at how many changes an index was kept; None for never."""
        self._due_since: float | None = None
        self._unreadable: set[tuple[str, str]] = set()
        # Now: later the files may be those of an update, and what runs is still this.
        stamp()

    def fill(
        self,
        index: SearchIndex[str],
        texts: Texts,
        agent: str,
        document: Callable[[Row], Document],
        ageing: Ageing,
    ) -> None:
        """Put an agent's texts into an empty index, by their words alone.

        Args:
            index: It becomes the agent's.
            texts: Where they are.
            agent: Whose they are.
            document: Gives what a row of `texts.columns` is in the index.
            ageing: How documents with a label age.

        Raises:
            StorageFault: The texts can't be read.
        """
        key = (texts.tier, agent)
        taken = None if key in self._unreadable else self._taken(texts, agent)
        gone = 0
        if taken is not None:
            kept, cut = taken
            left = {
                row[0]
                for row in self._db.read(
                    f"SELECT id FROM {texts.table} WHERE {texts.gone}", agent, cut
                )
            }
            present = kept.without(left)
            gone = len(kept.keys) - len(present.keys)
            index.restore(present, ageing)
            before = index.changes
            index.add_all(map(document, self._rows(texts, agent, cut)))
            self._made[key] = (texts, before - gone)
        else:
            index.add_all(map(document, self._rows(texts, agent)))
            self._made[key] = (texts, None)
        if self.on_due is not None and self._is_due(key, index):
            self.on_due()

    def keep_due(self, lock: AbstractContextManager[object], stop: threading.Event) -> bool:
        """Keep what is due once nobody is at work; return whether that is put off.

        Args:
            lock: See `keep`.
            stop: Set when the process is about to end.
        """
        with lock:
            due = self.due()
        present = time.monotonic()
        if not due:
            self._due_since = None
            return False
        if self._due_since is None:
            self._due_since = present
        waited = present - self._due_since >= _PATIENCE_SECONDS
        # The thread that calls this has read something itself, a pause ago.
        if waited or present - self._db.used_at >= QUIET_SECONDS / 2:
            due = [key for key in due if not self.keep(key, lock, lambda: not stop.is_set())]
        return bool(due)

    def due(self) -> list[tuple[str, str]]:
        """Return of which tiers and agents an index is to be kept; the lock is held."""
        found = []
        for key in tuple(self._made):
            index = self._indexes.peek(key)
            if index is None:
                del self._made[key]
            elif self._is_due(key, index):
                found.append(key)
        return found

    def keep(
        self,
        key: tuple[str, str],
        lock: AbstractContextManager[object],
        go_on: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Keep the index of a tier and agent.

        Args:
            lock: Held while it is copied, which takes a moment, and not while it is written.
            go_on: Asked now and then whether to go on.

        Returns:
            False if somebody wrote meanwhile or `go_on` said no: it is still due.
        """
        with lock:
            index = self._indexes.peek(key)
            if index is None or key not in self._made:
                return True
            texts, agent = self._made[key][0], key[1]
            if stamp() is None:
                self._made[key] = (texts, index.changes)
                return True
            copied, changes, commits = index.copy(), index.changes, self._db.commits
        try:
            keys, manifest = self._present(texts, agent)
            if self._db.commits != commits:
                # What was read need not be what was copied.
                return False
            words = copied.words()
            with lock:
                if self._indexes.peek(key) is index and index is not None:
                    index.adopt(words)
            packer = Packer(copied.kept(keys, words).arrays())
            blocks = packer.blocks()
            done = self._kept.write(
                agent,
                texts.tier,
                blocks,
                lambda: {**manifest, "arrays": packer.description},
                go_on,
            )
        except (StorageFault, ValueError, MemoryError) as fault:
            # Not tried again before it has changed as much once more.
            logger.warning("a search index is not kept, and made anew at the next start: %s", fault)
            done = True
        if done and key in self._made:
            self._made[key] = (texts, changes)
            self._unreadable.discard(key)
        return done

    def _present(self, texts: Texts, agent: str) -> tuple[list[str], dict[str, object]]:
        """Return the texts in the order of the database, and how to know them again."""
        keys, cut = [], 0
        for text_id, cut in self._rows(texts, agent, columns=_KEYS):  # noqa: B007  the last
            keys.append(text_id)
        return keys, {"stamp": stamp(), "cut": cut, "had": self._had(texts, agent, cut)}

    def _is_due(self, key: tuple[str, str], index: SearchIndex[str]) -> bool:
        at = self._made[key][1]
        if self._db.path == ":memory:":
            return False
        return len(index) >= KEPT_DOCUMENTS and (
            at is None or (index.changes - at) * KEPT_AGAIN_PART >= len(index)
        )

    def _taken(self, texts: Texts, agent: str) -> tuple[KeptIndex, datetime] | None:
        """Return what was kept and of which moment it is, None if there is nothing to be used."""
        try:
            found = self._kept.manifest(agent, texts.tier)
            if found is None:
                return None
            number, said = found
            cut = int(said["cut"])
            if said["stamp"] != stamp() or said["had"] != self._had(texts, agent, cut):
                return None
            packed = self._kept.read(agent, texts.tier, number, int(said["parts"]))
            return KeptIndex.of(unpack(said["arrays"], packed)), moment(cut)
        except (StorageFault, ValueError, KeyError, TypeError) as fault:
            # A damaged block, say: it makes the driver open the file again, each time.
            self._unreadable.add((texts.tier, agent))
            logger.warning("a search index that was kept can't be used: %s", fault)
            return None

    def _had(self, texts: Texts, agent: str, cut: int) -> list[int]:
        """Return how many texts there were at a moment, and a number made of all their versions."""
        count, mixed = self._db.read(
            f"SELECT count(*), bit_xor(hash({texts.version})) FROM {texts.table} WHERE {texts.at}",
            agent,
            moment(cut),
        )[0]
        return [int(count), int(mixed or 0)]

    def _rows(
        self, texts: Texts, agent: str, after: datetime | None = None, columns: str | None = None
    ) -> Iterator[Row]:
        """Give the texts in order, read in blocks of such as were recorded one after the other."""
        since = f"{texts.live} AND (CAST($2 AS timestamptz) IS NULL OR recorded_at > $2)"
        times = self._db.read_columns(
            f"SELECT epoch_us(recorded_at) AS at FROM {texts.table} WHERE {since}"
            " ORDER BY recorded_at",
            agent,
            after,
        )["at"]
        chosen = f"SELECT {columns or texts.columns} FROM {texts.table}"
        bounds = dict.fromkeys([*times[READ_ROWS - 1 :: READ_ROWS].tolist(), *times[-1:].tolist()])
        for bound in bounds:
            block = self._db.read_columns(
                f"{chosen} WHERE {since} AND recorded_at <= $3 ORDER BY {texts.order}",
                agent,
                after,
                moment(bound),
            )
            yield from zip(*(column.tolist() for column in block.values()), strict=True)
            after = moment(bound)


def moment(microseconds: int) -> datetime:
    """Return the moment so long after 1970, in UTC."""
    return EPOCH + timedelta(microseconds=microseconds)


@cache
def stamp() -> str | None:
    """Return what changes with anything that an index is made by; None if that can't be known."""
    parts = [sys.version.split()[0], sys.byteorder, unicodedata.unidata_version, DRIVER]
    try:
        parts.append(metadata.version("py-rust-stemmers"))
        for name in _SOURCES:
            spec = find_spec(f"mcp_memory.{name}")
            source = spec.loader.get_source(spec.name)  # type: ignore[union-attr]  # else no source
            parts.append(source)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()
    except (ImportError, AttributeError, OSError, TypeError):
        # A program in one file, say, that has no sources.
        return None
