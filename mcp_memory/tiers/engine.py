"""One open database with all that works on it: the tiers, the model, the work in the background.

The lock of the engine is held by whoever touches a tier, so that what is in
memory and what is committed never differ. Embedding is done without it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from mcp_memory.models.questions import Questions
from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.search.caches import Indexes
from mcp_memory.settings import Settings
from mcp_memory.store.duckdb import Database
from mcp_memory.store.duckdb.vectors import ModelRecord, Pending, Vectors, VectorStore
from mcp_memory.summarizers import ExtractiveSummarizer, Summarizer
from mcp_memory.tiers.access import AccessTokens
from mcp_memory.tiers.archival import ArchivalMemory
from mcp_memory.tiers.backlog import Backlog
from mcp_memory.tiers.core import CoreMemory
from mcp_memory.tiers.events import EventLog
from mcp_memory.tiers.keeping import QUIET_SECONDS, Keeping
from mcp_memory.tiers.recall import RecallMemory
from mcp_memory.tiers.recounting import recount
from mcp_memory.tiers.underway import Embedded, Underway, begin
from mcp_memory.values.errors import MemoryFault, ModelMismatch, ModelUnavailable, StorageFault
from mcp_memory.values.records import EmbeddingState, Summary

if TYPE_CHECKING:
    from mcp_memory.models.embedding import Embedder

logger = logging.getLogger(__name__)

_GATHER_SECONDS: Final = 0.2
"""So long vectors are gathered before they are written."""

_EMBED_AT_ONCE: Final = 8
"""The texts of so many calls are given to the model, which takes them in turn."""

_QUIET_SECONDS: Final = 0.1
_WINDOW_PATIENCE: Final = 10
_WINDOW_ROUNDS: Final = 8

_RETRY_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 0.002


class Engine:
    """Everything that belongs to one database file and serves all its agents."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database | None = None,
        embedder: Embedder | None = None,
        tokenizer: Tokenizer | None = None,
        check_model: bool = True,
    ) -> None:
        """Open the database of the settings, or take one that is open.

        Args:
            embedder: The model to use; None to find or fetch it in the background
                once `start` is called.
            check_model: Whether to refuse a database made with another model.

        Raises:
            StorageFault: The database can't be opened.
            ModelMismatch: It was made with another embedding model.
        """
        self.settings = settings
        self.lock = threading.RLock()
        self.tokenizer = tokenizer or Tokenizer(settings.tokenizer, cache_dir=settings.cache_dir)
        self.database = database or Database(settings.db)
        try:
            self.vectors = VectorStore(self.database)
            if check_model:
                self.vectors.check_name(embedder.name if embedder else settings.embedding_model)
            if embedder is not None:
                self.vectors.adopt(_record(embedder))
            recount(self.database, self.tokenizer)
            self.database.on_reopened = self._adopt_again
        except BaseException:
            self.database.close()
            raise
        self.core = CoreMemory(self.database, self.tokenizer)
        self.indexes = Indexes(settings.cache_mb << 20, settings.cache_dir / "indexes")
        self.keeping = Keeping(self.database, self.indexes)
        parts = (self.database, self.vectors, self.tokenizer, self.indexes, self.keeping)
        self.recall = RecallMemory(*parts)
        self.archival = ArchivalMemory(*parts, settings.kinds)
        self._backlog = Backlog(self.database, self.vectors, self.recall, self.archival, self.lock)
        self.events = EventLog(self.database)
        self.access = AccessTokens(self.database)
        self.summarizer: Summarizer = ExtractiveSummarizer(self.tokenizer.count)
        self.on_flushed: Callable[[str, str, Summary, int], None] | None = None
        self.summarizer_status: Callable[[], dict[str, object]] | None = None
        self._embedder = embedder
        self._state: Literal["ready", "loading", "downloading", "unavailable"] = (
            "ready" if embedder else "loading"
        )
        self._detail: str | None = None
        self._refusal: ModelMismatch | None = None
        self.questions = Questions(self._embed_query)
        self._embedding = ThreadPoolExecutor(_EMBED_AT_ONCE, thread_name_prefix="embedding")
        self._lost_are_listed = False
        self._windows_are_found = not settings.window_vectors
        self._embedded_at = 0.0
        """When somebody last waited for a vector; monotonic."""
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def path(self) -> Path | None:
        """The database file, None for one in memory."""
        return None if self.database.path == ":memory:" else Path(self.database.path)

    @property
    def embedding(self) -> str:
        """`ready`, `loading`, `downloading` or `unavailable`: the model, which all agents share."""
        return self._state

    def start(self, warm_agent: str | None = None) -> None:
        """Begin the work in the background: the model, the index of an agent, pending vectors."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._work, args=(warm_agent,), name="mcp-memory-background", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """End the background work and close the database; what was acknowledged is in it."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._embedding.shutdown(cancel_futures=True)
        with self.lock:
            try:
                self._backlog.write_held()
            except StorageFault as fault:
                logger.warning("some vectors are computed again at the next start: %s", fault)
            self.database.close()

    def wake(self) -> None:
        """Tell the background that there are new pending vectors."""
        self._wake.set()

    def check(self) -> None:
        """Raise what makes this database unusable with the model that is set.

        Raises:
            ModelMismatch: The file of the model is another than the one of the vectors.
        """
        if self._refusal is not None:
            raise self._refusal

    def state(self, agent: str | None) -> EmbeddingState:
        """Return whether the semantic half of search works; None counts all agents' texts."""
        return EmbeddingState(
            self._state,
            self.settings.embedding_model,
            self.vectors.pending_count(agent),
            self._detail,
            sum(agent in {None, item[0]} for item in self.recall.without_window),
        )

    def _embed_query(self, text: str, of_facts: bool) -> Vectors | None:
        embedder = self._embedder
        self._embedded_at = time.monotonic()
        return None if embedder is None else embedder.embed_query(text, of_facts=of_facts)

    def embed_soon(
        self,
        texts: Sequence[str],
        prefixes: Sequence[str] | None = None,
        chunk_tokens: Sequence[int | None] | None = None,
    ) -> Underway | None:
        """Begin to embed texts; None for what is better done later. See `underway.begin`."""
        embedder = self._embedder
        self._embedded_at = time.monotonic()
        if embedder is None:
            return None
        return begin(embedder, self._embedding, texts, prefixes, chunk_tokens)

    def embedded(
        self, underway: Underway, items: Sequence[Pending | None]
    ) -> list[Embedded] | None:
        """Wait for the vectors of texts that were written meanwhile; see `take`.

        If the model fails they are listed as pending, and it is None.

        Args:
            items: What each text became; None for one that is to have no vectors.
        """
        try:
            return underway.result()
        except Exception:
            logger.exception("texts are stored without vectors, which are tried again later")
            with self.lock, self.database.transaction() as tx:
                self.vectors.defer(tx, [item for item in items if item is not None])
            self.wake()
            return None

    def finish(self, underway: Underway | None, items: Sequence[Pending | None]) -> None:
        """Wait for the vectors of texts that were written meanwhile, and let them be used."""
        if underway is None:
            self.wake()
        elif (vectors := self.embedded(underway, items)) is not None:
            self.take(items, vectors)

    def take(self, items: Sequence[Pending | None], vectors: Sequence[Embedded]) -> None:
        """Let vectors be used that came after their texts were written."""
        both = zip(items, vectors, strict=True)
        self._backlog.take([(item, *embedded) for item, embedded in both if item is not None])

    def near_duplicate_at(self) -> float | None:
        """Return the cosine from which two texts say the same, None while there is no model."""
        return None if self._embedder is None else self._embedder.near_duplicate_at

    def fill_pending(self, on_done: Callable[[int], None] | None = None) -> int:
        """Compute pending vectors until there are none, or `close` is called.

        Args:
            on_done: Called with the number of texts done since the last call.

        Returns:
            How many texts were done.
        """
        embedder = self._embedder
        return 0 if embedder is None else self._backlog.fill(embedder, self._stop, on_done)

    def use(self, embedder: Embedder) -> None:
        """Take the model that was loaded.

        Raises:
            ModelMismatch: The vectors are of another file.
        """
        with self.lock:
            self.vectors.adopt(_record(embedder))
            self._embedder = embedder
            self._state, self._detail = "ready", None

    def reembed(self, embedder: Embedder) -> int:
        """Drop the vectors of another model and list every text as pending.

        Returns:
            How many texts are pending; `fill_pending` computes them.
        """
        with self.lock:
            if self.vectors.model() != _record(embedder):
                self.vectors.replace_model(_record(embedder))
            self.recall.forget_indexes()
            self.archival.forget_indexes()
            self._embedder = embedder
            self._state = "ready"
            return self.vectors.pending_count()

    def _work(self, warm_agent: str | None) -> None:
        try:
            self.tokenizer.count("")
            self.indexes.on_unfilled = self.keeping.on_due = self._wake.set
            if warm_agent is not None:
                self._warm(warm_agent)
            if self._embedder is None:
                # Before anyone is told that the model is ready and nothing is pending.
                with suppress(StorageFault):
                    self._list_lost()
                self._load_model()
            self.vectors.behind = self._wake.set
            while not self._stop.is_set():
                self._wake.clear()
                self._catch_up()
        except MemoryFault as fault:
            if not self._stop.is_set():
                self._unavailable(str(fault))
        except Exception:
            if not self._stop.is_set():
                logger.exception("the background work has failed")
                self._unavailable("an unexpected error, see the log")
        finally:
            self.vectors.behind = self.indexes.on_unfilled = self.keeping.on_due = None

    def _catch_up(self) -> None:
        """Do what is put off, and wait until there is more."""
        try:
            self._list_lost()
            if not self._windows_are_found:
                self._backlog.find_windows()
                self._windows_are_found = True
            self._fill_indexes()
            due = self.keeping.keep_due(self.lock, self._stop)
            self.fill_pending()
            if self.vectors.holds and not self._stop.wait(_GATHER_SECONDS):
                self._backlog.write_held()
            more = self._fill_windows()
        except StorageFault as fault:
            # A full disk, say: what is pending stays listed and is tried again.
            logger.warning("pending vectors wait: %s", fault)
            self._stop.wait(_RETRY_SECONDS)
        else:
            if not more:
                self._wake.wait(QUIET_SECONDS if due else None)

    def _fill_windows(self) -> bool:
        """Embed windows while nothing else is to be done; return whether there are more."""
        windows = self.recall.without_window
        embedder = self._embedder
        if embedder is None or not self.settings.window_vectors:
            windows.clear()
        for _ in range(_WINDOW_ROUNDS):
            if not windows or embedder is None or self._stop.is_set():
                break
            # Whoever waits for an answer goes first, but not for ever.
            for _ in range(_WINDOW_PATIENCE):
                if time.monotonic() - self._embedded_at > _QUIET_SECONDS:
                    break
                self._stop.wait(_QUIET_SECONDS)
            self._backlog.fill_windows(embedder)
        return bool(windows or self.vectors.holds)

    def _fill_indexes(self) -> None:
        """Give large indexes their vectors; whoever searches goes between two blocks of them."""
        more = True
        while more and not self._stop.is_set():
            with self.lock:
                more = self.indexes.fill_more()
            # Without a pause this thread would have the lock again before who waits for it.
            self._stop.wait(_PAUSE_SECONDS)

    def _list_lost(self) -> None:
        if not self._lost_are_listed:
            self._backlog.find_lost()
            self._lost_are_listed = True

    def _warm(self, agent: str) -> None:
        try:
            with self.lock:
                self.archival.index(agent)
                self.recall.index(agent)
        except StorageFault as fault:
            # Each search says it to its client; the model is loaded all the same.
            logger.warning("%s", fault)

    def _adopt_again(self) -> None:
        self.vectors.drop_held()
        self._lost_are_listed = False
        self._windows_are_found = not self.settings.window_vectors
        embedder = self._embedder
        if embedder is None:
            return
        try:
            self.vectors.adopt(_record(embedder))
            self._refusal = None
        except ModelMismatch as fault:
            self._refusal = fault
        self.wake()

    def _load_model(self) -> None:
        from mcp_memory.models.embedding import FastEmbedder
        from mcp_memory.models.fetching import Progress, fetch_model
        from mcp_memory.models.files import find_model

        settings = self.settings

        def on_progress(progress: Progress) -> None:
            self._state, self._detail = "downloading", str(progress)

        try:
            files = find_model(settings.embedding_model, settings.cache_dir)
            if files is None:
                files = fetch_model(
                    settings.embedding_model,
                    settings.cache_dir,
                    offline=settings.offline,
                    on_progress=on_progress,
                    cancelled=self._stop.is_set,
                )
            self._state, self._detail = "loading", None
            self.use(FastEmbedder.load(files, threads=settings.threads))
        except ModelMismatch as fault:
            self._refusal = fault
            self._unavailable(str(fault))
        except ModelUnavailable as fault:
            self._unavailable("; ".join([str(fault), *fault.reasons]))

    def _unavailable(self, reason: str) -> None:
        self._state, self._detail = "unavailable", reason
        logger.warning("search goes by words alone: %s", reason)


def _record(embedder: Embedder) -> ModelRecord:
    return ModelRecord(embedder.name, embedder.fingerprint, embedder.dimension)
