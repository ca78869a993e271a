"""The vectors of a store, written in batches, and the model that computed them.

Vectors can be computed again from the text, so a reply need not wait until they are stored:
they are collected for a moment and written together. After a crash in this moment,
`list_lost` finds the texts without vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np

from mcp_memory.store.ports import (
    Change,
    ModelRecord,
    Pending,
    Source,
    Store,
    TextVectors,
    UnitOfWork,
    VectorBlock,
)
from mcp_memory.tiers.feed import ChangeFeed
from mcp_memory.values.errors import ModelMismatch


class BatchedVectors:
    """The vectors of a store, some of them not yet written.

    Args:
        store: Where they are written.
        feed: Begins units of work.
    """

    def __init__(self, store: Store, feed: ChangeFeed) -> None:
        self.on_batched: Callable[[], None] | None = None
        """Called when vectors wait for `write_batch`; without it they are written at once."""
        self._store = store
        self._vectors = store.vectors
        self._feed = feed
        self._batch: dict[tuple[str, Source, str], TextVectors] = {}
        feed.follow(self)

    def apply(self, change: Change) -> None:
        """Drop the vectors of texts that are others now; see `feed.Follower`."""
        for key in (*change.deleted, *(memory.id for memory in change.memories)):
            self._batch.pop((change.agent, "memory", key), None)

    def forget(self) -> None:
        """Do nothing: these vectors are of no rows; see `drop_batch`."""

    def model(self) -> ModelRecord | None:
        """Return the model that computed the vectors, None before the first one."""
        return self._vectors.model()

    def check_name(self, name: str) -> None:
        """Check by name alone, before its files are loaded, that a model fits this store.

        Raises:
            ModelMismatch: The vectors were made by another model.
        """
        stored = self.model()
        if stored is not None and stored.name != name:
            raise ModelMismatch(stored=stored.name, wanted=name)

    def adopt(self, model: ModelRecord) -> None:
        """Record this as the model of the store, if it has none yet.

        Raises:
            ModelMismatch: The vectors were made by another model, or another file of it.
        """
        stored = self.model()
        if stored is None:
            # No cache follows it, and the store may need it while it is being opened again.
            with self._store.transaction() as unit:
                self._vectors.set_model(unit, model)
        elif stored != model:
            raise ModelMismatch(stored=_describe(stored), wanted=_describe(model))

    def replace_model(self, model: ModelRecord) -> None:
        """Drop every vector, adopt another model, and list every current text as pending."""
        self.drop_batch()
        with self._feed.transaction() as unit:
            self._vectors.set_model(unit, model)
            self._vectors.defer_all(unit)

    def add(self, texts: Sequence[TextVectors]) -> None:
        """Store vectors of texts that are already stored, at once or with the next batch."""
        if not texts:
            return
        for text in texts:
            self.batch(text)
        if self.on_batched is None:
            self.write_batch()
        else:
            self.on_batched()

    def batch(self, text: TextVectors) -> None:
        """Add the vectors of a text that is already stored to the next `write_batch`."""
        item = text.item
        self._batch[item.agent, item.source, item.id] = text

    @property
    def is_waiting(self) -> bool:
        """Whether vectors wait to be written."""
        return bool(self._batch)

    def write_batch(self) -> int:
        """Write the vectors that wait, and return the number of texts."""
        with self._feed.view(*{agent for agent, _, _ in self._batch}):
            waiting = tuple(self._batch.items())
            if waiting:
                with self._feed.transaction() as unit:
                    self._vectors.insert(unit, [text for _, text in waiting], known=True)
                for key, text in waiting:
                    if self._batch.get(key) is text:
                        del self._batch[key]
            return len(waiting)

    def drop_batch(self) -> None:
        """Drop the vectors that wait: the store is another one now."""
        self._batch.clear()

    def insert(self, unit: UnitOfWork, texts: Sequence[TextVectors]) -> None:
        """Write vectors that no search knows yet, and remove their texts from the pending list."""
        # A text of one chunk is never written in parts.
        longer = [text.item for text in texts if len(text.ranges) > 1]
        self._vectors.delete(unit, longer)
        self._vectors.insert(unit, texts)
        self._vectors.settle(unit, [text.item for text in texts])

    def insert_part(self, text: TextVectors, *, last: bool) -> None:
        """Write a part of the vectors of a pending text; after the last part it is done."""
        with self._feed.transaction() as unit:
            self._vectors.insert(unit, [text])
            if last:
                self._vectors.settle(unit, [text.item])

    def count(self, item: Pending) -> int:
        """Return the number of vectors of a pending text that an interrupted run has written."""
        return self._vectors.count(item)

    def lost(self) -> list[Pending]:
        """Return texts without vectors that are not listed as pending, waiting ones included."""
        return self._vectors.lost()

    def list_lost(self, items: Sequence[Pending]) -> int:
        """List the texts that still have no vectors as pending, and return their number."""
        missing = [
            item
            for item in items
            if (item.agent, item.source, item.id) not in self._batch and not self.count(item)
        ]
        if missing:
            with self._feed.transaction() as unit:
                self.defer(unit, missing)
        return len(missing)

    def without_window(self) -> list[tuple[str, str, int]]:
        """Return the messages without window vectors, newest first: agent, conversation, index."""
        return [
            (agent, conversation, index)
            for agent, conversation, index, key in self._vectors.without_window()
            if (agent, "window", key) not in self._batch
        ]

    def defer(self, unit: UnitOfWork, items: Sequence[Pending]) -> None:
        """List texts as pending."""
        self._vectors.defer(unit, items)

    def settle(self, unit: UnitOfWork, items: Sequence[Pending]) -> None:
        """Remove these versions of texts from the pending list."""
        self._vectors.settle(unit, items)

    def delete_text(self, unit: UnitOfWork, agent: str, source: Source, text_id: str) -> None:
        """Delete the vectors of every version of a text, and its pending entries."""
        self._vectors.delete_text(unit, agent, source, text_id)

    def pending(self, limit: int) -> list[Pending]:
        """Return some pending texts."""
        return self._vectors.pending(limit)

    def is_pending(self, agent: str, source: Source, text_id: str) -> bool:
        """Return whether a text is pending."""
        return self._vectors.is_pending(agent, source, text_id)

    def pending_count(self, agent: str | None = None) -> int:
        """Return the number of pending texts, of one agent or of all."""
        return self._vectors.pending_count(agent)

    def blocks(self, agent: str, source: Source, upto: int) -> Iterator[VectorBlock]:
        """Return all vectors of an agent's texts, those unwritten now first and all at once."""
        waiting = [
            (text.item.id, number, span, vector)
            for (owner, kind, _), text in self._batch.items()
            if (owner, kind) == (agent, source)
            for number, (span, vector) in enumerate(
                zip(text.ranges, text.vectors, strict=True), text.first
            )
        ]
        written = self._vectors.blocks(agent, source, upto)
        if not waiting:
            return written
        ids, numbers, ranges, vectors = zip(*waiting, strict=True)
        spans = np.asarray(ranges, dtype=np.int32)
        block = VectorBlock(
            ids=list(ids),
            numbers=np.asarray(numbers, dtype=np.int32),
            starts=spans[:, 0],
            ends=spans[:, 1],
            vectors=np.stack(vectors),
        )
        return chain((block,), written)


def _describe(model: ModelRecord) -> str:
    return f"{model.name} ({model.dimension} dimensions, file {model.fingerprint[:12]})"
