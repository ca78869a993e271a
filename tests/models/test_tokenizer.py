"""Counting and cutting in tokens: as tiktoken does it, without its network."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from mcp_memory.models import tokenizer as tokens
from mcp_memory.models.tokenizer import Tokenizer

NAMES = ["o200k_base", "cl100k_base"]
TEXTS = st.text(
    st.sampled_from(
        "ab eE'.,/\n\r\t 12 3!?中文。，的é\u0301😀\u200dー한-_()’s\u00a0\u3000²<|endoftext|>"
    ),
    max_size=80,
)


@pytest.fixture(scope="module", params=NAMES)
def tokenizer(request: pytest.FixtureRequest, cache_dir: Path) -> Tokenizer:
    return Tokenizer(request.param, cache_dir=cache_dir)


@pytest.fixture(scope="module")
def reference(tokenizer: Tokenizer) -> Callable[[str], int]:
    encoding = tokenizer._encoding()  # tiktoken's own would be fetched from the network.
    return lambda text: len(encoding.encode_ordinary(text))


@pytest.fixture
def _unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make tiktoken read its ranks again."""
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})

    def refuse(*_: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@given(text=TEXTS)
def test_a_count_is_tiktokens_own(
    tokenizer: Tokenizer, reference: Callable[[str], int], text: str
) -> None:
    assert tokenizer.count(text) == reference(text)


@given(text=TEXTS)
def test_the_counts_of_two_sides_of_a_safe_cut_add_up(
    reference: Callable[[str], int], text: str
) -> None:
    for found in tokens._SAFE_CUT.finditer(text):
        cut = found.start()
        assert reference(text[:cut]) + reference(text[cut:]) == reference(text)


def test_a_special_token_counts_as_the_text_it_is(tokenizer: Tokenizer) -> None:
    assert tokenizer.count("<|endoftext|>") > 1


def test_a_text_of_many_slices_is_counted_exactly(
    tokenizer: Tokenizer, reference: Callable[[str], int]
) -> None:
    chance = random.Random(1)
    words = ["tea", "memory,", "Zürich.", "中文。", "1234", "it's", "\n\n", "  ", "-->"]
    text = " ".join(chance.choices(words, k=150_000))
    assert len(text) > 2 * tokens._MAX_SLICE_CHARS
    assert tokenizer.count(text) == reference(text)


@pytest.mark.parametrize("unit", ["a", " ", "\n", "的", "😀", ". ", "="])
def test_a_run_without_words_is_counted_nearly_and_cut_within_the_limit(
    tokenizer: Tokenizer, unit: str
) -> None:
    """tiktoken itself dies of a million blanks in a row."""
    text = unit * (1_200_000 // len(unit))
    per_slice = tokenizer.count(text[: tokens._MAX_SLICE_CHARS])
    assert tokenizer.count(text) == pytest.approx(
        per_slice * len(text) / tokens._MAX_SLICE_CHARS, rel=0.001
    )
    assert 900 < tokenizer.count(tokenizer.clip(text, 1_000)) <= 1_000


@given(text=TEXTS, limit=st.integers(-1, 60))
def test_a_clipped_text_is_the_longest_that_fits(
    tokenizer: Tokenizer, reference: Callable[[str], int], text: str, limit: int
) -> None:
    lengths = range(len(text) + 1)
    longest = max(length for length in lengths if reference(text[:length]) <= max(limit, 0))
    assert tokenizer.clip(text, limit) == text[:longest]


def test_a_cut_never_falls_inside_a_character(tokenizer: Tokenizer) -> None:
    text = "🧑🏽‍🚀👩‍👩‍👧‍👦𝔊𓀀" * 20
    for limit in range(60):
        assert text.startswith(tokenizer.clip(text, limit))


def test_a_long_text_is_clipped_to_the_token(tokenizer: Tokenizer) -> None:
    text = "".join(f"Line {number} of a long story.\n" for number in range(100_000))
    head = tokenizer.clip(text, 5_000)
    assert text.startswith(head)
    assert tokenizer.count(head) == 5_000


@pytest.mark.usefixtures("_unloaded")
@pytest.mark.parametrize("name", NAMES)
def test_ranks_come_from_the_package_and_never_from_the_network(tmp_path: Path, name: str) -> None:
    assert Tokenizer(name, cache_dir=tmp_path).count("hello world") == 2
    ranks = tokens._RANK_FILES[name]
    cached = tmp_path / "tiktoken" / ranks.cache_name
    assert hashlib.sha256(cached.read_bytes()).hexdigest() == ranks.sha256


@pytest.mark.usefixtures("_unloaded")
def test_damaged_ranks_are_replaced(tmp_path: Path) -> None:
    cached = tmp_path / "tiktoken" / tokens._RANK_FILES["o200k_base"].cache_name
    cached.parent.mkdir()
    cached.write_bytes(b"half")
    assert Tokenizer(cache_dir=tmp_path).count("hello world") == 2
    assert len(cached.read_bytes()) > 1_000_000


@pytest.mark.usefixtures("_unloaded")
def test_without_a_place_to_keep_them_ranks_are_unpacked_for_once(tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("in the way")
    assert Tokenizer(cache_dir=blocked).count("hello world") == 2


@pytest.mark.usefixtures("_unloaded")
@pytest.mark.parametrize("theirs", [None, "", "/nowhere/at/all"])
def test_the_users_cache_variable_is_neither_used_nor_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: str | None
) -> None:
    if theirs is None:
        monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    else:
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", theirs)
    Tokenizer(cache_dir=tmp_path).count("")
    assert os.environ.get("TIKTOKEN_CACHE_DIR") == theirs


@pytest.mark.usefixtures("_unloaded")
def test_threads_that_come_first_together_load_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = tokens._load

    def counted(name: str, folder: Path) -> tiktoken.Encoding:
        loads.append(name)
        return load(name, folder)

    monkeypatch.setattr(tokens, "_load", counted)
    tokenizer = Tokenizer(cache_dir=tmp_path)
    threads = [threading.Thread(target=tokenizer.count, args=("tea",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == ["o200k_base"]


def test_making_a_tokenizer_touches_no_file(tmp_path: Path) -> None:
    assert Tokenizer(cache_dir=tmp_path / "cache").name == "o200k_base"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="o200k_base"):
        Tokenizer("p50k_base", cache_dir=tmp_path)
