"""Text to terms: what is stored and what is asked meet in the same terms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_memory.search.analysis import STOP_WORDS, query_terms, terms

UUID = "550e8400-e29b-41d4-a716-446655440000"


def finds(query: str, text: str) -> bool:
    """Return whether every term of the query is one of the text."""
    return set(query_terms(query)) <= set(terms(text))


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("running", "She runs every morning."),
        ("allergies", "An allergy to peanuts"),
        ("decision", "The decisions of Monday"),
        ("Deadline", "the DEADLINE"),
        ("Ana's flight", "flight of Ana"),
        ("Ana’s", "Ana"),
        ("café", "a cafe in Porto"),
        ("cafe", "le cafe\u0301"),
        ("naive", "naïve"),
        ("STRASSE", "straße"),
        ("file", "the ﬁle"),
        ("Ｔｅａ", "tea"),
        ("istanbul", "İstanbul"),
        ("İstanbul", "Istanbul"),
        ("Нева", "река нева"),
        ("किताब", "यह किताब है"),
        ("كتاب", "هذا كِتَاب جديد"),
    ],
)
def test_a_word_is_found_in_its_other_forms(query, text):
    assert finds(query, text)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("universe", "cat"),
        ("tea", "teacher"),
        ("猫", "犬"),
        # Vowel and tone signs are part of a word: "drink" is not "ant", nor "book" its letters.
        ("ดื่ม", "มด"),
        ("किताब", "क त ब"),
    ],
)
def test_other_words_are_not_found(query, text):
    assert not finds(query, text)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("咖啡", "我昨天在上海喝咖啡"),
        ("喝咖啡", "我昨天在上海喝咖啡"),
        ("上海", "我昨天在上海喝咖啡"),
        ("コーヒー", "昨日コーヒーを飲みました"),
        ("飲みました", "昨日コーヒーを飲みました"),
        ("커피", "어제 커피를 마셨다"),
        ("กาแฟ", "เมื่อวานฉันดื่มกาแฟ"),
        ("ดื่มกาแฟ", "เมื่อวานฉันดื่มกาแฟ"),
        ("猫", "我家的猫很可爱"),
        ("猫", "猫"),
        ("iPhone手机", "新的iPhone手机到了"),
        ("𠮷野", "在𠮷野家吃饭"),
    ],
)
def test_a_word_is_found_inside_a_sentence_without_spaces(query, text):
    assert finds(query, text)


@pytest.mark.parametrize(
    ("query", "text"),
    [("啡咖", "我喝咖啡"), ("海喝", "上海人喝茶"), ("커비", "커피를 비싸게")],
)
def test_the_same_characters_in_another_order_are_another_word(query, text):
    assert not finds(query, text)


def test_a_query_of_several_characters_goes_by_its_pairs_alone():
    assert set(query_terms("喝咖啡")) == {"喝咖", "咖啡"}
    assert query_terms("猫") == ["猫"]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (UUID, f"The request {UUID} has failed."),
        ("550e8400", f"id={UUID}"),
        (UUID.upper(), UUID),
        ("ERR_CONN_4031", "It ended with ERR_CONN_4031!"),
        ("4031", "It ended with ERR_CONN_4031!"),
        ("err conn", "It ended with ERR_CONN_4031!"),
        ("src/app/main.py:42", "See src/app/main.py:42."),
        ("main.py", "See src/app/main.py:42."),
        ("a.b@c.de", "Write to <a.b@c.de>, please"),
        ("10.0.0.1", "host 10.0.0.1:5432"),
        ("node.js", "We use Node.js here"),
        ("PR #1234", "Look at PR #1234"),
        (r"C:\Users\ana", r"in C:\Users\ana\notes"),
        ("3.14", "Pi is 3.14"),
        ("2026-11-21", "due 2026-11-21."),
    ],
)
def test_an_identifier_is_found_whole_and_by_its_parts(query, text):
    found = set(terms(text))
    assert found & set(query_terms(query))
    assert all(part in found for term in query_terms(query) for part in terms(term)[1:])


@pytest.mark.parametrize("identifier", [UUID, "ERR_CONN_4031", "src/app/main.py:42", "a.b@c.de"])
def test_the_whole_identifier_is_one_term_of_its_own(identifier):
    whole = identifier.lower()
    assert whole in terms(f"({identifier}),")
    assert whole in query_terms(identifier)
    parts = identifier.replace("@", " ").replace("/", " ").replace("-", " ").replace("_", " ")
    assert whole not in terms(parts)


def test_stop_words_are_left_out_of_a_query_unless_there_is_nothing_else():
    assert query_terms("where is the teapot") == ["teapot"]
    assert query_terms("to be or not to be") == ["not"]
    assert query_terms("who are you") == ["who", "are", "you"]
    assert set(query_terms("the who")) <= STOP_WORDS


def test_a_stop_word_is_indexed_so_that_such_a_query_finds_it():
    assert finds("who are you", "Who are you?")


@pytest.mark.parametrize("text", ["", " \n", "?!…", "---", "___", "\u200b", "🙂"])
def test_a_text_without_words_has_no_terms(text):
    assert terms(text) == []
    assert query_terms(text) == []


def test_repetitions_are_kept_for_the_text_and_dropped_from_the_query():
    assert terms("tea tea") == ["tea", "tea"]
    assert query_terms("tea Tea") == ["tea"]


def test_a_giant_word_does_not_make_a_giant_term():
    assert max(len(term) for term in terms("a" * 100_000 + " " + "b-" * 50_000 + "b")) <= 128
    assert finds("a" * 100_000, "a" * 100_000)


@given(st.text())
def test_every_text_is_found_by_itself(text):
    assert finds(text, text)


@given(st.text(), st.text())
def test_terms_do_not_depend_on_what_stands_after_a_blank(one, two):
    assert terms(f"{one} \n {two}") == terms(one) + terms(two)


@given(st.text())
def test_no_term_is_empty_or_has_a_blank(text):
    assert all(term and not any(char.isspace() for char in term) for term in terms(text))


@given(st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), min_size=1, max_size=20),
       st.data())  # fmt: skip
def test_any_part_of_a_chinese_sentence_finds_it(sentence, data):
    start = data.draw(st.integers(0, len(sentence) - 1))
    end = data.draw(st.integers(start + 1, len(sentence)))
    assert finds(sentence[start:end], sentence)
