"""The search indexes of a tier: loaded on first use, kept current, persisted when large.

An index has no text: it is a cache of what the store has. A persisted index names its
change number; later changes are read from the rows.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol

import mcp_memory.search
from mcp_memory.search.caches import Indexes
from mcp_memory.search.index import Ageing, SearchIndex
from mcp_memory.search.kept import KeptIndex
from mcp_memory.search.lexical import LongWords, read_long
from mcp_memory.search.packing import Packer, unpack
from mcp_memory.store.ports import Change, Source, Store, TextVectors
from mcp_memory.tiers.feed import ChangeFeed
from mcp_memory.tiers.vectors import BatchedVectors
from mcp_memory.values.errors import StorageFault
from mcp_memory.values.requests import Tier

logger = logging.getLogger(__name__)

PERSISTED_DOCUMENTS: Final = 50_000
"""From this size an index is persisted. Measured: 10,000 memories load in 1.2 s without and
0.9 s with it, 100,000 in 7.6 s and 1.4 s (`benchmarks/RESULTS.md`, scale)."""

PERSISTED_AGAIN_FRAC: Final = 1 / 4
"""Part of the documents that must change before an index is persisted again; by judgement."""

QUIET_SECONDS: Final = 1.0
"""The database is idle after this long without a call; by judgement."""

LONG_CHARS: Final = 100_000
"""The words of a longer text are read before the lock is taken; by judgement, 30 ms of work."""

_PAUSE_SECONDS: Final = 0.002
"""Pause while a long text is read, by judgement: a waiting thread wakes in less."""

_PATIENCE_SECONDS: Final = 60.0
"""After waiting this long for an idle moment, an index is persisted anyway; by judgement."""

Document = tuple[str, str, Mapping[str, Any]]
"""Key, text, and what else `SearchIndex.add` takes."""


class Searchable(Protocol):
    """Gives the records of an agent that a search can find; see the ports."""

    def __call__(self, agent: str, after: int, upto: int) -> Iterator[Any]: ...  # noqa: D102  as above


class TierIndexes:
    """The search indexes of one tier, by agent. Callers hold the feed's lock.

    Args:
        tier: The tier.
        store: Where the rows are.
        vectors: Has their vectors, written or not.
        feed: Says up to which change number rows are read.
        cache: The indexes in memory, of all tiers together.
        searchable: Gives the records of an agent.
        retired: Gives ids of records that were deleted or changed between two numbers.
        document: Gives what the index needs of a record.
        ageing: How scores of documents fall with age, by label.
        sources: The kinds of texts whose vectors the index has.
        read_ahead: Caches the rows of an agent, step by step, once its index is complete.
    """

    def __init__(
        self,
        tier: Tier,
        store: Store,
        vectors: BatchedVectors,
        feed: ChangeFeed,
        cache: Indexes,
        *,
        searchable: Searchable,
        retired: Callable[[str, int, int], Sequence[str]],
        document: Callable[[Any], Document],
        ageing: Ageing,
        sources: tuple[Source, ...],
        read_ahead: Callable[[str], Iterator[None]],
    ) -> None:
        self.on_due: Callable[[], None] | None = None
        """Called when a loaded index should be persisted soon."""
        self._tier = tier
        self._store = store
        self._vectors = vectors
        self._feed = feed
        self._cache = cache
        self._searchable = searchable
        self._retired = retired
        self._document = document
        self._ageing = ageing
        self._sources = sources
        self._read_ahead = read_ahead
        self._persisted_at: dict[str, int | None] = {}
        """By agent, `changes` of the index when it was last persisted; None for never."""
        self._unreadable: set[str] = set()
        self._long: dict[str, tuple[str, LongWords]] = {}
        """By key, long texts that are about to be written, and their words."""
        # Read now: an update may replace the files later, while this code still runs.
        stamp()

    def get(self, agent: str) -> SearchIndex[str]:
        """Return the index of an agent, loaded if it isn't in memory."""
        index: SearchIndex[str] = self._cache.get((self._tier, agent), lambda: self._load(agent))
        return index

    def peek(self, agent: str) -> SearchIndex[str] | None:
        """Return the index of an agent if it is in memory."""
        return self._cache.peek((self._tier, agent))

    def forget(self) -> None:
        """Drop every index of every tier: each is loaded again when it is needed."""
        self._cache.clear()
        self._persisted_at.clear()

    @contextmanager
    def reading(self, agent: str, texts: Iterable[tuple[str, str, str]]) -> Iterator[None]:
        """Read the words of long texts that are about to be written; called without the lock.

        The lock is then held for a moment only, however long a text is.

        Args:
            texts: Of each text its key, itself, and its prefix.
        """
        long = [text for text in texts if len(text[1]) > LONG_CHARS]
        if long and self.peek(agent) is not None:
            for key, text, prefix in long:
                words = read_long(text, prefix, _pause)
                self._long[key] = text, words
            self._fold(agent)
        try:
            yield
        finally:
            for key, _, _ in long:
                self._long.pop(key, None)

    def _fold(self, agent: str) -> None:
        """Fold the words of an index, which takes a moment if they are many, without the lock."""
        with self._feed.lock:
            index = self.peek(agent)
            if index is None:
                return
            words = index.copy().words
        folded = words()
        with self._feed.lock:
            if self.peek(agent) is index:
                index.adopt(folded)

    def add(self, agent: str, records: Sequence[Any]) -> None:
        """Make records findable by their words; an earlier version of a record is replaced."""
        index = self.peek(agent)
        if index is not None:
            for record in records:
                key, text, about = self._document(record)
                read, words = self._long.get(key, ("", None))
                index.add(key, text, **about, words=words if read == text else None)

    def remove(self, agent: str, keys: Sequence[str]) -> None:
        """Remove records from all searches."""
        index = self.peek(agent)
        if index is not None:
            for key in keys:
                index.remove(key)

    def apply_vectors(self, change: Change) -> None:
        """Make texts findable by the vectors of a change."""
        for text in change.vectors:
            if text.item.source in self._sources:
                self.add_vectors(text)

    def add_vectors(self, text: TextVectors) -> None:
        """Make one text findable by vectors."""
        index = self.peek(text.item.agent)
        if index is None:
            return
        if text.item.source == "window":
            index.add_windows(text.item.id, text.vectors)
        else:
            index.add_vectors(text.item.id, text.ranges, text.vectors)

    def due(self) -> list[str]:
        """Return the agents whose index should be persisted."""
        found = []
        for agent in tuple(self._persisted_at):
            index = self.peek(agent)
            if index is None:
                del self._persisted_at[agent]
            elif self._is_due(agent, index):
                found.append(agent)
        return found

    def persist(self, agent: str, go_on: Callable[[], bool] = lambda: True) -> bool:
        """Persist the index of an agent; called without the lock.

        The lock is held while the index is copied, which is short, but not while it is
        written.

        Args:
            go_on: Asked from time to time whether to continue.

        Returns:
            False if `go_on` returned False: the index is still due.
        """
        with self._feed.lock:
            index = self.peek(agent)
            if index is None or agent not in self._persisted_at:
                return True
            if stamp() is None:
                self._persisted_at[agent] = index.changes
                return True
            copied, changes, seq = index.copy(), index.changes, self._feed.seq(agent)
        try:
            words = copied.words()
            with self._feed.lock:
                if self.peek(agent) is index:
                    index.adopt(words)
            keys = [key for key, alive in zip(copied.keys, copied.alive, strict=True) if alive]
            packer = Packer(copied.kept(keys, words).arrays())
            done = self._store.indexes.write(
                agent,
                self._tier,
                packer.blocks(),
                lambda: {"stamp": stamp(), "seq": seq, "arrays": packer.description},
                go_on,
            )
        except (StorageFault, ValueError, MemoryError) as fault:
            # The next attempt follows only after as many changes again.
            logger.warning(
                "a search index is not persisted and is rebuilt at each start: %s", fault
            )
            done = True
        if done and agent in self._persisted_at:
            self._persisted_at[agent] = changes
            self._unreadable.discard(agent)
        return done

    def _load(self, agent: str) -> SearchIndex[str]:
        index: SearchIndex[str] = SearchIndex(self._cache.folder)
        seq = self._feed.seq(agent)
        persisted = None if agent in self._unreadable else self._read(agent, seq)
        if persisted is None:
            index.add_all(map(self._document, self._searchable(agent, 0, seq)))
            self._persisted_at[agent] = None
        else:
            whole, upto = persisted
            present = whole.without(set(self._retired(agent, upto, seq)))
            gone = len(whole.keys) - len(present.keys)
            index.restore(present, self._ageing)  # From here on the keys are the index's own.
            before = index.changes
            index.add_all(map(self._document, self._searchable(agent, upto, seq)))
            self._persisted_at[agent] = before - gone
        index.complete = False
        self._cache.fill((self._tier, agent), index, self._fill(agent, index, index.end, seq))
        if self.on_due is not None and self._is_due(agent, index):
            self.on_due()
        return index

    def _fill(self, agent: str, index: SearchIndex[str], below: int, seq: int) -> Iterator[None]:
        """Add the vectors of what was already in the index, block by block."""
        # Those that wait are read now: they may be written, above `seq`, before a later step.
        found = [(source, self._vectors.blocks(agent, source, seq)) for source in self._sources]
        for source, blocks in found:
            for block in blocks:
                if source == "window":
                    index.add_many_windows(block.ids, block.numbers, block.vectors, below)
                else:
                    index.add_many_vectors(
                        block.ids, block.starts, block.ends, block.vectors, below
                    )
                yield
        index.complete = True
        yield from self._read_ahead(agent)

    def _is_due(self, agent: str, index: SearchIndex[str]) -> bool:
        at = self._persisted_at[agent]
        if self._store.path is None or len(index) < PERSISTED_DOCUMENTS:
            return False
        return at is None or index.changes - at >= PERSISTED_AGAIN_FRAC * len(index)

    def _read(self, agent: str, seq: int) -> tuple[KeptIndex, int] | None:
        """Return the persisted index and its change number, None if it can't be used."""
        try:
            manifest = self._store.indexes.manifest(agent, self._tier)
            if manifest is None or manifest["stamp"] != stamp() or manifest["seq"] > seq:
                return None
            packed = self._store.indexes.read(agent, self._tier, manifest)
            return KeptIndex.of(unpack(manifest["arrays"], packed)), int(manifest["seq"])
        except (StorageFault, ValueError, KeyError, TypeError) as fault:
            # Such as a damaged block, for which the driver opens the file again each time.
            self._unreadable.add(agent)
            logger.warning("a persisted search index can't be used and is rebuilt: %s", fault)
            return None


