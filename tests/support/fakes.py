"""Small deterministic stand-ins: no mock, no model, no network."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from mcp_memory.agent import AgentMemory, Memories
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.records import Surface


def memory_of(
    engine: Engine, agent: str = "default", surface: Surface | None = None
) -> AgentMemory:
    """Return the memory of an agent; closing it closes the engine too."""
    memories = Memories(engine)
    memory = memories.open(agent, surface=surface)
    memory.close = memories.close  # type: ignore[method-assign]  # alone on its engine
    return memory


class FakeClock:
    """The time of day, as wrong as a test wants it.

    Args:
        moment: Where it stands; None for the real time until `moment` is set.
        tick: How far it goes with each look.
    """

    def __init__(
        self, moment: datetime | None = None, tick: timedelta = timedelta(seconds=0)
    ) -> None:
        self.moment = moment
        self.tick = tick

    def __call__(self) -> datetime:
        if self.moment is None:
            return datetime.now(UTC)
        self.moment += self.tick
        return self.moment


class HashEmbedder:
    """Embeds texts by hashing their words: only texts that share words are near each other."""

    def __init__(self, name: str = "fake/hash", dimension: int = 64, max_tokens: int = 50) -> None:
        self.name = name
        self.fingerprint = hashlib.sha256(name.encode()).hexdigest()
        self.dimension = dimension
        self.max_tokens = max_tokens
        self.near_duplicate_at = 0.95
        self.embedded: list[str] = []

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = True) -> NDArray[np.float32]:
        self.embedded.extend(texts)
        return np.stack([self._vector(text) for text in texts])

    def embed_query(self, text: str, *, of_facts: bool = False) -> NDArray[np.float32]:
        return self._vector(text)

    def chunk(self, text: str, chunk_tokens: int | None = None) -> list[tuple[int, int]]:
        """Cut into ranges of `max_tokens` words at most, which overlap by a fifth."""
        most = min(chunk_tokens or self.max_tokens, self.max_tokens)
        words = [match.span() for match in re.finditer(r"\S+", text)]
        if len(words) <= most:
            return [(0, len(text))]
        step = most - most // 5
        ranges = []
        for first in range(0, len(words), step):
            last = min(first + most, len(words))
            ranges.append((words[first][0], words[last - 1][1]))
            if last == len(words):
                break
        ranges[-1] = (ranges[-1][0], len(text))
        return ranges

    def _vector(self, text: str) -> NDArray[np.float32]:
        vector = np.zeros(self.dimension, dtype=np.float32)
        for word in re.findall(r"\w+", text.lower()):
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
            vector += np.random.default_rng(seed).standard_normal(self.dimension).astype(np.float32)
        length = float(np.linalg.norm(vector))
        return vector / length if length else np.eye(1, self.dimension, dtype=np.float32)[0]
