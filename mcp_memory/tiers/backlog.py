"""Vectors that are still to be computed, or to be written: what the background does for them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mcp_memory.store.duckdb import Database
from mcp_memory.store.duckdb.vectors import Pending, Range, Vectors, VectorStore
from mcp_memory.tiers.archival import ArchivalMemory
from mcp_memory.tiers.recall import WINDOW_MESSAGES, RecallMemory
from mcp_memory.values.render import render_window, speaker_prefix

if TYPE_CHECKING:
    from mcp_memory.models.embedding import Embedder

_NEAR_MESSAGES: Final = 3
_WINDOWS_AT_ONCE: Final = 4
_WINDOW_CHARS: Final = 1_800
"""About what the model reads at once."""

_BATCH_CHUNKS: Final = 64
"""So many chunks are embedded, and then written in one transaction."""

_LONG_CHUNKS: Final = 16
"""A text of more chunks is written in parts."""

_AHEAD: Final = 2
"""While one batch is written so many others are computed: no processor waits for the database."""

_PENDING_AT_ONCE: Final = 2_048
_TEXTS_AT_ONCE: Final = 256
"""So many texts are ordered by length: a batch of like ones needs little padding."""

_MAX_CHARS_AT_ONCE: Final = 4_000_000
"""After so many characters fewer texts are read at once."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A pending text, cut into what is embedded."""

    item: Pending
    text: str
    prefix: str
    ranges: list[Range]

    def pieces(self, first: int = 0, end: int | None = None) -> list[str]:
        return [self.prefix + self.text[a:b] for a, b in self.ranges[first:end]]


