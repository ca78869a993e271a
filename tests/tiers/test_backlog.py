"""Vectors that are written in batches: they are searched at once, and never lost for good."""

import pytest
from fakes import HashEmbedder, memory_of
from talker import until

from mcp_memory.tiers.engine import Engine
from mcp_memory.values.records import Kind, NewMessage


def vector_rows(engine, memory_id):
    return engine.store.database.read("SELECT version FROM vectors WHERE id = $1", memory_id)


@pytest.fixture
def batching(settings):
    """Open an engine that batches vectors until it is told to write them."""
    engine = Engine(settings, embedder=HashEmbedder())
    engine.vectors.on_batched = lambda: None
    yield engine
    engine.close()


def test_vectors_in_a_batch_are_searched_at_once_and_written_together(batching):
    memory = memory_of(batching)
    ids = [memory.archive.insert(f"number {n} of the teas").memory.id for n in range(3)]
    assert not any(vector_rows(batching, key) for key in ids)
    assert memory.archive.search("number 2 of the teas").search == "hybrid"
    assert batching.vectors.write_batch() == 3
    assert all(len(vector_rows(batching, key)) == 1 for key in ids)
    assert batching.vectors.write_batch() == 0


def test_an_index_that_is_loaded_has_the_vectors_of_the_batch(batching):
    memory = memory_of(batching)
    kept = memory.archive.insert("green tea").memory.id
    batching.archival.indexes.forget()
    index = batching.archival.index("default")
    found = index.nearest(HashEmbedder().embed_passages(["green tea"])[0], at_least=0.99, limit=5)
    assert [item.key for item in found] == [kept]


def test_vectors_of_a_memory_that_has_changed_meanwhile_are_not_written(batching):
    memory = memory_of(batching)
    kept = memory.archive.insert("green tea").memory.id
    gone = memory.archive.insert("black tea").memory.id
    memory.archive.update(kept, content="white tea", kind=Kind.FACT)
    memory.archive.delete(gone)
    batching.vectors.write_batch()
    assert vector_rows(batching, kept) == [(2,)]
    assert vector_rows(batching, gone) == []


def test_the_batch_is_written_when_the_store_is_closed(settings):
    engine = Engine(settings, embedder=HashEmbedder())
    engine.vectors.on_batched = lambda: None
    kept = memory_of(engine).archive.insert("green tea").memory.id
    engine.close()
    again = Engine(settings, embedder=HashEmbedder())
    assert vector_rows(again, kept) == [(1,)]
    again.close()


def test_vectors_that_a_crash_has_lost_are_computed_again(settings):
    engine = Engine(settings, embedder=HashEmbedder())
    engine.vectors.on_batched = lambda: None
    memory = memory_of(engine)
    kept = memory.archive.insert("green tea").memory.id
    engine.store.close()
    again = Engine(settings, embedder=HashEmbedder())
    assert vector_rows(again, kept) == []
    again.start()
    until(lambda: vector_rows(again, kept) == [(1,)], "the vectors")
    assert again.state("default").pending == 0
    again.close()


def test_what_a_crash_has_lost_is_pending_before_the_model_is_said_to_be_ready(
    settings, monkeypatch
):
    embedder = HashEmbedder()
    settings = settings.model_copy(update={"embedding_model": embedder.name})
    engine = Engine(settings, embedder=embedder)
    engine.vectors.on_batched = lambda: None
    memory_of(engine).archive.insert("green tea")
    engine.store.close()
    ready: list[tuple[str, int]] = []

    def used(self, embedder):
        use(self, embedder)
        ready.append((self.embedding, self.state("default").pending))

    use = Engine.use
    monkeypatch.setattr(Engine, "use", used)
    monkeypatch.setattr("mcp_memory.models.files.find_model", lambda *_: "found")
    monkeypatch.setattr("mcp_memory.models.embedding.FastEmbedder.load", lambda *_, **__: embedder)
    again = Engine(settings)
    again.start()
    until(lambda: ready, "the model")
    again.close()
    assert ready == [("ready", 1)]


def test_in_the_background_vectors_are_written_before_long(settings):
    engine = Engine(settings, embedder=HashEmbedder())
    engine.start()
    until(lambda: engine.vectors.on_batched is not None, "the background work")
    kept = memory_of(engine).archive.insert("green tea").memory.id
    until(lambda: vector_rows(engine, kept) == [(1,)], "the vectors")
    engine.close()


class Meanwhile(HashEmbedder):
    """Does something once, while vectors are being computed."""

    def __init__(self):
        super().__init__()
        self.act = None

    def embed_passages(self, texts, *, urgent=True):
        act, self.act = self.act, None
        if act is not None:
            act()
        return super().embed_passages(texts)


@pytest.fixture
def meanwhile(settings):
    engine = Engine(settings, embedder=Meanwhile())
    yield engine
    engine.close()


def test_a_text_that_is_superseded_while_it_is_embedded_is_not_found_by_what_it_was(meanwhile):
    memory = memory_of(meanwhile)
    archival, embedder = meanwhile.archival, meanwhile._embedder
    memory.loader.memories([{"content": "green tea"}, {"content": "black coffee"}])
    index = archival.index("default")
    key = archival.same("default", archival.draft("green tea", (), Kind.FACT, None)).id

    def supersede():
        memory.archive.update(key, content="white wine")

    embedder.act = supersede
    assert meanwhile.fill_pending() > 0
    assert vector_rows(meanwhile, key) == [(2,)]
    vector = embedder.embed_query("green tea")
    assert not index.nearest(vector, at_least=0.9, limit=5)
    again = embedder.embed_query("white wine")
    assert [found.key for found in index.nearest(again, at_least=0.9, limit=5)] == [key]
    assert meanwhile.vectors.pending_count() == 0


