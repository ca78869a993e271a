"""The façade's recall memory and window: append, search, flush, summarize."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from mcp_memory.archival import Draft
from mcp_memory.dates import now, parse_range
from mcp_memory.errors import InvalidInput
from mcp_memory.memory.archive import Archive
from mcp_memory.memory.base import (
    Access,
    Part,
    check_conversation,
    check_limit,
    groups,
    passage,
    whole,
)
from mcp_memory.records import (
    ROLES,
    Appended,
    Budget,
    Flush,
    Inserted,
    Message,
    MessageHit,
    NewMessage,
    Overflow,
    Page,
    Role,
    StoreChunk,
    Summary,
)
from mcp_memory.render import render_message, speaker_prefix
from mcp_memory.search.index import Filter
from mcp_memory.settings import DEFAULT_CONVERSATION
from mcp_memory.text import check_query, check_text, shorten

MAX_CHUNKS: Final = 100


class Conversations(Part):
    """All that was ever said to one agent, and the part of it that is in the window."""

    def __init__(self, access: Access, archive: Archive) -> None:
        super().__init__(access)
        self._archive = archive

    def append(
        self, messages: Sequence[NewMessage], conversation: str = DEFAULT_CONVERSATION
    ) -> Appended:
        """Record turns in recall memory and the queue; a full window is flushed at once.

        Raises:
            InvalidInput: One of them can't be taken; none is recorded.
        """
        self._engine.check()
        conversation = check_conversation(conversation)
        recall = self._engine.recall
        prepared = recall.prepare(messages, conversation, now(), self._pager.window_tokens)
        embedded = self._engine.embed_now(
            [message.content for message in prepared],
            [speaker_prefix(message) for message in prepared],
        )
        with self._engine.lock:
            numbered = recall.number(self._agent, prepared)
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
            return self._pager.budget(check_conversation(conversation))

    def overflow(self, conversation: str = DEFAULT_CONVERSATION) -> Overflow:
        """Return what a flush would evict now, for a client that writes the summary itself."""
        with self._engine.lock:
            return self._pager.overflow(check_conversation(conversation))

    @property
    def summary_limit(self) -> int:
        """The most tokens that a summary may have."""
        return self._pager.summary_limit

    def flush(self, conversation: str = DEFAULT_CONVERSATION, summary: str | None = None) -> Flush:
        """Evict the oldest messages into the summary, the client's or the server's own.

        Raises:
            InvalidInput, OverLimit: The summary can't be taken; nothing is evicted.
        """
        conversation = check_conversation(conversation)
        with self._engine.lock:
            flush = self._pager.flush(conversation, summary, asked=True)
        self._notify(f"budget/{conversation}", "events")
        return flush

    def store(
        self, chunks: Sequence[StoreChunk], conversation: str = DEFAULT_CONVERSATION
    ) -> list[Inserted]:
        """Keep ranges of a conversation in archival memory, verbatim, each under its context.

        Raises:
            InvalidInput, NotFound: A range or context can't be taken; nothing is kept.
        """
        self._engine.check()
        conversation = check_conversation(conversation)
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
                recall.check_range(self._agent, conversation, chunk.start, chunk.end)
                messages = recall.messages(self._agent, conversation, chunk.start, chunk.end + 1)
            verbatim = "".join(render_message(message) for message in messages).rstrip()
            text = f"{chunk.context.strip()}\n\n{verbatim}"
            happened = messages[0].created_at
            drafts.append(self._engine.archival.draft(text, (), chunk.kind, happened))
        return self._archive.keep(drafts)

    def search(
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
        limit = check_limit(limit, "limit")
        for role in roles:
            if role not in ROLES:
                raise InvalidInput(
                    f"role {shorten(str(role), 40)!r} is unknown", field="roles",
                    hint=f"Use {', '.join(ROLES)}",
                )  # fmt: skip
        name = None if conversation is None else check_conversation(conversation)
        start, end = parse_range(start_date, end_date, zone=self._settings.zone)
        if as_of is None:
            with self._engine.lock:
                # What was recorded before the clock was set back is there as well.
                as_of = max(now(), self._engine.recall.newest(self._agent))
        where = Filter(
            labels=groups(
                [f"role:{role}" for role in roles], [f"conversation:{name}"] if name else []
            ),
            start=start, end=end, as_of=as_of,
        )  # fmt: skip
        recall = self._engine.recall
        if query is None:
            with self._engine.lock:
                listed, total = recall.listing(
                    self._agent, roles=roles, conversation=name, where=where,
                    offset=offset, limit=limit,
                )  # fmt: skip
            hits = tuple(MessageHit(m, whole(m.content), 0.0) for m in listed)
            return Page(hits, total, offset, as_of, "listing")
        ranking, kind, note = self._rank(recall.index, query, where, offset=offset, limit=limit)
        with self._engine.lock:
            texts = recall.get(self._agent, [found.key for found in ranking.found])
        hits = tuple(
            MessageHit(texts[f.key], passage(texts[f.key].content, f.start, f.end), f.score)
            for f in ranking.found
            if f.key in texts
        )
        return Page(hits, ranking.total, offset, as_of, kind, note)

    def recent(
        self, conversation: str = DEFAULT_CONVERSATION, count: int | None = None
    ) -> tuple[Message, ...]:
        """Return the messages in the window, oldest first; of them the newest `count`."""
        conversation = check_conversation(conversation)
        with self._engine.lock:
            recall = self._engine.recall
            queue = recall.queue(self._agent, conversation)
            first = queue.first if count is None else max(queue.first, queue.end - count)
            return recall.messages(self._agent, conversation, first, queue.end)

    def summary(self, conversation: str = DEFAULT_CONVERSATION) -> Summary | None:
        """Return the newest summary of a conversation, None if nothing was ever evicted."""
        with self._engine.lock:
            return self._engine.recall.summary(self._agent, check_conversation(conversation))

    def names(self) -> list[str]:
        """Return the conversations, the one with the newest message first."""
        with self._engine.lock:
            return self._engine.recall.conversations(self._agent)
