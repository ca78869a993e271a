"""The reminder to think core memory over, after so many turns of the user."""

from __future__ import annotations

from collections.abc import Sequence

from mcp_memory.paging.state import PagingState
from mcp_memory.tiers import events
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.records import Message


class Reminder:
    """Counts the user's turns since core memory was last thought over.

    Args:
        every: After how many turns it reminds; 0 for never.
    """

    def __init__(self, engine: Engine, agent: str, every: int, state: PagingState) -> None:
        self._engine = engine
        self._agent = agent
        self._every = every
        self._state = state

    def remind(self, messages: Sequence[Message]) -> bool:
        """Count messages that were recorded; return whether an event was written.

        Raises:
            StorageFault: It can't be written; the turns stay counted.
        """
        every = self._every
        if not every:
            return False
        engine, agent = self._engine, self._agent
        if self._state.turns is None:
            since = engine.events.last_at(agent, (events.RETHOUGHT, events.REMINDER))
            self._state.turns = engine.recall.user_turns_since(agent, since)
        else:
            self._state.turns += sum(message.role == "user" for message in messages)
        if self._state.turns < every:
            return False
        text = (
            f"{self._state.turns} user turns since core memory was last thought over: if something"
            " lasting was said, rethink_memory, then finish_rethinking_memory."
        )
        with engine.database.transaction() as tx:
            engine.events.add(tx, agent, events.REMINDER, text, data={"turns": self._state.turns})
        self._state.turns = 0
        return True