def test_a_text_that_is_deleted_while_it_is_embedded_leaves_nothing(meanwhile):
    memory = memory_of(meanwhile)
    memory.loader.memories([{"content": "green tea"}])
    index = meanwhile.archival.index("default")
    key = memory.archive.search("tea").items[0].memory.id
    meanwhile._embedder.act = lambda: memory.archive.delete(key)
    meanwhile.fill_pending()
    assert vector_rows(meanwhile, key) == []
    vector = meanwhile._embedder.embed_query("green tea")
    assert not index.nearest(vector, at_least=0.9, limit=5)
    assert meanwhile.vectors.pending_count() == 0


def test_a_text_is_written_and_found_by_its_words_while_its_vector_is_computed(meanwhile):
    memory = memory_of(meanwhile)
    seen: list[str] = []
    memory.archive.insert("black coffee")

    def look():
        until(lambda: memory.archive.count() == 2, "the row")
        seen.extend(item.memory.content for item in memory.archive.search("green tea").items)

    meanwhile._embedder.act = look
    done = memory.archive.insert("green tea")
    assert seen[0] == "green tea"
    assert done.embedded
    assert vector_rows(meanwhile, done.memory.id) == [(1,)]
    assert meanwhile.vectors.pending_count() == 0


@pytest.mark.parametrize("change", ["deleted", "superseded"])
def test_what_is_changed_by_another_while_its_vector_is_computed_stays_so(meanwhile, change):
    memory = memory_of(meanwhile)
    index = meanwhile.archival.index("default")

    def act():
        until(lambda: memory.archive.count() == 1, "the row")
        key = memory.archive.search("tea").items[0].memory.id
        if change == "deleted":
            memory.archive.delete(key)
        else:
            memory.archive.update(key, content="white wine")

    meanwhile._embedder.act = act
    key = memory.archive.insert("green tea").memory.id
    assert vector_rows(meanwhile, key) == ([] if change == "deleted" else [(2,)])
    vector = meanwhile._embedder.embed_query("green tea")
    assert not index.nearest(vector, at_least=0.9, limit=5)
    assert meanwhile.vectors.pending_count() == 0


def out_of_memory():
    raise MemoryError


def test_if_the_model_fails_the_texts_are_stored_and_embedded_later(meanwhile):
    memory, embedder = memory_of(meanwhile), meanwhile._embedder
    embedder.act = out_of_memory
    kept = memory.archive.insert("green tea")
    assert not kept.embedded
    embedder.act = out_of_memory
    memory.archive.update(kept.memory.id, content="white tea")
    embedder.act = out_of_memory
    found = NewMessage("tool", '{"total": 0}', name="archival_memory_search")
    said = memory.conversations.append([NewMessage("user", "I like tea."), found])
    assert meanwhile.vectors.pending_count() == 2
    assert meanwhile.fill_pending() > 0
    assert vector_rows(meanwhile, kept.memory.id) == [(2,)]
    assert vector_rows(meanwhile, said.ids[0]) == [(1,)]
    assert meanwhile.vectors.pending_count() == 0


def test_of_many_texts_each_has_its_own_vector(meanwhile):
    memory = memory_of(meanwhile)
    texts = [f"number {n} " + "of many words " * (n % 90) for n in range(300)]
    memory.loader.memories([{"content": text} for text in texts])
    meanwhile.archival.index("default")
    done: list[int] = []
    meanwhile.fill_pending(done.append)
    assert sum(done) == 300
    assert meanwhile.vectors.pending_count() == 0
    meanwhile.archival.indexes.forget()
    index = meanwhile.archival.index("default")
    for n in (0, 17, 89, 271):
        chunks = meanwhile._embedder.chunk(texts[n].strip())
        vector = meanwhile._embedder.embed_query(texts[n].strip()[slice(*chunks[0])])
        found = index.nearest(vector, at_least=0.999, limit=50)
        kept = meanwhile.archival.get_many("default", [item.key for item in found])
        assert texts[n].strip() in {memory.content.strip() for memory in kept.values()}


def test_what_callers_have_waited_for_is_written_while_much_is_pending(meanwhile):
    memory = memory_of(meanwhile)
    meanwhile.vectors.on_batched = lambda: None
    memory.loader.memories([{"content": f"number {n}"} for n in range(200)])
    kept = memory.archive.insert("green tea").memory.id
    seen = []
    meanwhile.fill_pending(lambda _: seen.append(len(vector_rows(meanwhile, kept))))
    assert seen[0] == 0
    assert seen[-1] == 1


@pytest.mark.parametrize("windows", [True, False])
def test_messages_are_embedded_with_their_neighbours_unless_that_is_off(settings, windows):
    changed = settings.model_copy(update={"window_vectors": windows})
    engine = Engine(changed, embedder=HashEmbedder())
    engine.start()
    until(lambda: engine.vectors.on_batched is not None, "the background work")
    memory = memory_of(engine)
    memory.conversations.append([NewMessage("user", f"said {n}") for n in range(3)])
    until(lambda: not engine.recall.without_window, "the windows")
    engine.close()
    again = Engine(changed, embedder=HashEmbedder())
    found = again.store.vectors.blocks("default", "window", again.store.seq("default"))
    numbers = [number for block in found for number in block.numbers.tolist()]
    again.close()
    # Each with the two and with the four before it.
    assert sorted(numbers) == ([0, 0, 0, 1, 1, 1] if windows else [])
