"""Which texts are taken, and how they are cut and quoted."""

import hashlib
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcp_memory.values.errors import InvalidInput, OverLimit
from mcp_memory.values.text import (
    MAX_NAME_CHARS,
    MAX_QUERY_CHARS,
    MAX_TAG_CHARS,
    MAX_TAGS,
    check_characters,
    check_label,
    check_name,
    check_query,
    check_tags,
    check_text,
    content_hash,
    escape,
    sentences,
    shorten,
)

any_text = st.text(st.characters(), max_size=60)
"""Lone surrogates and NUL too."""

COMPOSED = "caf\u00e9"
DECOMPOSED = "cafe\u0301"


@pytest.mark.parametrize("check", [check_text, check_characters, check_name])
def test_a_nul_or_half_of_a_surrogate_pair_is_refused_by_field(check):
    for bad in ("a\x00b", "a\ud800b", "\udfff"):
        with pytest.raises(InvalidInput) as fault:
            check(bad, "content")
        assert fault.value.field == "content"
        assert not isinstance(fault.value, OverLimit)


@pytest.mark.parametrize("empty", ["", " ", "\n\t", "\u3000\u2003"])
def test_a_text_of_blanks_is_empty(empty):
    with pytest.raises(InvalidInput) as fault:
        check_text(empty, "content")
    assert fault.value.field == "content"
    with pytest.raises(InvalidInput):
        check_name(empty, "conversation")
    with pytest.raises(InvalidInput):
        check_query(empty)
    assert check_characters(empty, "new_content") == empty


def test_a_text_is_measured_in_bytes_of_utf_8():
    assert check_text("猫" * 4, "content", max_bytes=12) == "猫" * 4
    with pytest.raises(OverLimit) as fault:
        check_text("猫" * 5, "content", max_bytes=12)
    assert (fault.value.used, fault.value.limit, fault.value.unit) == (15, 12, "bytes")
    assert fault.value.field == "content"


@given(any_text)
def test_what_is_taken_can_be_encoded_and_is_given_back_unchanged(text):
    try:
        taken = check_text(text, "content")
    except InvalidInput:
        assert not text.strip() or "\x00" in text or not is_unicode(text)
    else:
        assert taken == text
        assert is_unicode(text)


def is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def test_no_query_is_a_listing_and_a_query_loses_its_outer_blanks():
    assert check_query(None) is None
    assert check_query("  green tea\n") == "green tea"


def test_a_query_that_is_too_long_says_by_how_much():
    assert check_query("a" * MAX_QUERY_CHARS) == "a" * MAX_QUERY_CHARS
    with pytest.raises(OverLimit) as fault:
        check_query("a" * (MAX_QUERY_CHARS + 7))
    assert fault.value.used - fault.value.limit == 7
    assert (fault.value.unit, fault.value.field) == ("characters", "query")


@pytest.mark.parametrize(
    "bad", ["two\nlines", "bell\x07", "\x1b[31mred", "sep\u2028arated", "\x85a"]
)
def test_a_name_is_one_line_without_control_characters(bad):
    with pytest.raises(InvalidInput) as fault:
        check_name(bad, "conversation")
    assert fault.value.field == "conversation"


def test_a_name_that_is_too_long_says_by_how_much():
    assert check_name(" 项目 / plan: №1 ", "conversation") == "项目 / plan: №1"
    with pytest.raises(OverLimit) as fault:
        check_name("a" * (MAX_NAME_CHARS + 1), "conversation")
    assert (fault.value.used, fault.value.limit) == (MAX_NAME_CHARS + 1, MAX_NAME_CHARS)


@pytest.mark.parametrize("label", ["human", "persona_2", "work.notes", "to-do", "人物", "a" * 64])
def test_a_label_is_letters_digits_and_few_marks(label):
    assert check_label(label) == label


@pytest.mark.parametrize(
    "label",
    [
        "",
        "a/b",
        "/",
        "../human",
        "a b",
        "human\n",
        "-x",
        ".x",
        "a" * 65,
        "a\x00",
        "\ud800",
        "<b>",
        'x"y',
        "a" * 2_000,
        "a%2Fb",
    ],
)
def test_a_label_that_could_not_stand_in_an_address_is_refused(label):
    with pytest.raises(InvalidInput) as fault:
        check_label(label)
    assert fault.value.field == "label"


