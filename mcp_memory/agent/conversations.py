"""The façade's recall memory and window: append, search, flush, summarize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from mcp_memory.agent.archive import Archive
from mcp_memory.agent.base import (
    Access,
    Part,
    check_conversation,
    check_limit,
    request_of,
    whole,
)
from mcp_memory.paging.budget import check_report
from mcp_memory.settings import DEFAULT_CONVERSATION
from mcp_memory.tiers.archival import source_tag
from mcp_memory.tiers.recall import pending, prefix_of
from mcp_memory.values.errors import InvalidInput, NotFound
from mcp_memory.values.ids import read_id
from mcp_memory.values.records import (
    Appended,
    Author,
    Budget,
    Flush,
    Inserted,
    Memory,
    Message,
    MessageHit,
    NewMessage,
    Overflow,
    Page,
    StoreChunk,
    Summary,
    Window,
)
from mcp_memory.values.render import render_kept
from mcp_memory.values.requests import SearchRequest
from mcp_memory.values.text import check_text, shorten

MAX_CHUNKS: Final = 100
"""Ranges of messages that one call stores at most; by judgement."""


class Conversations(Part):
    """All messages of one agent, and those that are in the window."""

    def __init__(self, access: Access, archive: Archive) -> None:
        super().__init__(access)
        self._archive = archive

    def append(
        self,
        messages: Sequence[NewMessage],
        conversation: str = DEFAULT_CONVERSATION,
        context_tokens: int | None = None,
    ) -> Appended:
        """Record turns in recall memory and the queue; a full window is flushed at once.

        Args:
            context_tokens: The tokens in the client's window now, these messages included;
                None if it doesn't know.

        Raises:
            InvalidInput: A message or the number of tokens is not valid; none is recorded.
        """
        self._engine.check()
        conversation = check_conversation(conversation)
        if context_tokens is not None:
            check_report(context_tokens, self._pager.window_tokens)
        recall = self._engine.recall
        drafts, recorded_at = recall.draft(messages), self._engine.clock()
        job = self._engine.embed_soon(
            [draft.message.content for draft in drafts],
            [prefix_of(draft, recorded_at) for draft in drafts],
        )
        with recall.reading(self._agent, drafts, recorded_at), self._view():
            built = recall.build(self._agent, conversation, drafts, recorded_at)
            appended = self._pager.append(
                conversation, built, context_tokens, coming=job is not None
            )
        self._engine.finish(job, pending(self._agent, built))
        return appended

    def budget(
        self, conversation: str = DEFAULT_CONVERSATION, context_tokens: int | None = None
    ) -> Budget:
        """Return how the context window is used.

        Args:
            context_tokens: The tokens in the client's window now; None if it doesn't know.

        Raises:
            InvalidInput: The number of tokens is not valid.
        """
        conversation = check_conversation(conversation)
        with self._view():
            budget = self._pager.budget(conversation, context_tokens)
        if context_tokens is not None:
            self._notify(f"budget/{conversation}")
        return budget

    def window(self, conversation: str = DEFAULT_CONVERSATION) -> Window:
        """Return the texts of the context window, with the tokens that the budget counts."""
        with self._view():
            return self._pager.window(check_conversation(conversation))

    def alert(self, conversation: str = DEFAULT_CONVERSATION) -> str | None:
        """Return an alert, once, of a conversation that this connection uses; None without one."""
        with self._view():
            return self._pager.alert(conversation)

    def overflow(self, conversation: str = DEFAULT_CONVERSATION) -> Overflow:
        """Return what a flush would evict now, for a client that writes the summary itself."""
        with self._view():
            return self._pager.overflow(check_conversation(conversation))

    @property
    def summary_limit(self) -> int:
        """The most tokens that a summary may have."""
        return self._pager.summary_limit

    def flush(self, conversation: str = DEFAULT_CONVERSATION, summary: str | None = None) -> Flush:
        """Evict the oldest messages into the summary, the client's or the server's own.

        Raises:
            InvalidInput, OverLimit: The summary is not valid; nothing is evicted.
        """
        conversation = check_conversation(conversation)
        with self._view():
            return self._pager.flush(conversation, summary)

    def rewrite_summary(
        self,
        conversation: str,
        content: str,
        author: Author,
        of: str,
        limit: int | None = None,
    ) -> Summary | None:
        """Replace the text of the newest summary; see `Pager.rewrite`.

        Returns:
            The new version; None if `of` is no longer the newest, and nothing was written.

        Raises:
            InvalidInput, OverLimit: The text is not valid.
        """
        conversation = check_conversation(conversation)
        with self._view():
            return self._pager.rewrite(conversation, content, author, of, limit)

    def store(
        self, chunks: Sequence[StoreChunk], conversation: str = DEFAULT_CONVERSATION
    ) -> list[Inserted]:
        """Store ranges of a conversation in archival memory, each below its context.

        The kind decides how much of the messages is stored; a tag names the range.

        Raises:
            InvalidInput, NotFound: A range or context is not valid; nothing is stored.
        """
        self._engine.check()
        conversation = check_conversation(conversation)
        if not 1 <= len(chunks) <= MAX_CHUNKS:
            raise InvalidInput(
                f"chunks has {len(chunks)} entries; it must have 1 to {MAX_CHUNKS}",
                field="chunks",
                hint="Give at least one range of messages",
            )
        drafts: list[Memory] = []
        for number, chunk in enumerate(chunks):
            check_text(chunk.context, f"chunks[{number}].context")
            with self._view():
                recall = self._engine.recall
                recall.check_range(self._agent, conversation, chunk.start, chunk.end)
                messages = recall.messages(self._agent, conversation, chunk.start, chunk.end + 1)
            happened = messages[0].created_at
            day = happened.astimezone(self._settings.zone).date()
            text = render_kept(chunk.context, messages, self._archive.kinds[chunk.kind], day)
            tags = (source_tag(conversation, chunk.start, chunk.end),)
            drafts.append(self._engine.archival.draft(text, tags, chunk.kind, happened))
        return self._archive.insert_all(drafts)

    def search(self, query: SearchRequest | str | None = None, **filters: Any) -> Page[MessageHit]:
        """Search the whole history, or list it by date without a query.

        Args:
            query: A whole request, or its query.
            filters: The other fields of `SearchRequest`.

        Raises:
            InvalidInput: The request is not valid.
        """
        return self._search(self._engine.recall, request_of(query, filters))

    def get(self, message_id: str) -> Message:
        """Return a message.

        Raises:
            NotFound: No message has this id.
        """
        key = read_id(message_id)
        with self._view():
            found = {} if key is None else self._engine.recall.get_many(self._agent, [key])
        if not found:
            raise NotFound(
                f"there is no message {shorten(message_id, 40)!r}",
                key=message_id,
                hint="conversation_search shows the ids",
            )
        return next(iter(found.values()))

    def around(
        self, message_id: str, *, limit: int = 10, offset: int | None = None
    ) -> Page[MessageHit]:
        """Return a message with what came before and after it, oldest first.

        The page counts by the indexes of the conversation.

        Args:
            offset: The index to begin with, to continue after an earlier page.

        Raises:
            NotFound: No message has this id.
            InvalidInput: The limit is not valid.
        """
        limit = check_limit(limit, "limit")
        message = self.get(message_id)
        recall = self._engine.recall
        with self._view():
            end = recall.queues.queue(self._agent, message.conversation).end
            first = message.index - (limit - 1) // 2 if offset is None else offset
            first = max(min(first, end - limit) if offset is None else first, 0)
            shown = recall.messages(
                self._agent, message.conversation, first, min(first + limit, end)
            )
        hits = tuple(MessageHit(m, whole(m.content), 0.0) for m in shown)
        ends = tuple(m.index + 1 for m in shown)
        return Page(hits, end, first, self._engine.clock(), "listing", ends=ends)

    def recent(
        self, conversation: str = DEFAULT_CONVERSATION, count: int | None = None
    ) -> tuple[Message, ...]:
        """Return the newest `count` messages in the window, oldest first; None for all.

        Of a message larger than the window only the beginning is shown, with a note.
        """
        with self._view():
            return self._pager.recent(check_conversation(conversation), count)

    def summary(self, conversation: str = DEFAULT_CONVERSATION) -> Summary | None:
        """Return the newest summary of a conversation, None if nothing was ever evicted."""
        conversation = check_conversation(conversation)
        with self._view():
            return self._engine.recall.queues.summary(self._agent, conversation)

    def summaries(self, conversation: str = DEFAULT_CONVERSATION) -> tuple[Summary, ...]:
        """Return all summaries of a conversation with their versions, oldest first."""
        conversation = check_conversation(conversation)
        with self._view():
            return self._engine.recall.queues.summaries(self._agent, conversation)

    def names(self) -> list[str]:
        """Return the conversations, the one with the newest message first."""
        with self._view():
            return self._engine.recall.conversations(self._agent)
