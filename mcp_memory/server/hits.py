"""The replies to searches: hits page by page, and what stands around one of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from mcp_memory.server.arguments import ArchivalSearch, ConversationSearch
from mcp_memory.server.cursors import Position, read_cursor, write_cursor
from mcp_memory.server.payloads import memory_hit_payload, message_hit_payload
from mcp_memory.server.results import Fitter, Payload, Reply, compact
from mcp_memory.values.errors import InvalidInput
from mcp_memory.values.records import MemoryHit, MessageHit, Page, Passage
from mcp_memory.values.text import sentence_ranges, shorten

if TYPE_CHECKING:
    from mcp_memory.agent import AgentMemory

_CONVERSATIONS: Final = "conversation_search"
_MEMORIES: Final = "archival_memory_search"

_BEFORE_CHARS: Final = 600
"""So much of a text is shown before the character that was asked for."""

_CURSOR_TOKENS: Final = 130
_TOKEN_CHARS: Final = 32
"""Few tokens are longer: more of a text than this need not be counted."""

_MAX_DIGITS: Final = 9


def search_conversations(
    memory: AgentMemory, fitter: Fitter, given: ConversationSearch, alert: Payload
) -> Reply:
    """Return what was said: found, listed, or around one message.

    Args:
        alert: Fields that the reply has beside it.
    """
    zone = memory.settings.zone
    position = read_cursor(_CONVERSATIONS, given, given.cursor)
    if given.around is not None:
        _alone(given.query, given.roles, given.start_date, given.end_date, given.conversation)
        message_id, char = _place(given.around)
        if char is not None:
            message = memory.conversations.get(message_id)
            return _text(
                fitter,
                message.content,
                char,
                position,
                alert,
                lambda passage: message_hit_payload(MessageHit(message, passage, 0.0), zone),
                lambda end: write_cursor(_CONVERSATIONS, given, Position(part=end)),
            )
        first = None if given.cursor is None else position.offset
        page = memory.conversations.around(message_id, limit=given.limit, offset=first)
    else:
        page = memory.conversations.search(
            given.query,
            roles=given.roles or (),
            start_date=given.start_date,
            end_date=given.end_date,
            conversation=given.conversation,
            limit=given.limit,
            offset=position.offset,
            as_of=position.as_of,
        )
    items = [message_hit_payload(hit, zone) for hit in page.items]
    return _page(
        fitter,
        page,
        items,
        given.query or "",
        alert,
        lambda position: write_cursor(_CONVERSATIONS, given, position),
    )


def search_memories(memory: AgentMemory, fitter: Fitter, given: ArchivalSearch) -> Reply:
    """Return what was kept: found, listed, or the text of one memory, in parts if it is long."""
    zone = memory.settings.zone
    position = read_cursor(_MEMORIES, given, given.cursor)
    if given.around is not None:
        _alone(given.query, given.tags, given.start_date, given.end_date, given.kinds)
        memory_id, char = _place(given.around)
        record = memory.archive.get(memory_id, position.as_of)
        as_of: datetime = position.as_of or record.recorded_at
        return _text(
            fitter,
            record.content,
            char or 0,
            position,
            {},
            lambda passage: memory_hit_payload(MemoryHit(record, passage, 0.0), zone),
            lambda end: write_cursor(_MEMORIES, given, Position(as_of=as_of, part=end)),
        )
    page = memory.archive.search(
        given.query,
        tags=given.tags or (),
        tag_match=given.tag_match_mode,
        kinds=given.kinds or (),
        start_date=given.start_date,
        end_date=given.end_date,
        limit=given.top_k,
        offset=position.offset,
        as_of=position.as_of,
    )
    items = [memory_hit_payload(hit, zone) for hit in page.items]
    return _page(
        fitter,
        page,
        items,
        given.query or "",
        {},
        lambda position: write_cursor(_MEMORIES, given, position),
    )


def _page(
    fitter: Fitter,
    page: Page[Any],
    items: list[Payload],
    query: str,
    more: Payload,
    cursor: Callable[[Position], str],
) -> Reply:
    payload: Payload = {"total": page.total, "search": page.search}
    if page.note:
        payload["note"] = page.note
    shown = fitter.page(
        payload | more,
        items,
        query=query,
        more=lambda count: cursor(Position(page.ends[count - 1], page.as_of)),
        left=bool(page.ends) and page.ends[-1] < page.total,
    )
    return Reply(shown)


def _text(
    fitter: Fitter,
    text: str,
    char: int,
    position: Position,
    more: Payload,
    show: Callable[[Passage], Payload],
    cursor: Callable[[int], str],
) -> Reply:
    """Return a part of one text: from a little before `char`, or from where the last part ended.

    Raises:
        InvalidInput: The text has no such character.
    """
    if char > len(text):
        raise InvalidInput(
            f"around names character {char} of a text that has {len(text)}",
            field="around",
            hint="A hit's chars say which of how many it shows",
        )
    start = position.part or _beginning(text, char)

    def reply(end: int) -> Payload:
        passage = Passage(text[start:end], start, end, len(text))
        return {"total": 1, "search": "listing", **more, "results": [show(passage)]}

    room = fitter.max_tokens - _CURSOR_TOKENS
    end = start + len(_clipped(fitter, text[start : start + room * _TOKEN_CHARS], room))
    # As JSON a text counts more than by itself: a new line is two letters.
    while not fitter.fits(compact(reply(end)), _CURSOR_TOKENS) and room > 1:
        room = room * 4 // 5
        end = start + len(_clipped(fitter, text[start:end], room))
    # However small a reply may be, the next part begins further on.
    end = max(end, start + 1)
    if end >= len(text):
        return Reply(fitter.priced(reply(end)))
    sentences = sentence_ranges(text[start:end])
    if len(sentences) > 1 and sentences[-1][0] > (end - start) // 2:
        end = start + sentences[-1][0]
    return Reply(fitter.priced(reply(end), cursor(end)))


def _clipped(fitter: Fitter, text: str, max_tokens: int) -> str:
    clipped = fitter.clip(text, max_tokens)
    return text if clipped == text else clipped[:-1]


def _beginning(text: str, char: int) -> int:
    """Return where a sentence begins before a character, a little way off."""
    first = max(char - _BEFORE_CHARS, 0)
    if not first:
        return 0
    starts = [start for start, _ in sentence_ranges(text[first:char])][1:]
    return first + starts[0] if starts else char


def _place(around: str) -> tuple[str, int | None]:
    """Return the id and the character that `around` names.

    Raises:
        InvalidInput: It names none.
    """
    key, colon, char = around.partition(":")
    if not colon:
        return key, None
    if not char.strip().isdecimal() or len(char) > _MAX_DIGITS:
        raise InvalidInput(
            f"around is {shorten(around, 40)!r}",
            field="around",
            hint="Give an id, or an id, a colon and the number of a character",
        )
    return key, int(char)


def _alone(*others: object) -> None:
    """Check that `around` comes without what chooses hits.

    Raises:
        InvalidInput: It does not.
    """
    if any(other is not None for other in others):
        raise InvalidInput(
            "around shows one place: it goes with no query and no filter",
            field="around",
            hint="Leave the others out; limit and cursor may stay",
        )
