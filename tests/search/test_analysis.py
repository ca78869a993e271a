"""Text to terms: what is stored and what is asked meet in the same terms."""

import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mcp_memory.search.language.analysis import (
    STOP_WORDS,
    matches,
    query_terms,
    query_weights,
    terms,
)
from mcp_memory.search.language.languages import language_of

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
        ("dogs", "the dogs' bowl"),
        ("email", "an e-mail"),
        ("Mueller", "Herr Müller"),
        ("Muller", "Herr Müller"),
        ("Angstrom", "Ångström"),
        ("Lodz", "Łódź"),
        ("1000000", "1,000,000 people"),
        ("wait", "wait…what"),
    ],
)
def test_a_word_is_found_in_its_other_forms(query, text):
    assert finds(query, text)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("Katze", "Die Katzen schlafen auf dem Sofa und wir nicht"),
        ("Wo ist das Haus?", "Wir haben zwei Häuser in der Stadt"),
        ("Katzen", "Katzen"),
        ("où est le cheval", "les chevaux sont dans le pré"),
        ("con quién hablaba", "ella habló con su hermana"),
        ("var är katten", "jag har två katter"),
        ("кошка", "мы говорили о кошках"),
        ("γάτα", "δύο γάτες στον κήπο"),
        ("الكتاب", "هذا كتاب جديد"),
        ("log-in", "the logins of today"),
        ("Müller", "Frau Mueller hat angerufen"),
        ("Ørsted", "Orsted"),
    ],
)
def test_a_word_is_found_in_the_forms_and_spellings_of_its_own_language(query, text):
    assert set(query_terms(query)) & set(terms(text))


def test_a_guess_of_the_language_takes_nothing_away():
    plain = set(terms("Katzen machen Arbeit"))
    assert plain <= set(terms("Die Katzen machen uns nicht viel Arbeit"))


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where is the teapot?", "english"),
        ("teapot", "english"),
        ("", "english"),
        ("I met Maria de la Cruz in El Paso", "english"),
        ("Take care! Bye!", "english"),
        ("Wann haben wir darüber gesprochen?", "german"),
        ("Häuser", "german"),
        ("où est le chat", "french"),
        ("dónde está la casa de Ana", "spanish"),
        ("quando è il volo per la città", "italian"),
        ("waar is het huis van mijn zus", "dutch"),
        ("onde está o meu livro", "portuguese"),
    ],
)
def test_a_language_is_recognized_by_its_function_words(text, language):
    assert language_of(text.split()) == language


@pytest.mark.slow
def test_a_word_has_the_same_terms_in_every_process():
    texts = ["het och katten", "avec och hundar", "quando och pratar", "warum het katten"]
    program = (
        "import sys; from mcp_memory.search.language.analysis import terms;"
        "print([terms(text) for text in sys.argv[1:]])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program, *texts],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


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
        ("ភាសាខ្មែរ", "ខ្ញុំរៀនភាសាខ្មែរ"),
        ("ພາສາລາວ", "ຂ້ອຍຮຽນພາສາລາວ"),
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


def test_a_character_among_those_that_build_the_sentence_is_a_word():
    assert "猫" in query_terms("我的猫在哪")
    assert set(query_terms("猫是什么")) & set(terms("猫很可爱"))


def test_what_only_builds_a_chinese_sentence_is_left_out_of_a_query():
    assert query_terms("我们什么时候去上海") == ["候去", "去上", "上海"]
    assert query_terms("什么时候") != []


def test_of_a_chinese_query_characters_count_beside_their_pairs():
    assert query_weights("喝咖啡") == {"喝咖": 1, "喝": 1, "咖": 1, "咖啡": 1, "啡": 1}


def test_a_pair_with_a_character_that_only_builds_the_sentence_counts_half():
    assert query_weights("我的猫") == {"的猫": 0.5, "猫": 1}


@pytest.mark.parametrize(
    "query", ["where is the teapot", "コーヒーください", "커피를 마셔요", "กาแฟ"]
)
def test_of_what_is_not_written_in_chinese_characters_all_terms_count_the_same(query):
    assert query_weights(query) == dict.fromkeys(query_terms(query), 1)


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
        ("src/app/main.py", "See src/app/main.py:42:7."),
        ("app", r"in C:\work\app\notes"),
        ("2.3.1", "since v2.3.1"),
        ("ana", "Write to ana@example.com"),
        ("example.com", "Write to ana@example.com"),
        ("1234", "see #1234"),
        ("--no-cache", "run it with --no-cache"),
        ("cache", "run it with --no-cache"),
        ("user name", "getUserName()"),
        ("getUserName", "call getusername"),
        ("user id", "user_id"),
        ("server", "class HTTPServer:"),
        ("https://www.example.com/docs/page", "http://example.com/docs/page?id=3#top"),
        ("page", "https://example.com/docs/page?id=3"),
        ("gpt 4", "GPT4"),
        ("5 km", "a run of 5km"),
        ("7", "on the 7th"),
    ],
)
def test_an_identifier_is_found_whole_and_by_its_parts(query, text):
    found = set(terms(text))
    assert found & set(query_terms(query))
    assert all(part in found for term in query_terms(query) for part in terms(term)[1:])


