"""Another tokenizer: every stored count of the old one is counted again, once."""

import pytest
from fakes import HashEmbedder, memory_of

from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.store.duckdb import recounting
from mcp_memory.store.duckdb.store import DuckDBStore
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.records import NewMessage
from mcp_memory.values.render import counted_message

CHINESE = "我姐姐的猫叫团子，每天早上六点就要吃饭。"


def opened(settings, name):
    return Engine(settings.model_copy(update={"tokenizer": name}), embedder=HashEmbedder())


def recount(store, tokenizer):
    return store.recount(tokenizer.count, tokenizer.name)


def say(memory, *texts):
    memory.conversations.append([NewMessage("user", text, "小雨", None) for text in texts], "main")


@pytest.fixture
def changed(settings):
    """Give an engine with cl100k_base on a database that was written with o200k_base."""
    engine = opened(settings, "o200k_base")
    memory = memory_of(engine)
    say(memory, *(f"{CHINESE} {number}" for number in range(30)))
    memory.conversations.flush("main", f"{CHINESE * 3} A summary.")
    memory.archive.insert(CHINESE)
    memory.core.append("human", CHINESE, "main")
    engine.close()
    engine = opened(settings, "cl100k_base")
    yield engine
    engine.close()


def test_the_two_tokenizers_differ(settings):
    one, other = (
        Tokenizer(name, cache_dir=settings.cache_dir) for name in ("o200k_base", "cl100k_base")
    )
    assert one.count(CHINESE) < other.count(CHINESE)


def test_messages_memories_blocks_and_summaries_are_counted_again(changed):
    memory, count = memory_of(changed), changed.tokenizer.count
    listed = memory.conversations.search(limit=50).items
    assert len(listed) == 30
    assert all(hit.message.tokens == count(counted_message(hit.message)) for hit in listed)
    (kept,) = memory.archive.search().items
    assert kept.memory.tokens == count(CHINESE)
    block = next(block for block in memory.core.all("main") if block.label == "human")
    assert block.tokens == count(block.value) > 0
    rows = changed.store.database.read("SELECT content, tokens FROM summaries")
    assert rows
    assert all(tokens == count(content) for content, tokens in rows)


def test_the_budget_goes_by_what_is_set(changed):
    budget = memory_of(changed).conversations.budget("main")
    rows = changed.store.database.read(
        "SELECT role, name, content FROM messages ORDER BY position DESC LIMIT $1",
        budget.counts["queue_messages"],
    )
    texts = [f"{role} ({name}): {content}\n" for role, name, content in rows]
    assert budget.parts.queue == sum(map(changed.tokenizer.count, texts)) > 0


def test_it_is_done_once(changed, settings):
    assert recount(changed.store, changed.tokenizer) == 0
    back = Tokenizer("o200k_base", cache_dir=settings.cache_dir)
    assert recount(changed.store, back) > 30
    assert recount(changed.store, back) == 0


def cut_short(engine, tokenizer, monkeypatch):
    count, left = tokenizer.count, [20]

    def fails(text):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return count(text)

    with monkeypatch.context() as patch:
        patch.setattr(recounting, "_ROWS_AT_ONCE", 8)
        patch.setattr(tokenizer, "count", fails)
        with pytest.raises(KeyboardInterrupt):
            recount(engine.store, tokenizer)


def test_what_was_cut_short_begins_again(changed, settings, monkeypatch):
    back = Tokenizer("o200k_base", cache_dir=settings.cache_dir)
    cut_short(changed, back, monkeypatch)
    assert recount(changed.store, back) > 30


def test_what_was_cut_short_is_not_taken_for_done_by_the_tokenizer_of_before(
    changed, settings, monkeypatch
):
    cut_short(changed, Tokenizer("o200k_base", cache_dir=settings.cache_dir), monkeypatch)
    rows = "SELECT content, tokens FROM messages WHERE tokens <> $1"
    before = changed.tokenizer.count(f"user (小雨): {CHINESE} 1\n")
    assert changed.store.database.read(rows, before)  # Some were counted again.
    assert recount(changed.store, changed.tokenizer) > 30
    assert all(
        tokens == changed.tokenizer.count(f"user (小雨): {content}\n")
        for content, tokens in changed.store.database.read("SELECT content, tokens FROM messages")
    )


def test_a_database_that_does_not_say_was_counted_by_the_first(tmp_path, settings):
    store = DuckDBStore(tmp_path / "new.duckdb")
    first = Tokenizer("o200k_base", cache_dir=settings.cache_dir)
    assert recount(store, first) == 0
    assert store.values.get("tokenizer") is None
    store.close()
