"""The values that pass between the layers: frozen, without behaviour.

Times are aware and in UTC. Tokens are counted with the tokenizer that is set.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Generic, Literal, TypeVar

T = TypeVar("T")

Role = Literal["user", "assistant", "system", "tool"]
ROLES: tuple[Role, ...] = ("user", "assistant", "system", "tool")

Scope = Literal["agent", "conversation", "shared"]
SHARED: Final = ""
"""The agent that shared blocks are stored under. No agent can have an empty name."""

TagMatch = Literal["any", "all"]
Level = Literal["ok", "warning", "flush"]
SearchKind = Literal["hybrid", "lexical", "listing"]
Author = Literal["client", "extractive", "endpoint", "sampling"]


class Kind(StrEnum):
    """The sort of text that a memory is."""

    PREFERENCE = "preference"
    FACT = "fact"
    TECHNICAL = "technical"
    PROJECT = "project"
    EPISODE = "episode"
    REFLECTION = "reflection"


@dataclass(frozen=True, slots=True)
class Block:
    """One version of one block of core memory."""

    label: str
    value: str
    tokens: int
    limit: int
    description: str
    read_only: bool
    scope: Scope
    version: int
    changed_at: datetime
    editor: str | None = None
    """The connection that wrote it; None for the user's own edit."""


@dataclass(frozen=True, slots=True)
class BlockChange:
    """The change of a block between two versions; `before` is None for a new block."""

    label: str
    before: str | None
    after: str
    changed_at: datetime
    conversation: str = ""
    """The conversation that the block belongs to; empty for another scope."""

    from_version: int = 0
    to_version: int = 0
    shared: bool = False


@dataclass(frozen=True, slots=True)
class VersionRange:
    """The versions of one block that a consolidation wrote; `from_version` is 0 for a new block."""

    label: str
    conversation: str
    from_version: int
    to_version: int
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Consolidation:
    """One revision of all core memory, from the first rewrite to `finish_rethinking_memory`."""

    id: str
    author: Literal["client", "endpoint"]
    began_at: datetime | None
    """None if it had no beginning and none was before it: it covers all changes."""

    began_by: str | None
    finished_at: datetime | None = None
    finished_by: str | None = None
    reason: str | None = None
    changed: tuple[VersionRange, ...] = ()
    tokens: int = 0
    """The endpoint's usage, input and output together."""


@dataclass(frozen=True, slots=True)
class Rethought:
    """A finished consolidation with the changes since it began."""

    consolidation: Consolidation
    changes: tuple[BlockChange, ...]


@dataclass(frozen=True, slots=True)
class Revision:
    """One version of a block, and the consolidation that wrote it, if any."""

    block: Block
    consolidation: Consolidation | None


