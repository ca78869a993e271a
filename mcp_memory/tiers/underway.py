"""Vectors that are computed while their texts are written."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mcp_memory.store.duckdb.vectors import Range, Vectors

if TYPE_CHECKING:
    from mcp_memory.models.embedding import Embedder

Embedded = tuple[list[Range], Vectors]
"""The chunks of a text and their vectors (n, dim)."""

INLINE_CHUNKS: Final = 64
"""So many chunks are embedded while the caller waits; more are filled in afterwards."""

_MAX_CHUNK_CHARS: Final = 4_000


@dataclass(frozen=True, slots=True)
class Underway:
    """The chunks of some texts, whose vectors are being computed."""

    ranges: list[list[Range]]
    computed: Future[Vectors]

    def result(self) -> list[Embedded]:
        """Wait for the vectors and return them by text; raises what the model did."""
        vectors = self.computed.result()
        done: list[Embedded] = []
        at = 0
        for spans in self.ranges:
            done.append((spans, vectors[at : at + len(spans)]))
            at += len(spans)
        return done


def begin(
    embedder: Embedder,
    workers: Executor,
    texts: Sequence[str],
    prefixes: Sequence[str] | None = None,
    chunk_tokens: Sequence[int | None] | None = None,
) -> Underway | None:
    """Begin to embed texts; None, and nothing is begun, if they are too many to wait for.

    Args:
        prefixes: What each text's chunks are embedded with in front, such as the speaker.
        chunk_tokens: Each text's longest chunk; None for the model's own.
    """
    # A character is a byte at least, and a chunk many tokens: no need to look at giants.
    if sum(map(len, texts)) > INLINE_CHUNKS * _MAX_CHUNK_CHARS:
        return None
    lengths = chunk_tokens or [None] * len(texts)
    ranges = [embedder.chunk(*text) for text in zip(texts, lengths, strict=True)]
    if sum(map(len, ranges)) > INLINE_CHUNKS:
        return None
    pieces = [
        prefix + text[a:b]
        for text, prefix, spans in zip(texts, prefixes or [""] * len(texts), ranges, strict=True)
        for a, b in spans
    ]
    return Underway(ranges, workers.submit(embedder.embed_passages, pieces))
