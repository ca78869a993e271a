"""Who has seen what of core memory, so that nobody undoes an edit unseen.

A reader is one client of a connection. What it has *not* seen is noted, when
somebody else changes it: so a reader that nobody disturbs costs nothing, and
its own edits never stand in its way. Kept in memory alone. The caller holds
the engine's lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from datetime import datetime
from typing import Final

from mcp_memory.values.records import Block

BlockKey = tuple[str, str, str]
"""Scope, conversation (empty unless that is the scope) and label."""

MAX_READERS: Final = 1_000
"""Of one connection; over HTTP every client of a server is one."""


def block_key(block: Block, conversation: str) -> BlockKey:
    """Return what names a block among those that one agent can see."""
    return (block.scope, conversation if block.scope == "conversation" else "", block.label)


class Reader:
    """What one client has not seen.

    Args:
        unseen: The blocks whose present value it has not seen.
    """

    def __init__(self, unseen: Iterable[BlockKey] = ()) -> None:
        self.unseen: dict[BlockKey, bool] = dict.fromkeys(unseen, False)
        """Whether the beginning of the present value was shown, the end not yet."""
        self.seen_at: dict[BlockKey, int] = {}
        """The tick at which what had been unseen was shown."""


class Readers:
    """The clients of one connection, the longest unheard forgotten first.

    Args:
        agent: Whose memory they see.
        since: When the client connected, if it is one and has said so.
        connection: What names the connection, also to the owner after this one.
    """

    def __init__(
        self, agent: str, since: datetime | None = None, connection: str | None = None
    ) -> None:
        self.agent = agent
        self.since = since
        self.connection = connection
        self.tick = 0
        self._readers: OrderedDict[Hashable, Reader] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        """Return whether a client is known."""
        return key in self._readers

    def get(self, key: Hashable, unseen: Callable[[], Iterable[BlockKey]]) -> Reader:
        """Return a client's reader; a new one has not seen what `unseen` returns."""
        reader = self._readers.get(key)
        if reader is None:
            reader = self._readers[key] = Reader(unseen())
            if len(self._readers) > MAX_READERS:
                self._readers.popitem(last=False)
        self._readers.move_to_end(key)
        return reader

    def changed(self, key: BlockKey, by: Reader | None) -> None:
        """Note that a block has a new value, which only the one who made it knows."""
        for reader in self._readers.values():
            if reader is not by:
                reader.unseen[key] = False


class Call:
    """One call of a reader: it knows only what was shown before the call was made.

    Args:
        readers: Those of the connection.
        reader: Who calls.
        arrived: The tick at which the call came in.
    """

    def __init__(self, readers: Readers, reader: Reader, arrived: int) -> None:
        self.reader = reader
        self._readers = readers
        self._arrived = arrived

    def knows(self, key: BlockKey) -> bool:
        """Return whether who made this call had seen the present value of a block."""
        reader = self.reader
        return key not in reader.unseen and reader.seen_at.get(key, 0) <= self._arrived

    def saw(self, key: BlockKey) -> None:
        """Note that the present value was shown as a whole; it counts for later calls."""
        if self.reader.unseen.pop(key, None) is not None:
            self._readers.tick += 1
            self.reader.seen_at[key] = self._readers.tick

    def had_seen(self, key: BlockKey) -> None:
        """Note that the present value was shown before this call was made."""
        self.reader.unseen.pop(key, None)

    def saw_part(self, key: BlockKey, *, first: bool, last: bool) -> None:
        """Note that a part of the present value was shown; the last completes the first."""
        if first and key in self.reader.unseen:
            self.reader.unseen[key] = True
        if last and self.reader.unseen.get(key):
            self.saw(key)
