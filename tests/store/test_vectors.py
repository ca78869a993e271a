"""The tables of vectors: whose they are, which are pending, which model made them."""

import numpy as np
import pytest
from stores import database_of

from mcp_memory.store import open_store
from mcp_memory.store.duckdb import vectors as module
from mcp_memory.store.ports import ModelRecord, Pending, TextVectors
from mcp_memory.tiers.feed import ChangeFeed
from mcp_memory.tiers.vectors import BatchedVectors
from mcp_memory.values.errors import ModelMismatch, StorageFault

MODEL = ModelRecord("org/small", "ab" * 32, 3)
ALL = 1_000
"""A change number above all."""


@pytest.fixture
def opened():
    opened = open_store(None)
    yield opened
    opened.close()


@pytest.fixture
def database(opened):
    return database_of(opened)


@pytest.fixture
def store(opened):
    return BatchedVectors(opened, ChangeFeed(opened))


@pytest.fixture
def adopted(store):
    store.adopt(MODEL)
    return store


ITEM = Pending("ana", "memory", "a", 1)


def vectors(count, start=0.0):
    return np.arange(start, start + count * 3, dtype=np.float32).reshape(count, 3)


def save(store, text_id, count=1, *, agent="ana", source="memory", version=1, start=0.0):
    ranges = [(10 * number, 10 * number + 10) for number in range(count)]
    item = Pending(agent, source, text_id, version)
    store.add([TextVectors(item, ranges, vectors(count, start))])


def defer(store, opened, *items):
    with opened.transaction() as unit:
        store.defer(unit, items)


def test_a_new_database_is_of_no_model_and_has_no_vectors(store):
    assert store.model() is None
    assert load(store, "ana", "memory") is None
    store.check_name("any/model")


def test_the_first_model_is_adopted_and_may_come_again(store):
    store.adopt(MODEL)
    store.adopt(MODEL)
    assert store.model() == MODEL
    store.check_name(MODEL.name)


@pytest.mark.parametrize(
    "other",
    [
        ModelRecord("org/other", MODEL.fingerprint, MODEL.dimension),
        ModelRecord(MODEL.name, "cd" * 32, MODEL.dimension),
        ModelRecord(MODEL.name, MODEL.fingerprint, 4),
    ],
    ids=["name", "fingerprint", "dimension"],
)
def test_another_model_is_refused_and_changes_nothing(adopted, other):
    save(adopted, "a")
    with pytest.raises(ModelMismatch) as fault:
        adopted.adopt(other)
    assert MODEL.name in fault.value.stored
    assert other.name in fault.value.wanted
    assert fault.value.stored != fault.value.wanted
    assert adopted.model() == MODEL
    assert load(adopted, "ana", "memory") is not None


def test_another_name_is_refused_before_its_files_are_there(adopted):
    with pytest.raises(ModelMismatch) as fault:
        adopted.check_name("org/other")
    assert (fault.value.stored, fault.value.wanted) == (MODEL.name, "org/other")


def load(store, *key):
    """Return the only block of vectors, None without any."""
    blocks = list(store.blocks(*key, ALL))
    assert len(blocks) < 2
    return blocks[0] if blocks else None


def by_id(block):
    """Return the ranges and vectors of each text of a block, in order."""
    found: dict[str, tuple[list[tuple[int, int]], list[list[float]]]] = {}
    spans = zip(block.starts.tolist(), block.ends.tolist(), strict=True)
    for text_id, span, row in zip(block.ids, spans, block.vectors.tolist(), strict=True):
        ranges, rows = found.setdefault(text_id, ([], []))
        ranges.append(span)
        rows.append(row)
    return found


def test_vectors_are_loaded_text_by_text_with_their_ranges(adopted):
    save(adopted, "b", 1, start=90)
    save(adopted, "a", 3)
    save(adopted, "c", 2, start=50)
    (loaded,) = adopted.blocks("ana", "memory", ALL)
    assert loaded.vectors.dtype == np.float32
    assert loaded.vectors.shape == (6, 3)
    assert by_id(loaded) == {
        "a": ([(0, 10), (10, 20), (20, 30)], vectors(3).tolist()),
        "b": ([(0, 10)], vectors(1, 90).tolist()),
        "c": ([(0, 10), (10, 20)], vectors(2, 50).tolist()),
    }


