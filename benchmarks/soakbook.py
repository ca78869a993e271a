"""What the clients of a soak were promised, and whether it was kept: bookkeeping only.

Every text of an agent carries its mark, a word that no other text has. So a
mark in a reply to another agent is a leak, wherever in the reply it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.metrics import percentile

LEVEL_SAMPLES: Final = 4
"""So many samples are the level: listeners take turns, and each is in there twice."""

_LOG_ENTRY: Final = re.compile(r"\bmcp-memory ([A-Z]+) ")


@dataclass(slots=True)
class Versions:
    """The values that something was to have, one after the other, and which was acknowledged.

    A value whose call was cut short may or may not have been taken.
    """

    attempted: list[str] = field(default_factory=list)
    acknowledged: int = -1

    def attempt(self, value: str) -> None:
        """Note that the value is asked for."""
        self.attempted.append(value)

    def acknowledge(self) -> None:
        """Note that the last value asked for was taken."""
        self.acknowledged = len(self.attempted) - 1

    def allows(self, value: str) -> bool:
        """Return whether it may have this value now."""
        return self.acknowledged < 0 or value in self.attempted[self.acknowledged :]


@dataclass(slots=True)
class Ledger:
    """What one agent's clients asked for.

    `memories` are by id, `blocks` by conversation; `unsure` are texts of stores that were given
    up, `leaving` ids whose deletion was asked for, `deleted` those where it was acknowledged.
    """

    mark: str
    memories: dict[str, Versions] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    leaving: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    messages: dict[str, set[str]] = field(default_factory=dict)
    blocks: dict[str, Versions] = field(default_factory=dict)

    @property
    def promised(self) -> int:
        """How many things were acknowledged and can be looked for."""
        written = sum(versions.acknowledged >= 0 for versions in self.blocks.values())
        return len(self.memories) + written + sum(map(len, self.messages.values()))

    def wrong_memories(self, found: Mapping[str, str]) -> list[str]:
        """Return what is wrong with the memories that are there, `found`: texts by their ids."""
        problems: list[str] = []
        for memory, versions in self.memories.items():
            if memory in self.deleted:
                if memory in found:
                    problems.append(f"memory {memory} was deleted and is there")
            elif memory not in found:
                if memory not in self.leaving:
                    problems.append(f"memory {memory} was acknowledged and is lost")
            elif not versions.allows(found[memory]):
                problems.append(f"memory {memory} has lost an edit that was acknowledged")
        return problems

    def doubled_memories(self, found: Mapping[str, str]) -> list[str]:
        """Return the memories that nobody was told of, or that are there twice."""
        strange = {
            memory: text
            for memory, text in found.items()
            if memory not in self.memories and text not in self.unsure
        }
        twice = len(found) - len(set(found.values()))
        return [f"memory {memory} was never acknowledged" for memory in strange] + (
            [f"{twice} texts are there twice"] if twice else []
        )

    def lost_messages(self, conversation: str, found: Iterable[str]) -> list[str]:
        """Return the acknowledged messages of a conversation whose ids are not in `found`."""
        missing = self.messages.get(conversation, set()).difference(found)
        return [f"message {message} of {conversation} is lost" for message in sorted(missing)]

    def wrong_block(self, conversation: str, value: str) -> list[str]:
        """Return what is wrong with the working memory of a conversation."""
        if self.blocks.get(conversation, Versions()).allows(value):
            return []
        return [f"the working memory of {conversation} has lost an edit that was acknowledged"]


def foreign_marks(text: str, own: str, marks: Iterable[str]) -> list[str]:
    """Return the marks of others that stand in a text, in whatever case."""
    lowered = text.lower()
    return [mark for mark in marks if mark != own and mark.lower() in lowered]


def growth(
    times: Sequence[float], values: Sequence[float], *, after_seconds: float
) -> float | None:
    """Return the level at the end by that after the beginning; None if the run was too short.

    Args:
        times: When each value was taken, in seconds, ascending.
        values: What was measured, always at a like point.
        after_seconds: What was before is the warming up, and doesn't count.
    """
    settled = [value for at, value in zip(times, values, strict=True) if at >= after_seconds]
    if len(settled) < 2 * LEVEL_SAMPLES:
        return None
    early = percentile(settled[:LEVEL_SAMPLES], 0.5)
    return percentile(settled[-LEVEL_SAMPLES:], 0.5) / early if early else None


def logged_errors(log: str) -> list[str]:
    """Return the errors that a server has logged, each with its traceback."""
    errors: list[str] = []
    is_error = False
    for line in log.splitlines():
        if entry := _LOG_ENTRY.search(line):
            is_error = entry[1] in {"ERROR", "CRITICAL"}
            if is_error:
                errors.append(line)
        elif is_error:
            errors[-1] += f"\n{line}"
    return errors
