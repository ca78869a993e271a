"""Times named in Chinese and Japanese, which write no spaces.

Each rule is a regular expression over the characters and a function that says which
time they mean. Rules stand in order: characters that one has matched are not matched
again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from mcp_memory.search.times.patterns import TIME_SYMBOL
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
from mcp_memory.search.times.vocabulary import WordClass

_DIGITS: Final = {char: value for value, char in enumerate("〇一二三四五六七八九")} | {
    "零": 0,
    "两": 2,
    "兩": 2,
}
_NUMBER: Final = r"(?:[0-9]{1,4}|[〇零一二两兩三四五六七八九十百]{1,5})"
_YEAR: Final = (
    r"(?:(?:(?:19|20)[0-9]{2}|[一二][〇零一二三四五六七八九]{3})年"
    # Two digits count years ("25年"), unless a month follows.
    r"|(?<![0-9])[0-9]{2}年(?=(?:1[0-2]|[1-9]|十[一二]?|[一二三四五六七八九])月))"
)
_DAYS: Final = {
    "大前天": -3,
    "前天": -2,
    "一昨日": -2,
    "おととい": -2,
    "昨天": -1,
    "昨日": -1,
    "きのう": -1,
    "今天": 0,
    "今日": 0,
    "きょう": 0,
    "明天": 1,
    "明日": 1,
    "あした": 1,
    "后天": 2,
    "後天": 2,
    "明後日": 2,
    "あさって": 2,
}
_PARTS_OF_DAY: Final = {
    "早上": (5, 12),
    "早晨": (5, 12),
    "上午": (5, 12),
    "の朝": (5, 12),
    "中午": (11, 14),
    "下午": (12, 18),
    "の午後": (12, 18),
    "晚上": (17, 24),
    "の夜": (17, 24),
    "夜里": (18, 30),
}
_NIGHTS: Final = {
    "昨晚": (-1, 18, 30),
    "昨夜": (-1, 18, 30),
    "昨晩": (-1, 18, 30),
    "今早": (0, 5, 12),
    "今晨": (0, 5, 12),
    "今朝": (0, 5, 12),
    "今晚": (0, 18, 30),
    "今晩": (0, 18, 30),
    "今夜": (0, 18, 30),
}
_YEARS: Final = {"前年": -2, "一昨年": -2, "去年": -1, "昨年": -1, "今年": 0, "明年": 1, "来年": 1}
_WEEKS: Final = {
    "上上": -2,
    "先々": -2,
    "上": -1,
    "先": -1,
    "这": 0,
    "這": 0,
    "本": 0,
    "今": 0,
    "下": 1,
    "来": 1,
    "來": 1,
}
_WEEKDAYS: Final = {char: at for at, char in enumerate("一二三四五六日")} | {"天": 6, "末": 7}
_JAPANESE_WEEKDAYS: Final = {char: at for at, char in enumerate("月火水木金土日")}
_SEASONS: Final = {char: at for at, char in enumerate("春夏秋冬")}
_UNITS: Final = {
    "天": "day",
    "日": "day",
    "周": "week",
    "週": "week",
    "星": "week",
    "礼": "week",
    "禮": "week",
    "月": "month",
    "年": "year",
    "小": "hour",
    "时": "hour",
    "時": "hour",
    "分": "minute",
}
_UNIT: Final = (
    r"(?P<unit>天|日|周|週間?|个?星期|個?星期|个?礼拜|個?禮拜|个月|個月|[かヶカヵケ]月|年|个?小时"
    r"|個?小時|時間|分钟|分鐘|分)"
)
_THIRD: Final = r"(?P<third>初|中旬|中(?!秋)|底|末)?"
_THIRDS: Final = {"初": 0, "中": 1, "底": 2, "末": 2}


def read(text: str, reference: Reference) -> tuple[str, list[Mention]]:
    """Return a text with `TIME_SYMBOL` for each time that it names, and a mention for each symbol.

    Characters that name no time are mentions of the class `OTHER`.
    """
    found: dict[int, Mention] = {}
    matched = bytearray(len(text))
    for rule_pattern, rule in _RULES:
        for match in rule_pattern.finditer(text):
            first, last = match.span()
            if any(matched[first:last]):
                continue
            try:
                meaning = rule(reference, match)
            except (OverflowError, ValueError):
                continue  # Too many years ago for a date.
            if meaning:
                matched[first:last] = b"\1" * (last - first)
                found[first] = Mention.of(meaning, first, last)
    if not found:
        return "", []
    symbols: list[str] = []
    mentions: list[Mention] = []
    at = 0
    while at < len(text):
        if at in found:
            symbols.append(TIME_SYMBOL)
            mentions.append(found[at])
        else:
            # The text itself has no symbols.
            symbols.append(text[at].replace(TIME_SYMBOL, " "))
            mentions.append(Mention(WordClass.OTHER, at, at + 1))
        at = mentions[-1].last_char
    return "".join(symbols), mentions


def _int(text: str) -> int:
    """Return a number written in western or Chinese digits, with tens and hundreds."""
    if text.isascii():
        return int(text)
    if not any(char in "十百" for char in text):
        return int("".join(str(_DIGITS[char]) for char in text))
    total, digit = 0, 0
    for char in text:
        if char in "十百":
            total += (digit or 1) * (10 if char == "十" else 100)
            digit = 0
        else:
            digit = _DIGITS[char]
    return total + digit


def _day(reference: Reference, match: re.Match[str]) -> Meaning | None:
    hours = _PARTS_OF_DAY.get(match["part"] or "", (0, 24))
    return reference.day(_DAYS[match["day"]], hours)


def _night(reference: Reference, match: re.Match[str]) -> Meaning | None:
    offset, *hours = _NIGHTS[match[0]]
    return reference.day(offset, tuple(hours))


def _week(reference: Reference, match: re.Match[str]) -> Meaning | None:
    weeks = _WEEKS[match["which"]]
    name = match["weekday"]
    if not name:
        return reference.unit("week", weeks)
    weekday = (_JAPANESE_WEEKDAYS if match["japanese"] else _WEEKDAYS)[name[0]]
    return reference.weekend(weeks) if weekday == 7 else reference.weekday_in(weekday, weeks)


def _japanese_week(reference: Reference, match: re.Match[str]) -> Meaning | None:
    return reference.weekday(_JAPANESE_WEEKDAYS[match["weekday"]])


def _weekday(reference: Reference, match: re.Match[str]) -> Meaning | None:
    return reference.weekday(_WEEKDAYS[match["weekday"]])


def _month(reference: Reference, match: re.Match[str]) -> Meaning | None:
    period = reference.unit("month", _WEEKS[match["which"]])
    return _third(period, match)


def _in_year(reference: Reference, match: re.Match[str]) -> Meaning | None:
    """Return a year, given as a number or relative to this one, or a month, day or season of it."""
    groups = match.groupdict()
    if groups["year"]:
        written = _int(groups["year"][:-1])
        number: int | None = written + (2_000 if written < 100 else 0)
    elif groups["which"]:
        number = reference.now.year + _YEARS[groups["which"]]
    else:
        number = None
    if groups["month"]:
        which = _int(groups["month"])
        if not 1 <= which <= 12:
            return None
        named = date(which, _int(groups["date"])) if groups["date"] else month(which)
    elif groups.get("half"):
        named = Yearly("上下".index(groups["half"]) * 6 + 1, months=6)
    elif groups.get("quarter"):
        named = Yearly(_int(groups["quarter"]) * 3 - 2, months=3)
    elif groups["season"]:
        named = SEASONS[_SEASONS[groups["season"]]]
    else:
        period = None if number is None else year(number)
        return period and _third(period, match)
    return named if number is None else _third(named.of(number), match)


def _third(period: Period | None, match: re.Match[str]) -> Period | None:
    part = match["third"]
    return period.third(_THIRDS[part[0]]) if part and period else period


def _ago(reference: Reference, match: re.Match[str]) -> Meaning | None:
    unit = _unit(match)
    if match["number"] == "半":
        return reference.ago(6, 6, "month") if unit == "year" else reference.ago(15, 15, "day")
    if match["number"] in {"几", "幾", "数", "數"}:
        return reference.ago(2, 5, unit)
    number = _int(match["number"])
    if unit == "year" and number >= 1000:
        return None  # Before that year.
    return reference.ago(number, number, unit)


def _rolling(reference: Reference, match: re.Match[str]) -> Meaning | None:
    number = match["number"]
    return reference.rolling(
        5 if number in {"几", "幾", "数", "數"} else _int(number), _unit(match)
    )


def _unit(match: re.Match[str]) -> str:
    name = match["unit"]
    return "month" if name.endswith("月") else _UNITS[name.lstrip("个個")[0]]


_Rule = Callable[[Reference, re.Match[str]], Meaning | None]
_RULES: Final[list[tuple[re.Pattern[str], _Rule]]] = [
    (re.compile(pattern), make)
    for pattern, make in (
        (rf"(?P<number>{_NUMBER}|[几幾数數半]){_UNIT}(?:之前|以前|前)", _ago),
        (
            rf"(?:最近|过去|過去|近|[这這]|ここ|この)的?(?P<number>{_NUMBER}|[几幾数數]){_UNIT}"
            rf"(?!前)",
            _rolling,
        ),
        (
            rf"(?:(?P<year>{_YEAR})|(?P<which>{'|'.join(_YEARS)}))[的の]?"
            rf"(?:(?: ?(?P<month>{_NUMBER})月份?(?:(?P<date>{_NUMBER})[日号號])?"
            rf"| ?(?P<season>[春夏秋冬])[天季]?| ?(?P<half>[上下])半年"
            rf"| ?第?(?P<quarter>[1-4一二三四])季度|年(?=[初中底末]))?{_THIRD})",
            _in_year,
        ),
        (
            rf"(?<![第{''.join(_DIGITS)}0-9十])(?P<year>)(?P<which>)(?P<season>)"
            rf"(?P<month>{_NUMBER})月(?!天)份?(?:(?P<date>{_NUMBER})[日号號])?{_THIRD}",
            _in_year,
        ),
        (
            rf"(?P<day>{'|'.join(sorted(_DAYS, key=len, reverse=True))})"
            rf"(?:的?(?P<part>{'|'.join(_PARTS_OF_DAY)}))?",
            _day,
        ),
        ("|".join(_NIGHTS), _night),
        (
            r"(?P<which>上上|上|这|這|本|下)[个個]?(?:周|週|星期|礼拜|禮拜)"
            r"(?P<japanese>)(?P<weekday>[一二三四五六日天末])?",
            _week,
        ),
        (
            r"(?P<which>先々|先|今|来)週(?:の?(?P<weekday>(?P<japanese>[月火水木金土日])曜日?))?",
            _week,
        ),
        (r"(?P<which>上上|上|这|這|本|下|先々|先|今|来)[个個]?月" + _THIRD, _month),
        (r"(?<![每毎])(?<!毎週)(?P<weekday>[月火水木金土日])曜日?", _japanese_week),
        (
            r"(?<![每毎个個两兩几幾数數0-9一二三四五六七八九十])(?:周|週|星期|礼拜|禮拜)"
            r"(?P<weekday>[一二三四五六日天])",
            _weekday,
        ),
    )
]
