"""Cutting texts by the offsets of tokens; here every word and every mark is a token."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_memory.models.chunking import OVERLAP_FRAC, WHOLE_FRAC, Offsets, chunk_ranges, slices

SIZE = 20
TOKEN = re.compile(r"\w+|[^\w\s]")


def offsets(text: str) -> tuple[Offsets, Offsets]:
    spans = [found.span() for found in TOKEN.finditer(text)]
    both = np.array(spans, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def chunks(text: str) -> list[str]:
    return [text[start:end] for start, end in chunk_ranges(text, [offsets(text)], SIZE)]


TEXTS = st.lists(
    st.sampled_from(["tea ", "a", "b ", "\n", "\n\n", ". ", "! ", "。", "中文", " ", "\u0301"]),
    max_size=300,
).map("".join)


@given(text=TEXTS)
def test_the_chunks_cover_the_text_with_no_gap_and_none_is_too_long(text: str) -> None:
    ranges = chunk_ranges(text, [offsets(text)], SIZE)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == len(text)
    for (start, end), (next_start, next_end) in pairwise(ranges):
        assert start < next_start <= end < next_end
    assert all(
        len(TOKEN.findall(text[start:end])) <= SIZE * WHOLE_FRAC + 1 for start, end in ranges
    )


@given(text=TEXTS)
def test_neighbours_share_at_most_the_overlap(text: str) -> None:
    ranges = chunk_ranges(text, [offsets(text)], SIZE)
    for (_, end), (next_start, _) in pairwise(ranges):
        assert len(TOKEN.findall(text[next_start:end])) <= SIZE * OVERLAP_FRAC + 1


@given(text=TEXTS, part=st.integers(1, 100))
def test_tokens_that_come_in_parts_give_the_same_chunks(text: str, part: int) -> None:
    starts, ends = offsets(text)
    parts = [(starts[at : at + part], ends[at : at + part]) for at in range(0, len(starts), part)]
    assert chunk_ranges(text, parts, SIZE) == chunk_ranges(text, [(starts, ends)], SIZE)


def test_few_tokens_of_a_long_text_are_in_memory_at_once() -> None:
    text = "tea " * 10_000
    starts, _ = offsets(text)
    alive: set[int] = set()

    def parts() -> Iterator[tuple[Offsets, Offsets]]:
        for at in range(0, len(starts), 100):
            part = starts[at : at + 100].copy()
            alive.add(at)
            weakref.finalize(part, alive.discard, at)
            yield part, part + 3
            del part
            assert len(alive) <= 2

    assert chunk_ranges(text, parts(), SIZE)[-1][1] == len(text)


@pytest.mark.parametrize("words", [0, 1, SIZE, int(SIZE * WHOLE_FRAC)])
def test_a_text_that_fits_is_one_chunk(words: int) -> None:
    text = " " + "tea " * words
    assert chunk_ranges(text, [offsets(text)], SIZE) == [(0, len(text))]


def test_a_chunk_ends_after_a_line_or_else_a_sentence_or_else_a_word() -> None:
    words = [f"w{number}" for number in range(60)]
    assert chunks(" ".join(words))[0].endswith("w19 ")
    words[16] = "end."
    assert chunks(" ".join(words))[0].endswith("end. ")
    words[15] = "line\n"
    assert chunks(" ".join(words))[0].endswith("line\n ")


def test_a_chunk_begins_with_a_sentence_that_begins_in_the_overlap() -> None:
    words = [f"w{number}" for number in range(60)]
    words[15] = "begin."
    words[17] = "end."
    first, second = chunks(" ".join(words))[:2]
    assert first.endswith("begin. w16 end. ")
    assert second.startswith("w16 end. w18")


def test_a_text_without_blanks_is_cut_between_tokens() -> None:
    text = "中" * 100
    both = np.arange(100)
    ranges = chunk_ranges(text, [(both, both + 1)], SIZE)
    assert ranges[:2] == [(0, 20), (17, 37)]


@pytest.mark.parametrize("tokens", [10, 60, 500])
def test_many_tokens_in_one_character_do_not_stop_it(tokens: int) -> None:
    starts = np.repeat(np.arange(100), tokens)
    ranges = chunk_ranges("ﷺ" * 100, [(starts, starts + 1)], 60)
    assert ranges[-1][1] == 100
    assert all(start < end for start, end in ranges)
    assert all(start < following <= end for (start, end), (following, _) in pairwise(ranges))


@pytest.mark.parametrize("unit", ["word ", "中文句子。", "a", "\n"])
def test_slices_cover_a_long_text_and_end_where_words_do(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    ranges = list(slices(text))
    assert "".join(text[start:end] for start, end in ranges) == text
    assert all(0 < end - start <= 32_768 for start, end in ranges)
    assert all(text[:end].endswith(unit) for _, end in ranges)
