"""Gathers what a consolidation should look at: news, duplicates, contradictions, stale lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mcp_memory.agent.base import Access, Part, check_conversation, check_size
from mcp_memory.agent.blocks import Blocks
from mcp_memory.agent.briefing import Item, Section, Writer
from mcp_memory.agent.claims import clash, relative_dates
from mcp_memory.agent.resume import block_item
from mcp_memory.agent.statements import (
    CLAIM_CHARS,
    Contradiction,
    Statement,
    block_lines,
    claims,
    near_lines,
    one_each,
)
from mcp_memory.settings import DEFAULT_CONVERSATION
from mcp_memory.tiers.consolidations import News
from mcp_memory.tiers.jobs import Embedded
from mcp_memory.values.records import SHARED, Block, Memory, Message
from mcp_memory.values.render import compile_block, numbered
from mcp_memory.values.text import shorten

MIN_REFLECT_TOKENS: Final = 1_000
"""With less there is no room for something of every part; by judgement."""

MAX_DEFAULT_TOKENS: Final = 8_000
_DEFAULT_WINDOW_FRAC: Final = 0.125
"""The text has an eighth of the window, and at most 8,000 tokens; by judgement."""


RELATED_BELOW_DUPLICATE: Final = 0.13
"""How much lower than that of near-duplicates the cosine of texts about the same thing may be.