@pytest.mark.parametrize(
    "identifier",
    [
        UUID,
        "ERR_CONN_4031",
        "src/app/main.py:42",
        "a.b@c.de",
        "v2.3.1",
        "#1234",
        "C++",
        "C#",
        "@ana",
        "192.168.0.1:8080",
        "feature/log-in_2",
        "k8s.io/api@v1",
    ],
)
def test_the_whole_identifier_is_one_term_of_its_own(identifier):
    whole = identifier.lower()
    assert whole in terms(f"({identifier}),")
    assert whole in query_terms(identifier)
    assert whole not in terms(" ".join(re.findall(r"\w", identifier)))


@pytest.mark.parametrize(
    ("identifier", "pieces"),
    [
        ("src/app/main.py:42", {"src/app/main.py", "main.py", "app", "42"}),
        ("ana.lopez@example.com", {"ana.lopez", "example.com", "lopez"}),
        ("https://www.example.com/a_b?c=d", {"example.com/a_b?c=d", "example.com/a_b", "a_b"}),
        ("v2.3.1", {"2.3.1", "v2", "2"}),
        ("getUserName", {"get", "user", "name"}),
    ],
)
def test_the_larger_pieces_of_an_identifier_are_terms_too(identifier, pieces):
    assert pieces <= set(terms(identifier))


def test_two_long_identifiers_that_begin_alike_are_not_the_same():
    one, two = ("https://example.com/" + "a/" * 200 + name for name in ("one", "two"))
    assert terms(one)[0] != terms(two)[0]
    assert terms(one)[0] in query_terms(one)
    assert set(terms("a" * 500 + "b")).isdisjoint(terms("a" * 500 + "c"))


def test_stop_words_are_left_out_of_a_query_unless_there_is_nothing_else():
    assert query_terms("where is the teapot") == ["teapot"]
    assert query_terms("to be or not to be") == ["not"]
    assert query_terms("who are you") == ["who", "are", "you"]
    assert query_terms("What does Ana do?") == ["ana"]
    assert "hab" not in query_terms("Wo haben wir die Katze gesehen?")
    assert set(query_terms("the who")) <= STOP_WORDS


def test_a_stop_word_is_indexed_so_that_such_a_query_finds_it():
    assert finds("who are you", "Who are you?")


@pytest.mark.parametrize("text", ["", " \n", "?!…", "---", "___", "\u200b", "🙂"])
def test_a_text_without_words_has_no_terms(text):
    assert terms(text) == []
    assert query_terms(text) == []


def test_repetitions_count_in_a_text_and_not_in_a_query():
    assert terms("tea tea") == ["tea", "tea"]
    assert query_terms("tea Tea") == ["tea"]


def test_a_giant_word_does_not_make_a_giant_term():
    assert max(len(term) for term in terms("a" * 100_000 + " " + "b-" * 50_000 + "b")) <= 128
    assert finds("a" * 100_000, "a" * 100_000)


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a-",
        "-",
        "a.",
        "a'",
        "aB",
        "@",
        "1,000,",
        "http://a/",
        "我",
        "a\u0301",
        "\u0301",
        "/a",
        "ab1/+",
        "é-",
        "https://",
        "#",
        "a:1",
        "…",
    ],
)
def test_what_is_made_of_a_giant_text_grows_with_it_alone(unit):
    text = unit * (60_000 // len(unit))
    found = terms(text)
    assert len(found) <= 3 * len(text)
    assert sum(map(len, found)) <= 4 * len(text)


def test_what_matches_is_found_where_it_stands():
    text = "Ana's cafés: ERR_CONN_4031, 喝咖啡, getUserName, Häuser in Köln"

    def places(query):
        return [text[start:end] for start, end in matches(text, frozenset(query_terms(query)))]

    assert places("cafe") == ["cafés"]
    assert places("err_conn_4031") == ["ERR_CONN_4031"]
    assert places("conn") == ["CONN"]
    assert places("咖啡") == ["咖啡"]
    assert places("user") == ["getUserName"]
    assert places("koeln") == ["Köln"]
    assert places("ana") == ["Ana"]
    assert places("tea") == []


@given(st.text())
def test_every_text_is_found_by_itself(text):
    assert finds(text, text)


@given(st.text(), st.text())
@example("º", "AAS")
def test_terms_do_not_depend_on_what_stands_after_a_blank(one, two):
    both = f"{one} \n {two}"
    read = [unicodedata.normalize("NFKC", text) for text in (one, two, both)]
    assume({language_of(re.findall(r"\w+", text)) for text in read} == {"english"})
    assert terms(both) == terms(one) + terms(two)


def test_a_stroke_that_only_lengthens_a_word_is_no_term():
    assert terms("ـ") == query_terms("ــ") == []
    assert terms("abـ") == terms("ab")


@given(st.text())
def test_no_term_is_empty_or_has_a_blank(text):
    assert all(term and not any(char.isspace() for char in term) for term in terms(text))


@given(
    st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), min_size=1, max_size=20),
    st.data(),
)
def test_any_part_of_a_chinese_sentence_finds_it(sentence, data):
    start = data.draw(st.integers(0, len(sentence) - 1))
    end = data.draw(st.integers(start + 1, len(sentence)))
    assert finds(sentence[start:end], sentence)
