"""Which client has seen which blocks, so that no client undoes an edit it has not seen.

A reader is one client of a connection. What it has *not* seen is recorded when
another client changes it: so a client that works alone costs nothing, and its own
edits never conflict. Nothing of this is persisted. The caller holds the engine's lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from datetime import datetime
from typing import Final

from mcp_memory.values.records import Block

BlockKey = tuple[str, str, str]
"""Scope, conversation (empty for other scopes) and label."""

MAX_READERS: Final = 1_000
"""Readers of one connection, by judgement; over HTTP every client of a server is a reader."""


def block_key(block: Block, conversation: str) -> BlockKey:
    """Return the key of a block among the blocks that one agent can see."""
    return (block.scope, conversation if block.scope == "conversation" else "", block.label)


class Reader:
    """What one client has not seen.

    Args:
        unseen: The blocks whose present value it has not seen.
    """

    def __init__(self, unseen: Iterable[BlockKey] = ()) -> None:
        self.unseen: dict[BlockKey, bool] = dict.fromkeys(unseen, False)
        """By unseen block, whether the beginning of its value was shown, but not yet the end."""
        self.seen_at: dict[BlockKey, int] = {}
        """By block, the tick at which its unseen value was shown."""


class Readers:
    """The clients of one connection; of too many, the least recently active is forgotten.

    Args:
        agent: Whose memory they see.
        since: When the client connected; None if it is not known, or if they are several.
        connection: The name of the connection, which outlives this process.
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
        """Note that a block has a new value, which only the reader that wrote it has seen."""
        for reader in self._readers.values():
            if reader is not by:
                reader.unseen[key] = False


class Call:
    """One call of a reader: it knows only what was shown before the call was made.

    Args:
        readers: The readers of the connection.
        reader: The client that calls.
        arrived: The tick at which the call came in.
    """

    def __init__(self, readers: Readers, reader: Reader, arrived: int) -> None:
        self.reader = reader
        self._readers = readers
        self._arrived = arrived

    def has_seen(self, key: BlockKey) -> bool:
        """Return whether the caller was shown the present value, before this call or in it."""
        return key not in self.reader.unseen

    def knows(self, key: BlockKey) -> bool:
        """Return whether the caller had seen the present value of a block before this call."""
        reader = self.reader
        return key not in reader.unseen and reader.seen_at.get(key, 0) <= self._arrived

    def saw(self, key: BlockKey) -> None:
        """Note that the whole present value was shown; later calls have seen it."""
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