class IndexPersistence:
    """Persists the indexes that are due, once the database is idle.

    Args:
        tiers: All tiers.
        used_at: Returns the time of the last call, by `time.monotonic`.
    """

    def __init__(self, tiers: Sequence[TierIndexes], used_at: Callable[[], float]) -> None:
        self._tiers = tiers
        self._used_at = used_at
        self._due_since: float | None = None

    def on_due(self, call: Callable[[], None] | None) -> None:
        """Call a function when a loaded index should be persisted."""
        for tier in self._tiers:
            tier.on_due = call

    def run(self, lock: threading.RLock, stop: threading.Event) -> bool:
        """Persist what is due; return whether it was postponed.

        Args:
            lock: The feed's lock.
            stop: Set when the process is about to exit.
        """
        with lock:
            due = [(tier, agent) for tier in self._tiers for agent in tier.due()]
        present = time.monotonic()
        if not due:
            self._due_since = None
            return False
        if self._due_since is None:
            self._due_since = present
        waited = present - self._due_since >= _PATIENCE_SECONDS
        if waited or present - self._used_at() >= QUIET_SECONDS:
            due = [item for item in due if not item[0].persist(item[1], lambda: not stop.is_set())]
        return bool(due)


def _pause() -> None:
    """Let other threads run."""
    time.sleep(_PAUSE_SECONDS)


@cache
def stamp() -> str | None:
    """Return a hash of all code that builds an index; None if the sources can't be read."""
    try:
        digest = hashlib.sha256()
        for part in (
            sys.version.split()[0],
            sys.byteorder,
            unicodedata.unidata_version,
            importlib.metadata.version("py-rust-stemmers"),
        ):
            digest.update(f"{part}\0".encode())
        for folder in map(Path, mcp_memory.search.__path__):
            for file in (*sorted(folder.rglob("*.py")), Path(__file__)):
                digest.update(file.read_bytes())
        return digest.hexdigest()
    except (ImportError, OSError):
        # Such as a program packed into one file, which has no sources.
        return None
