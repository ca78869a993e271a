"""Names in a query: which speakers it names, and which words are written as names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from mcp_memory.search.language.analysis import STOP_WORDS, plain_letters, query_terms

_NAME_PART: Final = re.compile(r"[^\W_]+")
_SENTENCE_START: Final = re.compile(r"(?:^|[.!?…:]\s)[\s\"'“‘(¿¡]*$")
_POSSESSIVE: Final = re.compile(r"['’]s?(?!\w)")
_EASTERN_NAME: Final = re.compile("[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]+")
_FAMILY_AND_GIVEN: Final = 3
"""Characters of the usual Chinese name: one for the family, two for the given name."""

_PARTICLES: Final = frozenset(
    re.findall(r"\w+", "al bin da de del der di dr dos du el la le mr mrs ms prof van von")
)
_ALSO_WORDS: Final = STOP_WORDS | frozenset(
    re.findall(
        r"\w+",
        """
    ace april art ash august autumn basil baker berry bill bishop buck carol chance chase chip
    chuck cole cook dash dawn drew faith forest frank gene glen grace grant gray green guy heath
    hope iris ivy jewel joy june justice king lance liberty lily major mark max may mercy miles
    norm olive page pat pearl penny pink price prudence ray reed rich rob rose ruby rusty sandy
    skip sky sonny star stone storm sue summer tiger trip trinity troy van violet will wolf wood
    young assistant bot human system tool user
    """,
    )
)
"""Names that are also words: only a capital letter inside a sentence tells them apart."""


def speakers_named(query: str, speakers: Iterable[str]) -> set[str]:
    """Return the speakers that a query names, by the whole name or a part of it.

    Case doesn't matter, unless the name is also a word ("will", "mark"). "Ana Lopez"
    means Ana Lopez alone, not Ana Perez, who shares a part of the name.

    Args:
        query: What is searched for.
        speakers: Names as they were recorded: "Caroline", "Ana Lopez", "王小明".

    Returns:
        Names from `speakers`, as written there.
    """
    words = [(match, plain_letters(match[0])) for match in _NAME_PART.finditer(query)]
    # "Carolines dog": the German way, and a common typo in English.
    words += [(match, word[:-1]) for match, word in words if len(word) > 4 and word[-1] == "s"]
    known = {word for _, word in words}
    parts_named: dict[str, frozenset[str]] = {}
    for speaker in speakers:
        parts = [plain_letters(part) for part in _NAME_PART.findall(speaker)]
        if _EASTERN_NAME.search(speaker):
            named = _named_inside(plain_letters(query), plain_letters(speaker))
        elif known.isdisjoint(parts):
            continue
        else:
            named = _named_parts(query, words, parts)
        if named:
            parts_named[speaker] = frozenset(named)
    return {
        speaker
        for speaker, named in parts_named.items()
        if not any(named < other for other in parts_named.values())
    }


def named_terms(query: str) -> frozenset[str]:
    """Return the terms of the words that are written as names."""
    if query.islower():
        return frozenset()
    words = [match[0] for match in _NAME_PART.finditer(query) if _is_name(query, match)]
    return frozenset(term for word in words for term in query_terms(word))


def _named_parts(
    query: str, words: Sequence[tuple[re.Match[str], str]], parts: Sequence[str]
) -> set[str]:
    folded = [word for _, word in words]
    whole = len(parts) > 1 and any(
        folded[at : at + len(parts)] == list(parts) for at in range(len(folded))
    )
    if whole:
        return set(parts)
    return {
        word
        for match, word in words
        if word in parts
        and word not in _PARTICLES
        and (len(word) > 1 or len(parts) == 1)
        and (word not in _ALSO_WORDS or _is_name(query, match))
    }


def _is_name(query: str, match: re.Match[str]) -> bool:
    """Return whether a word is written as a name: with a capital inside a sentence, or with 's."""
    if not match[0][0].isupper() or query.isupper():
        return False
    if _POSSESSIVE.match(query, match.end()):
        return True
    return _SENTENCE_START.search(query, max(match.start() - 8, 0), match.start()) is None


def _named_inside(query: str, speaker: str) -> set[str]:
    """Return the name, or the given name alone, if a text without spaces contains it."""
    if len(speaker) > 1 and speaker in query:
        return {speaker}
    if len(speaker) == _FAMILY_AND_GIVEN and speaker[1:] in query:
        return {speaker[1:]}
    return {speaker} if speaker == query.strip() else set()
