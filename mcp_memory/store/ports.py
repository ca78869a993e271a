"""What the tiers need of a storage engine, as small protocols, and the rows they exchange.

An engine is a folder beside this file that offers a `Store`. Each port reads on its own,
at the state that was last committed, and writes within a `UnitOfWork`.

Every visible row belongs to an agent. A unit of work gives each agent that it changes that
agent's next *change number* (`seq`: 1, 2, 3, … in commit order), and every row it inserts or
retires has it. A cache is a function of the rows up to a number: `upto` reads such a state,
and `Store.changes` reads what has been committed since.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mcp_memory.values.access import Token
from mcp_memory.values.records import (
    Block,
    Consolidation,
    Event,
    Memory,
    Message,
    Role,
    Summary,
)
from mcp_memory.values.requests import Where

Source = Literal["message", "memory", "window"]
"""What a vector was computed from; a window is a message with those before it."""

Range = tuple[int, int]
"""The first character and the one after the last."""

Vectors = NDArray[np.float32]
"""Unit vectors, (n, dim)."""

BlockKey = tuple[str, str]
"""Conversation (empty unless the block belongs to one) and label."""


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """Which model made the vectors; `fingerprint` is the sha256 of its file."""

    name: str
    fingerprint: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A text whose vectors are still to be computed."""

    agent: str
    source: Source
    id: str
    version: int


@dataclass(frozen=True, slots=True, eq=False)
class TextVectors:
    """Vectors `first` and up of one text: row i is of characters `ranges[i]`."""

    item: Pending
    ranges: Sequence[Range]
    vectors: Vectors
    first: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class VectorBlock:
    """Vectors of many texts: row i of `vectors` is of characters `starts[i]` to `ends[i]`.

    `numbers` (n,) count the vectors of each text from 0. The rows of one text are in order,
    but others may stand between them.
    """

    ids: list[str]
    numbers: NDArray[np.int32]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class Change:
    """What one unit of work has changed of one agent's visible rows.

    Attributes:
        seq: The agent's change number.
        blocks: New versions, each with its conversation or ''.
        memories: New memories, and new versions of memories.
        deleted: Ids of memories that were deleted.
        consolidations: Consolidations that were begun or finished.
        vectors: Vectors that no search of this process knows yet.
    """

    agent: str
    seq: int
    blocks: tuple[tuple[str, Block], ...] = ()
    messages: tuple[Message, ...] = ()
    memories: tuple[Memory, ...] = ()
    deleted: tuple[str, ...] = ()
    summaries: tuple[Summary, ...] = ()
    events: tuple[Event, ...] = ()
    consolidations: tuple[Consolidation, ...] = ()
    tokens: tuple[tuple[Token, bytes], ...] = ()
    vectors: tuple[TextVectors, ...] = ()


@dataclass(frozen=True, slots=True)
class Spent:
    """The cost of an endpoint on one day (UTC), over all agents."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Tokens in both directions."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `hint` says what to do if it is not ok."""

    level: Literal["ok", "warning", "problem"]
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Compacted:
    """The size of a store's file before and after it was compacted, in bytes."""

    before_bytes: int
    after_bytes: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a store has, for people; sizes in bytes, 0 without a file."""

    schema: int
    rows: Mapping[str, int] = field(default_factory=dict)
    file_bytes: int = 0
    log_bytes: int = 0
    dead_frac: float = 0.0


class UnitOfWork(Protocol):
    """Writes that are committed together or not at all."""

    def seq(self, agent: str) -> int:
        """Return the change number that this unit of work gives an agent's rows."""
        ...

    def on_commit(self, call: Callable[[], None]) -> None:
        """Call a function once this is committed, and never if it isn't."""
        ...

    @property
    def changes(self) -> tuple[Change, ...]:
        """The changes written up to now, by agent."""
        ...


