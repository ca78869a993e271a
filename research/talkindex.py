"""A talk in the product's own search index, in this process, as the server would index it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, cast
from zoneinfo import ZoneInfo

from benchmarks.loaders import Question, Talk, Turn
from mcp_memory.models.embedding import Embedder
from mcp_memory.search.index import SearchIndex
from mcp_memory.search.neighbours import SITTING_SECONDS
from mcp_memory.search.queries import Filter, Query, parse_query
from mcp_memory.tiers.recall import WINDOW_MESSAGES
from mcp_memory.values.records import Message, Role
from mcp_memory.values.render import render_window, speaker_prefix
from research.vectorcache import VectorCache, Vectors

Range = tuple[int, int]

NEAR_MESSAGES: Final = 3
WINDOW_CHARS: Final = 1_800
"""As the server embeds them."""

_THREAD: Final = "talk"
_ZONE: Final = ZoneInfo("UTC")
_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When a question is asked that has no date."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A turn with the texts of it that are embedded: its chunks, and both its windows."""

    turn: Turn
    prefix: str
    ranges: list[Range]
    chunks: list[str]
    windows: tuple[str, str]


def pieces(turns: Sequence[Turn], embedder: Embedder, *, prefixed: bool = True) -> Iterator[Piece]:
    """Yield each turn as it is embedded; they are of one conversation, in order.

    Args:
        turns: Oldest first.
        embedder: Cuts them into chunks.
        prefixed: Whether each begins with day and name.
    """
    sitting: list[Message] = []
    for number, turn in enumerate(turns):
        message = as_message(turn, number)
        if sitting:
            apart = message.created_at - sitting[-1].created_at
            if abs(apart.total_seconds()) > SITTING_SECONDS:
                sitting = []
        sitting = [*sitting, message][-WINDOW_MESSAGES:]
        prefix = speaker_prefix(message.created_at, message.name) if prefixed else ""
        ranges = embedder.chunk(turn.content)
        yield Piece(
            turn,
            prefix,
            ranges,
            [prefix + turn.content[start:end] for start, end in ranges],
            (
                render_window(sitting[-NEAR_MESSAGES:], WINDOW_CHARS),
                render_window(sitting, WINDOW_CHARS),
            ),
        )


def texts_of(made: Sequence[Piece]) -> list[str]:
    """Return every text that is embedded."""
    return [text for piece in made for text in (*piece.chunks, *piece.windows)]


def add(
    index: SearchIndex[str], made: Sequence[Piece], vectors: VectorCache, thread: str = _THREAD
) -> None:
    """Put turns into an index, with their vectors."""
    for piece in made:
        turn = piece.turn
        index.add(
            turn.place,
            turn.content,
            when=turn.created_at,
            recorded=turn.created_at,
            prefix=piece.prefix,
            thread=thread,
            speaker=turn.name,
        )
        index.add_vectors(turn.place, piece.ranges, vectors.passages(piece.chunks))
        index.add_windows(turn.place, vectors.passages(piece.windows))


@dataclass(frozen=True, slots=True)
class Indexed:
    """A talk that can be searched in this process."""

    talk: Talk
    index: SearchIndex[str]
    vectors: VectorCache

    @classmethod
    def make(cls, talk: Talk, vectors: VectorCache, *, prefixed: bool = True) -> Indexed:
        """Index a talk; what has no vector yet is embedded.

        Args:
            talk: All of it goes into one conversation.
            vectors: Where its vectors come from.
            prefixed: See `pieces`.
        """
        index: SearchIndex[str] = SearchIndex()
        add(index, list(pieces(talk.turns, vectors.embedder, prefixed=prefixed)), vectors)
        return cls(talk, index, vectors)

    def ask(self, question: Question) -> tuple[Query, Vectors]:
        """Return a question as the index takes it, asked on its own date, and its vector."""
        asked = parse_query(question.text, self.index.speakers, question.asked_at or _NOW, _ZONE)
        return asked, self.vectors.query(question.text)

    def search(
        self, asked: Query, vector: Vectors | None, limit: int, *, lexical: bool = True
    ) -> list[str]:
        """Return the places of the best turns, best first.

        Args:
            asked: See `ask`.
            vector: None to go by words alone.
            limit: How many.
            lexical: Whether words count.
        """
        prepared = self.index.prepare(asked, Filter(), lexical=lexical)
        ranking = self.index.search(prepared, vector, offset=0, limit=limit)
        return [found.key for found in ranking.found]


def as_message(turn: Turn, number: int) -> Message:
    """Return a turn as the server keeps it."""
    return Message(
        id=turn.place,
        conversation=_THREAD,
        index=number,
        role=cast("Role", turn.role),
        content=turn.content,
        tokens=0,
        created_at=turn.created_at,
        recorded_at=turn.created_at,
        name=turn.name,
    )
