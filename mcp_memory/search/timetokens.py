"""The words of a question with the classes that `timewords` gives them.

What could be a time by its spelling alone is one only where a time can stand:
"may", "march", "sun", a number of four digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mcp_memory.search.analysis import plain_letters
from mcp_memory.search.periods import Period, date, month, year
from mcp_memory.search.timewords import WORDS, Word

_EASTERN: Final = "\u3000-\u30ff\u3400-\u9fff\uff00-\uffef"
_PIECE: Final = re.compile(rf"[{_EASTERN}]+|[^\s,;!?()\[\]{{}}\"“”«»…{_EASTERN}]+|\S")
_YMD: Final = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?:T[\d:.]+(?:Z|[+-]\d\d:?\d\d)?)?")
_YEAR_MONTH: Final = re.compile(r"(\d{4})[-/](\d{2})")
_DMY: Final = re.compile(r"(\d{1,2})([/.])(\d{1,2})\2(\d{4})")
_NUMBER: Final = re.compile(r"(\d{1,4})(st|nd|rd|th|er|º|ª)?")
_DECADE: Final = re.compile(r"(\d{3})0s|['’]?(\d)0s")
_QUARTER: Final = re.compile(r"q([1-4])")
_DASH: Final = re.compile("[-–—]")
_LAST_PHRASE_WORDS: Final = 4

# What may also be a verb, a name or a firm has to stand where only a time can.
_DOUBTFUL: Final = frozenset(
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


@dataclass(frozen=True, slots=True)
class Token:
    """A word with its class (see `timewords`, and Y year, d date, H dash, c comma, . other).

    `first` and `last` are its characters, half-open.
    """

    kind: str
    first: int
    last: int
    values: tuple[int, ...] = ()
    unit: str = ""
    word: str = ""
    capital: bool = False
    periods: tuple[Period, ...] = ()


def tokens(text: str, language: str, *, this_year: int) -> list[Token]:
    """Return the words of a text; those that name no time where they stand are of class `.`."""
    found = list(_tokens(text, WORDS[language]))
    for at, token in enumerate(found):
        stands = (
            _month_stands(found, at)
            if token.kind == "M"
            else _weekday_stands(found, at)
            if token.kind == "W"
            else _year_stands(found, at, this_year)
            if token.kind == "Y"
            else True
        )
        if not stands:
            found[at] = replace(token, kind=".")
    return found


def _kind(tokens: Sequence[Token], at: int) -> str:
    return tokens[at].kind if 0 <= at < len(tokens) else " "


def _month_stands(tokens: Sequence[Token], at: int) -> bool:
    token = tokens[at]
    if token.word not in _DOUBTFUL:
        return True
    after = _kind(tokens, at + 1)
    if (_kind(tokens, at + 2) if after in "oc" else after) == "Y":
        return True
    before, farther = _kind(tokens, at - 1), _kind(tokens, at - 2)
    surely = token.capital or token.word not in _VERBS
    if after in "NO" or (after == "t" and _kind(tokens, at + 2) == "O"):
        return (surely or before in "iaCBFIKRJQH") and not _counts(tokens, at + 2)
    if before in "NO" or (before == "o" and farther in "NO"):
        return surely or farther in "atCBFIKRJQH"
    if before in "JQH":
        return farther in "MNYO"
    if after in "LTX" and _kind(tokens, at + 2) == "U":
        return surely
    if before == "R" or (after in "JQH" and _kind(tokens, at + 2) == "M"):
        return after in "JQH"
    if before == "t":
        return token.capital or token.word not in _VERBS or farther in "ioBFI"
    return before in "iCBFIVKLX" or (before in "Tmo" and token.capital)


def _weekday_stands(tokens: Sequence[Token], at: int) -> bool:
    token, before = tokens[at], _kind(tokens, at - 1)
    if at and tokens[at - 1].word in _RECURRING:
        return False
    if token.word not in _SHORT_DAYS:
        return True
    after = _kind(tokens, at + 1)
    if (_kind(tokens, at + 2) if after == "c" else after) in "MNOd":
        return token.capital
    return token.capital and (
        before in "LX" or (before in "aTCBFI" and token.word not in _SHORT_WORDS)
    )


def _year_stands(tokens: Sequence[Token], at: int, this_year: int) -> bool:
    before, after = _kind(tokens, at - 1), _kind(tokens, at + 1)
    if before in "MS" or after in "MS" or (before in "oc" and _kind(tokens, at - 2) in "MSNO"):
        return True
    if before in "NO" and _kind(tokens, at - 2) in "Mt":
        return True
    if _counts(tokens, at + 1) or (after == "Q" and _kind(tokens, at + 2) == "N"):
        return False
    if after in "H" or (before in "JQH" and _kind(tokens, at - 2) == "Y"):
        return _kind(tokens, at + 2) == "Y" or _kind(tokens, at - 2) == "Y"
    if before == "t":
        return tokens[at - 1].word == "the" and 1970 <= tokens[at].values[0] <= this_year + 1
    return before in "iCBFIVKRom" or (before == "U" and tokens[at - 1].unit == "year")


def _counts(tokens: Sequence[Token], at: int) -> bool:
    """Return whether what stands there is what the number before it counts."""
    return at < len(tokens) and tokens[at].word in _COUNTED


def _tokens(text: str, words: dict[str, Word]) -> Iterator[Token]:
    pieces = [
        (match.start() + lead, match[0][lead:].rstrip(".:'’") or match[0])
        for match in _PIECE.finditer(text)
        for lead in (len(match[0]) - len(match[0].lstrip("'’")),)
    ]
    folded = [plain_letters(piece).replace("’", "'") for _, piece in pieces]
    at = 0
    while at < len(pieces):
        for count in range(min(_LAST_PHRASE_WORDS, len(pieces) - at), 0, -1):
            phrase = folded[at] if count == 1 else " ".join(folded[at : at + count])
            word = words.get(phrase)
            if word is not None:
                first, (start, piece) = pieces[at][0], pieces[at + count - 1]
                yield _token(word, first, start + len(piece), phrase, pieces[at][1])
                break
        else:
            count = 1
            yield from _other(*pieces[at], folded[at], words)
        start, piece = pieces[at + count - 1]
        behind = text[start + len(piece) : start + len(piece) + 1]
        # The end of a sentence; abbreviations and German ordinals have a dot as well.
        if behind == "." and len(piece) > 4 and not piece[-1].isdigit():
            yield Token(".", start + len(piece), start + len(piece) + 1)
        at += count


def _token(word: Word, first: int, last: int, phrase: str, written: str) -> Token:
    return Token(
        word.kind, first, last, word.values, word.unit, phrase, capital=written[:1].isupper()
    )


def _other(start: int, piece: str, folded: str, words: dict[str, Word]) -> Iterator[Token]:
    """Return the tokens of a piece that is no word of the table."""
    end = start + len(piece)
    if folded == ",":
        yield Token("c", start, end)
    elif folded[0].isdigit() or folded[:1] in "'q":
        yield from _figures(start, piece, folded)
    elif folded in {"-", "–", "—"}:
        yield Token("H", start, end)
    elif "'" in folded:
        # "yesterday's", "l'année"
        head, _, tail = folded.rpartition("'")
        if tail == "s" and head in words:
            yield _token(words[head], start, start + len(head), head, piece)
        elif tail in words:
            cut = start + len(head) + 1
            yield Token("o" if head == "d" else "t", start, cut)
            yield _token(words[tail], cut, end, tail, piece)
        else:
            yield Token(".", start, end)
    elif len(parts := _DASH.split(folded)) == 2 and all(part in words for part in parts):
        first, second = words[parts[0]], words[parts[1]]
        cut = start + len(parts[0])
        yield _token(first, start, cut, parts[0], piece)
        if first.kind != "m":
            yield Token("H", cut, cut + 1)
        yield _token(second, cut + 1, end, parts[1], piece[len(parts[0]) + 1 :])
    else:
        yield Token(".", start, end, word=folded)


def _figures(start: int, piece: str, folded: str) -> Iterator[Token]:
    """Return the tokens of what begins with a digit."""
    end = start + len(piece)
    if match := _YMD.fullmatch(piece):
        yield _dates(start, end, [(int(match[1]), int(match[3]), int(match[4]))])
    elif match := _YEAR_MONTH.fullmatch(piece):
        period = month(int(match[2])).of(int(match[1]))
        yield Token("d" if period else ".", start, end, periods=(period,) if period else ())
    elif match := _DMY.fullmatch(piece):
        one, two, named = int(match[1]), int(match[3]), int(match[4])
        # With dots the day is first; with slashes nobody can tell.
        orders = [(named, two, one)] if match[2] == "." else [(named, one, two), (named, two, one)]
        yield _dates(start, end, orders)
    elif match := _DECADE.fullmatch(folded):
        first = int(match[1]) * 10 if match[1] else 1900 + int(match[2]) * 10
        begins, ends = year(first), year(first + 9)
        known = (Period(begins.start, ends.end),) if begins and ends else ()
        yield Token("d" if known else ".", start, end, periods=known)
    elif match := _QUARTER.fullmatch(folded):
        yield Token("S", start, end, (4 + int(match[1]),), word=folded, capital=True)
    elif match := _NUMBER.fullmatch(folded):
        number = int(match[1])
        kind = "O" if match[2] else "Y" if 1900 <= number <= 2100 else "N"
        yield Token(kind, start, end, (number,))
    elif len(parts := _DASH.split(piece)) == 2 and all(map(_NUMBER.fullmatch, parts)):
        cut = start + len(parts[0])
        yield from _figures(start, parts[0], parts[0])
        yield Token("H", cut, cut + 1)
        yield from _figures(cut + 1, parts[1], parts[1])
    else:
        yield Token(".", start, end)


def _dates(start: int, end: int, orders: Sequence[tuple[int, int, int]]) -> Token:
    known = dict.fromkeys(
        period for number, which, day in orders if (period := date(which, day).of(number))
    )
    return Token("d" if known else ".", start, end, periods=tuple(known))