class BlockRows(Protocol):
    """Core memory: blocks are rows of versions, nothing is overwritten."""

    def insert(self, unit: UnitOfWork, agent: str, conversation: str, block: Block) -> None:
        """Write a version; `conversation` is '' unless the block belongs to one."""
        ...

    def current(self, agent: str, upto: int) -> dict[BlockKey, Block]:
        """Return the newest version of each block up to a change number."""
        ...

    def values_at(
        self, agent: str, moment: datetime, labels: Collection[str]
    ) -> dict[BlockKey, tuple[int, str]]:
        """Return the version and value that blocks with these labels had at a moment."""
        ...

    def history(self, agent: str, conversation: str, label: str, limit: int | None) -> list[Block]:
        """Return versions of a block, newest first."""
        ...


class MessageRows(Protocol):
    """Recall memory: messages are never changed or deleted."""

    def insert(self, unit: UnitOfWork, agent: str, messages: Sequence[Message]) -> None:
        """Write messages."""
        ...

    def get(self, agent: str, ids: Sequence[str]) -> list[Message]:
        """Return the messages with these ids, in any order."""
        ...

    def slice(self, agent: str, conversation: str, first: int, end: int) -> list[Message]:
        """Return messages `first` to `end` (excluded) of a conversation, oldest first."""
        ...

    def page(
        self, agent: str, where: Where, *, offset: int, limit: int
    ) -> tuple[list[Message | None], int]:
        """Return a page of messages by date, newest first, and how many match in all."""
        ...

    def sizes(self, agent: str, conversation: str, first: int, upto: int) -> list[tuple[Role, int]]:
        """Return role and tokens of each message from `first` on, oldest first."""
        ...

    def conversations(self, agent: str, upto: int) -> dict[str, datetime]:
        """Return the conversations, each with when its newest message was recorded."""
        ...

    def tally(self, agent: str, upto: int) -> tuple[int, datetime]:
        """Return the number of messages, and when the newest was recorded."""
        ...

    def user_turns_since(self, agent: str, moment: datetime | None) -> int:
        """Return the number of messages from the user since a moment; None for all."""
        ...

    def dialogue_since(
        self, agent: str, moment: datetime | None, *, limit: int, max_chars: int
    ) -> list[Message]:
        """Return the newest messages of user and assistant since a moment, newest first.

        Each is cut to its first `max_chars` characters.
        """
        ...

    def count_dialogue_since(self, agent: str, moment: datetime | None) -> int:
        """Return the number of messages of user and assistant after a moment; None for all."""
        ...

    def searchable(self, agent: str, after: int, upto: int) -> Iterator[Message]:
        """Yield the messages of change numbers `after` (excluded) to `upto` that searches find.

        They are in the order of change number, time of recording, conversation and position.
        """
        ...

    def everything(self, agent: str, first: int, limit: int) -> list[Message]:
        """Return messages `first` and up in any fixed order, to fill a cache."""
        ...


