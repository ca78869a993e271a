"""The façade's archival memory: insert, search, update, delete."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

from mcp_memory.agent.base import Part, request_of
from mcp_memory.search.language.analysis import terms
from mcp_memory.store.ports import Pending
from mcp_memory.tiers.archival import pending_of
from mcp_memory.tiers.jobs import Embedded, EmbeddingJob
from mcp_memory.values.dates import parse_moment
from mcp_memory.values.errors import InvalidInput
from mcp_memory.values.kinds import Policies
from mcp_memory.values.records import (
    Inserted,
    Kind,
    Memory,
    MemoryHit,
    NearDuplicate,
    Page,
)
from mcp_memory.values.requests import SearchRequest
from mcp_memory.values.text import check_tags, content_hash, shorten

_NEAR_DUPLICATES: Final = 3
"""Near-duplicates that an insert returns at most; by judgement."""

_NEAR_CANDIDATES: Final = 20
"""Nearest memories whose words are compared with those of a new one; by judgement."""

_MIN_SHARED_FRAC: Final = 1 / 3
"""The part of their words that two near-duplicates share at least. A model that was not trained
on a language puts all its texts close together: with the default one, two Chinese sentences about
different things have a cosine of 0.97. Measured in docs/kinds.md."""


class Archive(Part):
    """The archival memories of one agent."""

    @property
    def kinds(self) -> Policies:
        """How a memory of each kind is stored; the same for all clients of the database."""
        return self._engine.archival.kinds

    def insert(
        self,
        content: str,
        *,
        tags: Iterable[str] = (),
        kind: Kind = Kind.FACT,
        happened_at: str | None = None,
    ) -> Inserted:
        """Store a text; storing the same text again only adds its new tags to that memory.

        Raises:
            InvalidInput: An argument is not valid; nothing is stored.
        """
        self._engine.check()
        checked = check_tags(tags)
        moment = (
            None
            if happened_at is None
            else parse_moment(happened_at, zone=self._settings.zone, field="happened_at")
        )
        return self.insert_all([self._engine.archival.draft(content, checked, kind, moment)])[0]

    def search(self, query: SearchRequest | str | None = None, **filters: Any) -> Page[MemoryHit]:
        """Search the memories, or list them by date without a query; filters come first.

        Args:
            query: A whole request, or its query.
            filters: The other fields of `SearchRequest`.

        Raises:
            InvalidInput: The request is not valid.
        """
        return self._search(self._engine.archival, request_of(query, filters))

    def get(self, memory_id: str, as_of: datetime | None = None) -> Memory:
        """Return a whole memory.

        Args:
            as_of: Return the version of this moment; None for the current one.

        Raises:
            NotFound: No memory has this id, or it was deleted.
        """
        with self._view():
            if as_of is not None:
                return self._engine.archival.as_of(self._agent, memory_id, as_of)
            return self._engine.archival.get(self._agent, memory_id)

    def update(
        self,
        memory_id: str,
        *,
        content: str | None = None,
        tags: Iterable[str] | None = None,
        kind: Kind | None = None,
    ) -> Memory:
        """Write a new version of a memory; the old one stays in the history, out of search.

        Raises:
            NotFound, InvalidInput: Nothing was changed.
        """
        self._engine.check()
        checked = None if tags is None else check_tags(tags)
        archival = self._engine.archival
        planned = archival.revise(self.get(memory_id), content=content, tags=checked, kind=kind)
        job = self._embed([planned])
        with archival.reading(self._agent, [planned]), self._view():
            # Another call may have changed it meanwhile: its version is then the base.
            present = archival.get(self._agent, memory_id)
            revised = archival.revise(present, content=content, tags=checked, kind=kind)
            twin = archival.same(self._agent, revised)
            if twin is not None:
                raise InvalidInput(
                    f"memory {twin.id!r} has this very text already",
                    field="content",
                    hint=f"Delete {present.id!r} if it says nothing else",
                )
            if not self._same_chunks(revised, planned):
                job = None
            with self._engine.transaction() as unit:
                archival.insert(unit, self._agent, [revised], coming=job is not None)
        self._engine.finish(job, [pending_of(self._agent, revised)])
        return revised

    def delete(self, memory_id: str) -> Memory:
        """Delete a memory, and return its last version; the history keeps it.

        Raises:
            NotFound: No memory has this id.
        """
        with self._view():
            archival = self._engine.archival
            memory = archival.get(self._agent, memory_id)
            with self._engine.transaction() as unit:
                archival.delete(unit, self._agent, memory)
        return memory

    def count(self) -> int:
        """Return the number of memories."""
        with self._view():
            return self._engine.archival.count(self._agent)

    def tags(self) -> list[str]:
        """Return the tags in use, the most frequent first."""
        with self._view():
            return self._engine.archival.tags(self._agent)

    def recent_ids(self, prefix: str, limit: int = 20) -> list[str]:
        """Return the newest ids that begin with `prefix`, for completion."""
        with self._view():
            return self._engine.archival.recent_ids(self._agent, prefix, limit)

    def insert_all(self, memories: Sequence[Memory]) -> list[Inserted]:
        """Store new memories, all or none; a text that is already stored is not stored twice.

        The rows are written while the model computes the vectors.
        """
        job = self._embed(memories)
        archival = self._engine.archival
        stored: list[tuple[Memory, Memory | None]] = []
        items: list[Pending | None] = []
        reading = archival.reading(self._agent, memories)
        with reading, self._view(), self._engine.transaction() as unit:
            seen: dict[str, Memory] = {}
            for memory in memories:
                digest = content_hash(memory.content)
                twin = seen.get(digest) or archival.same(self._agent, memory)
                new = memory if twin is None else self._merged(twin, memory)
                coming = job is not None and self._same_chunks(new, memory)
                if new != twin:
                    archival.insert(unit, self._agent, [new], coming=coming)
                seen[digest] = new
                stored.append((new, twin))
                items.append(pending_of(self._agent, new) if coming and new != twin else None)
        # No call waits for the vectors of a text that was already stored.
        waiting = job if any(items) else None
        vectors = None if waiting is None else self._engine.embedded(waiting, items)
        done: list[Inserted] = []
        with self._view():
            near: list[tuple[NearDuplicate, ...]] = [()] * len(stored)
            if vectors is not None:
                near = [
                    self._nearest(new, embedded) if twin is None else ()
                    for (new, twin), embedded in zip(stored, vectors, strict=True)
                ]
                self._engine.take(items, vectors)
            for (new, twin), item, named in zip(stored, items, near, strict=True):
                if new == twin:
                    ready = not self._engine.vectors.is_pending(self._agent, "memory", new.id)
                else:
                    ready = item is not None and vectors is not None
                done.append(Inserted(new, twin is None, ready, named))
        if not all(item.embedded for item in done):
            self._engine.wake()
        return done

    def _merged(self, twin: Memory, memory: Memory) -> Memory:
        """Return the memory that already has this text, with the new tags added."""
        tags = tuple(dict.fromkeys((*twin.tags, *memory.tags)))
        return twin if tags == twin.tags else self._engine.archival.revise(twin, tags=tags)

    def _embed(self, memories: Sequence[Memory]) -> EmbeddingJob | None:
        return self._engine.embed_soon(
            [memory.content for memory in memories],
            chunk_tokens=[self.kinds[memory.kind].chunk_tokens for memory in memories],
        )

    def _same_chunks(self, one: Memory, other: Memory) -> bool:
        """Return whether both are cut into the same chunks."""
        lengths = {self.kinds[memory.kind].chunk_tokens for memory in (one, other)}
        return one.content == other.content and len(lengths) == 1

    def _nearest(self, memory: Memory, embedded: Embedded) -> tuple[NearDuplicate, ...]:
        """Return memories that say nearly the same as a new one: close in meaning and in words."""
        of_model = self._engine.near_duplicate_at()
        if of_model is None:
            return ()
        ranges, rows = embedded
        archival = self._engine.archival
        found = archival.index(self._agent).nearest(
            rows[0],
            at_least=self.kinds[memory.kind].near_duplicate_at(of_model),
            limit=_NEAR_CANDIDATES,
        )
        if not found:
            return ()
        texts = archival.get_many(self._agent, [item.key for item in found])
        words = set(terms(memory.content[slice(*ranges[0])]))
        named = (
            NearDuplicate(item.key, item.score, shorten(texts[item.key].content, 120))
            for item in found
            if item.key in texts
            and _shared_frac(words, set(terms(texts[item.key].content[item.start : item.end])))
            >= _MIN_SHARED_FRAC
        )
        return tuple(islice(named, _NEAR_DUPLICATES))


def _shared_frac(some: set[str], others: set[str]) -> float:
    """Return the part of the shorter text's words that the other has too; 1 without words."""
    fewer = min(len(some), len(others))
    return len(some & others) / fewer if fewer else 1.0
