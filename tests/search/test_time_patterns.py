"""Patterns over word classes, written with names."""

import pytest

from mcp_memory.search.times.patterns import TIME_SYMBOL, classes, encode, pattern
from mcp_memory.search.times.vocabulary import NAMING_WORDS, WORDS, Word, WordClass


def test_a_pattern_finds_classes_by_their_names():
    found = pattern("MONTH THE? [NUMBER ORDINAL] (?P<year> YEAR )?").fullmatch(
        encode([WordClass.MONTH, WordClass.THE, WordClass.ORDINAL, WordClass.YEAR])
    )
    assert found is not None
    assert found.span("year") == (3, 4)
    assert pattern("MONTH NUMBER").search(encode([WordClass.MONTH, WordClass.ORDINAL])) is None


def test_a_name_that_is_no_class_is_refused():
    for make in (pattern, classes):
        with pytest.raises(KeyError, match="MONT"):
            make("MONT")


def test_each_class_has_a_symbol_of_its_own():
    symbols = encode(WordClass)
    assert len(set(symbols)) == len(symbols) == len(WordClass)
    assert encode([WordClass.TIME]) == TIME_SYMBOL


@pytest.mark.parametrize(
    ("language", "phrase", "word"),
    [
        ("english", "sept", Word(WordClass.MONTH, (9,))),
        ("english", "day before yesterday", Word(WordClass.DAY, (-2,))),
        ("german", "sonnabend", Word(WordClass.WEEKDAY, (5,))),
        ("french", "douze", Word(WordClass.NUMBER, (12,))),
        ("spanish", "meses", Word(WordClass.UNIT, unit="month")),
    ],
)
def test_words_are_numbered_by_their_order_unless_they_have_values(language, phrase, word):
    assert WORDS[language][phrase] == word


def test_of_a_phrase_its_longest_word_can_name_a_time():
    assert {"yesterday", "tonight", "night"} <= NAMING_WORDS["english"]
    assert "last" not in NAMING_WORDS["english"]
