"""Computes vectors: while a call waits, or later in the background."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mcp_memory.store.ports import Pending, Range, TextVectors, Vectors
from mcp_memory.tiers.archival import ArchivalMemory
from mcp_memory.tiers.feed import ChangeFeed
from mcp_memory.tiers.recall import WINDOW_MESSAGES, RecallMemory
from mcp_memory.tiers.vectors import BatchedVectors
from mcp_memory.values.render import render_window, speaker_prefix

if TYPE_CHECKING:
    from mcp_memory.models.embedding import Embedder

_NEAR_MESSAGES: Final = 3
"""The smaller of the two windows of a message; see `WINDOW_MESSAGES`."""

_WINDOWS_AT_ONCE: Final = 4
"""Windows that are embedded before other work gets the model; by judgement."""

_WINDOW_CHARS: Final = 1_800
"""About the 512 tokens of English that the default model reads at once."""

_BATCH_CHUNKS: Final = 64
"""Chunks that are embedded, and then written in one transaction; by judgement."""

_LONG_CHUNKS: Final = 16
"""A text of more chunks is written in parts; by judgement."""

_AHEAD: Final = 2
"""Batches computed while one is written, so that no processor waits; by judgement."""

_PENDING_AT_ONCE: Final = 2_048
"""Pending texts that are listed at once; by judgement."""

_TEXTS_AT_ONCE: Final = 256
"""Texts sorted by length, so that a batch needs little padding; by judgement."""

_MAX_CHARS_AT_ONCE: Final = 4_000_000
"""After this many characters fewer texts are read at once; by judgement."""


Embedded = tuple[list[Range], Vectors]
"""The chunks of a text and their vectors (n, dim)."""

INLINE_CHUNKS: Final = 64
"""Chunks that are embedded while the caller waits; more are computed afterwards. By judgement."""

_MAX_CHUNK_CHARS: Final = 4_000
"""No chunk of 512 tokens of plain text is longer; by judgement."""


@dataclass(frozen=True, slots=True)
class EmbeddingJob:
    """The chunks of some texts whose vectors are being computed."""

    ranges: list[list[Range]]
    computed: Future[Vectors]

    def result(self) -> list[Embedded]:
        """Wait for the vectors and return them by text; raises what the model raised."""
        vectors = self.computed.result()
        done: list[Embedded] = []
        at = 0
        for spans in self.ranges:
            done.append((spans, vectors[at : at + len(spans)]))
            at += len(spans)
        return done


def begin(
    embedder: Embedder,
    workers: Executor,
    texts: Sequence[str],
    prefixes: Sequence[str] | None = None,
    chunk_tokens: Sequence[int | None] | None = None,
) -> EmbeddingJob | None:
    """Begin to embed texts; returns None, and begins nothing, if they are too long to wait for.

    Args:
        prefixes: Text put before each chunk when it is embedded, such as the speaker.
        chunk_tokens: The longest chunk of each text; None for the model's own limit.
    """
    # A very long text has too many chunks for sure: it need not be cut to know it.
    if sum(map(len, texts)) > INLINE_CHUNKS * _MAX_CHUNK_CHARS:
        return None
    lengths = chunk_tokens or [None] * len(texts)
    ranges = [embedder.chunk(*text) for text in zip(texts, lengths, strict=True)]
    if sum(map(len, ranges)) > INLINE_CHUNKS:
        return None
    pieces = [
        prefix + text[a:b]
        for text, prefix, spans in zip(texts, prefixes or [""] * len(texts), ranges, strict=True)
        for a, b in spans
    ]
    return EmbeddingJob(ranges, workers.submit(embedder.embed_passages, pieces))


@dataclass(frozen=True, slots=True)
class _Job:
    """A pending text, cut into chunks."""

    item: Pending
    text: str
    prefix: str
    ranges: list[Range]

    def pieces(self, first: int = 0, end: int | None = None) -> list[str]:
        return [self.prefix + self.text[a:b] for a, b in self.ranges[first:end]]


class Backlog:
    """Computes the vectors that no call waits for.

    Args:
        feed: Its lock is held while a tier is used, and never while a model works.
        vectors: Where vectors are written.
        recall: The tier of messages.
        archival: The tier of memories.
    """

    def __init__(
        self,
        feed: ChangeFeed,
        vectors: BatchedVectors,
        recall: RecallMemory,
        archival: ArchivalMemory,
    ) -> None:
        self._feed = feed
        self._vectors = vectors
        self._recall = recall
        self._archival = archival

    def find_lost(self) -> int:
        """List texts whose vectors a crash has lost as pending, and return their number."""
        lost = self._vectors.lost()
        with self._feed.lock:
            return self._vectors.list_lost(lost) if lost else 0

    def find_windows(self) -> None:
        """Note the messages that have no window vectors."""
        missing = self._vectors.without_window()
        with self._feed.lock:
            known = set(self._recall.without_window)
            self._recall.without_window.extend(item for item in missing if item not in known)

    def fill_windows(self, embedder: Embedder) -> int:
        """Embed some messages together with those before them; return their number.

        The newest first: searches are most often for recent messages.
        """
        with self._feed.lock:
            queue = self._recall.without_window
            wanted = [queue.pop() for _ in range(min(_WINDOWS_AT_ONCE, len(queue)))]
            groups = [group for item in wanted if (group := self._recall.window(*item))]
        texts = [
            render_window(group[-count:], _WINDOW_CHARS)
            for group in groups
            for count in (_NEAR_MESSAGES, WINDOW_MESSAGES)
        ]
        if not texts:
            return len(wanted)
        vectors = embedder.embed_passages(texts, urgent=False)
        with self._feed.lock:
            for place, ((agent, _, _), group) in enumerate(zip(wanted, groups, strict=True)):
                item = Pending(agent, "window", group[-1].id, 1)
                text = TextVectors(item, [(0, 0), (0, 0)], vectors[2 * place : 2 * place + 2])
                self._vectors.batch(text)
                self._recall.indexes.add_vectors(text)
        return len(wanted)

    def take(self, texts: Sequence[TextVectors]) -> None:
        """Let searches use vectors that were computed while their texts were written.

        A text that was deleted since, or has another version, is left out.
        """
        with self._feed.lock:
            present = self._texts_of([text.item for text in texts])
            current = [text for text in texts if text.item in present]
            self._vectors.add(current)
            for text in current:
                tier = self._archival if text.item.source == "memory" else self._recall
                tier.indexes.add_vectors(text)

    def write_batch(self) -> int:
        """Write vectors that were computed while a call waited; return the number of texts."""
        with self._feed.lock:
            return self._vectors.write_batch()

    def fill(
        self,
        embedder: Embedder,
        stop: threading.Event,
        on_done: Callable[[int], None] | None = None,
    ) -> int:
        """Compute pending vectors until all are done or `stop` is set; return the number of texts.

        Args:
            on_done: Called from time to time with the number of texts done since the last call.
        """
        total = 0
        pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="backlog")
        try:
            while not stop.is_set():
                with self._feed.lock:
                    items = list(dict.fromkeys(self._vectors.pending(_PENDING_AT_ONCE)))
                if not items:
                    break
                for done in self._fill(embedder, items, stop, pool):
                    total += done
                    if on_done is not None:
                        on_done(done)
                    if stop.is_set():
                        break
                    # Vectors that a call has computed are written first, not after all of these.
                    if self._vectors.is_waiting:
                        self.write_batch()
        finally:
            pool.shutdown(cancel_futures=True)
        return total

    def _fill(
        self,
        embedder: Embedder,
        items: list[Pending],
        stop: threading.Event,
        pool: ThreadPoolExecutor,
    ) -> Iterator[int]:
        """Compute the vectors of pending texts, short ones together; yield how many are done.

        0 stands for a part of a long text.
        """
        computed: deque[tuple[list[_Job], Future[Vectors]]] = deque()
        for jobs in self._batches(embedder, items):
            if stop.is_set():
                return
            if len(jobs[0].ranges) > _LONG_CHUNKS:
                for _ in self._fill_long(embedder, jobs[0], stop):
                    yield 0
                yield 1
                continue
            pieces = [piece for job in jobs for piece in job.pieces()]
            computing = pool.submit(embedder.embed_passages, pieces, urgent=False)
            computed.append((jobs, computing))
            if len(computed) > _AHEAD:
                yield self._write(*computed.popleft())
        while computed and not stop.is_set():
            yield self._write(*computed.popleft())

    def _batches(self, embedder: Embedder, items: list[Pending]) -> Iterator[list[_Job]]:
        """Yield pending texts in batches of similar length, long ones alone."""
        at, count = 0, _TEXTS_AT_ONCE
        while at < len(items):
            texts = self._texts_of(items[at : at + count])
            at += count
            chars = sum(len(text) for text, _, _ in texts.values())
            count = max(count // 16, 1) if chars > _MAX_CHARS_AT_ONCE else _TEXTS_AT_ONCE
            jobs = [
                _Job(item, text, prefix, embedder.chunk(text, chunk_tokens))
                for item, (text, prefix, chunk_tokens) in texts.items()
            ]
            batch: list[_Job] = []
            for job in sorted(jobs, key=lambda job: len(job.text)):
                if len(job.ranges) > _LONG_CHUNKS:
                    yield [job]
                    continue
                batch.append(job)
                if sum(len(job.ranges) for job in batch) >= _BATCH_CHUNKS:
                    yield batch
                    batch = []
            if batch:
                yield batch

    def _write(self, jobs: list[_Job], computed: Future[Vectors]) -> int:
        """Write the vectors of a batch and let searches use them, except those of changed texts."""
        vectors = computed.result()
        parts = np.split(vectors, np.cumsum([len(job.ranges) for job in jobs])[:-1])
        with self._feed.lock:
            present = self._texts_of([job.item for job in jobs])
            done = [
                TextVectors(job.item, job.ranges, part)
                for job, part in zip(jobs, parts, strict=True)
                if job.item in present
            ]
            with self._feed.transaction() as unit:
                self._vectors.insert(unit, done)
        return len(jobs)

    def _fill_long(self, embedder: Embedder, job: _Job, stop: threading.Event) -> Iterator[None]:
        """Compute the vectors of one long text; other work may be done after each part."""
        item = job.item
        with self._feed.lock:
            first = self._vectors.count(item)
        while first < len(job.ranges) and not stop.is_set():
            end = min(first + _LONG_CHUNKS, len(job.ranges))
            vectors = embedder.embed_passages(job.pieces(first, end), urgent=False)
            with self._feed.lock:
                if not self._texts_of([item]):
                    return
                part = TextVectors(item, job.ranges[first:end], vectors, first)
                self._vectors.insert_part(part, last=end == len(job.ranges))
            first = end
            yield

    def _texts_of(self, items: Sequence[Pending]) -> dict[Pending, tuple[str, str, int | None]]:
        """Return each text's prefix for embedding and its longest chunk.

        Texts that are deleted, or have another version now, are left out and no longer pending.
        """
        found: dict[Pending, tuple[str, str, int | None]] = {}
        with self._feed.view(*{item.agent for item in items}):
            for agent, source in {(item.agent, item.source): None for item in items}:
                group = [item for item in items if (item.agent, item.source) == (agent, source)]
                ids = [item.id for item in group]
                if source == "memory":
                    memories = self._archival.get_many(agent, ids)
                    for item in group:
                        memory = memories.get(item.id)
                        if memory is not None and memory.version == item.version:
                            longest = self._archival.kinds[memory.kind].chunk_tokens
                            found[item] = memory.content, "", longest
                else:
                    messages = self._recall.get_many(agent, ids)
                    for item in group:
                        if item.id in messages:
                            message = messages[item.id]
                            prefix = speaker_prefix(message.created_at, message.name)
                            found[item] = message.content, prefix, None
            stale = [item for item in items if item not in found]
            if stale:
                with self._feed.transaction() as unit:
                    self._vectors.settle(unit, stale)
        return found
