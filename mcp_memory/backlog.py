"""Vectors that are still to be computed, or to be written: what the background does for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mcp_memory.archival import ArchivalMemory
from mcp_memory.recall import WINDOW_MESSAGES, RecallMemory
from mcp_memory.render import render_window, speaker_prefix
from mcp_memory.storage import Database
from mcp_memory.storage.vectors import Pending, Range, Vectors, VectorStore

if TYPE_CHECKING:
    from mcp_memory.embedding import Embedder

_NEAR_MESSAGES: Final = 3
_WINDOWS_AT_ONCE: Final = 4
_WINDOW_CHARS: Final = 1_800
"""About what the model reads at once."""

_BATCH_CHUNKS: Final = 16
_PENDING_AT_ONCE: Final = 64


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
        while not stop.is_set():
            with self.lock:
                items = self.vectors.pending(_PENDING_AT_ONCE)
            if not items:
                break
            for done in self._fill(embedder, items, stop):
                total += done
                if on_done is not None:
                    on_done(done)
                if stop.is_set():
                    break
        return total

    def _fill(
        self, embedder: Embedder, items: list[Pending], stop: threading.Event
    ) -> Iterator[int]:
        """Compute the vectors of pending texts, short ones together; give how many are done."""
        group: list[_Job] = []
        for item in items:
            with self.lock:
                found = self._text_of(item)
                if found is None:
                    with self.database.transaction() as tx:
                        self.vectors.settle(tx, item)
                    continue
            text, prefix, chunk_tokens = found
            job = _Job(item, text, prefix, embedder.chunk(text, chunk_tokens))
            if len(job.ranges) > _BATCH_CHUNKS:
                self._fill_long(embedder, job, stop)
                yield 1
                continue
            group.append(job)
            if sum(len(job.ranges) for job in group) >= _BATCH_CHUNKS:
                yield self._fill_group(embedder, group)
                group = []
            if stop.is_set():
                return
        if group:
            yield self._fill_group(embedder, group)

    def _fill_group(self, embedder: Embedder, group: list[_Job]) -> int:
        vectors = embedder.embed_passages([piece for job in group for piece in job.pieces()])
        parts = np.split(vectors, np.cumsum([len(job.ranges) for job in group])[:-1])
        with self.lock:
            with self.database.transaction() as tx:
                for job, part in zip(group, parts, strict=True):
                    item = job.item
                    # A run of before may have been cut short in the middle.
                    self.vectors.forget(tx, item.agent, item.source, item.id)
                    if self._text_of(item) is not None:
                        self.vectors.write(tx, item, job.ranges, part)
            for job, part in zip(group, parts, strict=True):
                self._found_later(job.item, job.ranges, part)
        return len(group)

    def _fill_long(self, embedder: Embedder, job: _Job, stop: threading.Event) -> None:
        item = job.item
        with self.lock:
            first = self.vectors.saved_count(item)
        while first < len(job.ranges) and not stop.is_set():
            end = min(first + _BATCH_CHUNKS, len(job.ranges))
            vectors = embedder.embed_passages(job.pieces(first, end))
            with self.lock:
                if self._text_of(item) is None:
                    return
                spans = job.ranges[first:end]
                self.vectors.save_part(item, first, spans, vectors, last=end == len(job.ranges))
                self._found_later(item, spans, vectors)
            first = end

    def _text_of(self, item: Pending) -> tuple[str, str, int | None] | None:
        """Return a pending text, what it is embedded with in front, and its longest chunk.

        None if it is gone.
        """
        if item.source == "memory":
            memory = self.archival.version(item.agent, item.id, item.version)
            if memory is None:
                return None
            return memory.content, "", self.archival.kinds[memory.kind].chunk_tokens
        message = self.recall.find(item.agent, item.id)
        return None if message is None else (message.content, speaker_prefix(message), None)

    def _found_later(self, item: Pending, ranges: Sequence[Range], vectors: Vectors) -> None:
        tier = self.archival if item.source == "memory" else self.recall
        tier.add_vectors(item.agent, item.id, ranges, vectors)
