"""The façade's archival memory: keep, search, correct, delete."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Final

from mcp_memory.agent.base import Part, check_limit, groups, passage, whole
from mcp_memory.search.language.analysis import terms
from mcp_memory.search.queries import Filter
from mcp_memory.store.duckdb.vectors import Pending
from mcp_memory.tiers.archival import Draft
from mcp_memory.tiers.underway import Embedded, Underway
from mcp_memory.values.dates import now, parse_moment, parse_range
from mcp_memory.values.errors import InvalidInput
from mcp_memory.values.kinds import Policies
from mcp_memory.values.records import (
    Inserted,
    Kind,
    Memory,
    MemoryHit,
    NearDuplicate,
    Page,
    TagMatch,
)
from mcp_memory.values.text import check_query, check_tags, shorten

_NEAR_DUPLICATES: Final = 3
_NEAR_CANDIDATES: Final = 20
_MIN_SHARED_FRAC: Final = 1 / 3
"""So many words two texts must share to be near-duplicates. A model that was not made for a
language puts all its texts close together: with the default one, two Chinese sentences about
different things have a cosine of 0.97. Measured in docs/kinds.md."""


class Archive(Part):
    """The memories that one agent chose to keep."""

    @property
    def kinds(self) -> Policies:
        """How a memory of each kind is kept; the same for all clients of the database."""
        return self._engine.archival.kinds

    def insert(
        self,
        content: str,
        *,
        tags: Iterable[str] = (),
        kind: Kind = Kind.FACT,
        happened_at: str | None = None,
    ) -> Inserted:
        """Keep a text; the same text again is the same memory, with any new tags added.

        Raises:
            InvalidInput: An argument can't be taken; nothing is kept.
        """
        self._engine.check()
        checked = check_tags(tags)
        moment = (
            None
            if happened_at is None
            else parse_moment(happened_at, zone=self._settings.zone, field="happened_at")
        )
        return self.keep([self._engine.archival.draft(content, checked, kind, moment)])[0]

    def search(
        self,
        query: str | None = None,
        *,
        tags: Iterable[str] = (),
        tag_match: TagMatch = "any",
        kinds: Sequence[Kind] = (),
        start_date: str | None = None,
        end_date: str | None = None,
        limit: int = 10,
        offset: int = 0,
        as_of: datetime | None = None,
    ) -> Page[MemoryHit]:
        """Search what was kept, or list it by date without a query; filters come first.

        Raises:
            InvalidInput: An argument can't be taken.
        """
        self._engine.check()
        query = check_query(query)
        limit = check_limit(limit, "top_k")
        wanted = check_tags(tags)
        start, end = parse_range(start_date, end_date, zone=self._settings.zone)
        if as_of is None:
            with self._engine.lock:
                # What was recorded before the clock was set back is there as well.
                as_of = max(now(), self._engine.archival.newest(self._agent))
        tag_groups = [[tag] for tag in wanted] if tag_match == "all" else [list(wanted)]
        labels = groups(
            *([f"tag:{tag}" for tag in group] for group in tag_groups),
            [f"kind:{kind}" for kind in kinds],
        )
        where = Filter(labels, start, end, as_of)
        archival = self._engine.archival
        if query is None:
            with self._engine.lock:
                listed, total = archival.listing(
                    self._agent,
                    tag_groups=[group for group in tag_groups if group],
                    kinds=kinds,
                    where=where,
                    offset=offset,
                    limit=limit,
                )
            there = [(at, m) for at, m in enumerate(listed, offset + 1) if m is not None]
            if listed and not there:
                # All of them have gone since the first page.
                return self.search(
                    tags=wanted,
                    tag_match=tag_match,
                    kinds=kinds,
                    start_date=start_date,
                    end_date=end_date,
                    limit=limit,
                    offset=offset + len(listed),
                    as_of=as_of,
                )
            hits = tuple(MemoryHit(m, whole(m.content), 0.0) for _, m in there)
            ends = tuple(at for at, _ in there)
            return Page(hits, total, offset, as_of, "listing", ends=ends)
        ranking, kind, note = self._rank(
            archival.index,
            query,
            where,
            offset=offset,
            limit=limit,
            of_facts=True,
        )
        with self._engine.lock:
            texts = archival.get_many(self._agent, [found.key for found in ranking.found])
        hits = tuple(
            MemoryHit(
                texts[f.key],
                passage(texts[f.key].content, f.start, f.end),
                f.score,
                f.why,
            )
            for f in ranking.found
            if f.key in texts
        )
        ends = tuple(f.place + 1 for f in ranking.found if f.key in texts)
        return Page(hits, ranking.total, offset, as_of, kind, note, ends)

    def get(self, memory_id: str, as_of: datetime | None = None) -> Memory:
        """Return a memory as a whole.

        Args:
            as_of: For the text that it had then.

        Raises:
            NotFound: There is none of this id, or it was deleted.
        """
        with self._engine.lock:
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
        """Supersede a memory; the text of before stays in the history, out of search.

        Raises:
            NotFound, InvalidInput: Nothing is changed.
        """
        self._engine.check()
        checked = None if tags is None else check_tags(tags)
        archival = self._engine.archival
        planned = archival.revise(self.get(memory_id), content=content, tags=checked, kind=kind)
        underway = self._embed([planned])
        with self._engine.lock:
            # Another call may have come between: what it did is the base then.
            present = archival.get(self._agent, memory_id)
            draft = archival.revise(present, content=content, tags=checked, kind=kind)
            twin = archival.same(self._agent, draft)
            if twin is not None:
                raise InvalidInput(
                    f"memory {twin.id!r} has this very text already",
                    field="content",
                    hint=f"Delete {present.id!r} if it says nothing else",
                )
            if not self._same_chunks(draft.memory, planned.memory):
                underway = None
            with self._engine.database.transaction() as tx:
                archival.store(tx, self._agent, draft, coming=underway is not None)
            archival.stored(self._agent, draft)
        self._engine.finish(underway, [self._pending(draft.memory)])
        return draft.memory

    def delete(self, memory_id: str) -> Memory:
        """Take a memory out of search and view, and return what it was.

        Raises:
            NotFound: There is none of this id.
        """
        with self._engine.lock:
            archival = self._engine.archival
            memory = archival.get(self._agent, memory_id)
            with self._engine.database.transaction() as tx:
                archival.delete(tx, self._agent, memory)
            archival.deleted(self._agent, memory.id)
        return memory

    def count(self) -> int:
        """Return the number of memories."""
        with self._engine.lock:
            return self._engine.archival.count(self._agent)

    def tags(self) -> list[str]:
        """Return the tags in use, those of the most memories first."""
        with self._engine.lock:
            return self._engine.archival.tags(self._agent)

    def recent_ids(self, prefix: str, limit: int = 20) -> list[str]:
        """Return the newest ids that begin with `prefix`, for completion."""
        with self._engine.lock:
            return self._engine.archival.recent_ids(self._agent, prefix, limit)

    def keep(self, drafts: Sequence[Draft]) -> list[Inserted]:
        """Store new memories, all or none; a text that is there already is kept once.

        They are written while the model works.
        """
        underway = self._embed(drafts)
        archival = self._engine.archival
        kept: list[tuple[Draft, Memory | None]] = []
        items: list[Pending | None] = []
        with self._engine.lock:
            with self._engine.database.transaction() as tx:
                seen: dict[str, Memory] = {}
                for draft in drafts:
                    twin = seen.get(draft.content_hash) or archival.same(self._agent, draft)
                    new = draft if twin is None else self._merged(twin, draft)
                    coming = underway is not None and self._same_chunks(new.memory, draft.memory)
                    if new.memory != twin:
                        archival.store(tx, self._agent, new, coming=coming)
                    seen[draft.content_hash] = new.memory
                    kept.append((new, twin))
                    items.append(
                        self._pending(new.memory) if coming and new.memory != twin else None
                    )
            for new, twin in kept:
                if new.memory != twin:
                    archival.stored(self._agent, new)
        # Nobody waits for the vectors of a text that was there already.
        waiting = underway if any(items) else None
        vectors = None if waiting is None else self._engine.embedded(waiting, items)
        done: list[Inserted] = []
        with self._engine.lock:
            near: list[tuple[NearDuplicate, ...]] = [()] * len(kept)
            if vectors is not None:
                near = [
                    self._nearest(new.memory, embedded) if twin is None else ()
                    for (new, twin), embedded in zip(kept, vectors, strict=True)
                ]
                self._engine.take(items, vectors)
            store = self._engine.vectors
            for (new, twin), item, named in zip(kept, items, near, strict=True):
                if new.memory == twin:
                    ready = not store.is_pending(self._agent, "memory", twin.id)
                else:
                    ready = item is not None and vectors is not None
                done.append(Inserted(new.memory, twin is None, ready, named))
        if not all(item.embedded for item in done):
            self._engine.wake()
        return done

    def _merged(self, twin: Memory, draft: Draft) -> Draft:
        """Return the memory that has the text already, with the tags it does not have yet."""
        tags = tuple(dict.fromkeys((*twin.tags, *draft.memory.tags)))
        if tags == twin.tags:
            return Draft(twin, draft.content_hash)
        return self._engine.archival.revise(twin, tags=tags)

    def _pending(self, memory: Memory) -> Pending:
        return Pending(self._agent, "memory", memory.id, memory.version)

    def _embed(self, drafts: Sequence[Draft]) -> Underway | None:
        memories = [draft.memory for draft in drafts]
        return self._engine.embed_soon(
            [memory.content for memory in memories],
            chunk_tokens=[self.kinds[memory.kind].chunk_tokens for memory in memories],
        )

    def _same_chunks(self, one: Memory, other: Memory) -> bool:
        """Return whether the ranges of one are those of the other, to the space around it."""
        lengths = {self.kinds[memory.kind].chunk_tokens for memory in (one, other)}
        return one.content == other.content and len(lengths) == 1

    def _nearest(self, memory: Memory, embedded: Embedded) -> tuple[NearDuplicate, ...]:
        """Return memories that say nearly the same as a new one: near, and in words it has too."""
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
    """Return how many of the words of the shorter text are in the other too; 1 without words."""
    fewer = min(len(some), len(others))
    return len(some & others) / fewer if fewer else 1.0
