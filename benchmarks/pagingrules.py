"""What paging must do, reckoned apart from the server by the rules as they are written down.

"At `flush_at` the oldest messages leave until `keep_after_flush` of the window is used, at
least the last three stay, a tool result is never parted from its call." Results leave with
their call; only if they are among the last three the call stays with them, where it fits.
The next summary is taken to be as long as it may be: a tenth of the window, 200 to 2,000
tokens.

Arithmetic only; nothing of the product is imported.
"""

from __future__ import annotations

import random
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from benchmarks import texts
from benchmarks.locomo import Dialogue

KEEP_LAST: Final = 3
SUMMARY_FRAC: Final = 0.1
MIN_SUMMARY_TOKENS: Final = 200
MAX_SUMMARY_TOKENS: Final = 2_000

CALL_EVERY: Final = 20
"""After so many turns, a tool is called: conversations with agents have calls, LoCoMo has none."""

_CALL_SEED: Final = 20
_LINE: Final = re.compile(r"^\[(\d+)\] \d{4}-\d\d-\d\d \d\d:\d\d ", re.MULTILINE)
_BLOCK: Final = re.compile(r'<block label="([^"]*)" .*?\n</block>', re.DOTALL)


class Range(NamedTuple):
    """Messages `first` to `last` of a conversation, both included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Said:
    """A message as it is appended; `gold` is one that answers a question."""

    role: str
    content: str
    created_at: datetime
    name: str | None = None
    gold: bool = False

    def argument(self) -> dict[str, str]:
        """Return it as `conversation_append` takes it."""
        given = {"role": self.role, "content": self.content}
        if self.name is not None:
            given["name"] = self.name
        return given | {"created_at": self.created_at.isoformat()}

    def rendered(self) -> str:
        """Return it as it stands in the window."""
        who = f"{self.role} ({self.name})" if self.name else self.role
        return f"{who}: {self.content}\n"


def turns_of(dialogue: Dialogue) -> list[Said]:
    """Return the turns of a dialogue as messages."""
    gold = {dia_id for question in dialogue.questions for dia_id in question.gold}
    return [
        Said(turn.role, turn.content, turn.created_at, turn.speaker, turn.dia_id in gold)
        for turn in dialogue.turns
    ]


def with_calls(said: Sequence[Said]) -> list[Said]:
    """Return the messages with calls of tools among them, each with one to four results."""
    rng = random.Random(_CALL_SEED)
    done: list[Said] = []
    for number, message in enumerate(said, start=1):
        done.append(message)
        if number % CALL_EVERY == 0:
            question = texts.query(rng)
            done.append(Said("assistant", f"lookup({question!r})", message.created_at))
            done += [
                Said(
                    "tool",
                    " ".join(texts.memory(rng) for _ in range(rng.randint(1, 3))),
                    message.created_at,
                    "lookup",
                )
                for _ in range(rng.randint(1, 4))
            ]
    return done


@dataclass
class Arithmetic:
    """A queue that is moved by the rules alone.

    Args:
        window_tokens: The size of the window.
        fixed_tokens: What is in it beside the queue and the summary.
        flush_at: The fraction at which the oldest leave.
        keep_after_flush: The fraction that is used afterwards, at most.
    """

    window_tokens: int
    fixed_tokens: int
    flush_at: float = 1.0
    keep_after_flush: float = 0.5
    summary_tokens: int = 0
    """Of the summary that there is; to be set after each flush."""

    first: int = 0
    _roles: list[str] = field(default_factory=list)
    _tokens: list[int] = field(default_factory=list)

    @property
    def used_tokens(self) -> int:
        """All that is in use."""
        return self.fixed_tokens + self.summary_tokens + sum(self._tokens[self.first :])

    def append(self, role: str, tokens: int) -> Range | None:
        """Take a message, and return which ones leave for it."""
        self._roles.append(role)
        self._tokens.append(tokens)
        if self.used_tokens < self.flush_at * self.window_tokens:
            return None
        summary = int(SUMMARY_FRAC * self.window_tokens)
        summary = min(max(summary, MIN_SUMMARY_TOKENS), MAX_SUMMARY_TOKENS)
        first, cut = self.first, self._cut(self.fixed_tokens + summary)
        self.first = cut
        return Range(first, cut - 1) if cut > first else None

    def _cut(self, beside_tokens: int) -> int:
        """Return the first message that stays, with so many tokens in use beside the queue."""
        end = len(self._roles)

        def used(cut: int) -> int:
            return beside_tokens + sum(self._tokens[cut:])

        cut = self.first
        while used(cut) > int(self.keep_after_flush * self.window_tokens) and end - cut > KEEP_LAST:
            cut += 1
        if cut == self.first or self._roles[cut] != "tool":
            return cut
        behind = call = cut
        while behind < end and self._roles[behind] == "tool":
            behind += 1
        while call > self.first and self._roles[call] == "tool":
            call -= 1
        takes_of_the_last = end - behind < KEEP_LAST
        fits = used(call) < int(self.flush_at * self.window_tokens)
        return call if takes_of_the_last and fits else behind


def lines_of(recent: str) -> Iterator[tuple[int, str]]:
    """Yield the index and the text of each message that the resource `recent` shows."""
    heads = list(_LINE.finditer(recent))
    ends = [head.start() for head in heads[1:]] + [len(recent) + 1]
    for head, end in zip(heads, ends, strict=False):
        yield int(head[1]), recent[head.end() : end - 1] + "\n"


def blocks_of(compiled: str) -> tuple[str, str]:
    """Return the compiled blocks without `working`, and `working` alone."""
    core = [found[0] for found in _BLOCK.finditer(compiled) if found[1] != "working"]
    working = [found[0] for found in _BLOCK.finditer(compiled) if found[1] == "working"]
    return "\n".join(core), "\n".join(working)


@dataclass(frozen=True, slots=True)
class Survival:
    """The mean share, 0 to 1, of evicted evidence's words in the summary and two baselines."""

    turns: int
    summary: float
    first_words: float
    random_sentences: float

    @property
    def ratio(self) -> float:
        """The summary's share as a multiple of the better baseline's."""
        best = max(self.first_words, self.random_sentences)
        return self.summary / best if best else float("inf")


def mean_survival(parts: Sequence[Survival]) -> Survival | None:
    """Return the mean over conversations, each weighed by its evidence; None for none."""
    turns = sum(part.turns for part in parts)
    if not turns:
        return None

    def mean(share: Callable[[Survival], float]) -> float:
        return sum(part.turns * share(part) for part in parts) / turns

    return Survival(
        turns,
        mean(lambda part: part.summary),
        mean(lambda part: part.first_words),
        mean(lambda part: part.random_sentences),
    )


def ratio_of_medians(seconds: Sequence[float], reference: Sequence[float]) -> float | None:
    """Return how much longer `seconds` are than `reference`; None if there are none."""
    if not seconds or not reference:
        return None
    return statistics.median(seconds) / statistics.median(reference)
