"""Turn text into terms, the same way for stored texts and for queries.

Words are folded and stemmed. Runs of Chinese, Japanese, Korean, Thai and similar
scripts become character bigrams. Identifiers, paths, codes and addresses can be
found whole and by their parts. The time is linear in the length of any text.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from typing import Final

from mcp_memory.search.language.languages import ENGLISH, FUNCTION_WORDS, language_of, stem

_HAN: Final = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_NO_SPACES: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # Hiragana, Katakana
    "\u1100-\u11ff\uac00-\ud7af"  # Hangul
) + _HAN
_HAN_CHARACTER: Final = re.compile(f"[{_HAN}]")
_SCRIPT_RUN: Final = re.compile(f"[{_NO_SPACES}]+")
# Accents and vowel signs, which belong to the letter before them; Python's \w excludes them.
_MARKS: Final = "".join(
    chr(code) for code in range(0x300, 0x2000) if unicodedata.category(chr(code))[0] == "M"
)
# Not possessive: Python 3.11.2 matches possessive groups too short. Repetitions of other groups
# use memory until the match ends, so their number is limited, by judgement.
_MOST: Final = "{0,1000}"
_WORD: Final = rf"[^\W_]+(?:[{_MARKS}]+[^\W_]*){_MOST}"
_PART: Final = re.compile(_WORD)
_URL_CHARS: Final = r"A-Za-z0-9\-._~:/?#@!$&*+,;=%"


def _chunks(word: str) -> re.Pattern[str]:
    """Return a pattern for the chunks of a text: words with everything joined to them."""
    return re.compile(
        rf"https?://[{_URL_CHARS}]*[A-Za-z0-9/]"
        rf"|[#@]?{word}"
        rf"(?:(?:['’]|[-_./:@#\\+&=]+|(?<=[0-9]),(?=[0-9]{{3}}(?![0-9]))){word}){_MOST}"
        r"(?:\+\+|\#(?!\w))?"
    )


_CHUNK: Final = _chunks(_WORD)
# The same for ASCII texts, in half the time.
_PLAIN_CHUNK: Final = _chunks("[A-Za-z0-9]+")

_POSSESSIVE: Final = re.compile(r"['’](?:s|re|ve|ll|d|m|t)$")
_APOSTROPHE: Final = re.compile("['’]")
_COMPOUND: Final = re.compile(r"[^\W\d_]{1,20}-[^\W\d_]{1,20}")
_GROUPED: Final = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_LINE: Final = re.compile(r"(?::[0-9]+){1,2}$")
_SCHEME: Final = re.compile(r"^https?:/+(?:www\.)?")
_AFTER_PATH: Final = re.compile(r"[?#].*")
_STEP: Final = re.compile(r"[/\\:@?&=#+,;]+")
_JOINT: Final = re.compile(r"\w[-._]+\w")
_HUMP: Final = re.compile(r"(?<=[a-z])[A-Z]|[A-Z]{2}[a-z]{2}")
_HUMPS: Final = re.compile(r"[A-Z]+(?=[A-Z][a-z]{2})|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_UNIT: Final = re.compile(r"(?:v|([a-z]{2,}))([0-9]+)|([0-9]+)(?:st|nd|rd|th|([a-z]{2,}))")
# Letters that Unicode does not decompose into a plain letter and a mark.
_PLAIN: Final = str.maketrans(
    {
        "ø": "o",
        "æ": "ae",
        "œ": "oe",
        "ł": "l",
        "đ": "d",
        "ð": "d",
        "þ": "th",
        "ħ": "h",
        "ı": "i",
        "ـ": None,
    }
)
_DIGRAPHS: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
# Without them most texts are ASCII; an ellipsis would decompose into dots, which join words.
_TYPOGRAPHY: Final = (("’", "'"), ("“", " "), ("”", " "), ("—", " "), ("–", " "), ("…", " "))
_DIGRAPH: Final = re.compile("[äöüøå]")

_MAX_TERM_CHARS: Final = 128
"""Longer terms are cut and get a hash; by judgement."""

_CUT_CHARS: Final = 64
"""How much of it is left; by judgement."""

_CACHED_CHARS: Final = 64
_CACHED_CHUNKS: Final = 32_768
"""The cache has up to 32,768 chunks of up to 64 characters, a few megabytes; by judgement."""

STOP_WORDS: Final = FUNCTION_WORDS[ENGLISH]
"""Words that say nothing about a text; they count in a query that has no others."""

# Characters that build a Chinese sentence and say nothing about its subject.
STOP_CHARACTERS: Final = frozenset(
    "的了吗嗎呢吧啊是我你您他她它们們在和与與或都也就还還很不没沒有这這那个個什么麼怎哪谁誰几幾多少叫时時候会會"
    "要把被给給对對从從到说說过過"
)

_HALF_STOP_WEIGHT: Final = 0.5
"""What a pair with one of these characters counts, half: by judgement."""


class _Terms(dict[str, tuple[str, ...]]):
    """A cache of the terms of chunks: most words of a text have occurred before."""

    def __init__(self, language: str) -> None:
        super().__init__()
        self._language = language

    def __missing__(self, chunk: str) -> tuple[str, ...]:
        found = tuple(_chunk_terms(chunk, self._language))
        if len(chunk) <= _CACHED_CHARS:
            # Cleared all at once: tracking the order of use costs more than starting over.
            if len(self) >= _CACHED_CHUNKS:
                self.clear()
            self[chunk] = found
        return found


_terms = {language: _Terms(language) for language in FUNCTION_WORDS}


def terms(text: str) -> list[str]:
    """Return the terms of a stored text, in order, with repetitions."""
    chunks, language = _read(text)
    return list(chain.from_iterable(map(_terms[language].__getitem__, chunks)))


def query_terms(text: str) -> list[str]:
    """Return the terms of a query, each once, without stop words and characters of bigrams."""
    chunks, language = _read(text)
    found = dict.fromkeys(chain.from_iterable(map(_terms[language].__getitem__, chunks)))
    stop_terms = _stop_terms(language)
    meaningful = [term for term in found if term not in stop_terms and not _says_nothing(term)]
    bigrams = {char for term in found if _is_bigram(term) for char in term}
    alone = _standing_alone(text)
    chosen = [term for term in meaningful if term not in bigrams or term in alone]
    return chosen or list(found)


def query_weights(text: str) -> dict[str, float]:
    """Return the terms of a query with their weights, which multiply their idf.

    Chinese characters are terms besides their pairs, since 影片 can mean 电影, unless
    they only build the sentence. A pair with such a character counts half.
    """
    weights: dict[str, float] = {}
    for term in query_terms(text):
        pair = _is_bigram(term)
        half_stop = pair and not STOP_CHARACTERS.isdisjoint(term)
        weights[term] = _HALF_STOP_WEIGHT if half_stop else 1.0
        if pair:
            weights.update(dict.fromkeys(filter(_has_meaning, term), 1.0))
    return weights


def matches(text: str, wanted: frozenset[str]) -> list[tuple[int, int]]:
    """Return where a text has the wanted terms: ranges of characters, in order."""
    found: list[tuple[int, int]] = []
    chunks = list(_CHUNK.finditer(text))
    language = language_of((chunk[0] for chunk in chunks), plain=text.isascii())
    known = _terms[language]
    for chunk in chunks:
        if wanted.isdisjoint(known[chunk[0]]):
            continue
        if not wanted.isdisjoint(_wholes(_fold(chunk[0]))):
            found.append(chunk.span())
            continue
        for part in _PART.finditer(text, *chunk.span()):
            if not wanted.isdisjoint(known[part[0]]):
                found.extend(_part_matches(part[0], part.start(), wanted))
    return found


def plain_letters(text: str) -> str:
    """Return a text in lower case and without accents, so that spellings compare equal."""
    folded = _fold(text)
    return folded if folded.isascii() else _without_marks(folded)


def _read(text: str) -> tuple[list[str], str]:
    """Return the chunks of a text, and its language by guess."""
    if not text.isascii():
        for mark, plain_mark in _TYPOGRAPHY:
            text = text.replace(mark, plain_mark)
    if text.isascii():
        chunks = _PLAIN_CHUNK.findall(text)
        return chunks, language_of(chunks, plain=True)
    chunks = _CHUNK.findall(unicodedata.normalize("NFKC", text))
    return chunks, language_of(chunks)


@cache
def _stop_terms(language: str) -> frozenset[str]:
    words = STOP_WORDS | FUNCTION_WORDS[language]
    return words.union(chain.from_iterable(map(_terms[language].__getitem__, words)))


def _is_bigram(term: str) -> bool:
    return len(term) == 2 and not term.isascii() and _SCRIPT_RUN.fullmatch(term) is not None


def _has_meaning(char: str) -> bool:
    return char not in STOP_CHARACTERS and _HAN_CHARACTER.match(char) is not None


def _says_nothing(term: str) -> bool:
    return len(term) <= 2 and STOP_CHARACTERS.issuperset(term)


def _standing_alone(text: str) -> set[str]:
    """Return the characters that are words of their own, between characters of the sentence.

    No bigram with them can be expected in a text that has the word.
    """
    if text.isascii():
        return set()
    found: set[str] = set()
    for run in _SCRIPT_RUN.findall(_fold(text)):
        stop = [True, *(char in STOP_CHARACTERS for char in run), True]
        found.update(
            char
            for at, char in enumerate(run, start=1)
            if not stop[at] and stop[at - 1] and stop[at + 1]
        )
    return found


def _part_matches(part: str, offset: int, wanted: frozenset[str]) -> Iterator[tuple[int, int]]:
    runs = list(_SCRIPT_RUN.finditer(part))
    if not runs:
        yield offset, offset + len(part)
    for run in runs:
        folded = _fold(run[0])
        if len(folded) != len(run[0]):
            folded = run[0]  # Rare. The positions would not fit the text.
        for at in range(len(folded)):
            for width in (2, 1):
                if folded[at : at + width] in wanted:
                    start = offset + run.start() + at
                    yield start, min(start + width, offset + run.end())
                    break


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _without_marks(folded: str) -> str:
    letters = unicodedata.normalize("NFD", folded.translate(_PLAIN))
    return unicodedata.normalize(
        "NFC", "".join(char for char in letters if not unicodedata.combining(char))
    )


def _chunk_terms(chunk: str, language: str) -> Iterator[str]:
    yield from _wholes(_fold(chunk))
    bare = _POSSESSIVE.sub("", chunk)
    for part in _PART.findall(bare if bare.isascii() else unicodedata.normalize("NFKC", bare)):
        if not part.isascii() and _SCRIPT_RUN.search(part):
            yield from _mixed(_fold(part), language)
            continue
        yield from _word(_fold(part), language)
        if part.isascii() and len(part) <= _MAX_TERM_CHARS and _HUMP.search(part):
            for hump in _HUMPS.findall(part):
                if len(hump) > 1:
                    yield from _word(hump.lower(), language)


def _wholes(folded: str) -> Iterable[str]:
    """Return a chunk of several parts as terms: itself and its larger pieces."""
    if folded.isalnum() or _PART.fullmatch(folded):
        return ()
    if _SCRIPT_RUN.search(folded) or _APOSTROPHE.search(folded):
        return ()
    if _GROUPED.fullmatch(folded):
        return (folded.replace(",", ""),)
    if _COMPOUND.fullmatch(folded):
        # E-mail is email.
        return _word(folded.replace("-", ""), ENGLISH)
    if len(folded) > _MAX_TERM_CHARS and not folded.startswith("http"):
        return (_short(folded),)
    whole = _SCHEME.sub("", folded).rstrip("/")
    pieces = dict.fromkeys((whole, _LINE.sub("", whole)))
    if whole != folded:
        pieces[_AFTER_PATH.sub("", whole).rstrip("/")] = None
    if whole.startswith("v") and whole[1:2].isdigit():
        pieces[whole[1:]] = None
    pieces.update((step, None) for step in _STEP.split(whole) if _JOINT.search(step))
    return [_short(piece) for piece in pieces if not piece.isalnum()]


def _mixed(part: str, language: str) -> Iterator[str]:
    """Return the terms of a word that has characters of a script without spaces."""
    position = 0
    for run in _SCRIPT_RUN.finditer(part):
        if run.start() > position:
            yield from _word(part[position : run.start()], language)
        # Single characters are terms besides the bigrams: a word may be one character long.
        yield from run[0]
        yield from (run[0][at : at + 2] for at in range(len(run[0]) - 1))
        position = run.end()
    if position < len(part):
        yield from _word(part[position:], language)


def _word(word: str, language: str) -> Iterable[str]:
    """Return the stems of a folded word, in English and in its own language.

    The English one is always included, so that a text is found even if its language
    was guessed wrong or differs from that of the query.
    """
    if len(word) > _MAX_TERM_CHARS:
        return (_short(word),)
    plain = word if word.isascii() else _without_marks(word)
    if not plain:
        return ()
    if not plain.isascii():
        return (_without_marks(stem(word, ENGLISH)) or plain,)
    if not plain.isalpha():
        unit = _UNIT.fullmatch(plain)
        pieces = [piece for piece in unit.groups() if piece] if unit else []
        return (plain, *(stem(piece, ENGLISH) for piece in pieces))
    found = {stem(plain, ENGLISH): None}
    if language != ENGLISH:
        found[_without_marks(stem(word, language))] = None
    if not word.isascii() and _DIGRAPH.search(word):
        found[stem(_without_marks(word.translate(_DIGRAPHS)), ENGLISH)] = None
    return found


def _short(term: str) -> str:
    """Return a term, if it is too long cut and made unique by a hash."""
    if len(term) <= _MAX_TERM_CHARS:
        return term
    digest = hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{term[:_CUT_CHARS]}…{digest}"
