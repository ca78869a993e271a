"""Text to terms, the same way for what is stored and what is asked.

Words are folded and stemmed, runs of Chinese, Japanese, Korean and Thai become
character bigrams, and identifiers, paths, codes and addresses stay findable
whole as well as by their parts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from py_rust_stemmers import SnowballStemmer

_NO_SPACES: Final = (
    "\u0e00-\u0e7f"  # Thai
    "\u3040-\u30ff\u31f0-\u31ff"  # Hiragana, Katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han
    "\u1100-\u11ff\uac00-\ud7af"  # Hangul
    "\U00020000-\U0003134f"  # Han, extensions
)
_SCRIPT_RUN: Final = re.compile(f"[{_NO_SPACES}]+")
# Marks that belong to the letter before them, which Python's \w leaves out: accents, vowel signs.
_MARKS: Final = "".join(
    chr(code) for code in range(0x300, 0x2000) if unicodedata.category(chr(code))[0] == "M"
)
_WORD: Final = rf"[^\W_](?:[^\W_]|[{_MARKS}])*"
_CONTRACTION: Final = re.compile(r"(?<=\w)['’](?:s|re|ve|ll|d|m|t)\b")
_CHUNK: Final = re.compile(rf"{_WORD}(?:[-_./:@#\\+&=]+{_WORD})*")
_PART: Final = re.compile(_WORD)
_MAX_TERM_CHARS: Final = 128

STOP_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        """
        a an and are as at be been but by can could did do does for from had has have he her hers
        him his how i if in into is it its me my of on or our she so some than that the their them
        then there these they this those to us was we were what when where which who whom why will
        with would you your
        """,
    )
)
"""Words that tell nothing about a text; a query of nothing else keeps them."""

_stemmer = SnowballStemmer("english")


def terms(text: str) -> list[str]:
    """Return the terms of a stored text, in order, with repetitions."""
    found: list[str] = []
    folded = _CONTRACTION.sub("", _fold(text))
    for match in _CHUNK.finditer(folded):
        found.extend(_chunk_terms(match[0]))
    return found


def query_terms(text: str) -> list[str]:
    """Return the terms of a query, each once: no stop words, no single characters of a bigram."""
    found = dict.fromkeys(terms(text))
    telling = [term for term in found if term not in STOP_WORDS]
    bigrams = "".join(term for term in telling if len(term) == 2 and _SCRIPT_RUN.fullmatch(term))
    kept = [term for term in telling if not (len(term) == 1 and term in bigrams)]
    return kept or list(found)


def matches(text: str, wanted: frozenset[str]) -> list[tuple[int, int]]:
    """Return where the wanted terms stand in a text: ranges of characters, in order."""
    found: list[tuple[int, int]] = []
    for match in _CHUNK.finditer(text):
        if _fold(match[0]) in wanted:
            found.append(match.span())
            continue
        for part in _PART.finditer(text, *match.span()):
            found.extend(_part_matches(part[0], part.start(), wanted))
    return found


def _part_matches(part: str, offset: int, wanted: frozenset[str]) -> Iterator[tuple[int, int]]:
    if wanted.intersection(_chunk_terms(_fold(part))):
        runs = list(_SCRIPT_RUN.finditer(part))
        if not runs:
            yield offset, offset + len(part)
        for run in runs:
            for at in range(run.start(), run.end()):
                for width in (2, 1):
                    if _fold(part[at : at + width]) in wanted:
                        yield offset + at, offset + min(at + width, run.end())
                        break


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _chunk_terms(chunk: str) -> list[str]:
    found: list[str] = []
    parts = _PART.findall(chunk)
    if len(parts) > 1 and len(chunk) <= _MAX_TERM_CHARS and not _SCRIPT_RUN.search(chunk):
        found.append(chunk)
    for part in parts:
        position = 0
        for run in _SCRIPT_RUN.finditer(part):
            if run.start() > position:
                found.append(_word(part[position : run.start()]))
            found.extend(_run_terms(run[0]))
            position = run.end()
        if position < len(part):
            found.append(_word(part[position:]))
    return found


def _run_terms(run: str) -> list[str]:
    # Single characters are kept beside the bigrams: a word may be one character long.
    return [*run, *(run[at : at + 2] for at in range(len(run) - 1))]


@lru_cache(maxsize=65_536)
def _word(word: str) -> str:
    if len(word) > _MAX_TERM_CHARS:
        return word[:_MAX_TERM_CHARS]
    if not word.isascii():
        letters = unicodedata.normalize("NFD", word)
        word = "".join(char for char in letters if not unicodedata.combining(char))
        word = unicodedata.normalize("NFC", word)
    return _stemmer.stem_word(word) if word.isascii() and word.isalpha() else word
