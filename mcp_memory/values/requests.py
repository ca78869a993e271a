"""What a search is asked: one value, built once and passed through unchanged.

A filter is a field here that `FILTERS` names for a tier. The search index and the storage
engines read `FILTERS`, so that a new filter on something a record already has is a line in
`FILTERS`, a field of `SearchRequest` and an argument of the tool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from mcp_memory.values.records import Kind, Memory, Message, Role, TagMatch

Tier = Literal["message", "memory"]
"""Which texts are searched: recall memory's messages or archival memory's memories."""

Group = tuple[str, tuple[str, ...]]
"""A field of the record, and the values of which one is enough."""

FILTERS: Final[Mapping[Tier, Mapping[str, str]]] = {
    "message": {"roles": "role", "conversation": "conversation"},
    "memory": {"kinds": "kind", "tags": "tags"},
}
"""By tier: which field of a request filters on which field of the record."""


MAX_RESULTS: Final = 50
"""Results of one page of a search; by judgement."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One search, or a listing by date where there is no `query`.

    Attributes:
        roles: Whose messages; all without.
        tag_match: Whether a memory needs one of `tags`, or all.
        start_date: First day or moment, in the form a tool takes; the caller's time zone.
        end_date: Last day or moment, included.
        limit: Results a page, 1 to `MAX_RESULTS`.
        offset: How many results an earlier page has shown.
        as_of: The moment whose state is shown; None for the present.
    """

    query: str | None = None
    roles: tuple[Role, ...] = ()
    conversation: str | None = None
    tags: tuple[str, ...] = ()
    tag_match: TagMatch = "any"
    kinds: tuple[Kind, ...] = ()
    start_date: str | None = None
    end_date: str | None = None
    limit: int = 10
    offset: int = 0
    as_of: datetime | None = None

    def groups(self, tier: Tier) -> tuple[Group, ...]:
        """Return what a text of a tier has to match: every group, by one of its values."""
        found: list[Group] = []
        for name, field in FILTERS[tier].items():
            value = getattr(self, name)
            values = (value,) if isinstance(value, str) else tuple(value or ())
            if name == "tags" and self.tag_match == "all":
                found += [(field, (tag,)) for tag in values]
            elif values:
                found.append((field, values))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Where:
    """What a text must be to be a candidate at all.

    Attributes:
        groups: Each needs one of its values.
        start: The first moment that counts; None for no bound.
        end: The first moment that no longer counts.
        as_of: What was recorded later is left out.
    """

    groups: tuple[Group, ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    as_of: datetime | None = None

    @property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        """The groups as the search index knows them; see `labels_of`."""
        return tuple(tuple(f"{field}:{value}" for value in values) for field, values in self.groups)


def labels_of(tier: Tier, record: Message | Memory) -> tuple[str, ...]:
    """Return what a record can be filtered by, as the search index knows it."""
    labels: list[str] = []
    for field in FILTERS[tier].values():
        value = getattr(record, field)
        values = (value,) if isinstance(value, str) else value
        labels += [f"{field}:{item}" for item in values]
    return tuple(labels)
