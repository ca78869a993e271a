"""What a question says besides its words: whom it names, and which times."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from zoneinfo import ZoneInfo

from mcp_memory.search.queries import Question
from mcp_memory.search.speakers import speakers_named
from mcp_memory.search.when import closeness, spans


def ask(text: str, speakers: Iterable[str], now: datetime, zone: ZoneInfo) -> Question:
    """Return a question as the search takes it.

    Args:
        text: Its words.
        speakers: Who has said something.
        now: When it is asked: "yesterday" is the day before.
        zone: Where it is asked.
    """
    named = frozenset(speakers_named(text, speakers))
    times = spans(text, now=now, zone=zone)
    return Question(text, now, named, partial(closeness, times) if times else None)
