"""What `mcp-memory doctor` looks at, a file a subject. Nothing here changes or starts anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `hint` is what to do, empty if there is nothing to do."""

    subject: str
    level: Level
    text: str
    hint: str = ""


Checks = Iterator[Check]

__all__ = ["Check", "Checks", "Level"]
