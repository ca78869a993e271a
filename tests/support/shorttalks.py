"""A talk that takes a moment to index, for the tests of benchmarks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from talks import Question, Talk, Turn

WORDS = ("apple", "brass", "canoe", "drum", "envelope", "ferry", "guitar", "harbour", "island")
BEGIN = datetime(2024, 5, 1, tzinfo=UTC)


def talk_of(name: str, seed: int) -> Talk:
    """Return 32 turns of two people, and questions for every third."""
    rng = np.random.default_rng(seed)
    turns = tuple(
        Turn(
            place=f"{name}{number}",
            session=str(number // 8),
            role=("user", "assistant")[number % 2],
            name=("Ann", "Bo")[number % 2],
            content=" ".join(rng.choice(WORDS, 4)) + f" number{number}",
            created_at=BEGIN + timedelta(days=number // 8),
        )
        for number in range(32)
    )
    questions = tuple(
        Question(
            f"When did Ann say {turn.content.split()[0]} number{number}?",
            "x",
            frozenset({turn.place}),
        )
        for number, turn in enumerate(turns)
        if number % 3 == 0
    )
    return Talk(name, turns, questions)
