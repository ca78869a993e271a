"""One open store and everything that uses it: the tiers, the model, the background work."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mcp_memory.models.questions import Questions
from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.search.caches import Indexes
from mcp_memory.settings import Settings
from mcp_memory.store import open_store
from mcp_memory.store.ports import ModelRecord, Pending, Store, TextVectors, UnitOfWork, Vectors
from mcp_memory.summarizers import ExtractiveSummarizer, Summarizer
from mcp_memory.tiers.access import AccessTokens
from mcp_memory.tiers.archival import ArchivalMemory
from mcp_memory.tiers.consolidations import Consolidations
from mcp_memory.tiers.core import CoreMemory
from mcp_memory.tiers.events import EventLog
from mcp_memory.tiers.feed import ChangeFeed
from mcp_memory.tiers.heap import give_back_memory, limit_heap
from mcp_memory.tiers.indexes import QUIET_SECONDS, IndexPersistence
from mcp_memory.tiers.jobs import Backlog, Embedded, EmbeddingJob, begin
from mcp_memory.tiers.recall import RecallMemory
from mcp_memory.tiers.vectors import BatchedVectors
from mcp_memory.values.dates import Clock, now
from mcp_memory.values.errors import MemoryFault, ModelMismatch, ModelUnavailable, StorageFault
from mcp_memory.values.records import EmbeddingState, ModelState, Summary

if TYPE_CHECKING:
    from mcp_memory.models.embedding import Embedder

logger = logging.getLogger(__name__)

_BATCH_SECONDS: Final = 0.2
"""How long vectors are batched before they are written; by judgement."""

_EMBED_AT_ONCE: Final = 8
"""Calls that may wait for the model at once; it serves them in turn. By judgement."""

_IDLE_SECONDS: Final = 0.1
"""When no vector was requested for this long, windows are embedded; by judgement."""

_WINDOW_PATIENCE: Final = 10
"""How often windows wait for an idle moment before they are embedded anyway; by judgement."""

_WINDOW_ROUNDS: Final = 8
"""Groups of windows that are embedded before other background work; by judgement."""

_RETRY_SECONDS: Final = 30.0
"""How long pending vectors wait after a failure, such as a full disk; by judgement."""

_STOP_SECONDS: Final = 1.0
"""How long the end waits for what the background is doing; by judgement, most takes less."""

_TRIM_SECONDS: Final = 5.0
"""How often freed memory is given back while there is work: it takes some milliseconds, and the
model's batches leave 80 MB behind in a minute. By judgement."""

_PAUSE_SECONDS: Final = 0.002
"""Pause between two blocks of loaded vectors, by judgement: a waiting thread wakes in less."""