def test_tags_are_stripped_and_kept_once_in_their_order():
    assert check_tags([" work", "tea", "work ", "Tea"]) == ("work", "tea", "Tea")
    assert check_tags(()) == ()


@pytest.mark.parametrize(
    "tags",
    [
        "work",
        None,
        7,
        {"work": 1},
        {"work"},
        [1],
        [None],
        ["ok", b"bytes"],
        [["nested"]],
        [""],
        ["  "],
        ["a" * (MAX_TAG_CHARS + 1)],
        ["a\x00b"],
        ["\ud800"],
    ],
    ids=repr,
)
def test_tags_that_are_no_short_strings_are_refused(tags):
    with pytest.raises(InvalidInput) as fault:
        check_tags(tags)
    assert fault.value.field == "tags"


def test_too_many_tags_are_refused_by_number():
    assert len(check_tags([str(number) for number in range(MAX_TAGS)])) == MAX_TAGS
    with pytest.raises(OverLimit) as fault:
        check_tags([str(number) for number in range(MAX_TAGS + 2)])
    assert (fault.value.used, fault.value.limit, fault.value.unit) == (34, MAX_TAGS, "tags")


def test_a_text_is_the_same_in_composed_and_decomposed_form():
    assert COMPOSED != DECOMPOSED
    assert content_hash(COMPOSED) == content_hash(f"\n {DECOMPOSED} ")
    assert content_hash(COMPOSED) == hashlib.sha256(COMPOSED.encode()).hexdigest()


@pytest.mark.parametrize("other", ["cafe", "Caf\u00e9", "caf\u00e9.", "ca f\u00e9"])
def test_texts_that_differ_inside_are_not_the_same(other):
    assert content_hash(COMPOSED) != content_hash(other)


@given(st.text(), st.text())
def test_two_texts_share_a_hash_only_if_they_are_the_same_without_outer_blanks(one, two):
    same = unicodedata.normalize("NFC", one.strip()) == unicodedata.normalize("NFC", two.strip())
    assert (content_hash(one) == content_hash(two)) is same


@given(st.text(), st.integers(1, 30))
@example("a" * 31, 30)
@example("  two \n words ", 30)
def test_what_is_shortened_is_one_line_that_fits_and_shows_its_cut(text, max_chars):
    short = shorten(text, max_chars)
    assert len(short) <= max_chars
    assert "\n" not in short
    line = " ".join(text.split())
    assert short == line or (short.endswith("…") and line.startswith(short[:-1]))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("I live in Bonn. I like tea!  Really?", ["I live in Bonn.", "I like tea!", "Really?"]),
        ("one\n\ntwo\nthree", ["one", "two", "three"]),
        ("我住在上海。我喜欢咖啡。", ["我住在上海。", "我喜欢咖啡。"]),
        ("真的吗？太好了！谢谢。", ["真的吗？", "太好了！", "谢谢。"]),
        (
            "See https://example.org/search?q=tea&n=1 for it.",
            ["See https://example.org/search?q=tea&n=1 for it."],
        ),
        (
            "Pi is 3.14, version 2.0.1 of main.py is out. Yes.",
            ["Pi is 3.14, version 2.0.1 of main.py is out.", "Yes."],
        ),
        ("if (a != b) return !c;", ["if (a != b) return !c;"]),
        (" \n ", []),
    ],
)
def test_a_text_is_cut_where_its_sentences_end(text, parts):
    assert sentences(text) == parts


@given(st.text())
def test_cutting_into_sentences_loses_nothing_but_blanks(text):
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


@given(st.text())
def test_an_escaped_text_can_break_out_of_no_tag_and_no_attribute(text):
    escaped = escape(text)
    assert not set(escaped) & set('<>"')
    restored = (escaped.replace("&quot;", '"').replace("&gt;", ">").replace("&lt;", "<")).replace(
        "&amp;", "&"
    )
    assert restored == text
