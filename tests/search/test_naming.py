"""Words that are written as names."""

import pytest

from mcp_memory.search.naming import named_terms


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
