"""What windows on the same conversations remember together, and what one append led to."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from mcp_memory.values.records import Budget, Flush, Level

if TYPE_CHECKING:
    from mcp_memory.paging.view import View

MAX_NOTICES: Final = 64


@dataclass(frozen=True, slots=True)
class Arrival:
    """What came of appended messages: the budget afterwards, and what it led to."""

    budget: Budget
    level: Level
    alert: str | None
    flush: Flush | None
    news: bool
    """Whether events were written."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that every window on a conversation is told once; numbers count up."""

    number: int
    text: str
    in_force: bool
    """Whether one that comes later is told too."""


@dataclass(slots=True)
class PagingState:
    """What all windows on one agent's conversations remember together."""

    warned: dict[str, bool] = field(default_factory=dict)
    """By conversation, whether the pressure of this period was told."""

    turns: int | None = None
    """The user's turns since core memory was last thought over; None before they are counted."""

    users: dict[str, WeakSet[View]] = field(default_factory=dict)
    """By conversation, the open windows that have used it."""

    notices: OrderedDict[str, Notice] = field(default_factory=OrderedDict)
    """By conversation, the newest."""

    last_notice: int = 0

    def post(self, conversation: str, text: str, *, in_force: bool) -> Notice:
        """Leave a notice in the place of the one before it."""
        self.last_notice += 1
        notice = Notice(self.last_notice, text, in_force)
        self.notices[conversation] = notice
        self.notices.move_to_end(conversation)
        if len(self.notices) > MAX_NOTICES:
            self.notices.popitem(last=False)
        return notice
