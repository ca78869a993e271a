"""The words of a text, each with its class.

A word whose spelling alone could name a time ("may", "march", "sun", a number of
four digits) gets its class only where a time can stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mcp_memory.search.language.analysis import plain_letters
from mcp_memory.search.times.patterns import classes
from mcp_memory.search.times.periods import Period, date, month, year
from mcp_memory.search.times.vocabulary import WORDS, Word, WordClass

_EASTERN: Final = "\u3000-\u30ff\u3400-\u9fff\uff00-\uffef"
_PIECE: Final = re.compile(rf"[{_EASTERN}]+|[^\s,;!?()\[\]{{}}\"“”«»…{_EASTERN}]+|\S")
_YMD: Final = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?:T[\d:.]+(?:Z|[+-]\d\d:?\d\d)?)?")
_YEAR_MONTH: Final = re.compile(r"(\d{4})[-/](\d{2})")
_DMY: Final = re.compile(r"(\d{1,2})([/.])(\d{1,2})\2(\d{4})")
_NUMBER: Final = re.compile(r"(\d{1,4})(st|nd|rd|th|er|º|ª)?")
_DECADE: Final = re.compile(r"(\d{3})0s|['’]?(\d)0s")
_QUARTER: Final = re.compile(r"q([1-4])")
_DASH: Final = re.compile("[-–—]")

_LONGEST_PHRASE: Final = 4
"""Words in the longest phrases of the vocabulary, such as "ayer por la mañana"."""

_EARLIEST_BARE_YEAR: Final = 1970
"""From here on "the 2022 trip" names a year; by judgement: "the 1900 rows" is rather a number."""

# May also be a verb, a name or a company.
_AMBIGUOUS_MONTHS: Final = frozenset(
    re.findall(
        r"\w+",
        """
        may march mar april june august jan feb apr jun jul aug sep sept oct nov dec
        mars
        """,
    )
)
_VERBS: Final = frozenset({"may", "march", "mar"})
_SHORT_DAYS: Final = frozenset(
    re.findall(
        r"\w+",
        """
        mon tue tues wed thu thur thurs fri sat sun
        """,
    )
)
_SHORT_WORDS: Final = frozenset({"sun", "sat", "wed"})
_RECURRING: Final = frozenset(
    re.findall(
        r"\w+",
        """
        every each los les cada chaque jeden jede todos tous
        """,
    )
)
_COUNTED: Final = frozenset(
    re.findall(
        r"\w+",
        """
        bytes calories characters chars dollars euros feet files habitants habitantes
        hours items kb kg km lines mb meters metres messages miles minutes ms pages
        people percent points px records requests rows seconds steps times tokens units
        users words worter zeichen euro mots palabras
        """,
    )
)

_NUMBERS: Final = classes("NUMBER ORDINAL")
_OF_OR_COMMA: Final = classes("OF COMMA")
_RANGE: Final = classes("AND TO DASH")
_EDGES: Final = classes("SINCE BEFORE AFTER UNTIL")
_WHICH: Final = classes("LAST THIS NEXT")
_LAST_OR_NEXT: Final = classes("LAST NEXT")

# What a month that may be another word can stand after.
_BEFORE_MONTH: Final = classes("IN SINCE BEFORE AFTER UNTIL BEFORE_OR_AGO BETWEEN LAST NEXT")
_BEFORE_CAPITAL_MONTH: Final = classes("THIS THIRD OF")  # "early May"
_BEFORE_THE_MONTH: Final = classes("IN OF BEFORE AFTER UNTIL")  # "before the May meeting"
_BEFORE_MONTH_AND_DAY: Final = _EDGES | _RANGE | classes("IN ON BETWEEN FROM")  # "on may 7"
_BEFORE_DAY_OF_MONTH: Final = _EDGES | _RANGE | classes("ON THE BETWEEN FROM")  # "on 7 may"
_FIRST_OF_RANGE: Final = classes("MONTH NUMBER YEAR ORDINAL")  # "April to may"

# What a short weekday can stand between.
_BEFORE_WEEKDAY: Final = _EDGES | classes("ON THIS")
_AFTER_WEEKDAY: Final = classes("MONTH NUMBER ORDINAL DATE")  # "Sun, 7 May"

# What a number of four digits can be a year beside.
_BESIDE_YEAR: Final = classes("MONTH SEASON")
_BEFORE_YEAR: Final = classes("IN SINCE BEFORE AFTER UNTIL BETWEEN BEFORE_OR_AGO FROM OF THIRD")
_BEFORE_COMMA_AND_YEAR: Final = classes("MONTH SEASON NUMBER ORDINAL")  # "May 7, 2023"
_BEFORE_DAY_AND_YEAR: Final = classes("MONTH THE")  # "May 7 2023"


@dataclass(frozen=True, slots=True)
class TextWord:
    """A word, number or mark of a text: the characters from `first_char` up to `last_char`.

    Attributes:
        values: See `WordClass`.
        unit: For the class `UNIT`.
        folded: The word in lower case, without accents.
        capital: Whether it is written with a capital letter.
        periods: For the class `DATE`: what it can mean.
    """

    word_class: WordClass
    first_char: int
    last_char: int
    values: tuple[int, ...] = ()
    unit: str = ""
    folded: str = ""
    capital: bool = False
    periods: tuple[Period, ...] = ()


def text_words(text: str, language: str, *, this_year: int) -> list[TextWord]:
    """Return the words of a text; those that name no time where they stand are `OTHER`."""
    found = list(_read(text, WORDS[language]))
    for at, word in enumerate(found):
        stands = (
            _month_stands(found, at)
            if word.word_class is WordClass.MONTH
            else _weekday_stands(found, at)
            if word.word_class is WordClass.WEEKDAY
            else _year_stands(found, at, this_year)
            if word.word_class is WordClass.YEAR
            else True
        )
        if not stands:
            found[at] = replace(word, word_class=WordClass.OTHER)
    return found


def _class_at(words: Sequence[TextWord], at: int) -> WordClass | None:
    return words[at].word_class if 0 <= at < len(words) else None


def _month_stands(words: Sequence[TextWord], at: int) -> bool:
    word = words[at]
    if word.folded not in _AMBIGUOUS_MONTHS:
        return True
    before, farther = _class_at(words, at - 1), _class_at(words, at - 2)
    after, behind = _class_at(words, at + 1), _class_at(words, at + 2)
    if (behind if after in _OF_OR_COMMA else after) is WordClass.YEAR:
        return True
    surely = word.capital or word.folded not in _VERBS
    if after in _NUMBERS or (after is WordClass.THE and behind is WordClass.ORDINAL):
        return (surely or before in _BEFORE_MONTH_AND_DAY) and not _is_counted(words, at + 2)
    if before in _NUMBERS or (before is WordClass.OF and farther in _NUMBERS):
        return surely or farther in _BEFORE_DAY_OF_MONTH
    if before in _RANGE:
        return farther in _FIRST_OF_RANGE
    if after in _WHICH and behind is WordClass.UNIT:
        return surely
    if before is WordClass.FROM or (after in _RANGE and behind is WordClass.MONTH):
        return after in _RANGE
    if before is WordClass.THE:
        return surely or farther in _BEFORE_THE_MONTH
    return before in _BEFORE_MONTH or (before in _BEFORE_CAPITAL_MONTH and word.capital)


def _weekday_stands(words: Sequence[TextWord], at: int) -> bool:
    word, before = words[at], _class_at(words, at - 1)
    if at and words[at - 1].folded in _RECURRING:
        return False
    if word.folded not in _SHORT_DAYS:
        return True
    after, behind = _class_at(words, at + 1), _class_at(words, at + 2)
    if (behind if after is WordClass.COMMA else after) in _AFTER_WEEKDAY:
        return word.capital
    return word.capital and (
        before in _LAST_OR_NEXT or (before in _BEFORE_WEEKDAY and word.folded not in _SHORT_WORDS)
    )


def _year_stands(words: Sequence[TextWord], at: int, this_year: int) -> bool:
    before, farther = _class_at(words, at - 1), _class_at(words, at - 2)
    after, behind = _class_at(words, at + 1), _class_at(words, at + 2)
    if before in _BESIDE_YEAR or after in _BESIDE_YEAR:
        return True
    if before in _OF_OR_COMMA and farther in _BEFORE_COMMA_AND_YEAR:
        return True
    if before in _NUMBERS and farther in _BEFORE_DAY_AND_YEAR:
        return True
    if _is_counted(words, at + 1) or (after is WordClass.TO and behind is WordClass.NUMBER):
        return False
    if after is WordClass.DASH or (before in _RANGE and farther is WordClass.YEAR):
        return WordClass.YEAR in {behind, farther}
    if before is WordClass.THE:
        year_named = words[at].values[0]
        return words[at - 1].folded == "the" and (
            _EARLIEST_BARE_YEAR <= year_named <= this_year + 1
        )
    return before in _BEFORE_YEAR or (before is WordClass.UNIT and words[at - 1].unit == "year")


def _is_counted(words: Sequence[TextWord], at: int) -> bool:
    """Return whether the word there is what the number before it counts."""
    return at < len(words) and words[at].folded in _COUNTED


def _read(text: str, vocabulary: dict[str, Word]) -> Iterator[TextWord]:
    pieces = [
        (match.start() + lead, match[0][lead:].rstrip(".:'’") or match[0])
        for match in _PIECE.finditer(text)
        for lead in (len(match[0]) - len(match[0].lstrip("'’")),)
    ]
    folded = [plain_letters(piece).replace("’", "'") for _, piece in pieces]
    at = 0
    while at < len(pieces):
        for count in range(min(_LONGEST_PHRASE, len(pieces) - at), 0, -1):
            phrase = folded[at] if count == 1 else " ".join(folded[at : at + count])
            word = vocabulary.get(phrase)
            if word is not None:
                first, (start, piece) = pieces[at][0], pieces[at + count - 1]
                yield _known(word, first, start + len(piece), phrase, pieces[at][1])
                break
        else:
            count = 1
            yield from _unknown(*pieces[at], folded[at], vocabulary)
        start, piece = pieces[at + count - 1]
        behind = text[start + len(piece) : start + len(piece) + 1]
        # The end of a sentence. Abbreviations and German ordinals have a dot as well.
        if behind == "." and len(piece) > 4 and not piece[-1].isdigit():
            yield TextWord(WordClass.OTHER, start + len(piece), start + len(piece) + 1)
        at += count


def _known(word: Word, first: int, last: int, folded: str, written: str) -> TextWord:
    return TextWord(
        word.word_class,
        first,
        last,
        word.values,
        word.unit,
        folded,
        capital=written[:1].isupper(),
    )


def _unknown(
    start: int, piece: str, folded: str, vocabulary: dict[str, Word]
) -> Iterator[TextWord]:
    """Yield the words of a piece that is not in the vocabulary as a whole."""
    end = start + len(piece)
    if folded == ",":
        yield TextWord(WordClass.COMMA, start, end)
    elif not folded:  # A combining mark alone.
        yield TextWord(WordClass.OTHER, start, end)
    elif folded[0].isdigit() or folded[0] in "'q":
        yield from _figures(start, piece, folded)
    elif folded in {"-", "–", "—"}:
        yield TextWord(WordClass.DASH, start, end)
    elif "'" in folded:
        # "yesterday's", "l'année"
        head, _, tail = folded.rpartition("'")
        if tail == "s" and head in vocabulary:
            yield _known(vocabulary[head], start, start + len(head), head, piece)
        elif tail in vocabulary:
            cut = start + len(head) + 1
            yield TextWord(WordClass.OF if head == "d" else WordClass.THE, start, cut)
            yield _known(vocabulary[tail], cut, end, tail, piece)
        else:
            yield TextWord(WordClass.OTHER, start, end)
    elif len(parts := _DASH.split(folded)) == 2 and all(part in vocabulary for part in parts):
        first, second = vocabulary[parts[0]], vocabulary[parts[1]]
        cut = start + len(parts[0])
        yield _known(first, start, cut, parts[0], piece)
        if first.word_class is not WordClass.THIRD:
            yield TextWord(WordClass.DASH, cut, cut + 1)
        yield _known(second, cut + 1, end, parts[1], piece[len(parts[0]) + 1 :])
    else:
        yield TextWord(WordClass.OTHER, start, end, folded=folded)


def _figures(start: int, piece: str, folded: str) -> Iterator[TextWord]:
    """Yield the words of a piece that begins with a digit."""
    end = start + len(piece)
    if match := _YMD.fullmatch(piece):
        yield _date(start, end, [(int(match[1]), int(match[3]), int(match[4]))])
    elif match := _YEAR_MONTH.fullmatch(piece):
        yield _periods(start, end, month(int(match[2])).of(int(match[1])))
    elif match := _DMY.fullmatch(piece):
        one, two, named = int(match[1]), int(match[3]), int(match[4])
        # With dots the day comes first; with slashes nobody can tell.
        orders = [(named, two, one)] if match[2] == "." else [(named, one, two), (named, two, one)]
        yield _date(start, end, orders)
    elif match := _DECADE.fullmatch(folded):
        first = int(match[1]) * 10 if match[1] else 1900 + int(match[2]) * 10
        begins, ends = year(first), year(first + 9)
        yield _periods(start, end, Period(begins.start, ends.end) if begins and ends else None)
    elif match := _QUARTER.fullmatch(folded):
        quarter = (4 + int(match[1]),)
        yield TextWord(WordClass.SEASON, start, end, quarter, folded=folded, capital=True)
    elif match := _NUMBER.fullmatch(folded):
        number = int(match[1])
        if match[2]:
            word_class = WordClass.ORDINAL
        else:
            word_class = WordClass.YEAR if 1900 <= number <= 2100 else WordClass.NUMBER
        yield TextWord(word_class, start, end, (number,))
    elif len(parts := _DASH.split(piece)) == 2 and all(map(_NUMBER.fullmatch, parts)):
        cut = start + len(parts[0])
        yield from _figures(start, parts[0], parts[0])
        yield TextWord(WordClass.DASH, cut, cut + 1)
        yield from _figures(cut + 1, parts[1], parts[1])
    else:
        yield TextWord(WordClass.OTHER, start, end)


def _date(start: int, end: int, orders: Sequence[tuple[int, int, int]]) -> TextWord:
    return _periods(start, end, *(date(which, day).of(number) for number, which, day in orders))


def _periods(start: int, end: int, *read: Period | None) -> TextWord:
    """Return a date in digits by what it can mean; one that does not exist is `OTHER`."""
    known = tuple(dict.fromkeys(period for period in read if period))
    return TextWord(WordClass.DATE if known else WordClass.OTHER, start, end, periods=known)
