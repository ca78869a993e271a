"""Times named in languages that write spaces: English, German, French and Spanish.

The grammar is regular expressions over the classes of words, a letter each
(`timewords`, `timetokens`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from mcp_memory.search.periods import (
    SEASONS,
    Named,
    Period,
    Reference,
    Yearly,
    date,
    month,
    year,
)
from mcp_memory.search.timetokens import Token, tokens
from mcp_memory.search.timewords import STRONG

_Made = Period | Yearly | tuple[Period, ...] | None
_Tokens = Sequence[Token]
_Rule = Callable[[Reference, _Tokens], _Made]


def read(text: str, language: str, reference: Reference) -> tuple[str, list[Named]]:
    """Return a text as classes of words, and the times that are named in it.

    Each time has the one class `Z`, and each class has its entry in the list:
    what is no time has no meaning but its characters, value and unit.
    """
    words = tokens(text, language, this_year=reference.now.year)
    if not any(token.kind in STRONG or token.kind in "Yd" for token in words):
        return "", []
    found = _claimed(words, reference)
    kinds: list[str] = []
    parts: list[Named] = []
    at = 0
    while at < len(words):
        named, last = found.get(at, (None, at + 1))
        token = words[at]
        kinds.append("Z" if named else token.kind)
        unit = "weekend" if token.kind == "w" else token.unit
        parts.append(named or Named(token.first, token.last, values=token.values, unit=unit))
        at = last
    return "".join(kinds), parts


def _claimed(words: _Tokens, reference: Reference) -> dict[int, tuple[Named, int]]:
    """Return the times by their first word, each with the word behind its last."""
    classes = "".join(token.kind for token in words)
    taken = bytearray(len(classes))
    found: dict[int, tuple[Named, int]] = {}
    for pattern, make in _RULES:
        for match in pattern.finditer(classes):
            first, last = match.span()
            if any(taken[first:last]):
                continue
            try:
                made = make(reference, words[first:last])
            except (OverflowError, ValueError):
                continue  # So many years ago that no date can say it.
            if made:
                taken[first:last] = b"\1" * (last - first)
                chars = words[first].first, words[last - 1].last
                named = named_as(made, *chars)
                found[first] = (replace(named, unit=_unit_of(make, words[first:last])), last)
    return found


def _unit_of(make: _Rule, words: _Tokens) -> str:
    """Return what a time may be beside another: the Sunday before it, the week after it."""
    if make is _weekday:
        return "weekday"
    if make is _weekend:
        return "weekend"
    return _only(words, "U").unit if make is _unit else ""


def named_as(made: Period | Yearly | tuple[Period, ...], first: int, last: int) -> Named:
    """Return what was made of some characters, with these."""
    if isinstance(made, Yearly):
        return Named(first, last, yearly=made)
    return Named(first, last, (made,) if isinstance(made, Period) else made)


def _only(words: _Tokens, kinds: str) -> Token:
    return next(token for token in words if token.kind in kinds)


def _has(words: _Tokens, kinds: str) -> bool:
    return any(token.kind in kinds for token in words)


def _offset(words: _Tokens) -> int | None:
    """Return -1 for last, 0 for this, 1 for next, None for none of them."""
    kinds = {token.kind for token in words}
    return -1 if kinds & {"L", "P"} else 0 if "T" in kinds else 1 if "X" in kinds else None


def _hours(period: Period, words: _Tokens) -> Period:
    """Return the part of a day that is named beside it."""
    part = next((token.values for token in words if token.kind == "p"), None)
    if part is None:
        return period
    return Reference(period.start).day(0, part)


def _count(words: _Tokens) -> tuple[int, int]:
    values = _only(words, "N1").values
    return values[0], values[-1]


def _written(_: Reference, words: _Tokens) -> _Made:
    return _only(words, "d").periods


def _day_of_month(_: Reference, words: _Tokens) -> _Made:
    days = [token.values[0] for token in words if token.kind in "NO"]
    if max(days) > 31:
        return None
    named = date(_only(words, "M").values[0], days[0], last=days[-1])
    return named.of(_only(words, "Y").values[0]) if _has(words, "Y") else named


def _of_year(reference: Reference, words: _Tokens) -> _Made:
    named = _yearly(_only(words, "MS"))
    if _has(words, "Y"):
        return named.of(_only(words, "Y").values[0])
    if _has(words, "LTX") and _has(words, "U"):
        of = reference.unit(_only(words, "U").unit, _offset(words) or 0)
        if _only(words, "U").unit != "year":
            return None
        return of and named.of(of.start.year)
    if (offset := _offset(words)) is not None:
        return reference.yearly(named, offset)
    return named


def _season(_: Reference, words: _Tokens) -> _Made:
    token = words[-1]
    # In spring, but not in Spring Boot; German writes it like that.
    if token.capital and token.values[0] < 4 and words[0].word not in {"im", "während"}:
        return None
    return _yearly(token)


def _yearly(token: Token) -> Yearly:
    return month(token.values[0]) if token.kind == "M" else SEASONS[token.values[0]]


def _weekday(reference: Reference, words: _Tokens) -> _Made:
    weekday = _only(words, "W").values[0]
    if _has(words, "U"):
        if _only(words, "U").unit != "week":
            return None
        return _hours(reference.weekday_in(weekday, _offset(words) or 0), words)
    return _hours(reference.weekday(weekday, _offset(words)), words)


def _weekend(reference: Reference, words: _Tokens) -> _Made:
    return reference.weekend(_offset(words))


def _rolling(reference: Reference, words: _Tokens) -> _Made:
    _, most = _count(words) if _has(words, "N") else (1, 1)
    return reference.rolling(-most if _has(words, "X") else most, _only(words, "U").unit)


def _unit(reference: Reference, words: _Tokens) -> _Made:
    return reference.unit(_only(words, "U").unit, _offset(words) or 0)


def _ago(reference: Reference, words: _Tokens) -> _Made:
    return reference.ago(*_count(words), _only(words, "U").unit)


def _day(reference: Reference, words: _Tokens) -> _Made:
    token = words[0]
    if token.kind == "n":
        return reference.day(token.values[0], token.values[1:])
    return _hours(reference.day(token.values[0] if token.kind == "D" else 0), words)


def _year(_: Reference, words: _Tokens) -> _Made:
    return year(_only(words, "Y").values[0])


_RULES: Final[list[tuple[re.Pattern[str], _Rule]]] = [
    (re.compile(pattern), make)
    for pattern, make in (
        (r"(?:Wc?[ta]{0,2})?d", _written),
        (r"(?:Wc?[ta]{0,2})?Mt?[NO](?:[HQ][NO])?(?:[oc]?Y)?", _day_of_month),
        (r"(?:Wc?[ta]{0,2})?[NO](?:[HQ][NO])?o?M(?:[oc]?Y)?", _day_of_month),
        (r"[MS][oc]?t?Y|Y[MS]", _of_year),
        (r"[MS][oa]?t?(?:[LTX]U|U[LX])|(?:[LTX]U|U[LX])[iao]?t?[MS]", _of_year),
        (r"W(?:[oai]?[LTX]U|[oa]?t?U[LX])p?|[LTX]U[a]?W", _weekday),
        (r"[LP]NU|NLU|T?PU|XNU", _rolling),
        (r"[LTX]o?[MS]|[MS][LX](?!N?U)", _of_year),
        (r"[N1]UG|[AV][N1]U", _ago),
        (r"Dp?|n|Tp", _day),
        (r"[LTX]Wp?|W[LX](?!N?U)|Wp?", _weekday),
        (r"[LTX]w(?!o)|w[LX]|[ai]t?w(?!o)", _weekend),
        (r"[LTX]U(?!o)|U[LX](?!N?U)", _unit),
        (r"it?S", _season),
        (r"M", _of_year),
        (r"U?Y", _year),
    )
]
