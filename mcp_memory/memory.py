"""Memory: all that an agent can do with its memory, in one object.

The surface, the commands and whatever embeds this package know this façade
and nothing below it. Every method is synchronous, may be called from any
thread, and returns only what is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mcp_memory import events
from mcp_memory.archival import Draft
from mcp_memory.dates import now, parse_moment, parse_range
from mcp_memory.engine import Engine
from mcp_memory.errors import InvalidInput
from mcp_memory.paging import Pager
from mcp_memory.records import (
    ROLES,
    Appended,
    Block,
    BlockChange,
    Budget,
    EmbeddingState,
    Event,
    Flush,
    Inserted,
    Kind,
    MemoryHit,
    Message,
    MessageHit,
    NearDuplicate,
    NewMessage,
    Overflow,
    Page,
    Passage,
    Role,
    SearchKind,
    StoreChunk,
    Summary,
    Surface,
    TagMatch,
)
from mcp_memory.records import (
    Memory as MemoryRecord,
)
from mcp_memory.render import compile_blocks, render_message
from mcp_memory.search.index import Filter
from mcp_memory.settings import DEFAULT_CONVERSATION, SearchMode, Settings
from mcp_memory.snapshot import write_snapshot
from mcp_memory.text import check_name, check_query, check_tags, check_text, shorten

MAX_RESULTS: Final = 50
MAX_CHUNKS: Final = 100
_NEAR_DUPLICATES: Final = 3
_LEXICAL_NOTE: Final = "searched by words alone: the embedding model is {state}"

Listener = Callable[[frozenset[str]], None]


@dataclass(frozen=True, slots=True)
class Overview:
    """Figures beside the blocks: what lies outside the window."""

    messages: int
    memories: int
    tags: tuple[str, ...]


class Memory:
    """The memory of one agent.

    Example:
        ```python
        engine = Engine(load_settings())
        memory = Memory(engine, "default")
        memory.insert("Ana's flight lands at 21:40 on Friday.", tags=["travel"])
        ```
    """

    def __init__(
        self,
        engine: Engine,
        agent: str,
        *,
        window_tokens: int | None = None,
        surface: Surface | None = None,
    ) -> None:
        self.settings: Settings = engine.settings
        self.agent = agent
        self._engine = engine
        self._pager = Pager(
            engine, agent, window_tokens or engine.settings.context_window, surface or Surface()
        )
        self._listeners: list[Listener] = []
        self._write_snapshot()

    def listen(self, listener: Listener) -> None:
        """Call `listener` with the topics of every change, from the thread that made it.

        Topics are `core`, `events` and `budget/{conversation}`.
        """
        self._listeners.append(listener)

    def close(self) -> None:
        """Close the database and end the background work."""
        self._engine.close()

    # Core memory

    def blocks(self, conversation: str = DEFAULT_CONVERSATION) -> tuple[Block, ...]:
        """Return the blocks that are in view in a conversation."""
        with self._engine.lock:
            return self._engine.core.blocks(self.agent, _conversation(conversation))

    def block(self, label: str, conversation: str = DEFAULT_CONVERSATION) -> Block:
        """Return one block.

        Raises:
            NotFound: There is none of that label.
        """
        with self._engine.lock:
            return self._engine.core.block(self.agent, _conversation(conversation), label)

    def core_append(
        self, label: str, content: str, conversation: str = DEFAULT_CONVERSATION
    ) -> Block:
        """Add a line to a block and return it.

        Raises:
            InvalidInput, NotFound, ReadOnly, OverLimit: Nothing is changed.
        """
        conversation = _conversation(conversation)
        with self._engine.lock:
            block = self._engine.core.append(self.agent, conversation, label, content)
            return self._store_block(conversation, block)

    def core_replace(
        self, label: str, old: str, new: str, conversation: str = DEFAULT_CONVERSATION
    ) -> Block:
        """Replace the one place of `old` in a block and return it; an empty `new` deletes.

        Raises:
            MatchFault: `old` is not there, or more than once.
            InvalidInput, NotFound, ReadOnly, OverLimit: Nothing is changed.
        """
        conversation = _conversation(conversation)
        with self._engine.lock:
            block = self._engine.core.replace(self.agent, conversation, label, old, new)
            return self._store_block(conversation, block)

    def rethink(
        self,
        label: str,
        value: str,
        description: str | None = None,
        conversation: str = DEFAULT_CONVERSATION,
    ) -> Block:
        """Rewrite a block as a whole, or make it, and return it.

        Raises:
            InvalidInput, ReadOnly, OverLimit: Nothing is changed.
        """
        conversation = _conversation(conversation)
        with self._engine.lock:
            core = self._engine.core
            block = core.rethink(self.agent, conversation, label, value, description)
            return self._store_block(conversation, block)

    def define_block(
        self,
        label: str,
        value: str,
        *,
        description: str | None = None,
        limit: int | None = None,
        read_only: bool | None = None,
    ) -> Block:
        """Set a block as its owner wants it, read-only ones too; None leaves a property as it is.

        Raises:
            InvalidInput, OverLimit: Nothing is changed.
        """
        with self._engine.lock:
            block = self._engine.core.define(
                self.agent, label, value,
                description=description, limit=limit, read_only=read_only,
            )  # fmt: skip
            return self._store_block(DEFAULT_CONVERSATION, block)

    def finish_rethinking(self) -> tuple[tuple[BlockChange, ...], datetime | None]:
        """End a consolidation: return what changed since the last one, and when that was."""
        with self._engine.lock:
            since = self._engine.events.last_at(self.agent, (events.RETHOUGHT,))
            changes = self._engine.core.changes_since(self.agent, since)
            with self._engine.database.transaction() as tx:
                self._engine.events.add(
                    tx, self.agent, events.RETHOUGHT,
                    f"Core memory was thought over; {len(changes)} blocks changed.",
                    data={"changed": [change.label for change in changes]},
                )  # fmt: skip
            self._pager.rethought()
        self._notify("events")
        return changes, since

    # Recall memory and the window

    def append(
        self, messages: Sequence[NewMessage], conversation: str = DEFAULT_CONVERSATION
    ) -> Appended:
        """Record turns in recall memory and the queue; a full window is flushed at once.

        Raises:
            InvalidInput: One of them can't be taken; none is recorded.
        """
        self._engine.check()
        conversation = _conversation(conversation)
        recall = self._engine.recall
        prepared = recall.prepare(messages, conversation, now())
        embedded = self._engine.embed_now([message.content for message in prepared])
        with self._engine.lock:
            numbered = recall.number(self.agent, prepared)
            arrival = self._pager.append(conversation, numbered, embedded)
        if None in embedded:
            self._engine.wake()
        self._notify(f"budget/{conversation}", *(["events"] if arrival.alert else []))
        return Appended(
            tuple(message.id for message in numbered),
            arrival.budget,
            arrival.level,
            arrival.alert,
            arrival.flush,
        )

    def budget(self, conversation: str = DEFAULT_CONVERSATION) -> Budget:
        """Return how the context window is used."""
        with self._engine.lock:
            return self._pager.budget(_conversation(conversation))

    def overflow(self, conversation: str = DEFAULT_CONVERSATION) -> Overflow:
        """Return what a flush would evict now, for a client that writes the summary itself."""
        with self._engine.lock:
            return self._pager.overflow(_conversation(conversation))

    @property
    def summary_limit(self) -> int:
        """The most tokens that a summary may have."""
        return self._pager.summary_limit

    def flush(self, conversation: str = DEFAULT_CONVERSATION, summary: str | None = None) -> Flush:
        """Evict the oldest messages into the summary, the client's or the server's own.

        Raises:
            InvalidInput, OverLimit: The summary can't be taken; nothing is evicted.
        """
        conversation = _conversation(conversation)
        with self._engine.lock:
            flush = self._pager.flush(conversation, summary, asked=True)
        self._notify(f"budget/{conversation}", "events")
        return flush

    def store_chunks(
        self, chunks: Sequence[StoreChunk], conversation: str = DEFAULT_CONVERSATION
    ) -> list[Inserted]:
        """Keep ranges of a conversation in archival memory, verbatim, each under its context.

        Raises:
            InvalidInput, NotFound: A range or context can't be taken; nothing is kept.
        """
        self._engine.check()
        conversation = _conversation(conversation)
        if not 1 <= len(chunks) <= MAX_CHUNKS:
            raise InvalidInput(
                f"chunks has {len(chunks)} entries; 1 to {MAX_CHUNKS} are taken",
                field="chunks", hint="Give at least one range of messages",
            )  # fmt: skip
        drafts: list[Draft] = []
        for number, chunk in enumerate(chunks):
            check_text(chunk.context, f"chunks[{number}].context")
            with self._engine.lock:
                recall = self._engine.recall
                recall.check_range(self.agent, conversation, chunk.start, chunk.end)
                messages = recall.messages(self.agent, conversation, chunk.start, chunk.end + 1)
            text = f"{chunk.context.strip()}\n\n{''.join(render_message(m) for m in messages)}".rstrip()
            happened = messages[0].created_at
            drafts.append(self._engine.archival.draft(text, (), chunk.kind, happened))
        return self._insert(drafts)

    def search_messages(
        self,
        query: str | None = None,
        *,
        roles: Sequence[Role] = (),
        start_date: str | None = None,
        end_date: str | None = None,
        conversation: str | None = None,
        limit: int = 10,
        offset: int = 0,
        as_of: datetime | None = None,
    ) -> Page[MessageHit]:
        """Search the whole history, or list it by date without a query.

        Raises:
            InvalidInput: An argument can't be taken.
        """
        self._engine.check()
        query = check_query(query)
        limit = _limit(limit, "limit")
        for role in roles:
            if role not in ROLES:
                raise InvalidInput(
                    f"role {shorten(str(role), 40)!r} is unknown", field="roles",
                    hint=f"Use {', '.join(ROLES)}",
                )  # fmt: skip
        name = None if conversation is None else _conversation(conversation)
        start, end = parse_range(start_date, end_date, zone=self.settings.zone)
        as_of = as_of or now()
        where = Filter(
            labels=_groups(
                [f"role:{role}" for role in roles], [f"conversation:{name}"] if name else []
            ),
            start=start, end=end, as_of=as_of,
        )  # fmt: skip
        recall = self._engine.recall
        if query is None:
            with self._engine.lock:
                listed, total = recall.listing(
                    self.agent, roles=roles, conversation=name, where=where,
                    offset=offset, limit=limit,
                )  # fmt: skip
            hits = tuple(MessageHit(m, _whole(m.content), 0.0) for m in listed)
            return Page(hits, total, offset, as_of, "listing")
        vector, kind, note = self._query(query)
        with self._engine.lock:
            ranking = recall.index(self.agent).search(
                query, vector, where, offset=offset, limit=limit,
                lexical=self.settings.search_mode is not SearchMode.DENSE,
            )  # fmt: skip
            texts = recall.get(self.agent, [found.key for found in ranking.found])
        hits = tuple(
            MessageHit(texts[f.key], _passage(texts[f.key].content, f.start, f.end), f.score)
            for f in ranking.found
            if f.key in texts
        )
        return Page(hits, ranking.total, offset, as_of, kind, note)

    def recent(
        self, conversation: str = DEFAULT_CONVERSATION, count: int | None = None
    ) -> tuple[Message, ...]:
        """Return the messages in the window, oldest first; of them the newest `count`."""
        conversation = _conversation(conversation)
        with self._engine.lock:
            recall = self._engine.recall
            queue = recall.queue(self.agent, conversation)
            first = queue.first if count is None else max(queue.first, queue.end - count)
            return recall.messages(self.agent, conversation, first, queue.end)

    def summary(self, conversation: str = DEFAULT_CONVERSATION) -> Summary | None:
        """Return the newest summary of a conversation, None if nothing was ever evicted."""
        with self._engine.lock:
            return self._engine.recall.summary(self.agent, _conversation(conversation))

    def conversations(self) -> list[str]:
        """Return the conversations, the one with the newest message first."""
        with self._engine.lock:
            return self._engine.recall.conversations(self.agent)

    # Archival memory

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
            else parse_moment(happened_at, zone=self.settings.zone, field="happened_at")
        )
        return self._insert([self._engine.archival.draft(content, checked, kind, moment)])[0]

    def search_memories(
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
        limit = _limit(limit, "top_k")
        wanted = check_tags(tags)
        start, end = parse_range(start_date, end_date, zone=self.settings.zone)
        as_of = as_of or now()
        tag_groups = [[tag] for tag in wanted] if tag_match == "all" else [list(wanted)]
        groups = _groups(
            *([f"tag:{tag}" for tag in group] for group in tag_groups),
            [f"kind:{kind}" for kind in kinds],
        )
        where = Filter(groups, start, end, as_of)
        archival = self._engine.archival
        if query is None:
            with self._engine.lock:
                listed, total = archival.listing(
                    self.agent, tag_groups=[group for group in tag_groups if group], kinds=kinds,
                    where=where, offset=offset, limit=limit,
                )  # fmt: skip
            hits = tuple(MemoryHit(m, _whole(m.content), 0.0) for m in listed)
            return Page(hits, total, offset, as_of, "listing")
        vector, kind, note = self._query(query)
        with self._engine.lock:
            ranking = archival.index(self.agent).search(
                query, vector, where, offset=offset, limit=limit,
                lexical=self.settings.search_mode is not SearchMode.DENSE,
            )  # fmt: skip
            texts = archival.get_many(self.agent, [found.key for found in ranking.found])
        found = tuple(
            MemoryHit(texts[f.key], _passage(texts[f.key].content, f.start, f.end), f.score)
            for f in ranking.found
            if f.key in texts
        )
        return Page(found, ranking.total, offset, as_of, kind, note)

    def get(self, memory_id: str) -> MemoryRecord:
        """Return a memory as a whole.

        Raises:
            NotFound: There is none of this id, or it was deleted.
        """
        with self._engine.lock:
            return self._engine.archival.get(self.agent, memory_id)

    def update(
        self,
        memory_id: str,
        *,
        content: str | None = None,
        tags: Iterable[str] | None = None,
        kind: Kind | None = None,
    ) -> MemoryRecord:
        """Supersede a memory; the text of before stays in the history, out of search.

        Raises:
            NotFound, InvalidInput: Nothing is changed.
        """
        self._engine.check()
        checked = None if tags is None else check_tags(tags)
        archival = self._engine.archival
        draft = archival.revise(self.get(memory_id), content=content, tags=checked, kind=kind)
        embedded = self._engine.embed_now([draft.memory.content])[0]
        with self._engine.lock:
            # Another call may have come between: what it did is the base then.
            present = archival.get(self.agent, memory_id)
            draft = archival.revise(present, content=content, tags=checked, kind=kind)
            twin = archival.same(self.agent, draft)
            if twin is not None:
                raise InvalidInput(
                    f"memory {twin.id!r} has this very text already", field="content",
                    hint=f"Delete {present.id!r} if it says nothing else",
                )  # fmt: skip
            if content is None and draft.memory.content != present.content:
                embedded = None
            with self._engine.database.transaction() as tx:
                archival.store(tx, self.agent, draft, embedded)
            archival.stored(self.agent, draft.memory, embedded)
        if embedded is None:
            self._engine.wake()
        return draft.memory

    def delete(self, memory_id: str) -> MemoryRecord:
        """Take a memory out of search and view, and return what it was.

        Raises:
            NotFound: There is none of this id.
        """
        with self._engine.lock:
            archival = self._engine.archival
            memory = archival.get(self.agent, memory_id)
            with self._engine.database.transaction() as tx:
                archival.delete(tx, self.agent, memory)
            archival.deleted(self.agent, memory.id)
        return memory

    # Figures

    def overview(self) -> Overview:
        """Return what lies outside the window: numbers and tags in use."""
        with self._engine.lock:
            return Overview(
                self._engine.recall.count(self.agent),
                self._engine.archival.count(self.agent),
                tuple(self._engine.archival.tags(self.agent)),
            )

    def tags(self) -> list[str]:
        """Return the tags in use, those of the most memories first."""
        with self._engine.lock:
            return self._engine.archival.tags(self.agent)

    def recent_ids(self, prefix: str, limit: int = 20) -> list[str]:
        """Return the newest ids of memories that begin with `prefix`, for completion."""
        with self._engine.lock:
            return self._engine.archival.recent_ids(self.agent, prefix, limit)

    def events(self, limit: int = 20) -> tuple[Event, ...]:
        """Return the newest events, newest first."""
        with self._engine.lock:
            return self._engine.events.recent(self.agent, limit)

    def embedding_state(self) -> EmbeddingState:
        """Return whether search has its semantic half."""
        with self._engine.lock:
            return self._engine.state(self.agent)

    def count_tokens(self, text: str) -> int:
        """Return the tokens of a text by the tokenizer that is set."""
        return self._engine.tokenizer.count(text)

    def compiled_core(self, conversation: str = DEFAULT_CONVERSATION) -> str:
        """Return the blocks as they stand in context."""
        return compile_blocks(self.blocks(conversation))

    def _insert(self, drafts: list[Draft]) -> list[Inserted]:
        embedded = self._engine.embed_now([draft.memory.content for draft in drafts])
        archival = self._engine.archival
        done: list[Inserted] = []
        with self._engine.lock:
            results: list[tuple[Draft, bool]] = []
            with self._engine.database.transaction() as tx:
                seen: dict[str, MemoryRecord] = {}
                for draft, vectors in zip(drafts, embedded, strict=True):
                    twin = seen.get(draft.content_hash) or archival.same(self.agent, draft)
                    if twin is None:
                        archival.store(tx, self.agent, draft, vectors)
                        seen[draft.content_hash] = draft.memory
                        results.append((draft, True))
                        continue
                    merged = tuple(dict.fromkeys((*twin.tags, *draft.memory.tags)))
                    if merged != twin.tags:
                        again = archival.revise(twin, tags=merged)
                        archival.store(tx, self.agent, again, vectors)
                        seen[draft.content_hash] = again.memory
                        results.append((again, False))
                    else:
                        results.append((Draft(twin, draft.content_hash), False))
            for (draft, created), vectors in zip(results, embedded, strict=True):
                near = self._near(draft.memory, vectors) if created else ()
                if created or draft.memory.version > 1:
                    archival.stored(self.agent, draft.memory, vectors)
                done.append(Inserted(draft.memory, created, vectors is not None, near))
        if None in embedded:
            self._engine.wake()
        return done

    def _near(self, memory: MemoryRecord, vectors: object) -> tuple[NearDuplicate, ...]:
        at_least = self._engine.near_duplicate_at()
        if vectors is None or at_least is None:
            return ()
        _, matrix = vectors  # type: ignore[misc]
        archival = self._engine.archival
        found = archival.index(self.agent).nearest(
            matrix[0], at_least=at_least, limit=_NEAR_DUPLICATES
        )
        texts = archival.get_many(self.agent, [item.key for item in found])
        return tuple(
            NearDuplicate(item.key, item.score, shorten(texts[item.key].content, 120))
            for item in found
            if item.key in texts and item.key != memory.id
        )

    def _query(self, query: str) -> tuple[object, SearchKind, str | None]:
        if self.settings.search_mode is SearchMode.LEXICAL:
            return None, "lexical", None
        vector = self._engine.embed_query(query)
        if vector is not None:
            return vector, "hybrid", None
        state = self._engine.state(self.agent)
        return None, "lexical", _LEXICAL_NOTE.format(state=state.state)

    def _store_block(self, conversation: str, block: Block) -> Block:
        with self._engine.database.transaction() as tx:
            self._engine.core.store(tx, self.agent, conversation, block)
        self._engine.core.stored(self.agent, conversation, block)
        self._write_snapshot()
        self._notify("core", f"budget/{conversation}")
        return block

    def _write_snapshot(self) -> None:
        path = self._engine.path
        if path is not None:
            with self._engine.lock:
                blocks = self._engine.core.blocks(self.agent, DEFAULT_CONVERSATION)
                write_snapshot(path, self.agent, compile_blocks(blocks))

    def _notify(self, *topics: str) -> None:
        for listener in self._listeners:
            listener(frozenset(topics))


def _conversation(name: str) -> str:
    return check_name(name, "conversation")


def _limit(value: int, field: str) -> int:
    if not 1 <= value <= MAX_RESULTS:
        raise InvalidInput(
            f"{field} is {value}; it must be 1 to {MAX_RESULTS}",
            field=field,
            hint="Read on with next_cursor for more",
        )
    return value


def _groups(*groups: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(group) for group in groups if group)


def _whole(content: str) -> Passage:
    return Passage(content, 0, len(content), len(content))


def _passage(content: str, start: int, end: int) -> Passage:
    return Passage(content[start:end], start, end, len(content))
