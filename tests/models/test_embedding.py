"""Vectors: their order, length and prefixes with a model of our own, their sense with the real."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hub import small_model
from talker import until

from mcp_memory.models import embedding
from mcp_memory.models.embedding import Embedder, FastEmbedder, Turns, Vectors
from mcp_memory.models.fetching import fetch_model
from mcp_memory.models.files import ARCTIC, ModelFiles, listed_by_fastembed, model_spec
from mcp_memory.settings import DEFAULT_MODEL, load_settings
from mcp_memory.values.errors import ModelUnavailable


class CountingModel:
    """Stands in for fastembed: a vector tells length, first character and place in the batch."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.queries: list[str] = []

    def passage_embed(self, texts: list[str], batch_size: int) -> Iterator[Vectors]:
        assert batch_size == len(texts)
        self.batches.append(texts)
        for text in texts:
            yield np.array([len(text), ord(text[0]) if text else 0, 3.0], np.float32)

    def query_embed(self, text: str) -> Iterator[Vectors]:
        self.queries.append(text)
        yield np.array([0.0, 0.0, 2.0], np.float32)


@pytest.fixture
def word_tokenizer() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return tokenizer


@pytest.fixture
def counting() -> CountingModel:
    return CountingModel()


@pytest.fixture
def embedder(
    counting: CountingModel, word_tokenizer: tokenizers.Tokenizer, tmp_path: Path
) -> FastEmbedder:
    spec = replace(
        small_model(), dimension=3, query_prefix="ask: ", passage_prefix="", facts_prefix_frac=None
    )
    return FastEmbedder(ModelFiles(spec, tmp_path, "f" * 64), counting, word_tokenizer)


def test_it_is_an_embedder_that_says_what_it_is(embedder: FastEmbedder) -> None:
    known: Embedder = embedder
    assert (known.name, known.fingerprint) == (DEFAULT_MODEL, "f" * 64)
    assert (known.dimension, known.max_tokens, known.near_duplicate_at) == (3, 512, 0.95)


def test_vectors_come_in_the_order_of_the_texts_and_of_unit_length(
    embedder: FastEmbedder, counting: CountingModel
) -> None:
    texts = [chr(97 + number % 26) + " x" * (number * 7 % 90) for number in range(100)]
    vectors = embedder.embed_passages(texts)
    assert vectors.shape == (100, 3)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(100))
    wanted = np.array([[len(text), ord(text[0]), 3.0] for text in texts])
    assert vectors == pytest.approx(wanted / np.linalg.norm(wanted, axis=1, keepdims=True))
    assert sorted(chain.from_iterable(counting.batches)) == sorted(texts)


