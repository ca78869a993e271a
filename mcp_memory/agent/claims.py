"""Rules that find contradicting statements and dates that shift, by the words alone.

A model or a person must check what they find: they see that two similar texts differ
in a number, a name, a negation or a word, but not which one is true.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from mcp_memory.search.language.analysis import STOP_WORDS, terms

Difference = Literal["negation", "number", "name", "word"]

_WEIGHT: Final[dict[Difference, float]] = {
    "number": 0.03,
    "negation": 0.03,
    "name": 0.02,
    "word": 0.0,
}
"""By judgement: enough to order pairs of about the same cosine."""

_MONTHS: Final = (
    "january|february|march|april|may|june|july|august|september|october|november|december"
)
_DAYS: Final = "monday|tuesday|wednesday|thursday|friday|saturday|sunday"
_NUMBER: Final = re.compile(
    r"\d+(?:[.,:/-]\d+)*"
    rf"|\b(?:{_DAYS}|{_MONTHS.replace('|may|', '|').replace('march|', '')})\b"
    r"|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|once|twice)\b"
    r"|[一二三四五六七八九十两]+(?=[个個只点點月号號岁歳年天日次位人])",
    re.IGNORECASE,
)
# "may" and "march" are months only if they are capitalized.
_MONTH_NAME: Final = re.compile(r"\b(?:May|March)\b")
_NEGATION: Final = re.compile(
    r"\b(?:not|no longer|never|no|none|without|stopped|quit|cancell?ed|isn|aren|wasn|doesn|don|"
    r"didn|won|can|couldn|hasn|haven)(?:['’]t\b|\b(?!['’]))"
    r"|不再|不|没有|没|別|别|ない|ません|なくな",
    re.IGNORECASE,
)
_NAME: Final = re.compile(r"(?<![.!?。:\n]\s)(?<!^)(?<![A-Za-z])[A-Z][\w'’-]+")
_EMPTY_WORDS: Final = frozenset(
    {"all", "also", "ani", "each", "everi", "just", "more", "now", "still", "too", "user", "veri"}
)
"""Stems that say nothing about what a statement claims."""

_MAX_OTHER_WORDS: Final = 2
"""Words by which each of two statements may differ; docs/decisions/paging.md."""

_MIN_SHARED_FRAC: Final = 0.5
"""The part of the words that both share at least; by judgement."""


_FEW: Final = r"\d+|an?|one|two|three|four|five|six|seven|ten|a few|several"
_UNITS: Final = "minutes?|hours?|days?|weeks?|months?|years?"
_RELATIVE: Final = re.compile(
    r"\b(?:yesterday|today|tomorrow|tonight|the day (?:before yesterday|after tomorrow)"
    rf"|(?:last|next|this|past|coming) (?:{_UNITS}|night|morning|afternoon|evening|weekend|spring|"
    rf"summer|autumn|fall|winter|{_DAYS}|{_MONTHS})"
    rf"|(?:{_FEW}) (?:{_UNITS}) (?:ago|from now)"
    rf"|in (?:{_FEW}) (?:{_UNITS}))\b"
    r"|昨天|今天|明天|后天|後天|前天|昨晚|今晚|明早|上周|上週|下周|下週|本周|这周|這週|上个月|下个月|这个月"
    r"|上個月|下個月|去年|明年|今年|刚才|剛才|[一二两三四五六七八九十\d]+(?:天|周|个月|年)(?:前|后|後)"
    r"|昨日|今日|明日|先週|来週|今週|先月|来月|今月|来年",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Clash:
    """How two similar statements differ; `weight` says how strong a sign of contradiction it is."""

    kind: Difference
    ours: tuple[str, ...]
    theirs: tuple[str, ...]

    @property
    def weight(self) -> float:
        """What is added to the cosine to order candidates."""
        return _WEIGHT[self.kind]


def clash(ours: str, theirs: str) -> Clash | None:
    """Return how two statements about the same thing contradict each other, None if they don't.

    Each has a number or a name that the other lacks; or one is negated; or they share
    most words and differ in one or two.
    """
    if not _share_words(ours, theirs):
        return None
    numbers = _numbers(ours) - _numbers(theirs), _numbers(theirs) - _numbers(ours)
    if all(numbers):
        return Clash("number", tuple(sorted(numbers[0])), tuple(sorted(numbers[1])))
    names = _missing(_names(ours), theirs), _missing(_names(theirs), ours)
    if all(names):
        return Clash("name", names[0], names[1])
    if bool(_NEGATION.search(ours)) is not bool(_NEGATION.search(theirs)):
        return Clash("negation", _denials(ours), _denials(theirs))
    one, other = _words(ours) - _words(theirs), _words(theirs) - _words(ours)
    if 0 < len(one) <= _MAX_OTHER_WORDS and 0 < len(other) <= _MAX_OTHER_WORDS:
        return Clash("word", tuple(sorted(one)), tuple(sorted(other)))
    return None


def relative_dates(text: str) -> tuple[str, ...]:
    """Return the words that name a day relative to the day of writing, such as `yesterday`."""
    return tuple(dict.fromkeys(match[0] for match in _RELATIVE.finditer(text)))


def is_claim(text: str) -> bool:
    """Return whether a sentence states something that another could contradict."""
    return not text.rstrip().endswith(("?", "？")) and len(_words(text)) >= _MAX_OTHER_WORDS


def _share_words(ours: str, theirs: str) -> bool:
    """Return whether the two share half of the meaningful words of the shorter one."""
    one, other = _words(ours), _words(theirs)
    if not one or not other:
        return False
    shared = len(one & other)
    # Two words may differ: what is claimed, and the verb.
    return shared >= 1 and shared >= _MIN_SHARED_FRAC * (min(len(one), len(other)) - 2)


def _numbers(text: str) -> frozenset[str]:
    found = {match[0].lower() for match in _NUMBER.finditer(text)}
    return frozenset(found | {match[0].lower() for match in _MONTH_NAME.finditer(text)})


def _names(text: str) -> frozenset[str]:
    return frozenset(
        match[0].rstrip("'’").removesuffix("'s").removesuffix("’s").lower()
        for match in _NAME.finditer(text)
        if not _NUMBER.fullmatch(match[0]) and not _MONTH_NAME.fullmatch(match[0])
    )


def _missing(names: frozenset[str], text: str) -> tuple[str, ...]:
    """Return the names that a text has nowhere, not even at the beginning of a sentence."""
    folded = text.lower()
    return tuple(sorted(name for name in names if name not in folded))


def _denials(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(match[0].lower() for match in _NEGATION.finditer(text)))


def _words(text: str) -> frozenset[str]:
    return frozenset(
        term for term in terms(text) if term not in STOP_WORDS and term not in _EMPTY_WORDS
    )