class MemoryRows(Protocol):
    """Archival memory: memories are rows of versions; deleted ones stay in the history."""

    def insert(self, unit: UnitOfWork, agent: str, memories: Sequence[Memory]) -> None:
        """Write new memories, or new versions whose predecessors were retired."""
        ...

    def retire(
        self, unit: UnitOfWork, agent: str, memory_id: str, moment: datetime, *, superseded: bool
    ) -> None:
        """Retire the current version of a memory.

        Args:
            superseded: Whether a new version follows in the same unit of work.
        """
        ...

    def get(self, agent: str, ids: Sequence[str]) -> list[Memory]:
        """Return the current versions of the memories with these ids, in any order."""
        ...

    def as_of(self, agent: str, memory_id: str, moment: datetime) -> Memory | None:
        """Return the version that was recorded last before a moment."""
        ...

    def page(
        self, agent: str, where: Where, *, offset: int, limit: int
    ) -> tuple[list[Memory | None], int]:
        """Return a page of memories by date, newest first, and how many match in all.

        None stands for a memory deleted since `where.as_of`, so that the others keep their places.
        """
        ...

    def hashes(self, agent: str, upto: int) -> dict[str, str]:
        """Return the ids of the current memories by the hash of their text."""
        ...

    def tags(self, agent: str, limit: int, without_prefix: str) -> list[str]:
        """Return the tags in use, the most frequent first."""
        ...

    def recent_ids(self, agent: str, prefix: str, limit: int) -> list[str]:
        """Return the newest ids that begin with `prefix`."""
        ...

    def tally(self, agent: str, upto: int) -> tuple[int, datetime]:
        """Return the number of current memories, and when the newest was recorded."""
        ...

    def since(
        self, agent: str, moment: datetime | None, *, limit: int, max_chars: int
    ) -> list[Memory]:
        """Return the newest memories recorded since a moment, newest first, cut to `max_chars`."""
        ...

    def count_since(self, agent: str, moment: datetime | None) -> int:
        """Return the number of current memories recorded after a moment; None for all."""
        ...

    def searchable(self, agent: str, after: int, upto: int) -> Iterator[Memory]:
        """Yield the versions current at `upto` with a change number above `after`.

        They are in the order of change number, time of recording and id.
        """
        ...

    def retired(self, agent: str, after: int, upto: int) -> list[str]:
        """Return ids of memories with a version retired after one number and up to another."""
        ...

    def everything(self, agent: str, first: int, limit: int) -> list[Memory]:
        """Return current memories `first` and up in any fixed order, to fill a cache."""
        ...


class SummaryRows(Protocol):
    """The queue: a summary removes the messages it covers from the queue of its conversation."""

    def insert(self, unit: UnitOfWork, agent: str, summary: Summary) -> None:
        """Write a summary or another version of one."""
        ...

    def newest(self, agent: str, conversation: str, upto: int) -> Summary | None:
        """Return the newest version of the newest summary."""
        ...

    def all(self, agent: str, conversation: str) -> list[Summary]:
        """Return all summaries with their versions, oldest first."""
        ...

    def queue_start(self, agent: str, conversation: str, upto: int) -> int:
        """Return the index of the first message that no summary covers."""
        ...


class EventRows(Protocol):
    """Events, for clients that want to know them."""

    def insert(self, unit: UnitOfWork, agent: str, event: Event) -> None:
        """Write an event."""
        ...

    def recent(self, agent: str, limit: int) -> list[Event]:
        """Return the newest events, newest first."""
        ...

    def last_at(
        self, agent: str, kinds: Collection[str], conversation: str | None
    ) -> datetime | None:
        """Return when an event of these kinds last happened, in one conversation or in any."""
        ...

    def prune(self, before: datetime, keep: int) -> int:
        """Delete old events, and return their number.

        The newest `keep` of each agent stay, and the last of each kind in each conversation.
        """
        ...


class ConsolidationRows(Protocol):
    """Consolidations of core memory: when, by whom and why."""

    def insert(self, unit: UnitOfWork, agent: str, item: Consolidation) -> None:
        """Write a consolidation, begun or finished."""
        ...

    def finish(self, unit: UnitOfWork, agent: str, item: Consolidation) -> None:
        """Complete a consolidation that was inserted as begun."""
        ...

    def present(self, agent: str, upto: int) -> Consolidation | None:
        """Return the client's unfinished consolidation, None without one."""
        ...

    def last_at(self, agent: str, upto: int) -> datetime | None:
        """Return when the last consolidation was finished."""
        ...

    def tokens(self, agent: str) -> int:
        """Return the tokens that the endpoint's consolidations have cost."""
        ...

    def naming(self, agent: str | None, label: str) -> list[Consolidation]:
        """Return the finished consolidations that name a block's label, newest first.

        Args:
            agent: The agent; None for all agents.
        """
        ...


