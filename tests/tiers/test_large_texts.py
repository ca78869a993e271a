"""A text of many megabytes: findable to its end, and in nobody's way."""

import threading

import pytest
from fakes import HashEmbedder, memory_of

from mcp_memory.search import lexical
from mcp_memory.search.language.analysis import terms
from mcp_memory.tiers import indexes
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.records import NewMessage

LARGE = " ".join(f"word{number}" for number in range(30_000)) + " kettle pot leaf"


@pytest.fixture
def memory(settings):
    memory = memory_of(Engine(settings, embedder=HashEmbedder()))
    memory.archive.insert("a small memory of tea")
    memory.conversations.append([NewMessage("user", "a small message of tea")])
    memory.archive.search("tea")
    memory.conversations.search("tea")
    yield memory
    memory.close()


@pytest.mark.parametrize(
    ("store", "find"),
    [
        (
            lambda memory: memory.archive.insert(LARGE),
            lambda memory, query: memory.archive.search(query),
        ),
        (
            lambda memory: memory.conversations.append([NewMessage("user", LARGE)]),
            lambda memory, query: memory.conversations.search(query),
        ),
    ],
    ids=["memory", "message"],
)
def test_others_search_and_store_while_the_words_of_a_large_text_are_read(
    memory, monkeypatch, store, find
):
    assert len(LARGE) > indexes.LONG_CHARS
    reading, go_on = threading.Event(), threading.Event()

    def hold():
        reading.set()
        assert go_on.wait(20)

    monkeypatch.setattr(indexes, "_pause", hold)
    thread = threading.Thread(target=store, args=(memory,))
    thread.start()
    try:
        assert reading.wait(20)
        small = find(memory, "tea").items
        assert len(small) == 1
        memory.archive.insert("stored meanwhile")
        assert memory.archive.search("stored meanwhile").total == 2
        assert not any("kettle" in hit.passage.text for hit in find(memory, "kettle").items)
    finally:
        go_on.set()
        thread.join()
    # Once it is acknowledged, a search finds it by its last words.
    assert find(memory, "kettle pot leaf").items[0].passage.text.endswith("kettle pot leaf")


def test_the_words_of_a_large_text_are_read_once_and_with_the_lock_free(memory, monkeypatch):
    passages, free = [], []
    lock = memory._engine.lock

    def try_lock():
        free.append(lock.acquire(blocking=False))
        if free[-1]:
            lock.release()

    def noted(text):
        if len(text) > 1_000:
            passages.append(text)
            other = threading.Thread(target=try_lock)
            other.start()
            other.join()
        return terms(text)

    monkeypatch.setattr(lexical, "terms", noted)
    monkeypatch.setattr(indexes, "_PAUSE_SECONDS", 0)
    memory.archive.insert(LARGE)
    # The last one is short.
    assert len(passages) == len(lexical.passages(LARGE)) - 1
    assert all(free)


def test_a_large_text_that_is_changed_is_found_by_its_new_words_alone(memory):
    kept = memory.archive.insert(LARGE).memory.id
    memory.archive.update(kept, content=LARGE.replace("kettle", "samovar"))
    assert memory.archive.search("samovar").items[0].memory.id == kept
    assert not any("kettle" in hit.passage.text for hit in memory.archive.search("kettle").items)
