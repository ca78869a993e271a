"""What windows on the same conversations remember together."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from mcp_memory.store.ports import Change
from mcp_memory.tiers import events
from mcp_memory.tiers.feed import ChangeFeed

if TYPE_CHECKING:
    from mcp_memory.paging.pager import Pager

MAX_NOTICES: Final = 64
"""Conversations whose newest notice is remembered; by judgement."""


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

    users: dict[str, WeakSet[Pager]] = field(default_factory=dict)
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

    def apply(self, change: Change) -> None:
        """Follow what messages and events say of the pressure and of the user's turns."""
        if self.turns is not None:
            self.turns += sum(message.role == "user" for message in change.messages)
        for event in change.events:
            if event.kind in {events.WARNING, events.FLUSHED} and event.conversation is not None:
                self.warned[event.conversation] = event.kind == events.WARNING
            elif event.kind in {events.REMINDER, events.RETHOUGHT}:
                self.turns = 0

    def forget(self) -> None:
        """Drop what was read from the store."""
        self.warned.clear()
        self.turns = None


class PagingStates:
    """The states of all agents; follows the change feed."""

    def __init__(self, feed: ChangeFeed) -> None:
        self._states: dict[str, PagingState] = {}
        feed.follow(self)

    def of(self, agent: str) -> PagingState:
        """Return the state of an agent."""
        return self._states.setdefault(agent, PagingState())

    def apply(self, change: Change) -> None:
        """Take in the next change of an agent; see `feed.Follower`."""
        state = self._states.get(change.agent)
        if state is not None:
            state.apply(change)

    def forget(self) -> None:
        """Drop what was read from the store."""
        for state in self._states.values():
            state.forget()