class TokenRows(Protocol):
    """Access tokens with the hash of their secret.

    They belong to the store: whichever agent a token is for, its change number is one of
    `SHARED`, so that one number tells a check whether it has seen all tokens.
    """

    def insert(self, unit: UnitOfWork, token: Token, digest: bytes) -> None:
        """Write a new token."""
        ...

    def revoke(self, unit: UnitOfWork, token: Token, digest: bytes) -> None:
        """Write that a token was revoked, at its `revoked_at`."""
        ...

    def note_uses(self, unit: UnitOfWork, used: Mapping[str, tuple[str, datetime]]) -> None:
        """Write when tokens were last used: the agent and the moment, by id."""
        ...

    def all(self) -> list[tuple[Token, bytes]]:
        """Return every token, revoked ones included, each with its hash."""
        ...


class KeyValues(Protocol):
    """Single values by name, such as which model and tokenizer this database is made with."""

    def get(self, key: str) -> str | None:
        """Return a value, None if it is not set."""
        ...

    def put(self, unit: UnitOfWork, key: str, value: str) -> None:
        """Set a value, in place of an earlier one."""
        ...


class UsageRows(Protocol):
    """The cost of a model's endpoint, by agent and day."""

    def add(self, unit: UnitOfWork, agent: str, day: date, spent: Spent) -> None:
        """Add to the numbers of a day; negative ones correct them."""
        ...

    def on(self, day: date) -> Spent:
        """Return what was spent on a day, over all agents."""
        ...


class VectorRows(Protocol):
    """The vectors of texts, and the list of texts that are waiting for theirs."""

    def model(self) -> ModelRecord | None:
        """Return the model that computed the vectors, None before the first one."""
        ...

    def set_model(self, unit: UnitOfWork, model: ModelRecord) -> None:
        """Make room for vectors of this model; the vectors of another are dropped."""
        ...

    def insert(
        self, unit: UnitOfWork, texts: Sequence[TextVectors], *, known: bool = False
    ) -> None:
        """Write vectors.

        Args:
            known: Whether the searches of this process have them already.
        """
        ...

    def count(self, item: Pending) -> int:
        """Return the number of stored vectors of this version of a text."""
        ...

    def delete(self, unit: UnitOfWork, items: Sequence[Pending]) -> None:
        """Delete the vectors of these versions of texts."""
        ...

    def delete_text(self, unit: UnitOfWork, agent: str, source: Source, text_id: str) -> None:
        """Delete the vectors of every version of a text, and its pending entries."""
        ...

    def blocks(self, agent: str, source: Source, upto: int) -> Iterator[VectorBlock]:
        """Yield all vectors of an agent's texts up to a change number, block by block.

        Others may write between two blocks: what they add is not among them.
        """
        ...

    def defer(self, unit: UnitOfWork, items: Sequence[Pending]) -> None:
        """List texts as pending."""
        ...

    def settle(self, unit: UnitOfWork, items: Sequence[Pending]) -> None:
        """Remove these versions of texts from the pending list."""
        ...

    def defer_all(self, unit: UnitOfWork) -> None:
        """List every searchable text as pending, and nothing else."""
        ...

    def pending(self, limit: int) -> list[Pending]:
        """Return some pending texts."""
        ...

    def is_pending(self, agent: str, source: Source, text_id: str) -> bool:
        """Return whether a text is pending."""
        ...

    def pending_count(self, agent: str | None = None) -> int:
        """Return the number of pending texts, of one agent or of all."""
        ...

    def lost(self) -> list[Pending]:
        """Return the texts that have no vectors and are not listed as pending."""
        ...

    def without_window(self) -> list[tuple[str, str, int, str]]:
        """Return the messages without window vectors, newest first.

        Each as agent, conversation, index and id.
        """
        ...


