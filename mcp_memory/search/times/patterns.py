"""Patterns over sequences of word classes, written with the names of the classes.

A pattern is a regular expression whose letters are the names of `WordClass`:
`pattern("MONTH THE? [NUMBER ORDINAL]")` finds "May the 7th". Blanks mean
nothing, brackets hold alternatives, and all other syntax is that of `re`. Names
of groups are lower case.

A sequence of classes is searched as a string with one character a class. Which
character stands for a class is known only here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from mcp_memory.search.times.vocabulary import WordClass

_CLASS_NAME: Final = re.compile("[A-Z_]{2,}")
_BLANKS: Final = re.compile(r"\s+")

# For private use: neither regular expressions nor texts give them a meaning.
_SYMBOLS: Final = {
    word_class: chr(0xE000 + position) for position, word_class in enumerate(WordClass)
}

TIME_SYMBOL: Final = _SYMBOLS[WordClass.TIME]
"""Stands for a time in a text that is searched by character."""


def pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern over word classes.

    Raises:
        KeyError: The text has a name that is not a word class.
    """
    symbols = _CLASS_NAME.sub(lambda match: _SYMBOLS[WordClass[match[0]]], text)
    return re.compile(_BLANKS.sub("", symbols))


def encode(classes: Iterable[WordClass]) -> str:
    """Return a sequence of classes as a string that patterns can search: one character each."""
    return "".join(map(_SYMBOLS.__getitem__, classes))


def classes(names: str) -> frozenset[WordClass]:
    """Return the classes with these names.

    Raises:
        KeyError: A name is not a word class.
    """
    return frozenset(WordClass[name] for name in names.split())
