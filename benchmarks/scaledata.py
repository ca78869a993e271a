"""Databases of any size in minutes: texts put together anew, vectors mixed from real ones.

A sample of texts and questions is embedded by the real model. A memory's text is
three sentences of the sample and a reference of its own; its vector is a text's of the
sample, moved by half of the difference of two others and a little noise. So the
vectors lie about as densely as real ones do, but are not those of the texts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks import texts
from mcp_memory.models.embedding import Embedder
from mcp_memory.settings import load_settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.ids import ALPHABET, LENGTH
from mcp_memory.values.text import content_hash

Vectors = NDArray[np.float32]

SAMPLE_TEXTS: Final = 1_500
QUESTIONS: Final = 200
BLOCK_ROWS: Final = 20_000
NOISE: Final = 0.012

_EMBED_AT_ONCE: Final = 16
_SENTENCE: Final = re.compile(r"(?<=[.?!]) ")
_BEGIN: Final = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sample:
    """Sentences, vectors of texts (n, dim), and questions with their vectors; of which model."""

    sentences: list[str]
    vectors: Vectors
    questions: list[str]
    question_vectors: Vectors
    name: str
    fingerprint: str

    @classmethod
    def make(cls, embedder: Embedder, rng: random.Random) -> Sample:
        """Embed invented texts and questions."""
        contents = texts.distinct(partial(texts.memory, rng), SAMPLE_TEXTS)
        questions = texts.distinct(partial(texts.query, rng), QUESTIONS)
        vectors = [
            embedder.embed_passages(contents[first : first + _EMBED_AT_ONCE])
            for first in range(0, len(contents), _EMBED_AT_ONCE)
        ]
        sentences = sorted({part for text in contents for part in _SENTENCE.split(text)})
        return cls(
            sentences,
            np.concatenate(vectors),
            questions,
            np.stack([embedder.embed_query(question, of_facts=True) for question in questions]),
            embedder.name,
            embedder.fingerprint,
        )

    def save(self, path: Path) -> None:
        """Write the sample to a file for other processes."""
        np.savez(
            path,
            sentences=self.sentences,
            vectors=self.vectors,
            questions=self.questions,
            question_vectors=self.question_vectors,
            model=[self.name, self.fingerprint],
        )

    @classmethod
    def load(cls, path: Path) -> Sample:
        """Return what `save` has written."""
        with np.load(path) as held:
            name, fingerprint = held["model"].tolist()
            return cls(
                held["sentences"].tolist(),
                held["vectors"],
                held["questions"].tolist(),
                held["question_vectors"],
                name,
                fingerprint,
            )

    def mixed(self, count: int, generator: np.random.Generator) -> Vectors:
        """Return new vectors (count, dim) of unit length that lie where the sample's do."""
        one, two, three = generator.integers(0, len(self.vectors), (3, count))
        rows: Vectors = self.vectors[one] + 0.5 * (self.vectors[two] - self.vectors[three])
        rows += NOISE * generator.standard_normal(rows.shape, dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    def text(self, number: int, rng: random.Random) -> str:
        """Return a text that no other number has."""
        return f"{' '.join(rng.choices(self.sentences, k=3))} Reference {number:07d}."


class KnownVectors:
    """An embedder that has looked everything up before: what is measured is the rest."""

    max_tokens = 512
    near_duplicate_at = 0.95

    def __init__(self, sample: Sample, seed: int = 0) -> None:
        self.name = sample.name
        self.fingerprint = sample.fingerprint
        self.dimension = int(sample.vectors.shape[1])
        self._sample = sample
        self._questions = dict(zip(sample.questions, sample.question_vectors, strict=True))
        self._generator = np.random.default_rng(seed)

    def embed_query(self, text: str, *, of_facts: bool = False) -> Vectors:
        """Return the vector of a question of the sample."""
        vector: Vectors = self._questions[text]
        return vector

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Return mixed vectors, whatever the texts say."""
        return self._sample.mixed(len(texts), self._generator)

    def chunk(self, text: str, chunk_tokens: int | None = None) -> list[tuple[int, int]]:
        """Return the whole of a text as its only chunk."""
        return [(0, len(text))]


def build(db: Path, agents: Mapping[str, int], sample: Sample, seed: int) -> None:
    """Make a database in which each agent has so many memories."""
    Engine(load_settings(db=db), embedder=KnownVectors(sample)).close()
    with duckdb.connect(str(db)) as connection:
        for memories, vectors in _blocks(agents, sample, seed):
            connection.register("block_memories", memories)
            connection.register("block_vectors", vectors)
            connection.begin()
            connection.execute("INSERT INTO memories BY NAME SELECT * FROM block_memories")
            connection.execute("INSERT INTO vectors BY NAME SELECT * FROM block_vectors")
            connection.commit()
        connection.execute("CHECKPOINT")


def stored_vectors(db: Path, agent: str) -> Iterator[Vectors]:
    """Give all vectors of an agent's memories, block by block."""
    with duckdb.connect(str(db), read_only=True) as connection:
        found = connection.sql("SELECT embedding FROM vectors WHERE agent = $1", params=[agent])
        for batch in found.to_arrow_reader(BLOCK_ROWS):
            column = batch.column(0)
            flat = column.flatten().to_numpy(zero_copy_only=False)
            yield flat.reshape(len(column), -1).astype(np.float32, copy=False)


def _blocks(
    agents: Mapping[str, int], sample: Sample, seed: int
) -> Iterator[tuple[pa.Table, pa.Table]]:
    rng = random.Random(seed)
    generator = np.random.default_rng(seed)
    number = 0
    for agent, count in agents.items():
        for first in range(0, count, BLOCK_ROWS):
            size = min(BLOCK_ROWS, count - first)
            yield _block(agent, range(number, number + size), sample, rng, generator)
            number += size


def _block(
    agent: str,
    numbers: range,
    sample: Sample,
    rng: random.Random,
    generator: np.random.Generator,
) -> tuple[pa.Table, pa.Table]:
    size = len(numbers)
    contents = [sample.text(number, rng) for number in numbers]
    ids = ["".join(rng.choices(ALPHABET, k=LENGTH)) for _ in numbers]
    moments = pa.array([_BEGIN + timedelta(seconds=number) for number in numbers])
    ones = np.ones(size, dtype=np.int32)
    memories = pa.table(
        {
            "agent": [agent] * size,
            "id": ids,
            "version": ones,
            "content": contents,
            "content_hash": [content_hash(text) for text in contents],
            "kind": ["fact"] * size,
            "tags": [[f"topic{number % 20}"] for number in numbers],
            "tokens": np.array([len(text) // 4 for text in contents], dtype=np.int32),
            "happened_at": moments,
            "recorded_at": moments,
        }
    )
    rows = sample.mixed(size, generator)
    vectors = pa.table(
        {
            "agent": [agent] * size,
            "source": ["memory"] * size,
            "id": ids,
            "version": ones,
            "number": 0 * ones,
            "first_char": 0 * ones,
            "last_char": np.array([len(text) for text in contents], dtype=np.int32),
            "embedding": pa.FixedSizeListArray.from_arrays(
                pa.array(rows.reshape(-1)), rows.shape[1]
            ),
        }
    )
    return memories, vectors
