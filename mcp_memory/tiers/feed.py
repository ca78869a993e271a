"""One path from a commit to what is in memory.

Everything cached of an agent (blocks, queues, row caches, search indexes) is a function of
that agent's rows up to a change number. Each cache registers here as a follower. A
transaction of this process passes its changes on as it commits; what another process has
committed is read from the rows. Both go through `Follower.apply`, in the order of the numbers.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from mcp_memory.store.ports import Change, Store, UnitOfWork
from mcp_memory.values.errors import StorageFault

logger = logging.getLogger(__name__)


class Follower(Protocol):
    """A cache that follows the rows of each agent."""

    def apply(self, change: Change) -> None:
        """Apply the next change of an agent; what isn't loaded of that agent stays unloaded."""
        ...

    def forget(self) -> None:
        """Drop everything: the store now has other rows."""
        ...


class ChangeFeed:
    """Passes every agent's changes to all followers, each change once and in order.

    Args:
        store: Where the rows are.
    """

    def __init__(self, store: Store) -> None:
        self.lock = threading.RLock()
        """Held while anything in memory is read or changed, and never while a model works."""
        self._store = store
        self._followers: list[Follower] = []
        self._seqs: dict[str, int] = {}
        self._untold: list[Change] = []
        self.on_changes: Callable[[Sequence[Change]], None] | None = None
        """Called with the lock held, once all followers have the changes; it may use `view`."""
        self._generation = store.generation

    def follow(self, follower: Follower) -> None:
        """Pass all changes to a follower from now on; it has nothing loaded yet."""
        self._followers.append(follower)

    def seq(self, agent: str) -> int:
        """Return the change number up to which this process knows an agent's rows.

        What a follower loads, it loads up to this number.
        """
        known = self._seqs.get(agent)
        if known is None:
            known = self._seqs[agent] = self._store.seq(agent)
        return known

    def is_current(self, agent: str) -> bool:
        """Return whether all that was committed of an agent is known here; needs no lock."""
        return self._generation == self._store.generation and self._seqs.get(
            agent
        ) == self._store.seq(agent)

    @contextlib.contextmanager
    def view(self, *agents: str) -> Iterator[None]:
        """Hold the lock, with everything committed for some agents loaded."""
        with self.lock:
            if self._generation != self._store.generation:
                self.forget()
            for agent in agents:
                newest = self._store.seq(agent)
                if self._seqs.get(agent, newest) != newest:
                    self._catch_up(agent, newest)
            self._tell()
            yield

    @contextlib.contextmanager
    def transaction(self) -> Iterator[UnitOfWork]:
        """Begin a unit of work; once it is committed, all followers have its changes.

        Raises:
            StorageFault: It can't be written; nothing was stored, and no cache has changed.
        """
        with self.lock:
            with self._store.transaction() as unit:
                yield unit
            self._committed(unit.changes)
            self._tell()

    def forget(self) -> None:
        """Drop everything in memory: it is loaded again when it is needed."""
        self._generation = self._store.generation
        self._seqs.clear()
        for follower in self._followers:
            follower.forget()

    def _committed(self, changes: Sequence[Change]) -> None:
        try:
            for change in changes:
                known = self._seqs.get(change.agent)
                if known is not None and known < change.seq - 1:
                    # Another process has committed in between.
                    self._catch_up(change.agent, change.seq - 1)
                self._apply(change)
        except StorageFault as fault:
            # It is committed all the same: no caller may take it for undone.
            logger.warning("what is in memory is loaded again: %s", fault)
            self.forget()

    def _catch_up(self, agent: str, upto: int) -> None:
        for change in self._store.changes(agent, self._seqs[agent]):
            if change.seq <= upto:
                self._apply(change)
        self._seqs[agent] = max(self._seqs.get(agent, 0), upto)

    def _apply(self, change: Change) -> None:
        self._seqs[change.agent] = change.seq
        if self.on_changes is not None:
            self._untold.append(change)
        try:
            for follower in self._followers:
                follower.apply(change)
        except Exception:
            # Some followers have it and some don't.
            logger.exception("a change can't be followed: all is loaded again")
            self.forget()

    def _tell(self) -> None:
        untold, self._untold = self._untold, []
        if not untold or self.on_changes is None:
            return
        try:
            self.on_changes(untold)
        except Exception:
            # It is committed all the same.
            logger.exception("a change could not be announced")
