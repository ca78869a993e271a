"""What travels between the layers: frozen values, no behaviour.

Times are aware and in UTC. Token counts are of the tokenizer that is set.
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
"""The agent in whose name shared blocks are kept; no agent can be called so."""

TagMatch = Literal["any", "all"]
Level = Literal["ok", "warning", "flush"]
SearchKind = Literal["hybrid", "lexical", "listing"]
Author = Literal["client", "extractive", "endpoint", "sampling"]


class Kind(StrEnum):
    """What sort of text a memory is."""

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
    """How a block differs from what it was; `before` is None for a new block."""

    label: str
    before: str | None
    after: str
    changed_at: datetime
    conversation: str = ""
    """Which one it belongs to; empty unless that is the block's scope."""

    from_version: int = 0
    to_version: int = 0
    shared: bool = False


@dataclass(frozen=True, slots=True)
class VersionRange:
    """What a consolidation made of one block: from one version, 0 for a new one, to another."""

    label: str
    conversation: str
    from_version: int
    to_version: int
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Consolidation:
    """One thinking over of core memory, from the first rewrite to its finish."""

    id: str
    author: Literal["client", "endpoint"]
    began_at: datetime | None
    """None if nothing had begun it and there was none before: it covers everything."""

    began_by: str | None
    finished_at: datetime | None = None
    finished_by: str | None = None
    reason: str | None = None
    changed: tuple[VersionRange, ...] = ()
    tokens: int = 0
    """What it has cost at the endpoint, question and answer together."""


@dataclass(frozen=True, slots=True)
class Rethought:
    """A consolidation that was finished, with what has changed since it began."""

    consolidation: Consolidation
    changes: tuple[BlockChange, ...]


@dataclass(frozen=True, slots=True)
class Revision:
    """One version of a block, and the consolidation that it came of, if any."""

    block: Block
    consolidation: Consolidation | None


@dataclass(frozen=True, slots=True)
class Reminder:
    """News since core memory was last thought over; `text` says what to do."""

    agent: str
    messages: int
    memories: int
    since: datetime | None
    text: str


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message as a client gives it, before it is recorded."""

    role: Role
    content: str
    name: str | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of recall memory; `index` is its 0-based number in its conversation."""

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
    """The digest of messages `first` to `last` (indexes, both included) and all before them."""

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
    """Counts up when another text takes its place for the same messages."""


@dataclass(frozen=True, slots=True)
class Passage:
    """The part of a text that answers a query: characters `start` to `end` of `total`."""

    text: str
    start: int
    end: int
    total: int


@dataclass(frozen=True, slots=True)
class MessageHit:
    """A message that was found, and `why`; `score` is 0 to 1, higher is better."""

    message: Message
    passage: Passage
    score: float
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MemoryHit:
    """A memory that was found, and `why`; `score` is 0 to 1, higher is better."""

    memory: Memory
    passage: Passage
    score: float
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a result: `items` are numbers `offset` and up of `total`, best or newest first.

    `as_of` is the moment whose state the whole result shows, so that its next
    page is not shifted by what others write meanwhile. What has gone since then keeps
    its number: `ends` are the offsets behind each item, where another page begins.
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
    """What became of an insert; `created` is False if the text was there already."""

    memory: Memory
    created: bool
    embedded: bool
    near_duplicates: tuple[NearDuplicate, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreChunk:
    """A range of the queue to keep: messages `start` to `end`, both included, under `context`."""

    start: int
    end: int
    context: str
    kind: Kind = Kind.EPISODE


@dataclass(frozen=True, slots=True)
class Flush:
    """What a flush did. `summary` is None only if nothing was ever evicted."""

    evicted: int
    kept: int
    summary: Summary | None


@dataclass(frozen=True, slots=True)
class Parts:
    """Tokens in use by part of the context window; `other` is what only the client sees."""

    instructions: int
    tools: int
    core: int
    working: int
    summary: int
    queue: int
    other: int = 0

    @property
    def counted(self) -> int:
        """The tokens that the server has counted itself."""
        return self.instructions + self.tools + self.core + self.working + self.summary + self.queue

    @property
    def total(self) -> int:
        """All tokens in use."""
        return self.counted + self.other


@dataclass(frozen=True, slots=True)
class Window:
    """The texts of a context window, each as its budget counts it, the messages one by one."""

    instructions: str
    tools: str
    core: str
    working: str
    summary: str
    messages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Fractions of the window: where the warning begins, where a flush, and what it keeps."""

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
    """What the client has said, and what has come and gone since; None if it said nothing."""

    @property
    def used_tokens(self) -> int:
        """All tokens in use: what was counted or what was reported, whichever is more."""
        return self.parts.total

    @property
    def source(self) -> Literal["counted", "reported"]:
        """Which of the two `used_tokens` is."""
        return "reported" if self.parts.other else "counted"

    @property
    def free_tokens(self) -> int:
        """What is left of the window, 0 at least."""
        return max(self.window_tokens - self.used_tokens, 0)


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of appended messages; `flush` is set if they made the queue overflow."""

    ids: tuple[str, ...]
    budget: Budget
    level: Level
    alert: str | None = None
    flush: Flush | None = None


@dataclass(frozen=True, slots=True)
class Overflow:
    """What the next flush would evict, and the summary it continues."""

    conversation: str
    evicted: tuple[Message, ...]
    parent: Summary | None
    evicted_tokens: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a client may want to know of; `data` is JSON-ready."""

    id: str
    kind: str
    conversation: str | None
    text: str
    created_at: datetime
    data: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EmbeddingState:
    """Whether search has its semantic half; `detail` says why not, or how far a download is."""

    state: Literal["ready", "loading", "downloading", "unavailable"]
    model: str
    pending: int
    detail: str | None = None
    windows_pending: int = 0
    """Messages that are found by themselves, and not yet by what surrounds them."""


@dataclass(frozen=True, slots=True)
class Surface:
    """What the server itself puts into the window: its instructions and tool definitions."""

    instructions: str = ""
    tools: str = ""
