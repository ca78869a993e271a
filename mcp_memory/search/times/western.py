"""Times named in languages that write spaces: English, German, French and Spanish.

Each rule is a pattern over the classes of words and a function that says which
time the matched words mean. Rules stand in order: words that one has matched are
not matched again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from mcp_memory.search.times.patterns import classes, encode, pattern
from mcp_memory.search.times.periods import (
    SEASONS,
    Meaning,
    Mention,
    Period,
    Reference,
    Yearly,
    date,
    month,
    year,
)
from mcp_memory.search.times.vocabulary import NAMING, WordClass
from mcp_memory.search.times.words import TextWord, text_words

_Words = Sequence[TextWord]
_Rule = Callable[[Reference, _Words], Meaning | None]

_NAMING: Final = NAMING | classes("YEAR DATE")
_LAST_OR_PAST: Final = classes("LAST PAST")


def read(text: str, language: str, reference: Reference) -> list[Mention]:
    """Return the times that a text names, and the words around them, in order.

    Returns:
        All words and times of the text; nothing if no time can be in it.
    """
    words = text_words(text, language, this_year=reference.now.year)
    if not _has(words, *_NAMING):
        return []
    found = _times(words, reference)
    mentions: list[Mention] = []
    at = 0
    while at < len(words):
        if at in found:
            mention, at = found[at]
        else:
            word = words[at]
            unit = "weekend" if word.word_class is WordClass.WEEKEND else word.unit
            mention = Mention(
                word.word_class, word.first_char, word.last_char, values=word.values, unit=unit
            )
            at += 1
        mentions.append(mention)
    return mentions


def _times(words: _Words, reference: Reference) -> dict[int, tuple[Mention, int]]:
    """Return the times by their first word, each with the place after its last word."""
    symbols = encode(word.word_class for word in words)
    matched = bytearray(len(words))
    found: dict[int, tuple[Mention, int]] = {}
    for rule_pattern, rule in _RULES:
        for match in rule_pattern.finditer(symbols):
            first, last = match.span()
            if any(matched[first:last]):
                continue
            try:
                meaning = rule(reference, words[first:last])
            except (OverflowError, ValueError):
                continue  # Too many years ago for a date.
            if meaning:
                matched[first:last] = b"\1" * (last - first)
                mention = Mention.of(
                    meaning,
                    words[first].first_char,
                    words[last - 1].last_char,
                    unit=_unit_of(rule, words[first:last]),
                )
                found[first] = (mention, last)
    return found


def _unit_of(rule: _Rule, words: _Words) -> str:
    """Return the unit of a time that can stand beside another: "the Sunday before May 7"."""
    if rule is _weekday:
        return "weekday"
    if rule is _weekend:
        return "weekend"
    return _first(words, WordClass.UNIT).unit if rule is _unit else ""


def _first(words: _Words, *wanted: WordClass) -> TextWord:
    return next(word for word in words if word.word_class in wanted)


def _has(words: _Words, *wanted: WordClass) -> bool:
    return any(word.word_class in wanted for word in words)


def _offset(words: _Words) -> int | None:
    """Return -1 for last, 0 for this, 1 for next, None for none of them."""
    present = {word.word_class for word in words}
    if present & _LAST_OR_PAST:
        return -1
    if WordClass.THIS in present:
        return 0
    return 1 if WordClass.NEXT in present else None


def _hours(period: Period, words: _Words) -> Period:
    """Return the part of a day that is named beside it."""
    hours = next((word.values for word in words if word.word_class is WordClass.DAY_PART), None)
    return period if hours is None else Reference(period.start).day(0, hours)


def _count(words: _Words) -> tuple[int, int]:
    """Return the fewest and the most that a number means."""
    values = _first(words, WordClass.NUMBER, WordClass.ONE).values
    return values[0], values[-1]


def _yearly(word: TextWord) -> Yearly:
    return month(word.values[0]) if word.word_class is WordClass.MONTH else SEASONS[word.values[0]]


def _written(_: Reference, words: _Words) -> Meaning | None:
    return _first(words, WordClass.DATE).periods


def _day_of_month(_: Reference, words: _Words) -> Meaning | None:
    days = [
        word.values[0] for word in words if word.word_class in {WordClass.NUMBER, WordClass.ORDINAL}
    ]
    if max(days) > 31:
        return None
    named = date(_first(words, WordClass.MONTH).values[0], days[0], last=days[-1])
    return (
        named.of(_first(words, WordClass.YEAR).values[0]) if _has(words, WordClass.YEAR) else named
    )


def _month_or_season(reference: Reference, words: _Words) -> Meaning | None:
    named = _yearly(_first(words, WordClass.MONTH, WordClass.SEASON))
    if _has(words, WordClass.YEAR):
        return named.of(_first(words, WordClass.YEAR).values[0])
    if _has(words, WordClass.LAST, WordClass.THIS, WordClass.NEXT) and _has(words, WordClass.UNIT):
        unit = _first(words, WordClass.UNIT).unit
        around = reference.unit(unit, _offset(words) or 0)
        return named.of(around.start.year) if unit == "year" and around else None
    if (offset := _offset(words)) is not None:
        return reference.yearly(named, offset)
    return named


def _in_season(_: Reference, words: _Words) -> Meaning | None:
    word = words[-1]
    # "In Spring Boot" is none, but German writes seasons with a capital letter.
    german = words[0].folded in {"im", "während"}
    return None if word.capital and word.values[0] < 4 and not german else _yearly(word)


def _weekday(reference: Reference, words: _Words) -> Meaning | None:
    weekday = _first(words, WordClass.WEEKDAY).values[0]
    if not _has(words, WordClass.UNIT):
        return _hours(reference.weekday(weekday, _offset(words)), words)
    if _first(words, WordClass.UNIT).unit != "week":
        return None
    return _hours(reference.weekday_in(weekday, _offset(words) or 0), words)


def _weekend(reference: Reference, words: _Words) -> Meaning | None:
    return reference.weekend(_offset(words))


def _rolling(reference: Reference, words: _Words) -> Meaning | None:
    _, most = _count(words) if _has(words, WordClass.NUMBER) else (1, 1)
    count = -most if _has(words, WordClass.NEXT) else most
    return reference.rolling(count, _first(words, WordClass.UNIT).unit)


def _unit(reference: Reference, words: _Words) -> Meaning | None:
    return reference.unit(_first(words, WordClass.UNIT).unit, _offset(words) or 0)


def _ago(reference: Reference, words: _Words) -> Meaning | None:
    return reference.ago(*_count(words), _first(words, WordClass.UNIT).unit)


def _day(reference: Reference, words: _Words) -> Meaning | None:
    word = words[0]
    if word.word_class is WordClass.HOURS_OF_DAY:
        return reference.day(word.values[0], word.values[1:])
    days = word.values[0] if word.word_class is WordClass.DAY else 0
    return _hours(reference.day(days), words)


def _whole_year(_: Reference, words: _Words) -> Meaning | None:
    return year(_first(words, WordClass.YEAR).values[0])


_AFTER_WEEKDAY: Final = "(?: WEEKDAY COMMA? [THE ON]{0,2} )?"
_DAYS: Final = "[NUMBER ORDINAL] (?: [DASH TO] [NUMBER ORDINAL] )?"
_OF_YEAR: Final = "(?: [OF COMMA]? YEAR )?"
_WHICH_UNIT: Final = "(?: [LAST THIS NEXT] UNIT | UNIT [LAST NEXT] )"
_NOT_A_LENGTH: Final = "(?! NUMBER? UNIT )"
"""In "Monday, last two weeks" the word "last" belongs to the weeks."""

_RULES: Final = [
    (pattern(text), rule)
    for text, rule in (
        (f"{_AFTER_WEEKDAY} DATE", _written),
        (f"{_AFTER_WEEKDAY} MONTH THE? {_DAYS} {_OF_YEAR}", _day_of_month),
        (f"{_AFTER_WEEKDAY} {_DAYS} OF? MONTH {_OF_YEAR}", _day_of_month),
        ("[MONTH SEASON] [OF COMMA]? THE? YEAR | YEAR [MONTH SEASON]", _month_or_season),
        (
            f"[MONTH SEASON] [OF ON]? THE? {_WHICH_UNIT}"
            f"| {_WHICH_UNIT} [IN ON OF]? THE? [MONTH SEASON]",
            _month_or_season,
        ),
        (
            "WEEKDAY (?: [OF ON IN]? [LAST THIS NEXT] UNIT | [OF ON]? THE? UNIT [LAST NEXT] )"
            " DAY_PART? | [LAST THIS NEXT] UNIT ON? WEEKDAY",
            _weekday,
        ),
        (
            "[LAST PAST] NUMBER UNIT | NUMBER LAST UNIT | THIS? PAST UNIT | NEXT NUMBER UNIT",
            _rolling,
        ),
        (
            f"[LAST THIS NEXT] OF? [MONTH SEASON] | [MONTH SEASON] [LAST NEXT] {_NOT_A_LENGTH}",
            _month_or_season,
        ),
        ("[NUMBER ONE] UNIT AGO | [AGO_IN_FRONT BEFORE_OR_AGO] [NUMBER ONE] UNIT", _ago),
        ("DAY DAY_PART? | HOURS_OF_DAY | THIS DAY_PART", _day),
        (
            f"[LAST THIS NEXT] WEEKDAY DAY_PART? | WEEKDAY [LAST NEXT] {_NOT_A_LENGTH}"
            " | WEEKDAY DAY_PART?",
            _weekday,
        ),
        (
            "[LAST THIS NEXT] WEEKEND (?! OF ) | WEEKEND [LAST NEXT]"
            " | [IN ON] THE? WEEKEND (?! OF )",
            _weekend,
        ),
        (f"[LAST THIS NEXT] UNIT (?! OF ) | UNIT [LAST NEXT] {_NOT_A_LENGTH}", _unit),
        ("IN THE? SEASON", _in_season),
        ("MONTH", _month_or_season),
        ("UNIT? YEAR", _whole_year),
    )
]
