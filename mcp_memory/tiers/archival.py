"""Archival memory: texts the agent chose to keep, as many as it likes.

A memory's id stays; a change is a new version of it. The same text is kept
once. What was deleted or superseded stays in the history, out of every search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.search.caches import Indexes
from mcp_memory.search.index import SearchIndex
from mcp_memory.search.queries import Filter
from mcp_memory.store.duckdb import Database, Transaction
from mcp_memory.store.duckdb.cache import READ_AHEAD, RowCache, Tallies, read_ahead
from mcp_memory.store.duckdb.database import Row
from mcp_memory.store.duckdb.vectors import Pending, Range, Vectors, VectorStore
from mcp_memory.tiers.findable import MEMORIES, SOURCE_PREFIX, ageing, memory_reader, of_memory
from mcp_memory.tiers.keeping import Keeping
from mcp_memory.values.dates import EPOCH, now
from mcp_memory.values.errors import InvalidInput, NotFound
from mcp_memory.values.ids import new_id, read_id
from mcp_memory.values.kinds import DEFAULTS, Policies
from mcp_memory.values.records import Kind, Memory
from mcp_memory.values.text import check_text, content_hash, shorten

_COLUMNS: Final = "id, version, content, kind, tags, tokens, happened_at, recorded_at"


@dataclass(frozen=True, slots=True)
class Draft:
    """A memory to be stored, checked and counted."""

    memory: Memory
    content_hash: str


class ArchivalMemory:
    """The memories of every agent, with the search index of each as a cache.

    Args:
        kinds: How a memory of each kind is kept.
    """

    def __init__(
        self,
        database: Database,
        vectors: VectorStore,
        tokenizer: Tokenizer,
        indexes: Indexes,
        keeping: Keeping,
        kinds: Policies = DEFAULTS,
    ) -> None:
        self.kinds = kinds
        self._db = database
        self._vectors = vectors
        self._tokenizer = tokenizer
        self._indexes = indexes
        self._keeping = keeping
        self._tallies = Tallies(database, "memories", "retired_at IS NULL")
        self._hashes: dict[str, dict[str, str]] = {}
        self._rows_read: RowCache[tuple[str, str], Memory] = RowCache()
        self._generation = database.generation

    def draft(
        self, content: str, tags: tuple[str, ...], kind: Kind, happened_at: datetime | None
    ) -> Draft:
        """Return a new memory with an id, not yet stored.

        Raises:
            InvalidInput: The text can't be taken.
        """
        check_text(content, "content")
        moment = now()
        memory = Memory(
            new_id(),
            1,
            content,
            kind,
            tags,
            self._tokenizer.count(content),
            happened_at or moment,
            moment,
        )
        return Draft(memory, content_hash(content))

    def same(self, agent: str, draft: Draft) -> Memory | None:
        """Return the memory that has the same text already."""
        twin = self._held_hashes(agent).get(draft.content_hash)
        return None if twin in {None, draft.memory.id} else self.get(agent, str(twin))

    def get(self, agent: str, memory_id: str) -> Memory:
        """Return a memory.

        Raises:
            NotFound: The agent has none of this id, or it was deleted.
        """
        key = read_id(memory_id)
        found = {} if key is None else self.get_many(agent, [key])
        if not found:
            raise NotFound(
                f"there is no memory {shorten(memory_id, 40)!r}",
                key=memory_id,
                hint="Ids are those that archival_memory_search shows; it may have been deleted",
            )
        return next(iter(found.values()))

    def get_many(self, agent: str, ids: Sequence[str]) -> dict[str, Memory]:
        """Return the memories of these ids that are still there."""
        self._check_generation()
        found, missing = self._rows_read.split([(agent, key) for key in ids])
        if missing:
            rows = self._rows(agent, [key for _, key in missing])
            found += [self._keep(agent, _memory(row)) for row in rows]
        return {memory.id: memory for memory in found}

    def revise(
        self,
        memory: Memory,
        *,
        content: str | None = None,
        tags: tuple[str, ...] | None = None,
        kind: Kind | None = None,
    ) -> Draft:
        """Return the next version of a memory, not yet stored.

        Raises:
            InvalidInput: Nothing is to change, or the text can't be taken.
        """
        if content is None and tags is None and kind is None:
            raise InvalidInput(
                "nothing to change", field="content", hint="Give content, tags or kind"
            )
        if content is not None:
            check_text(content, "content")
        text = memory.content if content is None else content
        revised = replace(
            memory,
            version=memory.version + 1,
            content=text,
            tokens=memory.tokens if content is None else self._tokenizer.count(text),
            tags=memory.tags if tags is None else tags,
            kind=kind or memory.kind,
            recorded_at=now(),
        )
        return Draft(revised, content_hash(text))

    def store(self, tx: Transaction, agent: str, draft: Draft, *, coming: bool = False) -> None:
        """Write a memory or its next version; call `stored` after the commit.

        Args:
            coming: Whether its vectors are being computed, or else are listed as pending.
        """
        memory = draft.memory
        if memory.version > 1:
            self._retire(tx, agent, memory.id, memory.recorded_at)
        tx.insert_many("memories", [_row(agent, draft)])
        if not coming:
            self._vectors.defer(tx, [Pending(agent, "memory", memory.id, memory.version)])

    def store_new(self, tx: Transaction, agent: str, drafts: Sequence[Draft]) -> None:
        """Write new memories whose vectors come later; call `stored` for each afterwards."""
        tx.insert_many("memories", [_row(agent, draft) for draft in drafts])
        self._vectors.defer(tx, [Pending(agent, "memory", new.memory.id, 1) for new in drafts])

    def stored(self, agent: str, draft: Draft) -> None:
        """Let what was committed be found."""
        hashes = self._held_hashes(agent)
        if draft.memory.version > 1:
            self._forget_hash(agent, draft.memory.id)
        memory = self._keep(agent, draft.memory)
        hashes[draft.content_hash] = memory.id
        self._tallies.add(agent, 1 if memory.version == 1 else 0, memory.recorded_at)
        index = self._held(agent)
        if index is not None:
            index.add(memory.id, memory.content, **of_memory(memory, self.kinds))

    def delete(self, tx: Transaction, agent: str, memory: Memory) -> None:
        """Take a memory out of view; call `deleted` after the commit."""
        self._retire(tx, agent, memory.id, now())

    def deleted(self, agent: str, memory_id: str) -> None:
        """Let a committed deletion be seen."""
        self._forget_hash(agent, memory_id)
        self._rows_read.drop((agent, memory_id))
        self._tallies.add(agent, -1, EPOCH)
        index = self._held(agent)
        if index is not None:
            index.remove(memory_id)

    def count(self, agent: str) -> int:
        """Return how many memories an agent has."""
        self._check_generation()
        return self._tallies.count(agent)

    def tags(self, agent: str, limit: int = 100) -> list[str]:
        """Return the tags in use but for sources, those of the most memories first."""
        return [
            row[0]
            for row in self._db.read(
                "SELECT tag FROM (SELECT unnest(tags) AS tag FROM memories"
                " WHERE agent = $1 AND retired_at IS NULL) AS used"
                " WHERE NOT starts_with(tag, $3)"
                " GROUP BY tag ORDER BY count(*) DESC, tag LIMIT $2",
                agent,
                limit,
                SOURCE_PREFIX,
            )
        ]

    def recent_ids(self, agent: str, prefix: str, limit: int) -> list[str]:
        """Return the newest ids that begin with `prefix`."""
        return [
            row[0]
            for row in self._db.read(
                "SELECT id FROM memories WHERE agent = $1 AND retired_at IS NULL"
                " AND starts_with(id, $2) ORDER BY recorded_at DESC LIMIT $3",
                agent,
                prefix.lower(),
                limit,
            )
        ]

    def index(self, agent: str) -> SearchIndex[str]:
        """Return the search index of an agent, filled from the database if it isn't there."""
        self._check_generation()
        index: SearchIndex[str] = self._indexes.get(
            ("memory", agent), lambda: self._load_index(agent)
        )
        return index

    def add_vectors(
        self, agent: str, memory_id: str, ranges: Sequence[Range], vectors: Vectors
    ) -> None:
        """Let vectors that were computed later be used, if the agent's index is loaded."""
        index = self._held(agent)
        if index is not None:
            index.add_vectors(memory_id, ranges, vectors)

    def forget_indexes(self) -> None:
        """Drop every cached index; each is loaded anew when it is needed."""
        self._indexes.clear()

    def as_of(self, agent: str, memory_id: str, moment: datetime) -> Memory:
        """Return a memory as it was at a moment; raises what `get` does if it is gone now."""
        present = self.get(agent, memory_id)
        rows = self._db.read(
            f"SELECT {_COLUMNS} FROM memories WHERE agent = $1 AND id = $2 AND recorded_at <= $3"
            " ORDER BY version DESC LIMIT 1",
            agent,
            present.id,
            moment,
        )
        return _memory(rows[0]) if rows else present

    def newest(self, agent: str) -> datetime:
        """Return when the last memory was recorded; that is to come if the clock was set back."""
        self._check_generation()
        return self._tallies.newest(agent)

    def listing(
        self,
        agent: str,
        *,
        tag_groups: Sequence[Sequence[str]],
        kinds: Sequence[Kind],
        where: Filter,
        offset: int,
        limit: int,
    ) -> tuple[tuple[Memory | None, ...], int]:
        """Return memories by date, newest first, and how many there are in all.

        One that has gone since `where.as_of` is None: the others keep their places.
        """
        # Before the clock was set back, what had gone by the first page may have gone later.
        kept = "retired_at IS NULL" + (" OR retired_at > $5" if offset else "")
        condition = (
            f" FROM memories WHERE agent = $1 AND ({kept})"
            " AND (CAST($2 AS text[]) IS NULL OR kind = ANY (CAST($2 AS text[])))"
            " AND (CAST($3 AS timestamptz) IS NULL OR happened_at >= $3)"
            " AND (CAST($4 AS timestamptz) IS NULL OR happened_at < $4)"
            " AND (CAST($5 AS timestamptz) IS NULL OR recorded_at <= $5)"
        )
        values: list[object] = [
            agent,
            [kind.value for kind in kinds] or None,
            where.start,
            where.end,
            where.as_of,
        ]
        for group in tag_groups:
            values.append(list(group))
            condition += f" AND tags && CAST(${len(values)} AS text[])"
        total = int(self._db.read("SELECT count(*)" + condition, *values)[0][0])
        rows = self._db.read(
            f"SELECT {_COLUMNS}, retired_at{condition}"
            " ORDER BY happened_at DESC, recorded_at DESC, id"
            f" LIMIT ${len(values) + 1} OFFSET ${len(values) + 2}",
            *values,
            limit,
            offset,
        )
        return tuple(None if row[-1] else _memory(row[:-1]) for row in rows), total

    def _keep(self, agent: str, memory: Memory) -> Memory:
        self._rows_read.put((agent, memory.id), memory, len(memory.content))
        return memory

    def _held_hashes(self, agent: str) -> dict[str, str]:
        self._check_generation()
        if agent not in self._hashes:
            self._hashes[agent] = dict(
                self._db.read(
                    "SELECT content_hash, id FROM memories WHERE agent = $1 AND retired_at IS NULL",
                    agent,
                )
            )
        return self._hashes[agent]

    def _forget_hash(self, agent: str, memory_id: str) -> None:
        hashes = self._held_hashes(agent)
        held = self._rows_read.get((agent, memory_id))
        known = None if held is None else content_hash(held.content)
        if known is not None and hashes.get(known) == memory_id:
            del hashes[known]
            return
        for known in [known for known, key in hashes.items() if key == memory_id]:
            del hashes[known]

    def _held(self, agent: str) -> SearchIndex[str] | None:
        """Return an agent's index if it is loaded."""
        return self._indexes.peek(("memory", agent))

    def _check_generation(self) -> None:
        if self._generation != self._db.generation:
            self._generation = self._db.generation
            self._tallies.clear()
            self._hashes.clear()
            self._rows_read.clear()
            self.forget_indexes()

    def _rows(self, agent: str, ids: Sequence[str]) -> list[Row]:
        return self._db.read(
            f"SELECT {_COLUMNS} FROM memories"
            " JOIN (SELECT unnest(CAST($2 AS text[])) AS k) AS keys ON id = k"
            " WHERE agent = $1 AND retired_at IS NULL",
            agent,
            list(ids),
        )

    def _retire(self, tx: Transaction, agent: str, memory_id: str, moment: datetime) -> None:
        tx.run(
            "UPDATE memories SET retired_at = $3"
            " WHERE agent = $1 AND id = $2 AND retired_at IS NULL",
            agent,
            memory_id,
            moment,
        )
        self._vectors.forget(tx, agent, "memory", memory_id)

    def _load_index(self, agent: str) -> SearchIndex[str]:
        index: SearchIndex[str] = SearchIndex(self._indexes.folder)
        self._keeping.fill(index, MEMORIES, agent, memory_reader(self.kinds), ageing(self.kinds))
        index.complete = False
        self._indexes.fill(("memory", agent), index, self._fill(agent, index, index.end))
        return index

    def _fill(self, agent: str, index: SearchIndex[str], below: int) -> Iterator[None]:
        """Add the vectors of what was in the index before, block by block."""
        for block in self._vectors.blocks(agent, "memory"):
            index.add_many_vectors(block.ids, block.starts, block.ends, block.vectors, below)
            yield
        index.complete = True
        if self.count(agent) <= READ_AHEAD:
            yield from read_ahead(
                self._db,
                f"SELECT {_COLUMNS} FROM memories WHERE agent = $1 AND retired_at IS NULL",
                agent,
                lambda row: self._keep(agent, _memory(row)),
                self._rows_read,
            )


def _memory(row: Row) -> Memory:
    key, version, content, kind, tags, tokens, happened_at, recorded_at = row
    return Memory(key, version, content, Kind(kind), tuple(tags), tokens, happened_at, recorded_at)


def _row(agent: str, draft: Draft) -> Row:
    memory = draft.memory
    return (
        agent,
        memory.id,
        memory.version,
        memory.content,
        draft.content_hash,
        memory.kind.value,
        list(memory.tags),
        memory.tokens,
        memory.happened_at,
        memory.recorded_at,
        None,
    )
