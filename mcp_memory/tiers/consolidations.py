"""Consolidations of core memory: when, by whom and why, and what has come since.

A consolidation begins with the first rewrite of a block after the last one was finished.
Its row is written in the transaction of that rewrite, and completed in the transaction of
its event: a crash can't leave it half begun or half finished.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from mcp_memory.store.ports import Change, Store, UnitOfWork
from mcp_memory.tiers.feed import ChangeFeed
from mcp_memory.values.dates import EPOCH
from mcp_memory.values.errors import OverLimit
from mcp_memory.values.ids import new_id
from mcp_memory.values.records import SHARED, Consolidation, Memory, Message
from mcp_memory.values.text import check_text

MAX_REASON_CHARS: Final = 500
"""The longest reason of a consolidation; by judgement."""

TICK: Final = timedelta(microseconds=1)
"""The resolution of stored times."""

_MAX_NEWS_CHARS: Final = 8_000
"""Characters read of each message and memory, by judgement: the beginning shows if it matters."""


@dataclass(frozen=True, slots=True)
class News:
    """What has come since a moment: the newest, in order from old to new, and the counts."""

    messages: tuple[Message, ...]
    message_count: int
    memories: tuple[Memory, ...]
    memory_count: int


class Consolidations:
    """The consolidations of every agent; follows the change feed.

    Args:
        store: Where the rows are.
        feed: Reports their changes.
    """

    def __init__(self, store: Store, feed: ChangeFeed) -> None:
        self._consolidations = store.consolidations
        self._messages = store.messages
        self._memories = store.memories
        self._feed = feed
        self._present: dict[str, Consolidation | None] = {}
        self._last: dict[str, datetime | None] = {}
        self._meant: dict[str, datetime] = {}
        self._reminded: dict[str, datetime] = {}
        self._tried: dict[str, datetime] = {}
        feed.follow(self)

    def apply(self, change: Change) -> None:
        """Apply consolidations that were begun or finished; see `feed.Follower`."""
        agent = change.agent
        for item in change.consolidations:
            if item.author == "client":
                self._present[agent] = item if item.finished_at is None else None
                self._meant.pop(agent, None)
            if agent in self._last and item.finished_at is not None:
                self._last[agent] = max(self._last[agent] or EPOCH, item.finished_at)

    def forget(self) -> None:
        """Drop everything in memory."""
        self._present.clear()
        self._last.clear()
        self._meant.clear()

    def present(self, agent: str) -> Consolidation | None:
        """Return the unfinished consolidation, None without one."""
        if agent not in self._present:
            self._present[agent] = self._consolidations.present(agent, self._feed.seq(agent))
        return self._present[agent]

    def last_at(self, agent: str) -> datetime | None:
        """Return when the last consolidation was finished."""
        if agent not in self._last:
            self._last[agent] = self._consolidations.last_at(agent, self._feed.seq(agent))
        return self._last[agent]

    def since(self, agent: str) -> datetime | None:
        """Return when the unfinished consolidation began, else when the last was finished."""
        present = self.present(agent)
        return self._meant.get(agent, self.last_at(agent)) if present is None else present.began_at

    def later(self, agent: str, moment: datetime) -> datetime:
        """Return `moment`, or just after the last beginning and end if the clock was set back."""
        known = [at + TICK for at in (self.since(agent), self.last_at(agent)) if at]
        return max([moment, *known])

    def mean(self, agent: str, moment: datetime) -> None:
        """Note that a consolidation is about to begin: every edit from now on is part of it."""
        if self.present(agent) is None:
            self._meant.setdefault(agent, self.later(agent, moment))

    def reminded(self, agent: str, newest: datetime) -> None:
        """Note that all news up to this moment has been reported."""
        self._reminded[agent] = newest

    def reminded_of(self, agent: str) -> datetime | None:
        """Return up to which moment this process has reported the news."""
        return self._reminded.get(agent)

    def try_now(self, agent: str, newest: datetime) -> None:
        """Note that the endpoint is asked about all news up to this moment."""
        self._tried[agent] = newest

    def tried_at(self, agent: str) -> datetime | None:
        """Return up to which moment this process has asked the endpoint about the news."""
        return self._tried.get(agent)

    def begin(
        self, unit: UnitOfWork, agent: str, moment: datetime, by: str | None, *, rewritten: bool
    ) -> None:
        """Write the beginning of a consolidation if this edit begins one.

        Args:
            moment: The time of the edit.
            by: The connection that made it.
            rewritten: Whether a whole block is rewritten; another edit begins one only
                after `mean`.
        """
        if self.present(agent) is not None or not (rewritten or agent in self._meant):
            return
        began_at = self._meant.get(agent, moment - TICK)
        began = Consolidation(id=new_id(), author="client", began_at=began_at, began_by=by)
        self._consolidations.insert(unit, agent, began)

    def finish(self, unit: UnitOfWork, agent: str, finished: Consolidation) -> None:
        """Write a finished consolidation, whether its beginning was written or not."""
        present = self.present(agent)
        if present is None or present.id != finished.id:
            self._consolidations.insert(unit, agent, finished)
        else:
            self._consolidations.finish(unit, agent, finished)

    def refuse(self, unit: UnitOfWork, agent: str, refused: Consolidation) -> None:
        """Record a consolidation of the endpoint that was refused, for its cost."""
        self._consolidations.insert(unit, agent, refused)

    def tokens(self, agent: str) -> int:
        """Return the tokens that the endpoint's consolidations of an agent have cost."""
        return self._consolidations.tokens(agent)

    def of_block(self, agent: str, conversation: str, label: str) -> tuple[Consolidation, ...]:
        """Return the finished consolidations that changed a block, newest first.

        Args:
            agent: The agent; `SHARED` for a shared block, which every agent may change.
            conversation: The conversation that the block belongs to, empty if it has none.
        """
        block = (label, conversation, agent == SHARED)
        return tuple(
            found
            for found in self._consolidations.naming(agent or None, label)
            if any((c.label, c.conversation, c.shared) == block for c in found.changed)
        )

    def news(self, agent: str, since: datetime | None, *, messages: int, memories: int) -> News:
        """Return the newest messages and memories recorded after a moment; None for all."""
        limits = {"max_chars": _MAX_NEWS_CHARS}
        dialogue = self._messages.dialogue_since(agent, since, limit=messages, **limits)
        stored = self._memories.since(agent, since, limit=memories, **limits)
        message_count, memory_count = self.count_news(agent, since)
        return News(tuple(reversed(dialogue)), message_count, tuple(reversed(stored)), memory_count)

    def count_news(self, agent: str, since: datetime | None) -> tuple[int, int]:
        """Return the number of messages of a dialogue, and of memories, after a moment."""
        return (
            self._messages.count_dialogue_since(agent, since),
            self._memories.count_since(agent, since),
        )


def check_reason(reason: str | None) -> str | None:
    """Return the reason of a consolidation, checked and on one line.

    Raises:
        InvalidInput: It is empty or has characters that can't be stored.
        OverLimit: It is longer than `MAX_REASON_CHARS`.
    """
    if reason is None:
        return None
    if len(reason) > MAX_REASON_CHARS:
        raise OverLimit(
            "reason",
            used=len(reason),
            limit=MAX_REASON_CHARS,
            unit="characters",
            field="reason",
            hint="A sentence is enough",
        )
    return " ".join(check_text(reason, "reason").split())
