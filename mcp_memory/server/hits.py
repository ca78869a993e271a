"""Replies of searches: a page of hits, or the text around one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mcp_memory.server.arguments import Arguments
from mcp_memory.server.cursors import Position
from mcp_memory.server.replies import PAGE_TOKENS, Fitter, Payload, Reply, compact
from mcp_memory.values.errors import BadCursor, InvalidInput
from mcp_memory.values.records import Page, Passage
from mcp_memory.values.requests import SearchRequest
from mcp_memory.values.text import sentence_ranges, shorten, whole_number

_BEFORE_CHARS: Final = 600
"""How far before the requested character the shown text may begin; by judgement."""

_TOKEN_CHARS: Final = 32
"""Few tokens are longer, so only this many characters a token are counted; by judgement."""

_FIELDS: Final = {"top_k": "limit", "tag_match_mode": "tag_match"}
"""Arguments of search tools whose field of `SearchRequest` has another name."""


def page_reply(
    fitter: Fitter,
    page: Page[Any],
    items: list[Payload],
    *,
    query: str | None,
    extra: Payload,
    cursor: Callable[[Position], str],
) -> Reply:
    """Return a page of hits.

    Args:
        items: The hits of the page as JSON.
        extra: More fields of the reply.
        cursor: Writes the cursor that continues at a position.
    """

    def after(count: int) -> str | None:
        if not page.ends or page.ends[count - 1] >= page.total:
            return None
        return cursor(Position(page.ends[count - 1], page.as_of))

    payload: Payload = {"total": page.total, "search": page.search}
    if page.note:
        payload["note"] = page.note
    return Reply(fitter.page(payload | extra, items, query=query or "", cursor=after))


def text_reply(
    fitter: Fitter,
    text: str,
    char: int,
    position: Position,
    *,
    extra: Payload,
    show: Callable[[Passage], Payload],
    cursor: Callable[[Position], str],
) -> Reply:
    """Return a part of one text: from a little before `char`, or from where the last part ended.

    Args:
        extra: More fields of the reply.
        show: Returns a passage of the text as JSON.
        cursor: Writes the cursor that continues at a position.

    Raises:
        InvalidInput: The text is shorter.
        BadCursor: So is it for the cursor.
    """
    if char > len(text):
        raise InvalidInput(
            f"around asks for character {char} of a text of {len(text)} characters",
            field="around",
            hint="The field chars of a hit is [start, end, length]",
        )
    if position.part > len(text):
        raise BadCursor("the text ends before it")
    start = position.part or _beginning(text, char)

    def reply(end: int) -> Payload:
        passage = Passage(text[start:end], start, end, len(text))
        return {"total": 1, "search": "listing", **extra, "results": [show(passage)]}

    room = fitter.max_tokens - PAGE_TOKENS
    end = start + len(_clipped(fitter, text[start : start + room * _TOKEN_CHARS], room))
    # A text has more tokens as JSON: a new line becomes two characters.
    while not fitter.fits(compact(reply(end)), PAGE_TOKENS) and room > 1:
        room = room * 4 // 5
        end = start + len(_clipped(fitter, text[start:end], room))
    # However small the limit is, every part moves on by a character.
    end = max(end, start + 1)
    if end >= len(text):
        return Reply(fitter.priced(reply(end)))
    sentences = sentence_ranges(text[start:end])
    if len(sentences) > 1 and sentences[-1][0] > (end - start) // 2:
        end = start + sentences[-1][0]
    return Reply(fitter.priced(reply(end), cursor(Position(position.offset, position.as_of, end))))


def _clipped(fitter: Fitter, text: str, max_tokens: int) -> str:
    clipped = fitter.clip(text, max_tokens)
    return text if clipped == text else clipped[:-1]


def _beginning(text: str, char: int) -> int:
    """Return where a sentence begins shortly before a character."""
    first = max(char - _BEFORE_CHARS, 0)
    if not first:
        return 0
    starts = [start for start, _ in sentence_ranges(text[first:char])][1:]
    return first + starts[0] if starts else char


def parse_around(around: str) -> tuple[str, int | None]:
    """Return the id and the character of the argument `around`.

    Raises:
        InvalidInput: It is neither `id` nor `id:character`.
    """
    key, colon, char = around.partition(":")
    if not colon:
        return key, None
    number = whole_number(char)
    if number is None:
        raise InvalidInput(
            f"invalid around {shorten(around, 40)!r}",
            field="around",
            hint="Use the id of a hit, or id:character, such as 1bf4sewjyx:1200",
        )
    return key, number


def search_request(given: Arguments, position: Position) -> SearchRequest:
    """Return what a search tool was asked: each argument is the field of its name."""
    values: dict[str, Any] = {}
    for name, value in given:
        field = _FIELDS.get(name, name)
        if value is not None and field in SearchRequest.__dataclass_fields__:
            values[field] = tuple(value) if isinstance(value, list) else value
    return SearchRequest(**values, offset=position.offset, as_of=position.as_of)


def refuse_filters(request: SearchRequest) -> None:
    """Refuse a query or filters beside `around`.

    Raises:
        InvalidInput: One of them is set.
    """
    plain = SearchRequest(
        tag_match=request.tag_match,
        limit=request.limit,
        offset=request.offset,
        as_of=request.as_of,
    )
    if request != plain:
        raise InvalidInput(
            "around can't be combined with a query or filters",
            field="around",
            hint="Leave them out; limit and cursor are allowed",
        )
