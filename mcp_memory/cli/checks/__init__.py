"""The checks of `mcp-memory doctor`. They change and start nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check; `hint` is what to do, or empty."""

    subject: str
    level: Level
    text: str
    hint: str = ""


Checks = Iterator[Check]

__all__ = ["Check", "Checks", "Level"]
