"""What the parts of the façade share: the engine, the agent, and whom to tell of a change."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from mcp_memory.agent.readers import Readers
from mcp_memory.paging import Pager
from mcp_memory.search.index import SearchIndex
from mcp_memory.search.queries import Filter, Ranking, parse_query
from mcp_memory.settings import Settings
from mcp_memory.tiers.consolidations import Consolidations
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.dates import now
from mcp_memory.values.errors import InvalidInput
from mcp_memory.values.records import Passage, SearchKind
from mcp_memory.values.text import check_name

K = TypeVar("K", bound=Hashable)
Listener = Callable[[frozenset[str]], None]

MAX_RESULTS: Final = 50
_LEXICAL_NOTE: Final = "searched by words alone: the embedding model is {state}"
_UNFILLED_NOTE: Final = "some texts are searched by words alone: their vectors are being loaded"


@dataclass(frozen=True, slots=True)
class Grant:
    """A connection of `agent` that is shown the shared blocks of these labels."""

    agent: str
    labels: tuple[str, ...]
    listener: Listener


@dataclass(frozen=True, slots=True)
class Access:
    """One connection's way to one agent's memory.

    Args:
        engine: The open database.
        agent: Whose memory it is.
        settings: Those of the connection; what belongs to the process is the engine's.
        pager: The connection's window.
        listeners: Called with the topics of every change; those of all the agent's connections.
        readers: The connection's clients.
        all_readers: The clients of every connection of every agent.
        grants: Whom to tell of a change to a shared block, on every connection.
        consolidations: Those of every agent.
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


class Part:
    """A part of one agent's memory."""

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

    def _rank(
        self,
        index: Callable[[str], SearchIndex[K]],
        query: str,
        where: Filter,
        *,
        offset: int,
        limit: int,
        of_facts: bool,
    ) -> tuple[Ranking[K], SearchKind, str | None]:
        """Return a part of a tier's ranking, how it was made, and a note.

        Args:
            index: Gives an agent's index; called with the engine's lock held.
            of_facts: Whether the tier holds facts, and no conversation.
        """
        engine, agent = self._engine, self._agent
        vector = engine.questions.vector(query, of_facts=of_facts)
        with engine.lock:
            asked = index(agent)
            question = parse_query(query, asked.speakers, where.as_of or now(), self._settings.zone)
            prepared = asked.prepare(question, where)
            ranking = asked.search(prepared, vector, offset=offset, limit=limit)
            kind: SearchKind = "lexical" if vector is None else "hybrid"
            note = None
            if vector is None:
                note = _LEXICAL_NOTE.format(state=engine.state(agent).state)
            elif not asked.complete:
                note = _UNFILLED_NOTE
        return ranking, kind, note


def check_conversation(name: str) -> str:
    """Return the handle of a conversation.

    Raises:
        InvalidInput: It is empty, too long or has control characters.
    """
    return check_name(name, "conversation")


def check_size(max_tokens: int | None, *, least: int, default: int, window_tokens: int) -> int:
    """Return how many tokens a text may have, `default` if nobody says.

    Raises:
        InvalidInput: It is not `least` to the whole window.
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
    """Return the number of results that is asked for.

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


def groups(*choices: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the groups of labels of a filter, without those that choose nothing."""
    return tuple(tuple(group) for group in choices if group)


def whole(content: str) -> Passage:
    """Return a text as a passage of itself."""
    return Passage(content, 0, len(content), len(content))


def passage(content: str, start: int, end: int) -> Passage:
    """Return characters `start` to `end` of a text."""
    return Passage(content[start:end], start, end, len(content))