def test_vectors_are_those_of_one_agent_and_one_source(adopted):
    save(adopted, "a", agent="ana")
    save(adopted, "b", agent="ben")
    save(adopted, "c", agent="ana", source="message")
    assert [load(adopted, *key).ids for key in (("ana", "memory"), ("ben", "memory"))] == [
        ["a"],
        ["b"],
    ]
    assert load(adopted, "ben", "message") is None


def test_vectors_of_another_length_are_refused_whole(adopted, opened):
    four = np.ones((1, 4), dtype=np.float32)
    with pytest.raises(StorageFault), opened.transaction() as unit:
        opened.vectors.insert(unit, [TextVectors(ITEM, [(0, 1)], four)])
    assert load(adopted, "ana", "memory") is None


def test_a_range_for_each_vector_is_demanded(adopted, opened):
    with pytest.raises(ValueError, match="zip"), opened.transaction() as unit:
        opened.vectors.insert(unit, [TextVectors(ITEM, [(0, 1)], vectors(2))])
    assert load(adopted, "ana", "memory") is None


def test_a_deferred_text_is_pending_until_it_is_settled(adopted, opened):
    one, two = Pending("ana", "memory", "a", 1), Pending("ana", "message", "a", 1)
    other = Pending("ben", "memory", "a", 1)
    defer(adopted, opened, one, two, other)
    assert set(adopted.pending(10)) == {one, two, other}
    assert len(adopted.pending(2)) == 2
    assert [adopted.pending_count(agent) for agent in ("ana", "ben", "eva", None)] == [2, 1, 0, 3]
    with opened.transaction() as unit:
        adopted.settle(unit, [one])
    assert set(adopted.pending(10)) == {two, other}


def test_deferring_is_undone_with_its_transaction(adopted, opened):
    def fail():
        with opened.transaction() as unit:
            adopted.defer(unit, [Pending("ana", "memory", "a", 1)])
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # it is our own
        fail()
    assert adopted.pending_count() == 0


def test_a_long_text_is_done_part_by_part_and_pending_until_the_last(adopted, opened):
    item = Pending("ana", "memory", "a", 2)
    defer(adopted, opened, item)
    assert adopted.count(item) == 0
    adopted.insert_part(TextVectors(item, [(0, 10), (10, 20)], vectors(2)), last=False)
    assert adopted.count(item) == 2
    assert adopted.pending(10) == [item]
    adopted.insert_part(TextVectors(item, [(20, 30)], vectors(1, 6), 2), last=True)
    assert adopted.pending(10) == []
    loaded = load(adopted, "ana", "memory")
    assert loaded is not None
    assert by_id(loaded) == {"a": ([(0, 10), (10, 20), (20, 30)], vectors(3).tolist())}
    assert loaded.numbers.tolist() == [0, 1, 2]


def test_what_was_saved_is_counted_by_agent_source_id_and_version(adopted):
    save(adopted, "a", 2, version=1)
    assert adopted.count(Pending("ana", "memory", "a", 1)) == 2
    for other in (
        Pending("ana", "memory", "a", 2),
        Pending("ana", "message", "a", 1),
        Pending("ana", "memory", "b", 1),
        Pending("ben", "memory", "a", 1),
    ):
        assert adopted.count(other) == 0


def test_a_forgotten_text_has_no_vectors_and_is_not_pending(adopted, opened):
    save(adopted, "a", 2, version=1)
    save(adopted, "b")
    save(adopted, "a", agent="ben")
    save(adopted, "a", source="message")
    defer(adopted, opened, Pending("ana", "memory", "a", 2), Pending("ben", "memory", "a", 1))
    with opened.transaction() as unit:
        adopted.delete_text(unit, "ana", "memory", "a")
    assert load(adopted, "ana", "memory").ids == ["b"]
    assert load(adopted, "ben", "memory").ids == ["a"]
    assert load(adopted, "ana", "message").ids == ["a"]
    assert adopted.pending(10) == [Pending("ben", "memory", "a", 1)]


