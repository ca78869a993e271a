"""What a question says besides its words: whom it names, and which times."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Final
from zoneinfo import ZoneInfo

from mcp_memory.search.language.analysis import STOP_CHARACTERS, plain_letters
from mcp_memory.search.language.languages import FUNCTION_WORDS
from mcp_memory.search.language.names import speakers_named
from mcp_memory.search.queries import Question
from mcp_memory.search.times.spans import Span, closeness, spans

_WORD: Final = re.compile(r"[^\W_]+")
_IDLE: Final = frozenset().union(*FUNCTION_WORDS.values()) | frozenset(
    _WORD.findall(
        """
        about anything chat chatted discuss discussed everything happen happened happening lot
        mention mentioned on over said say saying something subject subjects talk talked tell thing
        things told topic topics was besprochen gab gesagt geschah passiert passierte thema themen
        dijo hablamos pasó tema temas dit parlé passé sujet sujets
        """
    )
)
_IDLE_CHARACTERS: Final = STOP_CHARACTERS | frozenset(
    "讲講谈談聊提做干发發生事情些内容话話题題很多"
)
"""What asks for all there is, and for nothing of it by name."""


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
    if not times:
        return Question(text, now, named)
    return Question(text, now, named, partial(closeness, times), _only(times, text, named))


def _only(times: Sequence[Span], text: str, speakers: Iterable[str]) -> bool:
    """Return whether a question says nothing besides times and who speaks."""
    left = list(text)
    for span in times:
        left[span.first_char : span.last_char] = " " * (span.last_char - span.first_char)
    names = {plain_letters(name) for speaker in speakers for name in _WORD.findall(speaker)}
    return all(
        word in _IDLE or plain_letters(word) in names or _IDLE_CHARACTERS.issuperset(word)
        for word in _WORD.findall("".join(left).lower())
    )
