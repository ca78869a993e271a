"""Rankings of questions in other words, of names, times and copies."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from fakes import HashEmbedder

from mcp_memory.search.index import SearchIndex
from mcp_memory.search.queries import Filter, Query, parse_query

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
embedder = HashEmbedder(dimension=32)


@pytest.fixture
def index():
    return SearchIndex()


def ask(index, query, vector, limit):
    prepared = index.prepare(Query(query, MOMENT), Filter())
    return index.search(prepared, vector, offset=0, limit=limit)


def keys(ranking):
    return [found.key for found in ranking.found]


def unit(*numbers):
    vector = np.array(numbers, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def put(index, key, text, vector, *, day=0):
    when = MOMENT + timedelta(days=day)
    index.add(key, text, when=when, recorded=when)
    index.add_vectors(key, [(0, len(text))], vector[np.newaxis])


def crowd(index, texts, vectors):
    for number, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
        put(index, number, text, vector)


def test_a_text_that_is_near_to_all_others_is_found_after_one_near_to_the_question_alone(index):
    rng = np.random.default_rng(1)
    spread = rng.standard_normal((98, 16)) * 0.1
    spread[:, 0] += 1  # What all texts have in common.
    vectors = [unit(*row) for row in spread]
    vectors += [unit(1, *np.zeros(15)), unit(0.75, 0.5, *np.zeros(14))]
    crowd(index, [f"note {number}" for number in range(100)], vectors)
    question = unit(1, 0.3, *np.zeros(14))
    assert question @ vectors[98] > question @ vectors[99]
    assert keys(ask(index, "something", question, 1)) == [99]


def lonely_word(index):
    """Notes about nothing; 0 has the only word of a question that occurs, 1 means what it asks."""
    vectors = np.random.default_rng(2).standard_normal((300, 32))
    texts = [f"note of {chr(97 + number % 26) * (3 + number // 26)}" for number in range(300)]
    texts[0], texts[1] = "rarely Marlow paints", "said in other words"
    vectors[0], vectors[1] = np.eye(32)[2], 0.6 * np.eye(32)[1] + 0.8 * np.eye(32)[0]
    crowd(index, texts, [unit(*row) for row in vectors])
    return unit(*np.eye(32)[1])


def test_one_shared_word_among_many_that_occur_nowhere_does_not_outweigh_the_meaning(index):
    vector = lonely_word(index)
    question = "which colleague rarely consumes breakfast before travelling"
    assert keys(ask(index, question, vector, 1)) == [1]
    assert keys(ask(index, "rarely", vector, 1)) == [0]


def test_a_name_outweighs_the_meaning_in_any_company(index):
    vector = lonely_word(index)
    question = "which breakfast did Marlow consume before travelling"
    assert keys(ask(index, question, vector, 1)) == [0]
    assert keys(ask(index, question.lower(), vector, 1)) == [1]


def test_a_question_that_says_nothing_besides_a_time_finds_what_was_said_then(index):
    for number in range(60):
        said = f"年 月 {number}" if number % 10 == 0 else f"note {number}"
        month = (0, 35, 100, 150)[number % 4]
        put(index, number, said, embedder.embed_passages([said])[0], day=month + number // 4)
    now = MOMENT + timedelta(days=200)
    question = parse_query("2026年2月她说了什么？", (), now, ZoneInfo("UTC"))
    prepared = index.prepare(question, Filter())
    vector = embedder.embed_query("年 月 2")
    found = index.search(prepared, vector, offset=0, limit=15).found
    assert {one.key % 4 for one in found} == {1}
    assert all("when" in one.why for one in found)


def near_to_all(index, distance, copies):
    """Forty texts that are near to each other, two of them nearer still."""
    rng = np.random.default_rng(3)
    vectors = [unit(1, *(rng.standard_normal(15) * distance)) for _ in range(40)]
    vectors[39] = unit(*(vectors[38] + copies * rng.standard_normal(16)))
    crowd(index, [f"note {number}" for number in range(40)], vectors)
    found = ask(index, "something", vectors[38], 40).found
    return {one.key for one in found if one.crowded < 1}


def test_texts_that_a_model_keeps_close_together_do_not_make_room_for_each_other(index):
    assert not near_to_all(index, distance=0.04, copies=0.04)


def test_of_texts_close_together_a_copy_still_makes_room(index):
    assert near_to_all(index, distance=0.04, copies=0.001) in ({38}, {39})


def by_word_or_meaning(index, distance):
    """Notes in one place of the model's space; 0 has a word of the question, 1 is nearest to it."""
    rng = np.random.default_rng(4)
    vectors = [unit(1, *(rng.standard_normal(15) * distance)) for _ in range(200)]
    texts = [f"note of {chr(97 + number % 26) * (3 + number // 26)}" for number in range(200)]
    texts[0] = "a teapot made of glass"
    crowd(index, texts, vectors)
    return keys(ask(index, "which teapot broke", vectors[1], 1))


def test_where_a_model_tells_texts_apart_the_nearest_outweighs_a_word(index):
    assert by_word_or_meaning(index, distance=0.5) == [1]


def test_where_a_model_keeps_all_texts_close_together_a_word_outweighs_the_nearest(index):
    assert by_word_or_meaning(index, distance=0.05) == [0]
