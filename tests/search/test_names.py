"""Names in a question: of those who have spoken, and of anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_memory.search.language.names import named_terms, speakers_named

FRIENDS = [
    "Caroline",
    "Ana Lopez",
    "Ana Silva",
    "Will",
    "Mark Twain",
    "May",
    "José",
    "O'Brien",
    "王小明",
    "小红",
    "김민수",
    "john_smith",
    "user",
]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("What did Caroline say about it?", {"Caroline"}),
        ("what is caroline's dog called", {"Caroline"}),
        ("carolines dog", {"Caroline"}),
        ("WHAT DID CAROLINE SAY", {"Caroline"}),
        ("Did Caroline meet José?", {"Caroline", "José"}),
        ("where does jose live", {"José"}),
        ("When did O'Brien call?", {"O'Brien"}),
        ("What does john want?", {"john_smith"}),
        ("对小明说了什么", {"王小明"}),
        ("王小明和小红去哪儿了", {"王小明", "小红"}),
        ("민수가 뭐라고 했어?", {"김민수"}),
        ("What does the carol line say?", set()),
        ("Who said that?", set()),
        ("", set()),
    ],
)
def test_a_name_is_known_in_any_case_and_with_its_endings(query, named):
    assert speakers_named(query, FRIENDS) == named


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("Will it rain?", set()),
        ("What will she do?", set()),
        ("What did Will do?", {"Will"}),
        ("Will's new job", {"Will"}),
        ("It is late. Will he come?", set()),
        ("WILL IT RAIN", set()),
        ("Mark my words", set()),
        ("mark it as read", set()),
        ("What about Mark?", {"Mark Twain"}),
        ("when did mark twain write", {"Mark Twain"}),
        ("May I ask something?", set()),
        ("Did May come?", {"May"}),
        ("what the user wants", set()),
    ],
)
def test_a_name_that_is_a_word_as_well_needs_a_capital_that_its_place_does_not_give(query, named):
    assert speakers_named(query, FRIENDS) == named


def test_a_first_name_means_all_who_have_it_and_a_full_name_the_one():
    assert speakers_named("Where is Ana?", FRIENDS) == {"Ana Lopez", "Ana Silva"}
    assert speakers_named("Where is Ana Silva?", FRIENDS) == {"Ana Silva"}


def test_a_particle_of_a_name_names_nobody():
    assert speakers_named("what is de facto", ["Simone de Beauvoir"]) == set()
    assert speakers_named("did Beauvoir answer", ["Simone de Beauvoir"]) == {"Simone de Beauvoir"}


@given(st.text(max_size=60), st.lists(st.text(max_size=12), max_size=6))
def test_only_known_speakers_are_named(query, speakers):
    assert speakers_named(query, speakers) <= set(speakers)


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("What does Ingrid eat?", {"ingrid"}),
        ("Ingrid's allergy", {"ingrid"}),
        ("What is the way to Évora?", {"evora"}),
        ("Who keeps the key?", set()),
        ("It is late. Dinner is ready", set()),
        ("WHERE IS THE KEY", set()),
        ("what does ingrid eat", set()),
        ("谁在家里", set()),
    ],
)
def test_a_capital_inside_a_sentence_makes_a_name(question: str, named: set[str]) -> None:
    assert named_terms(question) == named
