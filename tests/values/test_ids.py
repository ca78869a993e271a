"""Ids that a model reads, repeats and sometimes misreads."""

from hypothesis import given
from hypothesis import strategies as st

from mcp_memory.values.ids import ALPHABET, LENGTH, new_id, read_id

ids = st.text(ALPHABET, min_size=LENGTH, max_size=LENGTH)


def test_new_ids_differ_and_use_the_whole_alphabet():
    made = [new_id() for _ in range(5_000)]
    assert len(set(made)) == len(made)
    assert all(len(made_id) == LENGTH for made_id in made)
    assert set("".join(made)) == set(ALPHABET)


def test_the_alphabet_has_no_letter_that_can_be_mistaken():
    assert len(set(ALPHABET)) == 32
    assert not set(ALPHABET) & set("ilou")
    assert ALPHABET.lower() == ALPHABET


@given(ids)
def test_an_id_is_read_as_it_was_written(made_id):
    assert read_id(made_id) == made_id


@given(ids, st.data())
def test_an_id_is_read_through_capitals_blanks_and_usual_misreadings(made_id, data):
    written = "".join(
        data.draw(st.sampled_from({"1": "1IiLl", "0": "0Oo"}.get(char, char + char.upper())))
        for char in made_id
    )
    assert read_id(f" {written}\n") == made_id


@given(st.text())
def test_whatever_is_read_as_an_id_has_the_shape_of_one(text):
    found = read_id(text)
    assert found is None or (len(found) == LENGTH and set(found) <= set(ALPHABET))


@given(ids, st.integers(0, LENGTH - 1), st.sampled_from("u-_ é猫\x00"))
def test_a_character_outside_the_alphabet_makes_it_no_id(made_id, at, char):
    assert read_id(made_id[:at] + "." + char + made_id[at + 1 :]) is None
    assert read_id(made_id + "0") is None
    assert read_id(made_id[1:]) is None