class Backlog:
    """What is put off for one database.

    Args:
        lock: Held whenever a tier is touched, and never while a model works.
    """

    def __init__(
        self,
        database: Database,
        vectors: VectorStore,
        recall: RecallMemory,
        archival: ArchivalMemory,
        lock: threading.RLock,
    ) -> None:
        self.database = database
        self.vectors = vectors
        self.recall = recall
        self.archival = archival
        self.lock = lock

    def find_lost(self) -> int:
        """List texts as pending whose vectors a crash has lost, and return how many."""
        lost = self.vectors.lost()
        with self.lock:
            return self.vectors.list_lost(lost) if lost else 0

    def find_windows(self) -> None:
        """Note the messages that have no window vectors."""
        missing = self.vectors.without_window()
        with self.lock:
            known = set(self.recall.without_window)
            self.recall.without_window.extend(item for item in missing if item not in known)

    def fill_windows(self, embedder: Embedder) -> int:
        """Embed some messages together with those before them; return how many.

        Newest first: what was said just now is asked for first.
        """
        with self.lock:
            queue = self.recall.without_window
            wanted = [queue.pop() for _ in range(min(_WINDOWS_AT_ONCE, len(queue)))]
            groups = [group for item in wanted if (group := self.recall.window(*item))]
        texts = [
            render_window(group[-count:], _WINDOW_CHARS)
            for group in groups
            for count in (_NEAR_MESSAGES, WINDOW_MESSAGES)
        ]
        if not texts:
            return len(wanted)
        vectors = embedder.embed_passages(texts)
        with self.lock:
            for place, ((agent, _, _), group) in enumerate(zip(wanted, groups, strict=True)):
                both = vectors[2 * place : 2 * place + 2]
                item = Pending(agent, "window", group[-1].id, 1)
                self.vectors.hold(item, [(0, 0), (0, 0)], both)
                self.recall.add_windows(agent, group[-1], both)
        return len(wanted)

    def take(self, texts: Sequence[tuple[Pending, Sequence[Range], Vectors]]) -> None:
        """Let vectors be used that were computed while their texts were written.

        A text that has gone since, or has another version, is left out.
        """
        with self.lock:
            present = self._texts_of([item for item, _, _ in texts])
            there = [text for text in texts if text[0] in present]
            self.vectors.keep(there)
            for text in there:
                self._found_later(*text)

    def write_held(self) -> int:
        """Write vectors that were computed while a caller waited; return of how many texts."""
        with self.lock:
            return self.vectors.write_held()

    def fill(
        self,
        embedder: Embedder,
        stop: threading.Event,
        on_done: Callable[[int], None] | None = None,
    ) -> int:
        """Compute pending vectors until there are none or `stop` is set; return of how many texts.

        Args:
            on_done: Called with the number of texts done since the last call.
        """
        total = 0
        pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="backlog")
        try:
            while not stop.is_set():
                with self.lock:
                    items = list(dict.fromkeys(self.vectors.pending(_PENDING_AT_ONCE)))
                if not items:
                    break
                for done in self._fill(embedder, items, stop, pool):
                    total += done
                    if on_done is not None:
                        on_done(done)
                    if stop.is_set():
                        break
                    # What callers have waited for is not to wait until all of this is done.
                    if self.vectors.holds:
                        self.write_held()
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
        """Compute the vectors of pending texts, short ones together; give how many are done."""
        computed: deque[tuple[list[_Job], Future[Vectors]]] = deque()
        for jobs in self._batches(embedder, items):
            if stop.is_set():
                return
            if len(jobs[0].ranges) > _LONG_CHUNKS:
                self._fill_long(embedder, jobs[0], stop)
                yield 1
                continue
            pieces = [piece for job in jobs for piece in job.pieces()]
            computed.append((jobs, pool.submit(embedder.embed_passages, pieces)))
            if len(computed) > _AHEAD:
                yield self._write(*computed.popleft())
        while computed and not stop.is_set():
            yield self._write(*computed.popleft())

    def _batches(self, embedder: Embedder, items: list[Pending]) -> Iterator[list[_Job]]:
        """Give pending texts in batches of like length, a long one alone."""
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
        """Write the vectors of a batch and let them be used; what has changed since is left out."""
        vectors = computed.result()
        parts = np.split(vectors, np.cumsum([len(job.ranges) for job in jobs])[:-1])
        with self.lock:
            present = self._texts_of([job.item for job in jobs])
            done = [
                (job.item, job.ranges, part)
                for job, part in zip(jobs, parts, strict=True)
                if job.item in present
            ]
            with self.database.transaction() as tx:
                # A text of one chunk is never written in parts.
                self.vectors.drop_parts(tx, [item for item, spans, _ in done if len(spans) > 1])
                self.vectors.write_all(tx, done)
                self.vectors.settle(tx, [item for item, _, _ in done])
            for item, spans, part in done:
                self._found_later(item, spans, part)
        return len(jobs)

    def _fill_long(self, embedder: Embedder, job: _Job, stop: threading.Event) -> None:
        item = job.item
        with self.lock:
            first = self.vectors.saved_count(item)
        while first < len(job.ranges) and not stop.is_set():
            end = min(first + _LONG_CHUNKS, len(job.ranges))
            vectors = embedder.embed_passages(job.pieces(first, end))
            with self.lock:
                if not self._texts_of([item]):
                    return
                spans = job.ranges[first:end]
                self.vectors.save_part(item, first, spans, vectors, last=end == len(job.ranges))
                self._found_later(item, spans, vectors)
            first = end

    def _texts_of(self, items: Sequence[Pending]) -> dict[Pending, tuple[str, str, int | None]]:
        """Return of each text what it is embedded with in front, and its longest chunk.

        What is gone, or has another version now, is taken off the list and left out.
        """
        found: dict[Pending, tuple[str, str, int | None]] = {}
        with self.lock:
            for agent, source in {(item.agent, item.source): None for item in items}:
                group = [item for item in items if (item.agent, item.source) == (agent, source)]
                ids = [item.id for item in group]
                if source == "memory":
                    memories = self.archival.get_many(agent, ids)
                    for item in group:
                        memory = memories.get(item.id)
                        if memory is not None and memory.version == item.version:
                            longest = self.archival.kinds[memory.kind].chunk_tokens
                            found[item] = memory.content, "", longest
                else:
                    messages = self.recall.get_many(agent, ids)
                    for item in group:
                        if item.id in messages:
                            message = messages[item.id]
                            found[item] = message.content, speaker_prefix(message), None
            gone = [item for item in items if item not in found]
            if gone:
                with self.database.transaction() as tx:
                    self.vectors.settle(tx, gone)
        return found

    def _found_later(self, item: Pending, ranges: Sequence[Range], vectors: Vectors) -> None:
        tier = self.archival if item.source == "memory" else self.recall
        tier.add_vectors(item.agent, item.id, ranges, vectors)
