"""Salience: how important a sentence is for a summary, judged by its form.

Names, numbers, dates, identifiers, decisions, changed facts, errors and open
questions weigh more; greetings and praise weigh less. It knows words of English,
Chinese and Japanese; in other languages numbers, names and identifiers count.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from mcp_memory.search.language.analysis import STOP_WORDS, terms

_NUMBER: Final = re.compile(r"\d|[〇零一二三四五六七八九十百千万亿]{2,}")
_DATE: Final = re.compile(
    r"\b\d{4}-\d\d|\b\d{1,2}[:/.]\d\d\b|\b(mon|tues|wednes|thurs|fri|satur|sun)day|"
    r"\b(january|february|march|april|june|july|august|september|october|november|december)\b|"
    r"\b(yesterday|tomorrow|tonight|(last|next|this) (week|month|year|spring|summer|fall|winter))\b"
    r"|[0-9一二三四五六七八九十]+[年月日号時时点]|昨|明天|明日|今天|今日|上周|下周|先週|来週|星期|曜日",
    re.IGNORECASE,
)
_IDENTIFIER: Final = re.compile(
    r"[^\W_][_./:@#\\]+[^\W_]|[A-Z0-9]-[A-Z0-9]|[a-z]-[0-9]|\b[A-Z]{2,}\b|\b[A-Z]+[0-9]|"
    r"[a-z][A-Z][a-z]|`[^`]+`|--\w"
)
_NAME: Final = re.compile(r"(?<![.!?。]\s)(?<!^)\b[A-Z][a-z]+|(?<=[\s\"'“(])[A-ZÀ-Þ][à-ÿ]+")
_DECISION: Final = re.compile(
    r"\b(decid|agree|plan|will|going to|gonna|must|should|prefer|favou?rite|allerg|always|never|"
    r"deadline|because|remember|important|promis|my name|i am|i'm|i live|i work|works?|born|"
    r"birthday|married|hired|bought|joined|signed|applied|accepted|passed|won)\w*"
    r"|决定|打算|计划|喜欢|讨厌|不要|不能|必须|应该|记住|记得|住在|生日|因为|所以|过敏|约定|买了|同意"
    r"|決め|決定|予定|好き|嫌い|必ず|ください|覚えて|住んで|誕生日|なぜなら|アレルギー|買った|約束",
    re.IGNORECASE,
)
_CHANGE: Final = re.compile(
    r"\b(chang|mov(ed|ing)|instead|no longer|not any ?more|actually|now|switch|replac|renam|"
    r"correct|update|postpone|cancel|quit|stopp?ed|used to|turns out)\w*"
    r"|改|换成|不再|现在|以后|更正|取消|推迟|搬|其实"
    r"|変更|変わ|代わり|やめ|今は|実は|訂正|延期|中止|引っ越",
    re.IGNORECASE,
)
_TROUBLE: Final = re.compile(
    r"\b(error|exception|fail|crash|traceback|bug|root cause|fix|solv|work(ed)? ?around|timeout|"
    r"timed out|refused|denied|broken|regress|exit (code|status))\w*"
    r"|错误|报错|失败|异常|崩溃|修复|解决|原因|超时"
    r"|エラー|失敗|例外|修正|解決|原因|不具合|障害",
    re.IGNORECASE,
)
_OPEN: Final = re.compile(
    r"\b(to-?do|tbd|open (question|point|issue)|not (yet|clear|sure|decided|known)|unclear|"
    r"undecided|still (need|have to|has to|wait|open|missing)|waiting (for|on)|pending|"
    r"to be (decided|confirmed|clarified)|next steps?|follow[- ]up|remains? to)\w*"
    r"|待定|还没|尚未|不清楚|未定|待办|下一步|等待|等着|确认一下"
    r"|未定|まだ|未解決|保留|次は|確認待ち|検討中|宿題",
    re.IGNORECASE,
)
_SMALL_TALK: Final = re.compile(
    r"(ok(ay)?|thanks?|thank you|great|sure|sounds|nice|cool|got it|hi|hello|hey|good (morning|"
    r"night|evening|luck|to)|you're welcome|haha|wow|congrat\w*|glad|awesome|amazing|bye|"
    r"that's (so |really |very )?(great|nice|cool|sweet|awesome|amazing|wonderful)|"
    r"(i )?(totally |completely )?agree|can't wait|take care|no (worries|problem))\b"
    r"|好的|谢谢|哈哈|你好|没关系|不客气|太好了|真棒|加油|再见"
    r"|ありがとう|こんにちは|おはよう|いいね|すごい|なるほど|はい|了解です|お疲れ",
    re.IGNORECASE,
)
_CODE: Final = re.compile(
    r"^(import|from \S+ import|def|class|return|self\.|#include|const|let|var|public|private|func|"
    r"else|try|end|export|async|await|\W+$)\b|[{};,:\\=]$|\w\([^)]*\)?[;:]?$"
)
_LEAD: Final = re.compile(
    r"(?:(?:wow|oh|yeah|yes|yep|yup|nah|well|hey|hi|hello|haha|aww+|okay|ok|sure|thanks|"
    r"thank you|thx|no worries|no problem|absolutely|definitely|totally|right|so|by the way|btw|"
    r"congrats|great|nice|cool)(?: [A-Z]\w+)?[,!]\s+"
    r"|(?:嗯|哦|啊|好的|是的|对|那|えっと|はい|うん)[,，、!！]\s*)+",
    re.IGNORECASE,
)

VAGUE: Final = frozenset(
    terms(
        """
        thing things stuff way lot lots bit kind sort one two time times good great nice amazing
        awesome cool wonderful lovely beautiful fun happy glad best better new big super sweet
        special real true totally definitely absolutely exactly maybe make making made take taking
        took taken come coming came go going gone went know knowing knew think thinking thought
        see seeing saw seen look looking want wanted need needed feel feeling felt say saying said
        tell told talk talking talked sound sounds try trying tried start started keep keeping
        kept give giving gave find finding found put let use used help helping show showed
        something anything everything nothing someone anyone everyone people always never ever
        still even back well around along away together though since lately recently day days
        today here there hope wish love loved guess right hard easy able happen happened wait
        call called ask asked enjoy excited proud pretty quite mean means might may shall soon
        already another many every else hear heard remind important inspiring appreciate cheer
        man dude buddy guys please sorry bye luck care pic fam
        """
    )
)
"""Content words that name nothing: they say little about a text."""

_FILLERS: Final = """
    about after again all also am any because before being both cannot cant doesnt dont down during
    each few further gonna gotta here herself himself id ill im isnt itself ive just kinda like more
    most much myself no nor not now off once only other ourselves out over own s same should such t
    thats through too under until up very wanna wasnt whats while wont yet youre yourself oh hey hi
    hello wow yeah yes yep ok okay aww thank thanks thx really got get getting would sure haha lol
