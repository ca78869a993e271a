"""Large indexes get their vectors block by block, while others search and write."""

import pytest
from fakes import HashEmbedder, memory_of

from mcp_memory.store.duckdb import vectors
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import StorageFault
from mcp_memory.values.records import NewMessage

QUESTION = "which kettle boils slowly"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(vectors, "BLOCK_ROWS", 4)


@pytest.fixture
def started(tmp_path, settings):
    """Open engines on one database, one at a time; usually they leave the filling to the test."""
    opened: list[Engine] = []

    def start(*, puts_off=True):
        for engine in opened:
            engine.close()
        opened.clear()
        changed = settings.model_copy(update={"db": tmp_path / "memory.duckdb"})
        engine = Engine(changed, embedder=HashEmbedder())
        opened.append(engine)
        if puts_off:
            engine.indexes.on_unfilled = lambda: None
        return engine, memory_of(engine)

    yield start
    for engine in opened:
        engine.close()


def fill(memory):
    for number in range(40):
        memory.archive.insert(f"kettle number {number} boils in {number * 7} seconds, slowly")
    memory.conversations.append(
        [NewMessage("user", f"my kettle number {number} boils slowly") for number in range(40)]
    )


def found(part):
    page = part.search(QUESTION, limit=50)
    return [
        (getattr(hit, "memory", None) or hit.message, round(hit.score, 4)) for hit in page.items
    ]


def test_until_all_vectors_are_there_a_search_answers_and_says_so(started):
    fill(started()[1])
    engine, memory = started()
    page = memory.archive.search(QUESTION, limit=50)
    assert len(page.items) == 40
    assert "being loaded" in (page.note or "")
    while engine.indexes.fill_more():
        pass
    assert memory.archive.search(QUESTION).note is None


def same_meaning(engine, text):
    """Return the ids of the memories that have the vector of a text."""
    vector = HashEmbedder().embed_passages([text])[0]
    found = engine.archival.index("default").nearest(vector, at_least=0.9999, limit=50)
    return [item.key for item in found]


def test_what_is_written_while_an_index_is_filled_has_its_own_vectors(started):
    fill(started()[1])
    engine, memory = started()
    before = [hit.memory for hit in memory.archive.search(QUESTION, limit=50).items]
    changed, gone, *others = sorted(before, key=lambda item: item.recorded_at, reverse=True)
    memory.archive.update(changed.id, content="the teapot was never mentioned")
    memory.archive.delete(gone.id)
    new = memory.archive.insert("kettle number 99 boils slowly as well").memory
    while engine.indexes.fill_more():
        pass
    assert same_meaning(engine, changed.content) == []
    assert same_meaning(engine, gone.content) == []
    assert same_meaning(engine, "the teapot was never mentioned") == [changed.id]
    assert all(same_meaning(engine, item.content) == [item.id] for item in (new, *others))
    # Nothing has its vector twice.
    assert not engine.archival.index("default")._vectors._rows


def test_messages_and_what_surrounds_them_are_filled_too(started):
    _, memory = started(puts_off=False)
    fill(memory)
    whole = found(memory.conversations)
    engine, memory = started()
    assert "being loaded" in (memory.conversations.search(QUESTION).note or "")
    while engine.indexes.fill_more():
        pass
    assert found(memory.conversations) == whole


def test_an_index_whose_vectors_cannot_be_read_is_loaded_again(started, monkeypatch):
    fill(started()[1])
    engine, memory = started()
    memory.archive.search(QUESTION)

    def fails(*_):
        raise StorageFault("no such luck")

    with monkeypatch.context() as patch:
        patch.setattr(engine.store.database, "read_columns", fails)
        with pytest.raises(StorageFault, match="no such luck"):
            engine.indexes.fill_more()
    assert ("memory", "default") not in engine.indexes
    assert len(found(memory.archive)) == 40


def test_the_background_fills_an_index_by_itself(started):
    fill(started()[1])
    engine, memory = started(puts_off=False)
    engine.start()
    memory.archive.search(QUESTION)

    def unfilled():
        with engine.lock:
            return not engine.archival.index("default").complete

    while unfilled():
        pass
    assert memory.archive.search(QUESTION).note is None


def test_the_texts_of_a_small_memory_are_read_before_they_are_found(started, monkeypatch):
    fill(started()[1])
    engine, memory = started(puts_off=False)
    for part in (memory.archive, memory.conversations):
        part.search(QUESTION)

    def fails(*_):
        raise StorageFault("it was not read ahead")

    monkeypatch.setattr(engine.store.database, "read", fails)
    assert len(found(memory.archive)) == len(found(memory.conversations)) == 40
