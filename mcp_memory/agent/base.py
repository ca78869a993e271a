"""What the parts of the façade share: the engine, the agent and the listeners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

from mcp_memory.agent.readers import Readers
from mcp_memory.agent.topics import Listener
from mcp_memory.paging import Pager
from mcp_memory.search.index import SearchIndex
from mcp_memory.search.queries import Filter, parse_query
from mcp_memory.search.times.spans import spans
from mcp_memory.settings import Settings
from mcp_memory.tiers.consolidations import Consolidations
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.dates import EPOCH, TimeRange, parse_range
from mcp_memory.values.errors import InvalidInput
from mcp_memory.values.records import ROLES, SHARED, Page, Passage
from mcp_memory.values.requests import MAX_RESULTS, SearchRequest, Tier, Where
from mcp_memory.values.text import check_name, check_query, check_tags, shorten

_LEXICAL_NOTE: Final = "searched by words alone: the embedding model is {state}"
_UNFILLED_NOTE: Final = "some texts are searched by words alone: their vectors are being loaded"


@dataclass(frozen=True, slots=True)
class Grant:
    """A connection of `agent` that sees the shared blocks with these labels."""

    agent: str
    labels: tuple[str, ...]
    listener: Listener


@dataclass(frozen=True, slots=True)
class Access:
    """One connection's way to one agent's memory.

    Args:
        engine: The open database.
        agent: Whose memory it is.
        settings: The settings of the connection; what belongs to the process is the engine's.
        pager: The connection's window.
        listeners: Called with the topics of every change; all connections of the agent share them.
        readers: The connection's clients.
        all_readers: The clients of every connection of every agent.
        grants: Who sees which shared blocks, over all connections.
        consolidations: The consolidations of every agent.
    """

    engine: Engine
    agent: str
    settings: Settings
    pager: Pager
    listeners: list[Listener]
    readers: Readers
    all_readers: list[Readers]
    grants: list[Grant]
    consolidations: Consolidations


class HasContent(Protocol):
    """A message or a memory."""

    @property
    def content(self) -> str: ...  # noqa: D102  its text


R = TypeVar("R", bound=HasContent)
H = TypeVar("H", covariant=True)


class SearchedTier(Protocol[R, H]):
    """What a search needs of a tier: records of type R, results of type H."""

    @property
    def tier(self) -> Tier: ...  # noqa: D102  see the tiers
    @property
    def of_facts(self) -> bool:
        """Whether the tier has facts, not a conversation: a query is embedded accordingly."""
        ...

    def newest(self, agent: str) -> datetime: ...  # noqa: D102  see the tiers
    def index(self, agent: str) -> SearchIndex[str]: ...  # noqa: D102  see the tiers
    def get_many(self, agent: str, ids: Sequence[str]) -> Mapping[str, R]: ...  # noqa: D102  as above
    def listing(  # noqa: D102  see the tiers
        self, agent: str, where: Where, *, offset: int, limit: int
    ) -> tuple[Sequence[R | None], int]: ...
    def hit(  # noqa: D102  see the tiers
        self, record: R, passage: Passage, score: float, why: tuple[str, ...]
    ) -> H: ...


class Part:
    """Base class of the parts of one agent's memory."""

    def __init__(self, access: Access) -> None:
        self._engine = access.engine
        self._agent = access.agent
        self._settings = access.settings
        self._pager = access.pager
        self._listeners = access.listeners
        self._consolidations = access.consolidations

    def _notify(self, *topics: str) -> None:
        for listener in tuple(self._listeners):
            listener(frozenset(topics))

    def _view(self) -> AbstractContextManager[None]:
        """Hold the engine's lock, with everything committed for the agent loaded."""
        if self._settings.shared_blocks:
            return self._engine.view(self._agent, SHARED)
        return self._engine.view(self._agent)

    def _named(self, text: str) -> TimeRange | None:
        """Return the time that a whole text names in words, such as "last week"."""
        now, words = self._engine.clock(), text.strip().lower().removeprefix("the ")
        if words == "now":
            return TimeRange(now, now)
        match spans(words, now=now, zone=self._settings.zone):
            case [found] if found.text == words and found.start > EPOCH:
                return TimeRange(found.start, found.end)
        return None

    def _search(self, tier: SearchedTier[R, H], request: SearchRequest) -> Page[H]:
        """Search a tier, or list it by date where the request has no query.

        Raises:
            InvalidInput: The request is not valid.
        """
        engine, agent = self._engine, self._agent
        engine.check()
        request = check_request(request, tier.tier)
        start, end = parse_range(
            request.start_date, request.end_date, zone=self._settings.zone, named=self._named
        )
        as_of = request.as_of
        if as_of is None:
            with self._view():
                # Rows recorded before the clock was set back are later than now, and count too.
                as_of = max(engine.clock(), tier.newest(agent))
        where = Where(request.groups(tier.tier), start, end, as_of)
        if request.query is None:
            return self._listing(tier, where, as_of, request)
        vector = engine.questions.vector(request.query, of_facts=tier.of_facts)
        with self._view():
            index = tier.index(agent)
            question = parse_query(request.query, index.speakers, as_of, self._settings.zone)
            prepared = index.prepare(question, Filter(where.labels, start, end, as_of))
            ranking = index.search(prepared, vector, offset=request.offset, limit=request.limit)
            note = None
            if vector is None:
                note = _LEXICAL_NOTE.format(state=engine.embedding)
            elif not index.complete:
                note = _UNFILLED_NOTE
            records = tier.get_many(agent, [found.key for found in ranking.found])
        found = [item for item in ranking.found if item.key in records]
        return Page(
            items=tuple(
                tier.hit(
                    records[item.key],
                    passage(records[item.key].content, item.start, item.end),
                    item.score,
                    item.why,
                )
                for item in found
            ),
            total=ranking.total,
            offset=request.offset,
            as_of=as_of,
            search="lexical" if vector is None else "hybrid",
            note=note,
            ends=tuple(item.place + 1 for item in found),
        )

    def _listing(
        self, tier: SearchedTier[R, H], where: Where, as_of: datetime, request: SearchRequest
    ) -> Page[H]:
        offset = request.offset
        while True:
            with self._view():
                listed, total = tier.listing(self._agent, where, offset=offset, limit=request.limit)
            present = [(at, item) for at, item in enumerate(listed, offset + 1) if item is not None]
            if present or not listed:
                break
            # All of these were deleted since the first page was read.
            offset += len(listed)
        return Page(
            items=tuple(tier.hit(item, whole(item.content), 0.0, ()) for _, item in present),
            total=total,
            offset=offset,
            as_of=as_of,
            search="listing",
            ends=tuple(at for at, _ in present),
        )