With the default model that is 0.82: paraphrases have 0.80-0.93, another value in the same
statement 0.87-0.99, something else below 0.82 (docs/decisions/paging.md).
"""

FULL_FRAC: Final = 0.85
"""A block that is this full is listed as nearly full; by judgement."""

# What is read at most of messages, memories and blocks' lines; by judgement.
_MESSAGES: Final = 400
_MEMORIES: Final = 60
_LINES: Final = 60
_VERSIONS: Final = 100
"""Versions of a block in which the age of a line is looked up; by judgement."""

_SHOWN_CHARS: Final = 300
"""Characters that are shown of one text; by judgement."""

_NEIGHBOURS: Final = 4
"""Nearest memories that a new statement is compared with; by judgement."""

_AT_ONCE: Final = 30
"""Short texts embedded in one call: even at two chunks each they are within `INLINE_CHUNKS`."""


@dataclass(frozen=True, slots=True)
class Reflection:
    """What was gathered; `contradictions` and `duplicates` are None without a model."""

    since: datetime | None
    blocks: tuple[Block, ...]
    news: News
    contradictions: tuple[Contradiction, ...] | None
    duplicates: tuple[tuple[Memory, Memory, float], ...] | None
    stale: tuple[str, ...]


class Reflections(Part):
    """Gathers what a consolidation should look at, and writes it as a text for a model."""

    def __init__(self, access: Access, core: Blocks) -> None:
        super().__init__(access)
        self._core = core
        self._shared = access.settings.shared_blocks

    def default_tokens(self) -> int:
        """Return the default length of the text: an eighth of the window, within bounds."""
        part = int(self._pager.window_tokens * _DEFAULT_WINDOW_FRAC)
        return max(MIN_REFLECT_TOKENS, min(part, MAX_DEFAULT_TOKENS))

    def write(
        self,
        head: str,
        conversation: str = DEFAULT_CONVERSATION,
        max_tokens: int | None = None,
    ) -> str:
        """Return `head` and what was gathered, in at most `max_tokens`, exactly counted.

        Edits from now on are part of a consolidation. Blocks that are shown whole count
        as seen by the client.

        Args:
            max_tokens: `MIN_REFLECT_TOKENS` at least; None for an eighth of the window.

        Raises:
            InvalidInput: The conversation's name or `max_tokens` is not valid.
        """
        found = self.gather(conversation)
        with self._view():
            self._consolidations.mean(self._agent, self._engine.clock())
        text = self.render(found, head, max_tokens)
        for block in found.blocks:
            if compile_block(block) in text:
                self._core.saw(block, conversation)
        return text

    def gather(self, conversation: str = DEFAULT_CONVERSATION) -> Reflection:
        """Gather what has come since the last consolidation.

        Raises:
            InvalidInput: The conversation's name is not valid.
        """
        blocks = self._core.all(check_conversation(conversation))
        units, agent = self._consolidations, self._agent
        with self._view():
            since = units.last_at(agent)
            news = units.news(agent, since, messages=_MESSAGES, memories=_MEMORIES)
        new = [memory.content[:CLAIM_CHARS] for memory in news.memories]
        vectors = self._embedded(new)
        return Reflection(
            since,
            blocks,
            news,
            self._contradictions(news, vectors, blocks),
            None if vectors is None else self._duplicates(news.memories, vectors),
            tuple(self._stale(blocks, conversation)),
        )

    def render(self, found: Reflection, head: str, max_tokens: int | None = None) -> str:
        """Return `head` and what was gathered, in at most `max_tokens`, exactly counted."""
        limit = check_size(
            max_tokens,
            least=MIN_REFLECT_TOKENS,
            default=self.default_tokens(),
            window_tokens=self._pager.window_tokens,
        )
        writer = Writer(self._engine.tokenizer.count, self._engine.tokenizer.clip)
        return writer.write(head, self._sections(found, writer, limit), limit)

    def _sections(self, found: Reflection, writer: Writer, limit: int) -> list[Section]:
        news, since = found.news, "ever" if found.since is None else f"since {_day(found.since)}"
        missing = "(not checked: there is no embedding model)"
        lines = [_said_line(message) for message in news.messages]
        telling = self._telling(news, lines, limit // 2)
        # The shares of the sections are by judgement.
        return [
            Section(
                "core memory",
                [block_item(block, writer) for block in found.blocks],
                0.35,
                "fair",
                "core_memory_view",
            ),
            Section(
                "check: may contradict each other",
                [Item(_contradiction_line(c)) for c in found.contradictions or ()],
                0.15,
                "first",
                "conversation_search, archival_memory_search",
                empty="(none found)" if found.contradictions is not None else missing,
            ),
            Section(
                "check: full blocks, and lines with dates that shift",
                [Item(line) for line in found.stale],
                0.07,
                "first",
                "core_memory_view",
            ),
            Section(
                "check: memories that say nearly the same",
                [Item(_duplicate_line(*pair)) for pair in found.duplicates or ()],
                0.08,
                "first",
                "archival_memory_search",
                empty="(none found)" if found.duplicates is not None else missing,
            ),
            *(
                [
                    Section(
                        f"said {since}: the most informative",
                        [Item(line) for line in telling],
                        0.15,
                        "first",
                        "conversation_search",
                    )
                ]
                if telling
                else []
            ),
            Section(
                f"said {since}: {news.message_count} messages",
                [Item(line) for line in lines],
                0.2 if telling else 0.25,
                "last",
                "conversation_search",
                more=news.message_count - len(lines),
            ),
            Section(
                f"stored {since}: {news.memory_count} memories",
                [Item(_memory_line(memory)) for memory in news.memories],
                0.1,
                "last",
                "archival_memory_search",
                more=news.memory_count - len(news.memories),
            ),
        ]

    def _telling(self, news: News, lines: Sequence[str], room: int) -> list[str]:
        """Return the most informative sentences of the messages, none if all messages fit."""
        count = self._engine.tokenizer.count
        if len(lines) == news.message_count and sum(map(count, lines)) <= room:
            return []
        chosen = self._engine.summarizer.summarize(None, news.messages, max_tokens=room // 3)
        return chosen.splitlines()

    def _embedded(self, texts: Sequence[str]) -> list[Embedded | None] | None:
        """Return the vectors of short texts, None if there is no model."""
        if not texts:
            return [] if self._engine.near_duplicate_at() is not None else None
        vectors: list[Embedded | None] = []
        for first in range(0, len(texts), _AT_ONCE):
            underway = self._engine.embed_soon(texts[first : first + _AT_ONCE])
            if underway is None:
                return None
            vectors += underway.result()
        return vectors

    def _duplicates(
        self, memories: Sequence[Memory], vectors: Sequence[Embedded | None]
    ) -> tuple[tuple[Memory, Memory, float], ...]:
        """Return pairs of a new memory and another that says nearly the same."""
        at_least = self._engine.near_duplicate_at()
        if at_least is None:
            return ()
        pairs: dict[frozenset[str], tuple[Memory, Memory, float]] = {}
        for memory, embedded in zip(memories, vectors, strict=True):
            for other, similarity in self._near(embedded, at_least):
                key = frozenset((memory.id, other.id))
                known = pairs.get(key, (memory, other, -1.0))
                # Texts cut into different chunks may be nearer in one direction: the higher counts.
                if other.id != memory.id and similarity > known[2]:
                    older, newer = sorted((memory, other), key=lambda m: m.recorded_at)
                    pairs[key] = (newer, older, similarity)
        found = [pair for pair in pairs.values() if clash(pair[0].content, pair[1].content) is None]
        return tuple(sorted(found, key=lambda pair: -pair[2]))

    def _near(self, embedded: Embedded | None, at_least: float) -> list[tuple[Memory, float]]:
        if embedded is None:
            return []
        archival = self._engine.archival
        with self._view():
            index = archival.index(self._agent)
            found = index.nearest(embedded[1][0], at_least=at_least, limit=_NEIGHBOURS)
            texts = archival.get_many(self._agent, [item.key for item in found])
        return [(texts[item.key], item.score) for item in found if item.key in texts]

    def _contradictions(
        self, news: News, new: Sequence[Embedded | None] | None, blocks: Sequence[Block]
    ) -> tuple[Contradiction, ...] | None:
        duplicate = self._engine.near_duplicate_at()
        if new is None or duplicate is None:
            return None
        at_least = duplicate - RELATED_BELOW_DUPLICATE
        from_messages = claims(news.messages)
        lines = list(block_lines(blocks))[:_LINES]
        claim_vectors = self._embedded([claim.text for claim in from_messages])
        line_vectors = self._embedded([line.text for line in lines])
        if claim_vectors is None or line_vectors is None:
            return None
        from_memories = [
            Statement(m.content[:CLAIM_CHARS], f"memory {m.id}", m.happened_at, m.id)
            for m in news.memories
        ]
        found: dict[tuple[str, str], Contradiction] = {}
        statements = zip([*from_messages, *from_memories], [*claim_vectors, *new], strict=True)
        for statement, embedded in statements:
            against = [*near_lines(embedded, lines, line_vectors, at_least)]
            against += self._older_memories(statement, embedded, at_least)
            for old, similarity in against:
                differs = clash(statement.text, old.text)
                key = (statement.text, old.text)
                if differs is not None and key not in found:
                    found[key] = Contradiction(statement, old, differs, similarity)
        order = sorted(found.values(), key=lambda c: -(c.similarity + c.clash.weight))
        return tuple(one_each(order))

    def _older_memories(
        self, statement: Statement, embedded: Embedded | None, at_least: float
    ) -> Iterable[tuple[Statement, float]]:
        for memory, similarity in self._near(embedded, at_least):
            older = statement.at is None or memory.happened_at <= statement.at
            if memory.id != statement.memory and older:
                text = memory.content[:CLAIM_CHARS]
                where = f"memory {memory.id}"
                yield Statement(text, where, memory.happened_at, memory.id), similarity

    def _stale(self, blocks: Sequence[Block], conversation: str) -> Iterable[str]:
        for block in blocks:
            if block.tokens >= FULL_FRAC * block.limit and not block.read_only:
                yield (
                    f"block {block.label} is nearly full: {block.tokens} of {block.limit} tokens;"
                    " move detail to archival memory"
                )
        for block in blocks:
            dated = [line for line in block.value.splitlines() if relative_dates(line)]
            if dated and not block.read_only:
                versions = self._versions(block, conversation)
                for line in dated:
                    words = ", ".join(relative_dates(line))
                    yield (
                        f"block {block.label}, written {_day(_written(line, versions))}:"
                        f' "{shorten(line, _SHOWN_CHARS)}": write {words} as a date'
                    )

    def _versions(self, block: Block, conversation: str) -> tuple[Block, ...]:
        keeper = SHARED if block.scope == "shared" else self._agent
        owner = conversation if block.scope == "conversation" else ""
        with self._view():
            return self._engine.core.history(keeper, owner, block.label, _VERSIONS)


def _written(line: str, versions: Sequence[Block]) -> datetime:
    """Return when a line was written: in the oldest of the versions since which it has stood."""
    at = versions[0].changed_at
    for version in versions:
        if line not in version.value.splitlines():
            break
        at = version.changed_at
    return at


def _said_line(message: Message) -> str:
    line = numbered(message)
    if message.conversation == DEFAULT_CONVERSATION:
        return line
    return f"conversation {shorten(message.conversation, 60)!r} {line}"


def _contradiction_line(found: Contradiction) -> str:
    new, old = found.new, found.old
    ours, theirs = ", ".join(found.clash.ours), ", ".join(found.clash.theirs)
    by = f"{ours or '-'} / {theirs or '-'}"
    return (
        f'new {_place(new)}: "{shorten(new.text, _SHOWN_CHARS)}"'
        f' | before {_place(old)}: "{shorten(old.text, _SHOWN_CHARS)}" | {found.clash.kind} {by}'
    )


def _place(statement: Statement) -> str:
    return statement.where + (f" {_day(statement.at)}" if statement.at else "")


def _duplicate_line(newer: Memory, older: Memory, similarity: float) -> str:
    return (
        f'{newer.id} {_day(newer.happened_at)}: "{shorten(newer.content, 200)}"'
        f' | {older.id} {_day(older.happened_at)}: "{shorten(older.content, 200)}"'
        f" | {similarity:.2f}"
    )


def _memory_line(memory: Memory) -> str:
    return (
        f"{memory.id} {_day(memory.happened_at)} {memory.kind}:"
        f" {shorten(memory.content, _SHOWN_CHARS)}"
    )


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"
