"""What a new window needs to continue a conversation, within a number of tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from mcp_memory.agent.archive import Archive
from mcp_memory.agent.base import Access, Part, check_conversation, check_size
from mcp_memory.agent.blocks import Blocks
from mcp_memory.agent.briefing import Item, Section, Writer
from mcp_memory.agent.conversations import Conversations
from mcp_memory.settings import DEFAULT_CONVERSATION
from mcp_memory.tiers import events
from mcp_memory.tiers.core import WORKING
from mcp_memory.values.dates import show
from mcp_memory.values.errors import MemoryFault
from mcp_memory.values.records import Block, Event, MemoryHit, Message
from mcp_memory.values.render import compile_block, numbered, render_summary
from mcp_memory.values.text import MAX_QUERY_CHARS, mark_lines, shorten

MIN_RESUME_TOKENS: Final = 600
"""With less there is no room for something of every part; by judgement."""

MAX_DEFAULT_TOKENS: Final = 16_000
_DEFAULT_WINDOW_FRAC: Final = 0.25
"""The text has a quarter of the window, and at most 16,000 tokens; by judgement."""

_MEMORIES: Final = 10
_EVENTS: Final = 50
"""The memories and the newest events that are looked at; by judgement."""

_QUESTION_MESSAGES: Final = 3
"""Messages whose text is the query for those memories; by judgement."""

_MESSAGE_CHARS: Final = 100_000
"""Of a message only this much is read: a longer one is always cut. By judgement."""

_HALF_ENTITY: Final = re.compile(r"&[a-z]{0,4}$")


@dataclass(frozen=True, slots=True)
class _Parts:
    """The contents of the text, all of one moment."""

    blocks: tuple[Block, ...]
    summary: str | None
    messages: tuple[Message, ...]
    open_events: tuple[Event, ...]
    hits: tuple[MemoryHit, ...]


class Resume(Part):
    """Writes the text with which a new window continues a conversation."""

    def __init__(
        self, access: Access, core: Blocks, archive: Archive, conversations: Conversations
    ) -> None:
        super().__init__(access)
        self._core = core
        self._archive = archive
        self._conversations = conversations

    def default_tokens(self) -> int:
        """Return the default length of the text: a quarter of the window, within bounds."""
        quarter = int(self._pager.window_tokens * _DEFAULT_WINDOW_FRAC)
        return max(MIN_RESUME_TOKENS, min(quarter, MAX_DEFAULT_TOKENS))

    def write(self, conversation: str = DEFAULT_CONVERSATION, max_tokens: int | None = None) -> str:
        """Return core memory, the working block, the summary and the newest messages, and more.

        It never has more than `max_tokens`, exactly counted. It says how much was left
        out, and which call shows it. Blocks that are shown whole count as seen by the
        client.

        Args:
            max_tokens: `MIN_RESUME_TOKENS` at least; None for a quarter of the window.

        Raises:
            InvalidInput: The conversation's name or `max_tokens` is not valid.
        """
        conversation = check_conversation(conversation)
        limit = check_size(
            max_tokens,
            least=MIN_RESUME_TOKENS,
            default=self.default_tokens(),
            window_tokens=self._pager.window_tokens,
        )
        writer = Writer(self._engine.tokenizer.count, self._engine.tokenizer.clip)
        parts = self._gather(conversation, limit)
        text = writer.write(_head(conversation), self._sections(writer, conversation, parts), limit)
        for block in parts.blocks:
            if compile_block(block) in text:
                self._core.saw(block, conversation)
        return text

    def _gather(self, conversation: str, limit: int) -> _Parts:
        blocks = self._core.all(conversation)
        messages: list[Message] = []
        tokens = 0
        # The newest messages that could fit, and one more that is cut.
        for message in reversed(self._conversations.recent(conversation)):
            content = message.content
            if len(content) > _MESSAGE_CHARS:
                content = content[:_MESSAGE_CHARS] + "…"
            messages.append(replace(message, content=content))
            tokens += message.tokens
            if tokens > limit:
                break
        messages.reverse()
        summary = self._conversations.summary(conversation)
        working = next((block.value for block in blocks if block.label == WORKING), "")
        return _Parts(
            blocks,
            None if summary is None else render_summary(summary),
            tuple(messages),
            self._open_events(conversation),
            self._related(working, messages),
        )

    def _related(self, working: str, messages: Sequence[Message]) -> tuple[MemoryHit, ...]:
        """Return the memories most related to the task and to the last messages."""
        said = [message.content for message in messages if message.role in {"user", "assistant"}]
        question = " ".join([working, *said[-_QUESTION_MESSAGES:]])[-MAX_QUERY_CHARS:].strip()
        try:
            return self._archive.search(question, limit=_MEMORIES).items if question else ()
        except MemoryFault:
            # The rest of the text is useful even if the search fails.
            return ()

    def _open_events(self, conversation: str) -> tuple[Event, ...]:
        """Return the reminder and the alert that no later event has settled."""
        with self._view():
            recent = self._engine.events.recent(self._agent, _EVENTS)
        answered: set[str] = set()
        found: list[Event] = []
        for event in recent:
            if event.kind == events.RETHOUGHT:
                answered.add(events.REMINDER)
            elif event.kind == events.FLUSHED and event.conversation == conversation:
                answered.add(events.WARNING)
            elif event.kind in {events.REMINDER, events.WARNING} - answered and (
                event.conversation in {None, conversation}
            ):
                answered.add(event.kind)
                found.append(event)
        return tuple(found)

    def _sections(self, writer: Writer, conversation: str, parts: _Parts) -> list[Section]:
        zone = self._settings.zone
        count = self._conversations.budget(conversation).counts["queue_messages"]
        core = [block for block in parts.blocks if block.label != WORKING]
        working = [block for block in parts.blocks if block.label == WORKING]
        search = f"conversation_search with conversation {shorten(conversation, 60)!r}"
        # The shares of the sections are by judgement.
        return [
            Section(
                "core memory",
                [block_item(block, writer) for block in core],
                0.3,
                "fair",
                "core_memory_view",
            ),
            Section(
                "working memory",
                [block_item(block, writer) for block in working],
                0.15,
                "fair",
                "core_memory_view",
            ),
            Section(
                "summary",
                [Item(mark_lines(parts.summary))] if parts.summary else [],
                0.2,
                "fair",
                "resource memory://conversations/{conversation}/summary",
                empty="(nothing has left the window yet)",
            ),
            Section(
                "the newest messages",
                [Item(numbered(m)) for m in parts.messages],
                0.2,
                "last",
                search,
                empty="(none yet)",
                more=count - len(parts.messages),
            ),
            Section(
                "open reminders and alerts",
                [
                    Item(f"{_day(event.created_at)} {mark_lines(event.text)}")
                    for event in parts.open_events
                ],
                0.05,
                "first",
                "resource memory://events",
            ),
            Section(
                "memories that may matter now",
                [
                    Item(
                        f"{hit.memory.id} {show(hit.memory.happened_at, zone)[:10]} "
                        f"{hit.memory.kind}: {mark_lines(hit.passage.text)}"
                    )
                    for hit in parts.hits
                ],
                0.1,
                "first",
                "archival_memory_search",
            ),
        ]


def block_item(block: Block, writer: Writer) -> Item:
    """Return a block as an item that is cut inside its tags."""
    whole = compile_block(block)

    def shrink(max_tokens: int) -> str | None:
        head, _, rest = whole.partition("\n")
        value = rest.removesuffix("\n</block>")
        close = "\n(cut: core_memory_view shows all)\n</block>"
        room = max_tokens - writer.count(head) - writer.count(close) - 1
        if room < 1:
            return None
        return f"{head}\n{_HALF_ENTITY.sub('', writer.clip(value, room))}{close}"

    return Item(whole, shrink)


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def _head(conversation: str) -> str:
    return (
        f"Go on with conversation {shorten(conversation, 60)!r} where it stopped. Below is what"
        " you need, most valuable first; what is left out is counted and named with the call that"
        " shows it. For anything else use conversation_search and archival_memory_search."
    )