@dataclass(frozen=True, slots=True)
class Reminder:
    """What is new since core memory was last revised; `text` says what to do."""

    agent: str
    messages: int
    memories: int
    since: datetime | None
    text: str


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message as a client sends it, before it is stored."""

    role: Role
    content: str
    name: str | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of recall memory; `index` is its number in its conversation, from 0."""

    id: str
    conversation: str
    index: int
    role: Role
    content: str
    tokens: int
    created_at: datetime
    recorded_at: datetime
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """One version of one archival memory."""

    id: str
    version: int
    content: str
    kind: Kind
    tags: tuple[str, ...]
    tokens: int
    happened_at: datetime
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of messages `first` to `last` (indexes, inclusive) and all before them."""

    id: str
    conversation: str
    parent: str | None
    first: int
    last: int
    content: str
    tokens: int
    author: Author
    created_at: datetime
    version: int = 1
    """Increases when a text for the same messages replaces another."""


@dataclass(frozen=True, slots=True)
class Passage:
    """The part of a text that matches a query: characters `start` to `end` of `total`."""

    text: str
    start: int
    end: int
    total: int


@dataclass(frozen=True, slots=True)
class MessageHit:
    """A message that a search found; `score` is 0 to 1, higher is better, `why` its signals."""

    message: Message
    passage: Passage
    score: float
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MemoryHit:
    """A memory that a search found; `score` is 0 to 1, higher is better, `why` its signals."""

    memory: Memory
    passage: Passage
    score: float
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a result, best or newest first.

    Attributes:
        items: Numbers `offset` and up of `total`.
        as_of: The moment whose state all pages show, so that writes in between do not shift
            the next page.
        ends: The offset after each item, where a page may begin. They have gaps where items
            were deleted since `as_of`.
    """

    items: tuple[T, ...]
    total: int
    offset: int
    as_of: datetime
    search: SearchKind
    note: str | None = None
    ends: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A memory that says nearly the same as a new one; `similarity` is their cosine."""

    id: str
    similarity: float
    text: str


@dataclass(frozen=True, slots=True)
class Inserted:
    """The result of an insert; `created` is False if the text was already stored."""

    memory: Memory
    created: bool
    embedded: bool
    near_duplicates: tuple[NearDuplicate, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreChunk:
    """A range of the queue to store: messages `start` to `end`, inclusive, below `context`."""

    start: int
    end: int
    context: str
    kind: Kind = Kind.EPISODE


@dataclass(frozen=True, slots=True)
class Flush:
    """The result of a flush. `summary` is None only if nothing was ever evicted."""

    evicted: int
    kept: int
    summary: Summary | None


@dataclass(frozen=True, slots=True)
class Parts:
    """Tokens in use by part of the context window; the server does not see `other`."""

    instructions: int
    tools: int
    core: int
    working: int
    summary: int
    queue: int
    other: int = 0

    @property
    def counted(self) -> int:
        """The tokens that the server counts itself."""
        return self.instructions + self.tools + self.core + self.working + self.summary + self.queue

    @property
    def total(self) -> int:
        """All tokens in use."""
        return self.counted + self.other


@dataclass(frozen=True, slots=True)
class Window:
    """The texts in a context window, as the budget counts them."""

    instructions: str
    tools: str
    core: str
    working: str
    summary: str
    messages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Fractions of the window: when warnings start, when a flush does, and what it leaves."""

    warn_at: float
    flush_at: float
    keep_after_flush: float


@dataclass(frozen=True, slots=True)
class Budget:
    """How the context window is used; `pressure` is used ÷ window, 0 to 1."""

    window_tokens: int
    parts: Parts
    pressure: float
    level: Level
    thresholds: Thresholds
    counts: dict[str, int]
    advice: str
    reported_tokens: int | None = None
    """The client's figure, adjusted by later changes; None if the client reported none."""

    @property
    def used_tokens(self) -> int:
        """All tokens in use: the counted or the reported figure, whichever is larger."""
        return self.parts.total

    @property
    def source(self) -> Literal["counted", "reported"]:
        """Which of the two figures `used_tokens` is."""
        return "reported" if self.parts.other else "counted"

    @property
    def free_tokens(self) -> int:
        """The unused rest of the window, at least 0."""
        return max(self.window_tokens - self.used_tokens, 0)


@dataclass(frozen=True, slots=True)
class Appended:
    """The result of an append; `flush` is set if the queue overflowed."""

    ids: tuple[str, ...]
    budget: Budget
    level: Level
    alert: str | None = None
    flush: Flush | None = None


@dataclass(frozen=True, slots=True)
class Overflow:
    """The messages that the next flush evicts, and the summary that it continues."""

    conversation: str
    evicted: tuple[Message, ...]
    parent: Summary | None
    evicted_tokens: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a client may want to know; `data` can be written as JSON."""

    id: str
    kind: str
    conversation: str | None
    text: str
    created_at: datetime
    data: dict[str, object] = field(default_factory=dict)


ModelState = Literal["ready", "loading", "downloading", "unavailable"]


@dataclass(frozen=True, slots=True)
class EmbeddingState:
    """The state of the embedding model; `detail` is a reason, or the progress of a download."""

    state: ModelState
    model: str
    pending: int
    detail: str | None = None
    windows_pending: int = 0
    """Messages whose vector with their neighbours is not computed yet."""


@dataclass(frozen=True, slots=True)
class Surface:
    """The texts that the server itself puts into the window."""

    instructions: str = ""
    tools: str = ""
