"""A cross-encoder orders the first hits anew, where the user has one; else nothing changes."""

import json
import threading

import numpy as np
import pytest
from click.testing import CliRunner
from fakes import HashEmbedder
from onnx import TensorProto, helper, numpy_helper, save
from tokenizers import Tokenizer, models, pre_tokenizers

from mcp_memory.agent import Memories
from mcp_memory.cli.models import models as models_command
from mcp_memory.models.reranking import MAX_CHARS, Reranker, load_reranker
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import ModelUnavailable
from mcp_memory.values.records import NewMessage

KNOWN = "Xenova/ms-marco-MiniLM-L-6-v2"
WORDS = ("[PAD]", "[UNK]", "tea", "gold", "nothing")
WEIGHTS = (0.0, 0.0, 0.0, 3.0, np.nan)
"""What each word is worth in a text: the small model below is fond of gold."""


@pytest.fixture(autouse=True)
def _no_cache_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(tmp_path / "fastembed"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make a cross-encoder of one layer: it adds up the weights of the words."""
    place = tmp_path_factory.mktemp("reranker")
    tokenizer = Tokenizer(
        models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(place / "tokenizer.json"))
    (place / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": 64, "pad_token": "[PAD]"})
    )
    (place / "config.json").write_text(json.dumps({"pad_token_id": 0}))
    (place / "special_tokens_map.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    table = numpy_helper.from_array(np.array(WEIGHTS, np.float32)[:, np.newaxis], "weights")
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["weights", "input_ids"], ["each"]),
            helper.make_node("ReduceSum", ["each", "axes"], ["logits"], keepdims=0),
        ],
        "reranker",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "words"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1])],
        [table, axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    save(model, place / "model.onnx")
    return place


@pytest.fixture
def remember(settings, folder):
    """Give the memories of a process with a reranker that is loaded."""
    opened = []

    def open_it(**changes):
        changed = settings.model_copy(update={"reranker": str(folder)} | changes)
        memories = Memories(Engine(changed, embedder=HashEmbedder()))
        opened.append(memories)
        memories.reranker.start().result(30)
        return memories.open("default")

    yield open_it
    for memories in opened:
        memories.close()


def test_the_first_hits_are_in_the_order_of_the_reranker(remember):
    memory = remember()
    for text in ("green tea", "tea with milk", "tea and gold", "tea, gold, gold"):
        memory.archive.insert(text)
    page = memory.archive.search("green tea")
    assert [hit.memory.content for hit in page.items[:2]] == ["tea, gold, gold", "tea and gold"]
    assert page.note is None
    scores = [hit.score for hit in page.items]
    assert scores == sorted(scores, reverse=True)


def test_messages_are_reranked_too(remember):
    memory = remember()
    said = [NewMessage("user", text) for text in ("green tea", "tea and gold", "black tea")]
    memory.conversations.append(said)
    page = memory.conversations.search("green tea")
    assert page.items[0].message.content == "tea and gold"


def test_pages_of_what_was_reranked_have_every_hit_once(remember):
    memory = remember()
    kept = {
        memory.archive.insert(f"tea number {n}" + " gold" * (n % 5)).memory.id for n in range(30)
    }
    seen, as_of = [], None
    for offset in range(0, 30, 7):
        page = memory.archive.search("tea number", limit=7, offset=offset, as_of=as_of)
        as_of = page.as_of
        seen += [hit.memory.id for hit in page.items]
        assert page.ends == tuple(range(offset + 1, offset + len(page.items) + 1))
    assert len(seen) == 30
    assert set(seen) == kept


def test_of_a_long_text_the_best_passage_is_read(remember):
    memory = remember()
    long = "word " * MAX_CHARS + "quartz gold gold"
    memory.archive.insert("quartz tea, quartz tea")
    memory.archive.insert("quartz and gold")
    memory.archive.insert(long)
    assert memory.archive.search("quartz").items[0].memory.content == long


def test_a_reranker_that_fails_leaves_the_order_and_says_so(remember, caplog):
    memory = remember()
    texts = ["green tea", "tea with milk", "nothing but tea"]
    for text in texts:
        memory.archive.insert(text)
    page = memory.archive.search("green tea")
    memory.archive.search("green tea again")
    assert page.items[0].memory.content == "green tea"
    assert page.note == "not reranked: the model gives no numbers"
    assert caplog.text.count("the model gives no numbers") == 1


def test_a_reranker_that_takes_too_long_leaves_the_order_and_says_so(remember):
    memory = remember(reranker_seconds=0.01)
    for text in ("green tea", "tea and gold"):
        memory.archive.insert(text)
    busy = threading.Event()
    memory._access.reranker._pool.submit(busy.wait)
    page = memory.archive.search("green tea")
    busy.set()
    assert page.items[0].memory.content == "green tea"
    assert page.note == "not reranked: it took more than 0.01 s"


def test_until_it_is_loaded_the_order_is_as_without_it(settings, folder):
    waiting = Reranker(str(folder), settings.cache_dir)
    assert waiting.scores("tea", ["tea"]) == "not reranked: the model is being loaded"
    waiting.close()


def test_without_the_setting_there_is_none(settings):
    memories = Memories(Engine(settings, embedder=HashEmbedder()))
    assert memories.reranker is None
    memories.close()


def test_a_model_whose_files_are_not_there_is_not_fetched(settings, caplog):
    missing = Reranker(KNOWN, settings.cache_dir)
    missing.start().result(60)
    said = missing.scores("tea", ["tea"])
    missing.close()
    assert isinstance(said, str)
    assert f"models fetch --reranker {KNOWN}" in said


@pytest.mark.parametrize("name", ["no/such-model", "Xenova"])
def test_a_name_that_nobody_knows_is_refused_with_those_there_are(settings, name):
    with pytest.raises(ModelUnavailable, match=KNOWN):
        load_reranker(name, settings.cache_dir)


def test_a_folder_without_a_model_is_refused(settings, tmp_path):
    with pytest.raises(ModelUnavailable, match=r"has no onnx/model\.onnx"):
        load_reranker(str(tmp_path), settings.cache_dir)


def test_fetching_one_is_refused_offline_and_of_an_unknown_name(monkeypatch, tmp_path):
    monkeypatch.setenv("MCP_MEMORY_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("MCP_MEMORY_OFFLINE", "1")
    offline = CliRunner().invoke(models_command, ["fetch", "--reranker", KNOWN])
    assert "the setting is offline" in str(offline.exception)
    unknown = CliRunner().invoke(models_command, ["fetch", "--reranker", "no/such-model"])
    assert "no reranker 'no/such-model' is known" in str(unknown.exception)