class IndexRows(Protocol):
    """Persisted search indexes: at most one for each agent and tier."""

    def write(
        self,
        agent: str,
        tier: str,
        blocks: Iterator[bytes],
        manifest: Callable[[], dict[str, Any]],
        go_on: Callable[[], bool],
    ) -> bool:
        """Persist an index, in place of an earlier one.

        Args:
            blocks: Its bytes, in pieces of any size.
            manifest: Returns what is needed to read them, once all blocks were read.
            go_on: Asked before each part whether to continue.

        Returns:
            Whether it was written; if not, the earlier one stays.

        Raises:
            StorageFault: It can't be written; the earlier one stays.
        """
        ...

    def manifest(self, agent: str, tier: str) -> dict[str, Any] | None:
        """Return the manifest of the persisted index, None without one.

        Raises:
            StorageFault, ValueError: It can't be read, or is damaged.
        """
        ...

    def read(self, agent: str, tier: str, manifest: Mapping[str, Any]) -> bytes:
        """Return the bytes that belong to a manifest.

        Raises:
            StorageFault, ValueError: They can't be read, or some are missing.
        """
        ...


class Store(Protocol):
    """An open store: the ports, the unit of work and the change numbers."""

    on_commit: Callable[[], None] | None
    """Called after each commit of this process; must be quick."""

    on_reopened: Callable[[], None] | None
    """Called after the file was opened again; it may be another file, such as a backup."""

    @property
    def generation(self) -> int:
        """Counts up when the file is opened again: rows read before are no longer valid."""
        ...

    @property
    def path(self) -> Path | None:
        """The database file, None for a store in memory."""
        ...

    @property
    def blocks(self) -> BlockRows: ...  # noqa: D102  the port
    @property
    def messages(self) -> MessageRows: ...  # noqa: D102  the port
    @property
    def memories(self) -> MemoryRows: ...  # noqa: D102  the port
    @property
    def summaries(self) -> SummaryRows: ...  # noqa: D102  the port
    @property
    def events(self) -> EventRows: ...  # noqa: D102  the port
    @property
    def consolidations(self) -> ConsolidationRows: ...  # noqa: D102  the port
    @property
    def tokens(self) -> TokenRows: ...  # noqa: D102  the port
    @property
    def values(self) -> KeyValues: ...  # noqa: D102  the port
    @property
    def usage(self) -> UsageRows: ...  # noqa: D102  the port
    @property
    def vectors(self) -> VectorRows: ...  # noqa: D102  the port
    @property
    def indexes(self) -> IndexRows: ...  # noqa: D102  the port

    def transaction(self) -> AbstractContextManager[UnitOfWork]:
        """Begin a unit of work: committed at the end, rolled back on any exception.

        After a normal exit the writes are durable.

        Raises:
            StorageFault: It can't be written; nothing was stored.
        """
        ...

    def seq(self, agent: str) -> int:
        """Return the newest change number of an agent, 0 if nothing was ever written."""
        ...

    def changes(self, agent: str, after: int) -> Iterator[Change]:
        """Yield the changes committed after a change number, in order."""
        ...

    def recount(self, count: Callable[[str], int], tokenizer: str) -> int:
        """Count the tokens of every text again if another tokenizer has counted them.

        Returns:
            The number of texts that were counted.
        """
        ...

    def probe(self) -> None:
        """Check that the store can be read and written, without writing.

        Raises:
            StorageFault: It can't be read or written.
        """
        ...

    def maintain(self, *, quiet: bool) -> bool:
        """Do the engine's own maintenance; return whether some was postponed.

        Args:
            quiet: Whether the store is idle.
        """
        ...

    def compact(self, *, only_if_wasteful: bool = False) -> Compacted | None:
        """Rewrite the file without deleted rows; all other calls wait meanwhile.

        Args:
            only_if_wasteful: Whether to leave the file alone if little of it is dead.

        Returns:
            None if the file was left alone.

        Raises:
            StorageFault: It failed; nothing was changed.
        """
        ...

    def statistics(self) -> Statistics:
        """Return what the store has, for people."""
        ...

    def agents(self) -> list[str]:
        """Return the agents with anything in the store, by name."""
        ...

    def check(self) -> list[Finding]:
        """Check that the parts of the store are consistent; reads all of it."""
        ...

    def close(self) -> None:
        """Close the store; closing again does nothing."""
        ...
