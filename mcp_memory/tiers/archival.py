"""Archival memory: texts that the agent chose to store, without a limit on their number.

A memory keeps its id; a change is a new version of it. The same text is stored once. Deleted
and superseded versions stay in the history, but no search finds them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.search.caches import Indexes
from mcp_memory.search.index import Ageing, SearchIndex
from mcp_memory.store.ports import Change, Pending, Store, UnitOfWork
from mcp_memory.tiers.feed import ChangeFeed
from mcp_memory.tiers.indexes import Document, TierIndexes
from mcp_memory.tiers.recall import READ_AHEAD, READ_AHEAD_ROWS
from mcp_memory.tiers.rowcache import RowCache, Tallies
from mcp_memory.tiers.vectors import BatchedVectors
from mcp_memory.values.dates import Clock
from mcp_memory.values.errors import InvalidInput, NotFound
from mcp_memory.values.ids import new_id, read_id
from mcp_memory.values.kinds import DEFAULTS, Policies
from mcp_memory.values.records import Kind, Memory, MemoryHit, Passage
from mcp_memory.values.requests import Tier, Where, labels_of
from mcp_memory.values.text import MAX_TAG_CHARS, check_text, content_hash, shorten

SOURCE_PREFIX: Final = "messages:"
"""The beginning of tags that name the messages a memory was made from; see `source_tag`."""


class ArchivalMemory:
    """The memories of every agent; follows the change feed.

    Args:
        store: Where the rows are.
        feed: Reports their changes.
        vectors: Stores the vectors of memories.
        tokenizer: Counts the tokens of memories.
        cache: The search indexes in memory, of all tiers.
        clock: Gives the time at which a memory is recorded.
        kinds: How a memory of each kind is stored, chunked and aged.
    """

    tier: Final[Tier] = "memory"
    of_facts: Final = True

    def __init__(
        self,
        store: Store,
        feed: ChangeFeed,
        vectors: BatchedVectors,
        tokenizer: Tokenizer,
        cache: Indexes,
        clock: Clock,
        kinds: Policies = DEFAULTS,
    ) -> None:
        self.kinds = kinds
        self._memories = store.memories
        self._feed = feed
        self._vectors = vectors
        self._tokenizer = tokenizer
        self._clock = clock
        self._tallies = Tallies(lambda agent: self._memories.tally(agent, feed.seq(agent)))
        self._hashes: dict[str, dict[str, str]] = {}
        self._rows: RowCache[tuple[str, str], Memory] = RowCache()
        self.indexes = TierIndexes(
            "memory",
            store,
            vectors,
            feed,
            cache,
            searchable=store.memories.searchable,
            retired=store.memories.retired,
            document=self._document,
            ageing=_ageing(kinds),
            sources=("memory",),
            read_ahead=self._read_ahead,
        )
        feed.follow(self)

    def draft(
        self, content: str, tags: tuple[str, ...], kind: Kind, happened_at: datetime | None
    ) -> Memory:
        """Return a new memory with an id, checked and counted, not yet stored.

        Raises:
            InvalidInput: The text can't be stored.
        """
        check_text(content, "content")
        moment = self._clock()
        return Memory(
            id=new_id(),
            version=1,
            content=content,
            kind=kind,
            tags=tags,
            tokens=self._tokenizer.count(content),
            happened_at=happened_at or moment,
            recorded_at=moment,
        )

    def reading(
        self, agent: str, memories: Sequence[Memory]
    ) -> contextlib.AbstractContextManager[None]:
        """Read the words of long memories that are about to be inserted, without the lock."""
        documents = map(self._document, memories)
        return self.indexes.reading(
            agent, [(key, text, about["prefix"]) for key, text, about in documents]
        )

    def same(self, agent: str, memory: Memory) -> Memory | None:
        """Return another memory that already has the same text."""
        twin = self._loaded_hashes(agent).get(content_hash(memory.content))
        return None if twin in {None, memory.id} else self.get(agent, str(twin))

    def get(self, agent: str, memory_id: str) -> Memory:
        """Return a memory.

        Raises:
            NotFound: The agent has no memory with this id, or it was deleted.
        """
        key = read_id(memory_id)
        found = {} if key is None else self.get_many(agent, [key])
        if not found:
            raise NotFound(
                f"there is no memory {shorten(memory_id, 40)!r}",
                key=memory_id,
                hint="archival_memory_search shows the ids; the memory may have been deleted",
            )
        return next(iter(found.values()))

    def get_many(self, agent: str, ids: Sequence[str]) -> dict[str, Memory]:
        """Return the memories with these ids that still exist."""
        found, missing = self._rows.split([(agent, key) for key in ids])
        if missing:
            rows = self._memories.get(agent, [key for _, key in missing])
            found += [self._cache(agent, memory) for memory in rows]
        return {memory.id: memory for memory in found}

    def revise(
        self,
        memory: Memory,
        *,
        content: str | None = None,
        tags: tuple[str, ...] | None = None,
        kind: Kind | None = None,
    ) -> Memory:
        """Return the next version of a memory, not yet stored.

        Raises:
            InvalidInput: Nothing would change, or the text can't be stored.
        """
        if content is None and tags is None and kind is None:
            raise InvalidInput(
                "nothing to change", field="content", hint="Give content, tags or kind"
            )
        if content is not None:
            check_text(content, "content")
        text = memory.content if content is None else content
        return replace(
            memory,
            version=memory.version + 1,
            content=text,
            tokens=memory.tokens if content is None else self._tokenizer.count(text),
            tags=memory.tags if tags is None else tags,
            kind=kind or memory.kind,
            recorded_at=self._clock(),
        )

    def insert(
        self, unit: UnitOfWork, agent: str, memories: Sequence[Memory], *, coming: bool = False
    ) -> None:
        """Write new memories and new versions.

        Args:
            coming: Whether their vectors are being computed; else they are listed as pending.
        """
        for memory in memories:
            if memory.version > 1:
                self._retire(unit, agent, memory.id, memory.recorded_at, superseded=True)
        self._memories.insert(unit, agent, memories)
        if not coming:
            self._vectors.defer(unit, [pending_of(agent, memory) for memory in memories])

    def delete(self, unit: UnitOfWork, agent: str, memory: Memory) -> None:
        """Mark a memory as deleted; its versions stay in the history."""
        self._retire(unit, agent, memory.id, self._clock(), superseded=False)

    def apply(self, change: Change) -> None:
        """Apply the next change of an agent; see `feed.Follower`."""
        agent = change.agent
        if change.memories or change.deleted:
            hashes = self._hashes.get(agent)
            if hashes is not None:
                stale = {*change.deleted, *(m.id for m in change.memories if m.version > 1)}
                self._forget_hashes(agent, hashes, stale)
                for memory in change.memories:
                    hashes[content_hash(memory.content)] = memory.id
            new = sum(memory.version == 1 for memory in change.memories)
            recorded = [memory.recorded_at for memory in change.memories]
            self._tallies.add(agent, new - len(change.deleted), recorded)
            for key in change.deleted:
                self._rows.drop((agent, key))
            for memory in change.memories:
                self._cache(agent, memory)
            self.indexes.remove(agent, change.deleted)
            self.indexes.add(agent, change.memories)
        self.indexes.apply_vectors(change)

    def forget(self) -> None:
        """Drop everything in memory."""
        self._tallies.clear()
        self._hashes.clear()
        self._rows.clear()
        self.indexes.forget()

    def count(self, agent: str) -> int:
        """Return how many memories an agent has."""
        return self._tallies.of(agent)[0]

    def newest(self, agent: str) -> datetime:
        """Return when the newest memory was recorded.

        May lie in the future if the clock was set back.
        """
        return self._tallies.of(agent)[1]

    def tags(self, agent: str, limit: int = 100) -> list[str]:
        """Return the tags in use except sources, the most frequent first."""
        return self._memories.tags(agent, limit, SOURCE_PREFIX)

    def recent_ids(self, agent: str, prefix: str, limit: int) -> list[str]:
        """Return the newest ids that begin with `prefix`."""
        return self._memories.recent_ids(agent, prefix, limit)

    def index(self, agent: str) -> SearchIndex[str]:
        """Return the search index of an agent, loaded if it isn't in memory."""
        return self.indexes.get(agent)

    def as_of(self, agent: str, memory_id: str, moment: datetime) -> Memory:
        """Return a memory as it was at a moment; raises what `get` does if it is deleted now."""
        present = self.get(agent, memory_id)
        return self._memories.as_of(agent, present.id, moment) or present

    def listing(
        self, agent: str, where: Where, *, offset: int, limit: int
    ) -> tuple[list[Memory | None], int]:
        """Return a page of memories by date, newest first, and how many match in all.

        None stands for a memory deleted since `where.as_of`, so that the others keep their places.
        """
        return self._memories.page(agent, where, offset=offset, limit=limit)

    def hit(
        self, record: Memory, passage: Passage, score: float, why: tuple[str, ...]
    ) -> MemoryHit:
        """Return a memory as a search result."""
        return MemoryHit(record, passage, score, why)

    def _retire(
        self, unit: UnitOfWork, agent: str, memory_id: str, moment: datetime, *, superseded: bool
    ) -> None:
        self._memories.retire(unit, agent, memory_id, moment, superseded=superseded)
        self._vectors.delete_text(unit, agent, "memory", memory_id)

    def _cache(self, agent: str, memory: Memory) -> Memory:
        self._rows.put((agent, memory.id), memory, len(memory.content))
        return memory

    def _loaded_hashes(self, agent: str) -> dict[str, str]:
        if agent not in self._hashes:
            self._hashes[agent] = self._memories.hashes(agent, self._feed.seq(agent))
        return self._hashes[agent]

    def _forget_hashes(self, agent: str, hashes: dict[str, str], ids: set[str]) -> None:
        unknown: set[str] = set()
        for key in ids:
            cached = self._rows.get((agent, key))
            known = None if cached is None else content_hash(cached.content)
            if known is not None and hashes.get(known) == key:
                del hashes[known]
            else:
                unknown.add(key)
        if unknown:
            for known in [known for known, key in hashes.items() if key in unknown]:
                del hashes[known]

    def _document(self, memory: Memory) -> Document:
        policy = self.kinds[memory.kind]
        about = {
            "when": memory.happened_at,
            "recorded": memory.recorded_at,
            "labels": labels_of("memory", memory),
            "prefix": " ".join(tag for tag in memory.tags if not tag.startswith(SOURCE_PREFIX)),
            "half_life_days": policy.half_life_days,
            "fade_floor": policy.fade_floor,
        }
        return memory.id, memory.content, about

    def _read_ahead(self, agent: str) -> Iterator[None]:
        if self.count(agent) > READ_AHEAD:
            return
        for first in range(0, self.count(agent), READ_AHEAD_ROWS):
            if self._rows.full:
                return
            for memory in self._memories.everything(agent, first, READ_AHEAD_ROWS):
                self._cache(agent, memory)
            yield


def pending_of(agent: str, memory: Memory) -> Pending:
    """Return a memory as a text to embed."""
    return Pending(agent, "memory", memory.id, memory.version)


def source_tag(conversation: str, first: int, last: int) -> str:
    """Return the tag of a memory made from messages `first` to `last`, both included.

    A long conversation name is cut.
    """
    numbers = f":{first}-{last}"
    room = MAX_TAG_CHARS - len(SOURCE_PREFIX) - len(numbers)
    return f"{SOURCE_PREFIX}{conversation[:room].strip()}{numbers}"


def _ageing(kinds: Policies) -> Ageing:
    """Return how scores of memories fall with age, by the label of their kind."""
    return {
        f"kind:{kind}": (policy.half_life_days, policy.fade_floor) for kind, policy in kinds.items()
    }