def test_a_batch_holds_texts_of_like_length_and_is_small(
    embedder: FastEmbedder, counting: CountingModel
) -> None:
    embedder.embed_passages([" x" * (number * 37 % 500) for number in range(120)])
    for batch in counting.batches:
        assert len(batch) <= 16
        assert len(batch) * max(len(text) // 2 for text in batch) <= 512 or len(batch) == 1
    assert len(counting.batches[0]) > 4


def test_no_texts_make_no_vectors(embedder: FastEmbedder) -> None:
    assert embedder.embed_passages([]).shape == (0, 3)


def test_questions_and_passages_get_their_own_prefix(
    counting: CountingModel, word_tokenizer: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    spec = replace(
        small_model(),
        dimension=3,
        query_prefix="ask: ",
        passage_prefix="tell: ",
        max_tokens=100,
        facts_prefix_frac=None,
    )
    embedder = FastEmbedder(ModelFiles(spec, tmp_path, ""), counting, word_tokenizer)
    embedder.embed_passages(["tea"])
    assert embedder.embed_query("tea?").tolist() == [0.0, 0.0, 1.0]
    assert (counting.batches, counting.queries) == ([["tell: tea"]], ["ask: tea?"])
    # The prefix takes its two tokens from the room of a chunk.
    assert len(embedder.chunk("x " * 97)) == 1
    assert len(embedder.chunk("x " * 99)) == 2


def test_what_lies_far_beyond_the_input_is_left_out_before_it_costs_time(
    embedder: FastEmbedder, counting: CountingModel
) -> None:
    embedder.embed_passages(["x" * 1_000_000])
    embedder.embed_query("x" * 1_000_000)
    assert len(counting.batches[0][0]) == len(counting.queries[0]) == 512 * 32


def test_a_long_text_is_chunked_by_the_tokens_of_the_model(embedder: FastEmbedder) -> None:
    text = "".join(f"word{number} " for number in range(20_000))
    ranges = embedder.chunk(text)
    assert (ranges[0][0], ranges[-1][1]) == (0, len(text))
    assert {len(text[start:end].split()) for start, end in ranges[:-1]} == {256}
    assert embedder.chunk("") == [(0, 0)]
    assert embedder.chunk("x " * 320) == [(0, 640)]


@pytest.mark.parametrize(("wanted", "longest"), [(32, 32), (400, 400), (10_000, 409)])
def test_a_chunk_may_be_as_long_as_is_wanted_and_as_the_input_takes(
    embedder: FastEmbedder, wanted: int, longest: int
) -> None:
    ranges = embedder.chunk("x " * 2_000, wanted)
    assert {(end - start) // 2 for start, end in ranges[:-1]} == {longest}


def test_a_query_does_not_wait_for_passages(
    counting: CountingModel,
    word_tokenizer: tokenizers.Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def hold(texts: list[str], batch_size: int) -> list[Vectors]:
        entered.set()
        go_on.wait()
        return [np.ones(3, np.float32)] * batch_size

    monkeypatch.setattr(counting, "passage_embed", hold)
    spec = replace(small_model(), dimension=3)
    embedder = FastEmbedder(ModelFiles(spec, tmp_path, ""), counting, word_tokenizer)
    threads = [threading.Thread(target=embedder.embed_passages, args=(["x"],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    entered.wait()
    assert embedder.embed_query("tea").shape == (3,)
    go_on.set()
    for thread in threads:
        thread.join()


def test_a_thread_that_has_left_waits_behind_those_that_came_before() -> None:
    turns = Turns(1)
    order: list[str] = []
    threads: list[threading.Thread] = []

    def go_in(name: str) -> None:
        with turns.taken():
            order.append(name)

    with turns.taken():
        for name in "abc":
            thread = threading.Thread(target=go_in, args=(name,))
            threads.append(thread)
            thread.start()
            until(lambda: turns.waiting == len(threads), f"{name} to wait")
    go_in("again")
    for thread in threads:
        thread.join()
    assert order == ["a", "b", "c", "again"]


def test_as_many_threads_are_inside_as_there_are_places() -> None:
    turns = Turns(2)
    entered = threading.Event()

    def go_in() -> None:
        with turns.taken():
            entered.set()

    late = threading.Thread(target=go_in)
    with turns.taken(), turns.taken():
        late.start()
        until(lambda: turns.waiting, "the third to wait")
        assert not entered.is_set()
    late.join()
    assert entered.is_set()


def order_behind(
    turns: Turns, first: AbstractContextManager[None], names: Sequence[str]
) -> list[str]:
    """Return the order in which threads go in that come, one after the other, behind a first."""
    order: list[str] = []
    threads: list[threading.Thread] = []

    def go_in(name: str) -> None:
        with turns.taken(urgent=name == "call"):
            order.append(name)

    with first:
        for name in names:
            threads.append(threading.Thread(target=go_in, args=(name,)))
            threads[-1].start()
            until(lambda: turns.waiting == len(threads), f"{name} to wait")
    for thread in threads:
        thread.join()
    return order


def test_work_that_no_call_waits_for_lets_every_call_go_first() -> None:
    turns = Turns(1)
    order = order_behind(turns, turns.taken(urgent=False), ["later", "call", "call"])
    assert order == ["call", "call", "later"]


def test_work_that_no_call_waits_for_leaves_a_place_to_calls() -> None:
    turns = Turns(2)
    turns.asked()
    with turns.taken(urgent=False):
        second = threading.Thread(target=lambda: turns.taken(urgent=False).__enter__())
        second.start()
        until(lambda: turns.waiting, "the second to wait")
        with turns.taken():
            assert turns.waiting == 1
    second.join()


def test_work_that_no_call_waits_for_has_all_places_while_there_are_no_calls() -> None:
    turns = Turns(2)
    with turns.taken(urgent=False), turns.taken(urgent=False):
        assert not turns.waiting


def test_work_that_no_call_waits_for_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedding, "_PATIENCE_SECONDS", 0)
    turns = Turns(1)
    order = order_behind(turns, turns.taken(), ["call", "later", "call"])
    assert order == ["later", "call", "call"]


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ('{"model_max_length": 77}', 77),
        ('{"model_max_length": 512, "max_length": 128}', 128),
        ('{"model_max_length": 1000000000000000019884624838656}', 512),
        ('{"model_max_length": null}', 512),
        ("{", 512),
    ],
)
def test_the_longest_input_is_what_the_tokenizer_says(
    counting: CountingModel,
    word_tokenizer: tokenizers.Tokenizer,
    tmp_path: Path,
    content: str,
    tokens: int,
) -> None:
    (tmp_path / "tokenizer_config.json").write_text(content)
    files = ModelFiles(replace(small_model(), dimension=3), tmp_path, "")
    assert FastEmbedder(files, counting, word_tokenizer).max_tokens == tokens


def test_files_that_are_no_model_are_reported_as_such(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model_int8.onnx").write_bytes(b"no model")
    with pytest.raises(ModelUnavailable, match="can't be loaded"):
        FastEmbedder.load(ModelFiles(small_model(), tmp_path, ""), threads=1)


def test_models_of_fastembed_are_known_by_name_with_their_prefixes() -> None:
    assert model_spec("BAAI/bge-small-en-v1.5").dimension == 384
    e5 = model_spec("intfloat/multilingual-e5-large")
    assert (e5.query_prefix, e5.passage_prefix) == ("query: ", "passage: ")
    assert "model.onnx_data" in e5.files
    assert not e5.is_pinned
    with pytest.raises(ModelUnavailable):
        model_spec("no/such-model")


# The real default model


@pytest.fixture(scope="module")
def files() -> ModelFiles:
    return fetch_model(DEFAULT_MODEL, load_settings().cache_dir, offline=False)


@pytest.fixture(scope="module")
def real(files: ModelFiles) -> FastEmbedder:
    return FastEmbedder.load(files, threads=None)


class PrefixedModel(CountingModel):
    """A question's vector is what it is about, and a third number if it has a prefix."""

    def query_embed(self, text: str | list[str]) -> Iterator[Vectors]:
        for one in [text] if isinstance(text, str) else text:
            about = float(len(one) % 7)
            yield np.array([about, 7 - about, 8.0 if one.startswith("ask: ") else 0.0], np.float32)


@pytest.mark.parametrize(
    ("facts_prefix_frac", "least", "most"), [(None, 0.7, 1.0), (1.0, 0.5, 0.9), (0.0, -0.1, 0.1)]
)
def test_a_question_of_facts_gets_so_much_of_what_the_prefix_adds_to_every_question(
    word_tokenizer: tokenizers.Tokenizer,
    tmp_path: Path,
    facts_prefix_frac: float | None,
    least: float,
    most: float,
) -> None:
    spec = replace(
        small_model(), dimension=3, query_prefix="ask: ", facts_prefix_frac=facts_prefix_frac
    )
    embedder = FastEmbedder(ModelFiles(spec, tmp_path, ""), PrefixedModel(), word_tokenizer)
    vector = embedder.embed_query("tea?", of_facts=True)
    assert least < vector[2] < most
    assert float(np.linalg.norm(vector)) == pytest.approx(1)
    asked = embedder.embed_query("tea?")
    assert 0.7 < asked[2] < 1


@pytest.mark.slow
def test_the_real_model_says_what_it_is(real: FastEmbedder) -> None:
    assert (real.dimension, real.max_tokens) == (384, 512)
    assert real.fingerprint == ARCTIC.files["onnx/model_int8.onnx"]
    assert "snowflake/snowflake-arctic-embed-s-int8" not in {
        spec.name for spec in listed_by_fastembed()
    }


@pytest.mark.slow
def test_a_question_finds_what_answers_it(real: FastEmbedder) -> None:
    passages = [
        "Her sister Ines lives in Porto and teaches the cello.",
        "The nightly backup runs at two and writes to the second disk.",
        "He stopped drinking coffee and takes green tea in the morning.",
    ]
    vectors = real.embed_passages(passages)
    for question, answer in [
        ("Which instrument does her sibling play?", 0),
        ("When is the database saved?", 1),
        ("What does he have for breakfast?", 2),
    ]:
        assert int(np.argmax(vectors @ real.embed_query(question))) == answer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        (
            "User prefers dark mode in every editor.",
            "The user prefers dark mode in all editors.",
            1,
        ),
        ("Anna's birthday is on 12 March.", "Anna's birthday: 12 March", 1),
        ("The user lives in Lisbon with two cats.", "User lives in Lisbon and has two cats.", 1),
        ("The deploy key rotates every 90 days.", "The deploy key is rotated every 90 days.", 1),
        ("User prefers dark mode in every editor.", "They like IDEs with a black background.", 0),
        ("He is allergic to peanuts.", "Peanuts make him ill; he must not eat them.", 0),
        ("Anna's birthday is on 12 March.", "The API returns 429 after 100 calls a minute.", 0),
    ],
)
def test_the_same_said_twice_is_a_near_duplicate_and_a_free_paraphrase_is_none(
    real: FastEmbedder, one: str, other: str, near: int
) -> None:
    first, second = real.embed_passages([one, other])
    assert (float(first @ second) >= real.near_duplicate_at) == bool(near)


@pytest.mark.slow
def test_a_text_has_nearly_the_same_vector_in_every_batch(real: FastEmbedder) -> None:
    texts = [f"Note {number}: " + "tea and cake. " * (number % 30) for number in range(40)]
    together = real.embed_passages(texts)
    alone = np.concatenate([real.embed_passages([text]) for text in texts])
    assert float(np.min(np.sum(together * alone, axis=1))) > 0.99


@pytest.mark.slow
def test_every_chunk_fits_the_input_of_the_model_in_every_script(
    real: FastEmbedder, files: ModelFiles
) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(files.directory / "tokenizer.json"))
    tokenizer.no_truncation()
    for unit in [
        "A sentence of a few words. ",
        "一个没有空格的句子。",
        "한국어 문장입니다 ",
        "ā̀é́ ",
        "x" * 90,
    ]:
        text = unit * (60_000 // len(unit))
        ranges = real.chunk(text)
        assert (ranges[0][0], ranges[-1][1]) == (0, len(text))
        assert all(a < b <= end for (a, end), (b, _) in pairwise(ranges))
        for start, end in ranges:
            assert len(tokenizer.encode(text[start:end]).ids) <= real.max_tokens


@pytest.mark.slow
def test_a_long_text_is_found_by_its_last_sentence(real: FastEmbedder) -> None:
    filler = "The weather was as it always is at this time of the year. " * 200
    text = filler + "The spare key lies under the blue flower pot."
    pieces = [text[start:end] for start, end in real.chunk(text)]
    question = real.embed_query("Where is the spare key?")
    assert int(np.argmax(real.embed_passages(pieces) @ question)) == len(pieces) - 1


@pytest.mark.slow
def test_threads_get_the_vectors_of_their_own_texts(real: FastEmbedder) -> None:
    texts = [f"The code of door {number} is {number * 37}." for number in range(8)]
    wanted = [real.embed_query(text) for text in texts]
    found: dict[int, Vectors] = {}

    def embed(number: int) -> None:
        found[number] = real.embed_query(texts[number])

    threads = [threading.Thread(target=embed, args=(number,)) for number in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, vector in enumerate(wanted):
        assert found[number] == pytest.approx(vector, abs=1e-6)