"""
_EMPTY: Final = frozenset(terms(" ".join(STOP_WORDS))) | STOP_WORDS | frozenset(terms(_FILLERS))
_CJK_EMPTY: Final = frozenset(
    "的了是在我你他她它们这那有和就不都也很到说要会着没看好上下吗呢吧啊个一么过得地与及而被把给对于从以为之其"
)


@lru_cache(maxsize=8_192)
def content_terms(text: str) -> frozenset[str]:
    """Return the terms of a text without function words and fillers."""
    return frozenset(
        term for term in terms(text) if term not in _EMPTY and not _CJK_EMPTY.issuperset(term)
    )


def without_lead(sentence: str) -> str:
    """Return a sentence without its leading interjections and greetings."""
    match = _LEAD.match(sentence)
    return sentence[match.end() :] if match and match.end() < len(sentence) else sentence


def is_hard(text: str) -> bool:
    """Return whether a text has a number or an identifier, which can't be guessed."""
    return bool(_NUMBER.search(text) or _IDENTIFIER.search(text))


def is_small_talk(sentence: str) -> bool:
    """Return whether a sentence begins with a greeting, thanks, praise or agreement."""
    return bool(_SMALL_TALK.match(sentence))


def is_code(line: str) -> bool:
    """Return whether a line looks like program code and names no error."""
    return bool(_CODE.search(line)) and not _TROUBLE.search(line)


def weight(sentence: str) -> float:
    """Return how important a sentence is, about 0.3 to 3; the weights are by judgement."""
    worth = 1.0
    worth += 0.3 * bool(_NUMBER.search(sentence))
    worth += 0.3 * bool(_DATE.search(sentence))
    worth += 0.5 * bool(_IDENTIFIER.search(sentence))
    worth += 0.3 * bool(_NAME.search(sentence))
    worth += 0.5 * bool(_DECISION.search(sentence))
    worth += 0.4 * bool(_CHANGE.search(sentence))
    worth += 0.4 * bool(_TROUBLE.search(sentence))
    opened = bool(_OPEN.search(sentence))
    worth += 0.6 * opened
    if not opened and sentence.rstrip().endswith(("?", "？")):
        # The answer that follows most questions is worth more.
        worth -= 0.3
    if is_small_talk(sentence):
        worth *= 0.4
    return worth