class Engine:
    """Everything that belongs to one store and serves all its agents."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store | None = None,
        embedder: Embedder | None = None,
        tokenizer: Tokenizer | None = None,
        check_model: bool = True,
        clock: Clock = now,
    ) -> None:
        """Open the store of the settings, or use one that is open.

        Args:
            embedder: The model to use; None to find or fetch it in the background
                once `start` is called.
            check_model: Whether to refuse a store made with another model.
            clock: Gives the time of everything that is recorded.

        Raises:
            StorageFault: The store can't be opened.
            ModelMismatch: It was made with another embedding model.
        """
        self.settings = settings
        self.clock = clock
        self.tokenizer = tokenizer or Tokenizer(settings.tokenizer, cache_dir=settings.cache_dir)
        self.store = open_store(settings.db) if store is None else store
        self.feed = ChangeFeed(self.store)
        self.vectors = BatchedVectors(self.store, self.feed)
        try:
            if check_model:
                self.vectors.check_name(embedder.name if embedder else settings.embedding_model)
            if embedder is not None:
                self.vectors.adopt(_record(embedder))
            self.store.recount(self.tokenizer.count, self.tokenizer.name)
            self.store.on_reopened = self._adopt_again
        except BaseException:
            self.store.close()
            raise
        self.indexes = Indexes(settings.cache_mb << 20, settings.cache_dir / "indexes")
        feed, tokenizer = self.feed, self.tokenizer
        store = self.store
        self.core = CoreMemory(store, feed, tokenizer, clock)
        self.recall = RecallMemory(store, feed, self.vectors, tokenizer, self.indexes, clock)
        self.archival = ArchivalMemory(
            store, feed, self.vectors, tokenizer, self.indexes, clock, settings.kinds
        )
        self.consolidations = Consolidations(store, feed)
        self.events = EventLog(store, clock)
        self.access = AccessTokens(store, feed, clock)
        self.persistence = IndexPersistence(
            (self.recall.indexes, self.archival.indexes), lambda: self.used_at
        )
        self._backlog = Backlog(self.feed, self.vectors, self.recall, self.archival)
        self.summarizer: Summarizer = ExtractiveSummarizer(self.tokenizer.count)
        self.on_flushed: Callable[[str, str, Summary, int], None] | None = None
        self.summarizer_status: Callable[[], dict[str, object]] | None = None
        self.used_at = time.monotonic()
        """When a client last called, by `time.monotonic`; observers don't count."""
        self._embedder = embedder
        self.on_state: Callable[[], None] | None = None
        """Called when the state of the model changes, from any thread."""
        self._state: ModelState = "ready" if embedder else "loading"
        self._detail: str | None = None
        self._refusal: ModelMismatch | None = None
        self.questions = Questions(self._embed_query)
        self._embedding = ThreadPoolExecutor(_EMBED_AT_ONCE, thread_name_prefix="embedding")
        self._lost_are_listed = False
        self._windows_are_found = not settings.window_vectors
        self._embedded_at = 0.0
        """When a call last waited for a vector; by `time.monotonic`."""
        self._worked_at = 0.0
        """When the background last embedded a text; by `time.monotonic`."""
        self._trimmed_at = 0.0
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._leaving: Future[None] = Future()
        """Done once no call waits for the model any more."""
        self._thread: threading.Thread | None = None

    @property
    def lock(self) -> threading.RLock:
        """Held while anything in memory is read or changed, and never while a model works."""
        return self.feed.lock

    @property
    def path(self) -> Path | None:
        """The database file, None for a store in memory."""
        return self.store.path

    @property
    def embedding(self) -> str:
        """`ready`, `loading`, `downloading` or `unavailable`: the model, which all agents share."""
        return self._state

    def view(self, *agents: str) -> AbstractContextManager[None]:
        """Hold the lock, with everything committed for some agents loaded."""
        return self.feed.view(*agents)

    def transaction(self) -> AbstractContextManager[UnitOfWork]:
        """Begin a unit of work; once it is committed, memory has its changes."""
        return self.feed.transaction()

    def touch(self) -> None:
        """Note that a client has called."""
        self.used_at = time.monotonic()

    def start(self, warm_agent: str | None = None) -> None:
        """Start the background work: the model, the index of an agent, pending vectors."""
        if self._thread is None:
            limit_heap()
            self._thread = threading.Thread(
                target=self._work, args=(warm_agent,), name="mcp-memory-background", daemon=True
            )
            self._thread.start()

    def leave_vectors(self) -> None:
        """Compute no more vectors, so that no call waits for one; the next start computes them."""
        self._stop.set()
        self._wake.set()
        self._embedding.shutdown(wait=False, cancel_futures=True)
        with suppress(InvalidStateError):
            self._leaving.set_result(None)

    def close(self) -> None:
        """Stop the background work and close the store; every acknowledged write is in it."""
        self.leave_vectors()
        if self._thread is not None:
            # It may be in the model; what it computes is dropped.
            self._thread.join(_STOP_SECONDS)
        with self.lock:
            try:
                self._backlog.write_batch()
            except StorageFault as fault:
                logger.warning("some vectors are computed again at the next start: %s", fault)
            self.store.close()

    def wake(self) -> None:
        """Tell the background that there are new pending vectors."""
        self._wake.set()

    def check(self) -> None:
        """Check that this store can be used with the configured model.

        Raises:
            ModelMismatch: The vectors were computed with another file of the model.
        """
        if self._refusal is not None:
            raise self._refusal

    def state(self, agent: str | None) -> EmbeddingState:
        """Return the state of semantic search, with the pending texts of an agent, or of all."""
        return EmbeddingState(
            state=self._state,
            model=self.settings.embedding_model,
            pending=self.vectors.pending_count(agent),
            detail=self._detail,
            windows_pending=sum(agent in {None, item[0]} for item in self.recall.without_window),
        )

    def embed_soon(
        self,
        texts: Sequence[str],
        prefixes: Sequence[str] | None = None,
        chunk_tokens: Sequence[int | None] | None = None,
    ) -> EmbeddingJob | None:
        """Begin to embed texts; None if they should wait for the background. See `jobs.begin`."""
        embedder = self._embedder
        self._embedded_at = time.monotonic()
        if embedder is None:
            return None
        try:
            return begin(embedder, self._embedding, texts, prefixes, chunk_tokens)
        except RuntimeError:
            if not self._stop.is_set():
                raise
            return None

    def embedded(self, job: EmbeddingJob, items: Sequence[Pending | None]) -> list[Embedded] | None:
        """Wait for the vectors of texts that have been written; see `take`.

        If the model fails or this process ends, the texts are listed as pending and the result is
        None.

        Args:
            items: What each text became; None for one that gets no vectors.
        """
        either: tuple[Future[Any], ...] = (job.computed, self._leaving)
        wait(either, return_when=FIRST_COMPLETED)
        if not self._leaving.done():
            try:
                return job.result()
            except Exception:
                logger.exception("texts are stored without vectors, which are computed later")
        with self.transaction() as unit:
            self.vectors.defer(unit, [item for item in items if item is not None])
        self.wake()
        return None

    def finish(self, job: EmbeddingJob | None, items: Sequence[Pending | None]) -> None:
        """Wait for the vectors of texts that have been written, and let searches use them."""
        if job is None:
            self.wake()
        elif (vectors := self.embedded(job, items)) is not None:
            self.take(items, vectors)

    def take(self, items: Sequence[Pending | None], vectors: Sequence[Embedded]) -> None:
        """Let searches use vectors that came after their texts were written."""
        pairs = zip(items, vectors, strict=True)
        self._backlog.take(
            [TextVectors(item, *embedded) for item, embedded in pairs if item is not None]
        )

    def near_duplicate_at(self) -> float | None:
        """Return the cosine from which two texts are near-duplicates, None without a model."""
        return None if self._embedder is None else self._embedder.near_duplicate_at

    def fill_pending(self, on_done: Callable[[int], None] | None = None) -> int:
        """Compute pending vectors until all are done or `close` is called.

        Args:
            on_done: Called with the number of texts done since the last call.

        Returns:
            The number of texts that were done.
        """
        embedder = self._embedder
        return 0 if embedder is None else self._backlog.fill(embedder, self._stop, on_done)

    def use(self, embedder: Embedder) -> None:
        """Start to use a loaded model.

        Raises:
            ModelMismatch: The vectors were computed with another file of the model.
        """
        with self.lock:
            self.vectors.adopt(_record(embedder))
            self._embedder = embedder
            self._now("ready")

    def reembed(self, embedder: Embedder) -> int:
        """Drop the vectors of another model and list every text as pending.

        Returns:
            The number of pending texts; `fill_pending` computes their vectors.
        """
        with self.lock:
            if self.vectors.model() != _record(embedder):
                self.vectors.replace_model(_record(embedder))
            self.feed.forget()
            self._embedder = embedder
            self._now("ready")
            return self.vectors.pending_count()

    def _embed_query(self, text: str, of_facts: bool) -> Vectors | None:
        embedder = self._embedder
        self._embedded_at = time.monotonic()
        return None if embedder is None else embedder.embed_query(text, of_facts=of_facts)

    def _work(self, warm_agent: str | None) -> None:
        try:
            self.tokenizer.count("")
            self.indexes.on_unfilled = self._wake.set
            self.persistence.on_due(self._wake.set)
            if warm_agent is not None:
                self._warm(warm_agent)
            if self._embedder is None:
                # Before any client reads that the model is ready and nothing is pending.
                with suppress(StorageFault):
                    self._list_lost()
                self._load_model()
            self.vectors.on_batched = self._wake.set
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
            self.vectors.on_batched = self.indexes.on_unfilled = None
            self.persistence.on_due(None)

    def _catch_up(self) -> None:
        """Do the postponed work, and wait until there is more."""
        try:
            self._list_lost()
            if not self._windows_are_found:
                self._backlog.find_windows()
                self._windows_are_found = True
            self._fill_indexes()
            due = self.persistence.run(self.lock, self._stop)
            self.fill_pending(self._worked)
            if self.vectors.is_waiting and not self._stop.wait(_BATCH_SECONDS):
                self._backlog.write_batch()
            more = self._fill_windows()
        except StorageFault as fault:
            # Such as a full disk: pending texts stay listed and are tried again.
            logger.warning("pending vectors wait: %s", fault)
            self._stop.wait(_RETRY_SECONDS)
        else:
            self._trim()
            if not more:
                waits = [QUIET_SECONDS] if due else []
                waits += [_TRIM_SECONDS] if self._is_untrimmed() else []
                self._wake.wait(min(waits, default=None))

    def _worked(self, _: int) -> None:
        self._worked_at = time.monotonic()
        self._trim()

    def _is_untrimmed(self) -> bool:
        return max(self.used_at, self._worked_at) > self._trimmed_at

    def _trim(self) -> None:
        """Give back freed memory, if there was work since, and not too often."""
        if self._is_untrimmed() and time.monotonic() - self._trimmed_at >= _TRIM_SECONDS:
            self._trimmed_at = time.monotonic()
            give_back_memory()

    def _fill_windows(self) -> bool:
        """Embed windows while there is no other work; return whether more are left."""
        windows = self.recall.without_window
        embedder = self._embedder
        if embedder is None or not self.settings.window_vectors:
            windows.clear()
        for _ in range(_WINDOW_ROUNDS):
            if not windows or embedder is None or self._stop.is_set():
                break
            # Calls that wait for an answer go first, but windows must not wait without end.
            for _ in range(_WINDOW_PATIENCE):
                if time.monotonic() - self._embedded_at > _IDLE_SECONDS:
                    break
                self._stop.wait(_IDLE_SECONDS)
            self._backlog.fill_windows(embedder)
        return bool(windows or self.vectors.is_waiting)

    def _fill_indexes(self) -> None:
        """Load the vectors of large indexes; searches may run between two blocks."""
        more = True
        while more and not self._stop.is_set():
            with self.lock:
                more = self.indexes.fill_more()
            # Without a pause this thread would take the lock again before a waiting one wakes.
            self._stop.wait(_PAUSE_SECONDS)

    def _list_lost(self) -> None:
        if not self._lost_are_listed:
            self._backlog.find_lost()
            self._lost_are_listed = True

    def _warm(self, agent: str) -> None:
        try:
            with self.view(agent):
                self.archival.index(agent)
                self.recall.index(agent)
        except StorageFault as fault:
            # Each search reports it to its client; loading the model goes on.
            logger.warning("%s", fault)

    def _adopt_again(self) -> None:
        # Called with the store's write lock held: taking the feed's lock here could deadlock.
        self.vectors.drop_batch()
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
            self._now("downloading", str(progress))

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
            self._now("loading")
            self.use(FastEmbedder.load(files, threads=settings.threads))
            give_back_memory()  # What loading took: 30 MB.
        except ModelMismatch as fault:
            self._refusal = fault
            self._unavailable(str(fault))
        except ModelUnavailable as fault:
            self._unavailable("; ".join([str(fault), *fault.reasons]))

    def _now(self, state: ModelState, detail: str | None = None) -> None:
        before, self._state, self._detail = self._state, state, detail
        if state != before and self.on_state is not None:
            self.on_state()

    def _unavailable(self, reason: str) -> None:
        self._now("unavailable", reason)
        logger.warning("search works by words alone: %s", reason)


def _record(embedder: Embedder) -> ModelRecord:
    return ModelRecord(embedder.name, embedder.fingerprint, embedder.dimension)