def request_of(query: SearchRequest | str | None, filters: Mapping[str, Any]) -> SearchRequest:
    """Return a request unchanged, or build one from a query and the other fields by name."""
    if isinstance(query, SearchRequest):
        return replace(query, **filters)
    lists = {name: tuple(value) for name, value in filters.items() if isinstance(value, list)}
    return SearchRequest(query=query, **{**filters, **lists})


def check_request(request: SearchRequest, tier: Tier) -> SearchRequest:
    """Return a search request with its query, filters and limit checked and normalized.

    Raises:
        InvalidInput: One of them is not valid.
    """
    for role in request.roles:
        if role not in ROLES:
            raise InvalidInput(
                f"role {shorten(str(role), 40)!r} is unknown",
                field="roles",
                hint=f"Use {', '.join(ROLES)}",
            )
    name = request.conversation
    return replace(
        request,
        query=check_query(request.query),
        conversation=None if name is None else check_conversation(name),
        tags=check_tags(request.tags),
        limit=check_limit(request.limit, "top_k" if tier == "memory" else "limit"),
    )


def check_conversation(name: str) -> str:
    """Return the name of a conversation, checked and normalized.

    Raises:
        InvalidInput: It is empty, too long or has control characters.
    """
    return check_name(name, "conversation")


def check_size(max_tokens: int | None, *, least: int, default: int, window_tokens: int) -> int:
    """Return how many tokens a text may have, `default` without `max_tokens`.

    Raises:
        InvalidInput: It is not between `least` and the whole window.
    """
    if max_tokens is None:
        return default
    if not least <= max_tokens <= window_tokens:
        raise InvalidInput(
            f"max_tokens is {max_tokens}; it must be {least} to {window_tokens}, the window",
            field="max_tokens",
            hint=f"Leave it out for {default}",
        )
    return max_tokens


def check_limit(value: int, field: str) -> int:
    """Return a limit on the number of results, checked.

    Raises:
        InvalidInput: It is not 1 to `MAX_RESULTS`.
    """
    if not 1 <= value <= MAX_RESULTS:
        raise InvalidInput(
            f"{field} is {value}; it must be 1 to {MAX_RESULTS}",
            field=field,
            hint="Read on with next_cursor for more",
        )
    return value


def whole(content: str) -> Passage:
    """Return a whole text as a passage."""
    return Passage(content, 0, len(content), len(content))


def passage(content: str, start: int, end: int) -> Passage:
    """Return characters `start` to `end` of a text."""
    return Passage(content[start:end], start, end, len(content))
