"""Cutting a passage down: what matches stays, and what is given fits."""

from hypothesis import assume, example, given
from hypothesis import strategies as st

from mcp_memory.search.language.analysis import query_terms, terms
from mcp_memory.search.snippets import snippet


def within(max_chars):
    return lambda text: len(text) <= max_chars


fillers = st.lists(
    st.sampled_from(
        ["alpha", "beta", "gamma.", "delta!", "eta?", "\n", "theta,", "αβγ", "今天天气", "。"]
    ),
    max_size=120,
).map(" ".join)


@given(
    fillers,
    fillers,
    st.sampled_from(["kettle", "ERR_CONN_4031", "咖啡", "Zürich"]),
    st.integers(60, 300),
)
def test_the_word_that_matches_is_never_cut_out(before, after, word, room):
    text = f"{before} {word} {after}"
    short = snippet(text, word, within(room))
    assert word in short
    assert len(short) <= room


@given(st.text(max_size=400), st.text(max_size=10), st.integers(5, 100))
@example(" " * 400, "tea", 20)
@example("", "tea", 20)
@example("000000", "000000", 5)
def test_any_text_is_cut_so_that_it_fits(text, query, room):
    assume(text == "" or text.strip())
    assert len(snippet(text, query, within(room))) <= room


def test_a_passage_of_blanks_alone_is_cut_too():
    assert len(snippet(" \n" * 500, "tea", within(50))) <= 50


@given(fillers, st.integers(40, 100))
def test_what_is_given_was_said(text, room):
    short = snippet(text, "beta", within(room))
    inside = short.removeprefix("… ").removesuffix(" …").split(" … ")
    said, places = "".join(text.split()), []
    for part in inside:
        assert "".join(part.split()) in said
        places.append(said.index("".join(part.split())))
    assert places == sorted(places)


def test_a_text_that_fits_is_given_as_it_is():
    text = "  Two  lines\nand blanks.  "
    assert snippet(text, "lines", within(len(text))) == text


def test_whole_sentences_around_the_match_are_shown_while_they_fit():
    text = "One is here. Two is here. The kettle is red. Four is here. Five is here."
    assert snippet(text, "kettle", within(40)) == "… The kettle is red. Four is here. …"
    assert snippet(text, "kettle", within(30)) == "… The kettle is red. …"


def test_places_that_match_are_joined_where_there_is_room():
    text = "The red kettle is old. " + "Nothing here. " * 10 + "It costs 30 euros. Nothing else."
    assert snippet(text, "red kettle costs", within(60)) == (
        "The red kettle is old. Nothing here. … It costs 30 euros. …"
    )
    assert snippet(text, "red kettle costs", within(50)) == (
        "The red kettle is old. … It costs 30 euros. …"
    )
    assert snippet(text, "red kettle costs", within(30)) == "The red kettle is old. …"


def test_a_place_that_has_nothing_new_gives_way_to_what_stands_around_the_best():
    text = "The kettle hums. It is red. It is old. " + "Nothing here. " * 9 + "The kettle again."
    assert snippet(text, "kettle", within(42)) == "The kettle hums. It is red. It is old. …"


def test_chinese_sentences_are_shown_whole_without_blanks_between_them():
    text = "今天天气很好。" * 9 + "我们喝咖啡！很好喝。" + "然后回家了。" * 9
    assert snippet(text, "咖啡", within(16)) == "… 我们喝咖啡！很好喝。 …"


def test_lines_of_a_text_stay_lines():
    text = "filler\n" * 30 + "  kettle = 1\n  pot = 2\n" + "filler\n" * 30
    assert snippet(text, "kettle", within(25)) == "… kettle = 1\npot = 2 …"


@given(st.integers(0, 400), st.integers(30, 200))
def test_no_word_that_matches_is_cut_at_the_edges(shift, room):
    text = "z" * (shift % 7) + " filler" * (shift % 50) + " teakettle" * 80 + " filler" * 50
    shown = snippet(text, "teakettle", within(room)).replace("…", " ").split()
    assert {word for word in shown if word.startswith("tea") or word.endswith("kettle")} == {
        "teakettle"
    }