def test_a_text_can_be_forgotten_before_there_is_a_model(store, opened):
    defer(store, opened, Pending("ana", "memory", "a", 1))
    with opened.transaction() as unit:
        store.delete_text(unit, "ana", "memory", "a")
    assert store.pending_count() == 0


def test_another_model_makes_every_current_text_pending(adopted, opened, database):
    moment = "2026-01-05 09:00:00+00"
    with database.transaction() as tx:
        for agent, key, version, retired in (
            ("ana", "m1", 1, moment),
            ("ana", "m1", 2, None),
            ("ana", "m2", 1, moment),
            ("ben", "m3", 1, None),
        ):
            tx.run(
                "INSERT INTO memories (agent, id, version, content, content_hash, kind, tags,"
                " tokens, happened_at, recorded_at, retired_at)"
                " VALUES ($1, $2, $3, 'text', 'hash', 'fact', [], 1,"
                " CAST($4 AS timestamptz), CAST($4 AS timestamptz), CAST($5 AS timestamptz))",
                agent,
                key,
                version,
                moment,
                retired,
            )
        for position, searchable in ((0, True), (1, False)):
            tx.run(
                "INSERT INTO messages (agent, conversation, position, id, role, content, tokens,"
                " searchable, created_at, recorded_at)"
                " VALUES ('ana', 'main', $1, $2, 'user', 'text', 1, $3,"
                " CAST($4 AS timestamptz), CAST($4 AS timestamptz))",
                position,
                f"s{position}",
                searchable,
                moment,
            )
    save(adopted, "m1", version=2)
    defer(adopted, opened, Pending("ana", "memory", "gone", 1))
    other = ModelRecord("org/large", "cd" * 32, 5)
    adopted.replace_model(other)
    assert adopted.model() == other
    assert load(adopted, "ana", "memory") is None
    assert set(adopted.pending(10)) == {
        Pending("ana", "memory", "m1", 2),
        Pending("ben", "memory", "m3", 1),
        Pending("ana", "message", "s0", 1),
    }
    one = np.ones((1, 5), dtype=np.float32)
    adopted.add([TextVectors(Pending("ana", "memory", "m1", 2), [(0, 4)], one)])
    assert load(adopted, "ana", "memory").vectors.shape == (1, 5)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ROWS", 4)


def all_rows(blocks):
    return [
        row
        for block in blocks
        for row in zip(block.ids, block.numbers.tolist(), block.vectors[:, 0].tolist(), strict=True)
    ]


@pytest.mark.usefixtures("small_blocks")
def test_many_vectors_come_in_blocks_each_of_them_once(adopted):
    for place in range(11):
        save(adopted, f"text {place}", 1 + place % 2, start=100 * place)
        save(adopted, f"text {place}", agent="ben")
    blocks = list(adopted.blocks("ana", "memory", ALL))
    assert len(blocks) > 3
    assert sorted(all_rows(blocks)) == sorted(
        (f"text {place}", number, float(vectors(2, 100 * place)[number, 0]))
        for place in range(11)
        for number in range(1 + place % 2)
    )


@pytest.mark.usefixtures("small_blocks")
def test_what_is_moved_between_two_blocks_is_read_all_the_same(adopted, database):
    for place in range(12):
        save(adopted, f"text {place:02}", start=100 * place)
    blocks = adopted.blocks("ana", "memory", ALL)
    found = all_rows([next(blocks)])
    with database.transaction() as tx:
        # The first rows go, and come again behind all others.
        tx.run("CREATE TEMP TABLE moved AS SELECT * FROM vectors WHERE id > 'text 08'")
        tx.run("DELETE FROM vectors WHERE id > 'text 08'")
        tx.run("INSERT INTO vectors BY NAME SELECT * FROM moved")
    found += all_rows(blocks)
    assert sorted(found) == [
        (f"text {place:02}", 0, float(vectors(1, 100 * place)[0, 0])) for place in range(12)
    ]