@given(st.integers(20, 120))
def test_no_match_in_a_text_without_blanks_is_cut_at_the_edges(room):
    line = "我们今天喝咖啡然后回家" * 30
    shown = snippet(f"{line}咖啡咖啡咖啡咖啡{line}", "咖啡", within(room)).strip("… ")
    assert "咖啡" in shown
    assert not shown.startswith("啡")
    assert not shown.endswith("咖")


def test_what_is_too_long_to_be_added_is_tried_a_few_times_only():
    numbers = [f"number{at}" for at in range(200)]
    asked = []

    def fits(text):
        asked.append(text)
        return len(text) <= 80

    text = " ".join(f"Here is one sentence that is rather long with {each}." for each in numbers)
    snippet(text, " ".join(numbers), fits)
    assert len(asked) <= 20


def test_a_text_of_ten_thousand_sentences_is_tried_as_often_as_a_short_one():
    def tries(count):
        asked = []

        def fits(text):
            asked.append(text)
            return len(text) <= 200

        snippet("The kettle is here now, number seven. " * count, "kettle seven", fits)
        return len(asked)

    assert tries(10_000) == tries(50)


def test_a_giant_sentence_is_tried_in_parts_of_its_size():
    asked = []

    def fits(text):
        asked.append(len(text))
        return len(text) <= 200

    snippet("filler " * 50_000 + "kettle" + " filler" * 50_000, "kettle", fits)
    # The text, its one sentence, and windows that are at most twice as wide as what fits.
    assert sorted(asked)[-3] <= 600
    assert len(asked) <= 40


def test_the_sentence_with_most_of_the_question_is_chosen():
    text = "The kettle hums. " + "Nothing here. " * 10 + "The red kettle costs 30 euros."
    assert "30 euros" in snippet(text, "red kettle costs", within(60))


def test_without_a_match_the_beginning_is_given():
    text = "First sentence. " + "Another one. " * 30
    assert snippet(text, "kettle", within(40)).startswith("First sentence.")
    assert snippet(text, "", within(40)).startswith("First sentence.")


def test_what_was_left_out_is_shown_on_the_side_where_it_was():
    text = "First one. Second one. Third one."
    assert snippet(text, "first", within(20)) == "First one. …"
    assert snippet(text, "third", within(20)) == "… Third one."


@given(st.integers(0, 5_200))
@example(23)
def test_a_word_in_a_chinese_text_without_marks_stays(at):
    text = "今天天气很好我们一起去公园散步吧"[:13] * 400
    text = text[:at] + "咖啡" + text[at:]
    short = snippet(text, "咖啡", within(80))
    assert "咖啡" in short
    assert len(short) <= 80


@given(st.integers(0, 9_980), st.sampled_from([" ", "", ",", "\t"]))
@example(22, "")
@example(9_980, "")
def test_a_word_in_a_sentence_of_ten_thousand_characters_stays(at, blank):
    filler = (f"abcdefg{blank}" * 2_000)[:10_000]
    text = f"{filler[:at]} kettle {filler[at:]}"
    short = snippet(text, "kettle", within(100))
    assert "kettle" in short
    assert len(short) <= 100


@given(st.integers(0, 60))
def test_a_word_among_marks_without_a_single_blank_stays(shift):
    text = "x" * shift + ',"name":"alpha"' * 300 + ',"name":"kettle"' + ',"name":"beta"' * 300
    assert "kettle" in snippet(text, "kettle", within(100))


@given(
    st.integers(0, 60),
    st.sampled_from(["550e8400-e29b-41d4-a716-446655440000", "Donaudampfschifffahrtsgesellschaft"]),
)
def test_a_long_word_in_a_long_sentence_stays(shift, word):
    text = "y" * shift + " filler" * 500 + f" {word}" + " filler" * 500
    assert word in snippet(text, word, within(120))


def test_a_match_at_both_ends_of_a_long_sentence_leaves_one_of_them():
    text = "kettle " + "filler " * 1_500 + "kettle"
    assert "kettle" in snippet(text, "kettle", within(100))


def test_of_two_words_far_apart_in_one_sentence_one_stays():
    text = "kettle " + "filler " * 1_500 + "Shanghai"
    short = snippet(text, "kettle Shanghai", within(100))
    assert set(query_terms("kettle Shanghai")) & set(terms(short))


def test_a_word_that_matches_by_its_stem_stays_in_its_own_form():
    text = "filler " * 1_000 + "allergies " + "filler " * 1_000
    assert "allergies" in snippet(text, "allergy", within(60))
