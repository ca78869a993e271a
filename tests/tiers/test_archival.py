"""Archival memory through the façade: kept once, found by every part, superseded, deleted."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from fakes import HashEmbedder, memory_of
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcp_memory.settings import load_settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.tiers.jobs import INLINE_CHUNKS
from mcp_memory.values.errors import InvalidInput, NotFound, OverLimit
from mcp_memory.values.records import Kind, NewMessage

LONG = " ".join(f"word{number}" for number in range(600)) + " The kettle costs 30 euros."
GIANT = " ".join(f"word{number}" for number in range(INLINE_CHUNKS * 45)) + " kettle pot leaf"
"""More chunks than are embedded while a caller waits."""


def ids(page):
    return [hit.memory.id for hit in page.items]


def contents(page):
    return [hit.memory.content for hit in page.items]


def rows(memory, columns):
    return memory._engine.store.database.read(
        f"SELECT {columns} FROM memories ORDER BY recorded_at, version"
    )


def temporary_settings(tmp_path_factory, cache_dir):
    return load_settings(
        db=tmp_path_factory.mktemp("archival") / "memory.duckdb",
        cache_dir=cache_dir,
        offline=True,
        embedding_model="fake/hash",
    )


def test_what_is_kept_is_found_and_shown_by_its_id(memory):
    kept = memory.archive.insert("Ana likes green tea.", tags=["tea"], kind=Kind.PREFERENCE)
    assert (kept.created, kept.embedded, kept.near_duplicates) == (True, True, ())
    found = memory.archive.get(kept.memory.id)
    assert found == kept.memory
    assert (found.content, found.tags, found.kind) == (
        "Ana likes green tea.",
        ("tea",),
        Kind.PREFERENCE,
    )
    assert found.tokens == memory.count_tokens("Ana likes green tea.")
    page = memory.archive.search("green tea")
    assert (ids(page), page.total, page.search) == ([kept.memory.id], 1, "hybrid")
    assert 0 < page.items[0].score <= 1


class Asked(HashEmbedder):
    """Notes of each question whether facts are asked."""

    def __init__(self):
        super().__init__()
        self.of_facts: list[bool] = []

    def embed_query(self, text, *, of_facts=False):
        self.of_facts.append(of_facts)
        return super().embed_query(text)


def test_memories_are_asked_as_facts_and_conversations_are_not(settings):
    embedder = Asked()
    engine = Engine(settings, embedder=embedder)
    memory = memory_of(engine)
    memory.archive.insert("green tea")
    memory.conversations.append([NewMessage("user", "green tea")])
    memory.archive.search("tea")
    memory.conversations.search("tea")
    # Each of the two is kept for the same words, and neither for the other.
    memory.explanations.explain("tea", "archival")
    memory.explanations.explain("coffee", "archival")
    memory.explanations.explain("coffee", "conversation")
    engine.close()
    assert embedder.of_facts == [True, False, True, False]


def test_an_id_is_taken_as_a_model_may_misread_it(memory):
    kept = memory.archive.insert("Ana likes tea.").memory
    assert memory.archive.get(f" {kept.id.upper().replace('0', 'O').replace('1', 'I')}") == kept


@pytest.mark.parametrize("unknown", ["0000000000", "", "no id", "x" * 500, "\ud800", "'; DROP"])
def test_an_id_that_is_not_there_is_said_plainly(memory, unknown):
    for call in (
        lambda: memory.archive.get(unknown),
        lambda: memory.archive.delete(unknown),
        lambda: memory.archive.update(unknown, content="x"),
    ):
        with pytest.raises(NotFound) as fault:
            call()
        assert fault.value.key == unknown


@pytest.mark.parametrize("content", ["", " \n ", "a\x00b", "\ud800"])
def test_a_text_that_cannot_be_kept_is_refused(memory, content):
    with pytest.raises(InvalidInput) as fault:
        memory.archive.insert(content)
    assert fault.value.field == "content"
    assert memory.archive.count() == 0


@pytest.mark.parametrize("again", ["Café in Porto", "  Cafe\u0301 in Porto\n"])
def test_the_same_text_again_is_the_same_memory(memory, again):
    first = memory.archive.insert("Café in Porto", tags=["food"])
    second = memory.archive.insert(again, tags=["food"], kind=Kind.PROJECT)
    assert (second.created, second.memory) == (False, first.memory)
    assert memory.archive.count() == 1
    assert memory.archive.search("porto").total == 1
    assert len(rows(memory, "id")) == 1


def test_the_same_text_with_other_tags_merges_them(memory):
    first = memory.archive.insert("Café in Porto", tags=["food"])
    second = memory.archive.insert("Café in Porto", tags=["travel", "food"])
    assert (second.created, second.memory.id) == (False, first.memory.id)
    assert (second.memory.tags, second.memory.version) == (("food", "travel"), 2)
    assert memory.archive.get(first.memory.id) == second.memory
    assert ids(memory.archive.search("porto", tags=["travel"])) == [first.memory.id]
    assert memory.archive.search("porto").total == 1
    assert memory.archive.count() == 1


@pytest.mark.parametrize("has_model", [True, False])
def test_the_passage_of_a_merged_memory_lies_inside_its_text(open_memory, has_model):
    memory = open_memory(has_model=has_model)
    memory.archive.insert("Tea in Porto", tags=["food"])
    memory.archive.insert("   \n Tea in Porto \n", tags=["travel"])
    memory._engine.fill_pending()
    (hit,) = memory.archive.search("tea").items
    assert hit.passage.text == "Tea in Porto"
    assert (hit.passage.start, hit.passage.end, hit.passage.total) == (0, 12, 12)


def test_a_text_that_was_deleted_may_be_kept_anew(memory):
    first = memory.archive.insert("Ana likes tea.")
    memory.archive.delete(first.memory.id)
    second = memory.archive.insert("Ana likes tea.")
    assert second.created
    assert second.memory.id != first.memory.id
    assert ids(memory.archive.search("tea")) == [second.memory.id]


def test_a_text_that_was_superseded_may_be_kept_anew(memory):
    first = memory.archive.insert("Ana likes tea.")
    memory.archive.update(first.memory.id, content="Ana likes coffee.")
    second = memory.archive.insert("Ana likes tea.")
    assert second.created
    assert not memory.archive.insert("Ana likes coffee.").created
    assert memory.archive.count() == 2


def test_an_update_supersedes_and_the_old_text_stays_out_of_search(open_memory):
    memory = open_memory(has_model=False)
    kept = memory.archive.insert("Ana likes coffee.", tags=["drink"])
    assert memory.archive.search("coffee").total == 1
    changed = memory.archive.update(kept.memory.id, content="Ana likes green tea.")
    assert (changed.id, changed.version, changed.tags) == (kept.memory.id, 2, ("drink",))
    assert changed.tokens == memory.count_tokens("Ana likes green tea.")
    assert memory.archive.search("coffee").total == 0
    assert contents(memory.archive.search("tea")) == ["Ana likes green tea."]
    assert memory.archive.get(kept.memory.id) == changed
    assert memory.archive.count() == 1


def test_no_version_is_overwritten(memory):
    kept = memory.archive.insert("one").memory
    memory.archive.update(kept.id, content="two")
    memory.archive.update(kept.id, tags=["x"])
    memory.archive.delete(kept.id)
    versions = rows(memory, "version, content, list_contains(tags, 'x'), retired_at IS NOT NULL")
    assert versions == [(1, "one", False, True), (2, "two", False, True), (3, "two", True, True)]
    assert memory.archive.count() == 0


def test_an_update_of_tags_or_kind_leaves_the_text(memory):
    kept = memory.archive.insert("Ana likes tea.", tags=["a"], kind=Kind.FACT).memory
    memory.archive.update(kept.id, kind=Kind.PREFERENCE)
    changed = memory.archive.update(kept.id, tags=[])
    assert (changed.content, changed.tags, changed.kind, changed.version) == (
        "Ana likes tea.",
        (),
        Kind.PREFERENCE,
        3,
    )
    assert changed.happened_at == kept.happened_at
    assert memory.archive.search("tea", tags=["a"]).total == 0
    assert memory.archive.search("tea", kinds=[Kind.PREFERENCE]).total == 1
    assert memory.archive.search("tea", kinds=[Kind.FACT]).total == 0


def test_an_update_of_nothing_is_refused(memory):
    kept = memory.archive.insert("Ana likes tea.").memory
    with pytest.raises(InvalidInput):
        memory.archive.update(kept.id)
    with pytest.raises(InvalidInput):
        memory.archive.update(kept.id, content=" ")
    assert memory.archive.get(kept.id) == kept


def test_an_update_to_the_text_of_another_memory_is_refused(memory):
    one = memory.archive.insert("Ana likes tea.").memory
    two = memory.archive.insert("Ana likes coffee.").memory
    with pytest.raises(InvalidInput) as fault:
        memory.archive.update(two.id, content=" Ana likes tea. ")
    assert fault.value.field == "content"
    assert one.id in fault.value.message
    assert memory.archive.get(two.id) == two
    assert memory.archive.update(one.id, content="Ana likes tea. ").version == 2


def test_a_deleted_memory_is_out_of_search_view_and_count(memory):
    kept = memory.archive.insert("Ana likes tea.", tags=["drink"]).memory
    memory.archive.insert("Ben likes tea.")
    assert memory.archive.search("Ana tea").total == memory.archive.count() == 2
    assert memory.archive.delete(kept.id) == kept
    for page in (memory.archive.search("Ana tea"), memory.archive.search()):
        assert (contents(page), page.total) == (["Ben likes tea."], 1)
    assert (memory.archive.count(), memory.archive.tags()) == (1, [])
    with pytest.raises(NotFound):
        memory.archive.get(kept.id)
    with pytest.raises(NotFound):
        memory.archive.delete(kept.id)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, cache_dir):
    """Give memories of four days, with kinds and tags; to be read alone."""
    memory = memory_of(
        Engine(temporary_settings(tmp_path_factory, cache_dir), embedder=HashEmbedder()), "default"
    )
    for day, (text, tags, kind) in enumerate(
        [
            ("tea on the first", ["a"], Kind.FACT),
            ("tea on the second", ["a", "b"], Kind.PROJECT),
            ("tea on the third", ["b", "c"], Kind.FACT),
            ("tea on the fourth", [], Kind.EPISODE),
        ],
        start=1,
    ):
        memory.archive.insert(text, tags=tags, kind=kind, happened_at=f"2026-01-0{day}T12:00:00Z")
    yield memory
    memory.close()


FILTERS = [
    ({}, {1, 2, 3, 4}),
    ({"tags": ["a"]}, {1, 2}),
    ({"tags": ["a", "c"]}, {1, 2, 3}),
    ({"tags": ["a", "b"], "tag_match": "all"}, {2}),
    ({"tags": ["a", "c"], "tag_match": "all"}, set()),
    ({"tags": [], "tag_match": "all"}, {1, 2, 3, 4}),
    ({"tags": ["A"]}, set()),
    ({"kinds": [Kind.FACT]}, {1, 3}),
    ({"kinds": [Kind.FACT, Kind.EPISODE]}, {1, 3, 4}),
    ({"kinds": [Kind.REFLECTION]}, set()),
    ({"start_date": "2026-01-02", "end_date": "2026-01-03"}, {2, 3}),
    ({"end_date": "2026-01-01"}, {1}),
    ({"tags": ["b"], "kinds": [Kind.FACT], "start_date": "2026-01-02"}, {3}),
]


@pytest.mark.parametrize(("filters", "days"), FILTERS)
@pytest.mark.parametrize("query", [None, "tea"])
def test_only_what_passes_the_filters_is_found_and_counted(shelf, query, filters, days):
    page = shelf.archive.search(query, **filters)
    assert {hit.memory.happened_at.day for hit in page.items} == days
    assert page.total == len(days)


def test_filters_apply_before_the_limit(memory):
    for number in range(60):
        memory.archive.insert(f"tea tea tea {number}", tags=["common"])
    memory.archive.insert("a longer text that has tea in it once", tags=["rare"])
    page = memory.archive.search("tea", tags=["rare"], limit=1)
    assert (len(page.items), page.total) == (1, 1)


def test_without_a_query_the_newest_by_date_are_listed_first(shelf):
    page = shelf.archive.search(limit=3)
    assert page.search == "listing"
    assert [hit.memory.happened_at.day for hit in page.items] == [4, 3, 2]
    rest = shelf.archive.search(limit=3, offset=3)
    assert [hit.memory.happened_at.day for hit in rest.items] == [1]
    assert rest.total == 4


def test_a_memory_without_a_date_happened_when_it_was_recorded(memory):
    kept = memory.archive.insert("Ana likes tea.").memory
    assert kept.happened_at == kept.recorded_at
    assert abs(kept.recorded_at - datetime.now(UTC)) < timedelta(minutes=5)


def test_a_day_on_which_it_happened_begins_in_the_zone_that_is_set(open_memory):
    memory = open_memory(timezone="Asia/Shanghai")
    kept = memory.archive.insert("Ana moved.", happened_at="2026-01-02").memory
    assert kept.happened_at == datetime(2026, 1, 1, 16, tzinfo=UTC)
    assert memory.archive.search(start_date="2026-01-02", end_date="2026-01-02").total == 1
    assert memory.archive.search(end_date="2026-01-01").total == 0


@pytest.mark.parametrize("moment", ["0001-01-01", "9999-12-31", "1969-12-31T23:59:59Z"])
def test_the_ends_of_the_calendar_can_be_kept_and_found(memory, moment):
    kept = memory.archive.insert("Ana moved.", happened_at=moment).memory
    assert memory.archive.get(kept.id).happened_at == kept.happened_at
    assert ids(memory.archive.search("moved", start_date=moment, end_date=moment)) == [kept.id]
    assert ids(memory.archive.search(start_date=moment, end_date=moment)) == [kept.id]


@pytest.mark.parametrize("query", [None, "tea"])
def test_pages_of_one_result_are_not_shifted_by_what_comes_in_between(memory, query):
    kept = [memory.archive.insert(f"tea {number}").memory.id for number in range(25)]
    first = memory.archive.search(query, limit=10)
    for number in range(10):
        memory.archive.insert(f"tea of later {number}")
    pages = [
        memory.archive.search(query, limit=10, offset=offset, as_of=first.as_of)
        for offset in (10, 20)
    ]
    assert [page.total for page in pages] == [25, 25]
    assert sorted(found for page in (first, *pages) for found in ids(page)) == sorted(kept)


def test_near_duplicates_are_kept_and_named(memory):
    text = " ".join(f"word{number}" for number in range(40))
    first = memory.archive.insert(f"{text} end.").memory
    memory.archive.insert("Something else altogether.")
    second = memory.archive.insert(f"{text} ended.")
    assert second.created
    (near,) = second.near_duplicates
    assert (near.id, near.text[:5]) == (first.id, "word0")
    assert 0.95 <= near.similarity < 1
    assert memory.archive.count() == 3


def test_a_memory_is_no_duplicate_of_itself_nor_of_a_deleted_one(memory):
    text = " ".join(f"word{number}" for number in range(40))
    first = memory.archive.insert(f"{text} end.").memory
    assert memory.archive.insert(f"{text} end.").near_duplicates == ()
    memory.archive.delete(first.id)
    assert memory.archive.insert(f"{text} ended.").near_duplicates == ()


@pytest.mark.parametrize("has_model", [True, False])
def test_the_last_sentence_of_a_long_text_is_found_with_its_passage(open_memory, has_model):
    memory = open_memory(has_model=has_model)
    kept = memory.archive.insert(LONG).memory
    for number in range(5):
        memory.archive.insert(f"word{number} and word{number + 1}")
    # The hashed words of the fake model need some more of them than a real one would.
    hit = memory.archive.search(" ".join(LONG.split()[-25:])).items[0]
    assert hit.memory.id == kept.id
    assert "The kettle costs 30 euros." in hit.passage.text
    assert LONG[hit.passage.start : hit.passage.end] == hit.passage.text
    assert hit.passage.total == len(LONG)
    assert len(hit.passage.text) < len(LONG)


def test_a_giant_text_is_found_by_words_at_once_and_by_meaning_later(open_memory):
    memory = open_memory()
    engine = memory._engine
    kept = memory.archive.insert(GIANT)
    assert not kept.embedded
    assert memory.embedding_state().pending == 1
    assert contents(memory.archive.search("kettle"))[0] == GIANT
    assert engine.fill_pending() == 1
    assert memory.embedding_state().pending == 0
    hit = memory.archive.search("kettle pot leaf").items[0]
    assert hit.passage.text.endswith("kettle pot leaf")


def test_a_giant_text_given_again_loses_no_meaning(open_memory):
    memory = open_memory()
    kept = memory.archive.insert(GIANT, tags=["a"]).memory
    memory.archive.update(kept.id, tags=["a", "b"])
    memory._engine.fill_pending()
    assert ids(memory.archive.search("kettle pot leaf")) == [kept.id]
    again = memory.archive.insert(GIANT, tags=["a"])
    assert (again.created, again.memory.version) == (False, 2)
    assert ids(memory.archive.search("kettle pot leaf")) == [kept.id]


def test_an_insert_says_whether_its_vectors_are_stored(open_memory):
    memory = open_memory()
    assert memory.archive.insert("small").embedded
    assert not memory.archive.insert(GIANT).embedded
    assert not memory.archive.insert(GIANT).embedded
    memory._engine.fill_pending()
    assert memory.archive.insert(GIANT).embedded


def test_a_text_that_waits_for_the_model_is_still_pending_when_given_again(settings):
    engine = Engine(settings)
    memory = memory_of(engine, "default")
    assert not memory.archive.insert("Ana likes tea.").embedded
    engine.use(HashEmbedder())
    assert not memory.archive.insert("Ana likes tea.").embedded
    assert memory.embedding_state().pending == 1
    memory.close()


def test_vectors_of_an_old_version_never_arrive_at_the_new_one(settings):
    engine = Engine(settings)
    memory = memory_of(engine, "default")
    kept = memory.archive.insert("Ana likes coffee.").memory
    memory.archive.update(kept.id, content="Ana likes green tea.")
    gone = memory.archive.insert("to be deleted").memory
    memory.archive.delete(gone.id)
    assert memory.embedding_state().pending == 1
    embedder = HashEmbedder()
    engine.use(embedder)
    engine.fill_pending()
    assert embedder.embedded == ["Ana likes green tea."]
    assert memory.embedding_state().pending == 0
    memory.close()


def test_tags_find_a_memory_and_those_of_most_memories_stand_first(memory):
    memory.archive.insert("one", tags=["Porto", "b"])
    memory.archive.insert("two", tags=["b", "a"])
    memory.archive.insert("three", tags=["b"])
    assert memory.archive.tags() == ["b", "Porto", "a"]
    assert contents(memory.archive.search("porto"))[0] == "one"


@pytest.mark.parametrize("tags", ["work", [1], [""], ["a" * 65], ["a\x00"]])
def test_tags_that_cannot_be_kept_are_refused_and_nothing_is_kept(memory, tags):
    for call in (memory.archive.insert, memory.archive.search):
        with pytest.raises(InvalidInput) as fault:
            call("tea", tags=tags)
        assert fault.value.field == "tags"
    assert memory.archive.count() == 0


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"query": ""}, "query"),
        ({"limit": 0}, "top_k"),
        ({"limit": 51}, "top_k"),
        ({"start_date": "soon"}, "start_date"),
        ({"end_date": "2026-02-30"}, "end_date"),
    ],
)
def test_an_argument_that_cannot_be_taken_is_named(memory, arguments, field):
    with pytest.raises(InvalidInput) as fault:
        memory.archive.search(**arguments)
    assert fault.value.field == field


def test_too_many_tags_and_a_wrong_date_keep_nothing(memory):
    with pytest.raises(OverLimit):
        memory.archive.insert("tea", tags=[str(number) for number in range(33)])
    with pytest.raises(InvalidInput) as fault:
        memory.archive.insert("tea", happened_at="soon")
    assert fault.value.field == "happened_at"
    assert memory.archive.count() == 0


def test_the_newest_ids_complete_a_prefix(memory):
    kept = [memory.archive.insert(f"tea {number}").memory.id for number in range(5)]
    assert memory.archive.recent_ids("") == kept[::-1]
    assert memory.archive.recent_ids(kept[0][:9].upper()) == [kept[0]]
    assert memory.archive.recent_ids("", limit=2) == kept[:2:-1]


def test_agents_keep_their_own(settings):
    engine = Engine(settings, embedder=HashEmbedder())
    ana, ben = memory_of(engine, "ana"), memory_of(engine, "ben")
    kept = ana.archive.insert("the secret of tea", tags=["secret"])
    assert ben.archive.insert("the secret of tea").created
    assert ben.archive.search("secret").total == 1
    assert ben.archive.tags() == []
    assert (ana.archive.count(), ben.archive.count()) == (1, 1)
    for call in (ben.archive.get, ben.archive.delete):
        with pytest.raises(NotFound):
            call(kept.memory.id)
    with pytest.raises(NotFound):
        ben.archive.update(kept.memory.id, content="mine now")
    assert ana.archive.get(kept.memory.id) == kept.memory
    engine.close()


def test_threads_that_keep_the_same_texts_keep_each_once(memory):
    created: list[bool] = []

    def keep():
        created.extend(memory.archive.insert(f"tea {number}").created for number in range(8))

    threads = [threading.Thread(target=keep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(created), created.count(True)) == (32, 8)
    assert memory.archive.count() == memory.archive.search("tea").total == 8


def test_after_opening_again_everything_is_as_it_was(open_memory):
    first = open_memory()
    for number in range(20):
        first.archive.insert(f"tea number {number}", tags=[f"t{number % 3}"])
    changed = first.archive.search("number 7").items[0].memory.id
    first.archive.update(changed, content="coffee number 7")
    first.archive.delete(first.archive.search("number 3").items[0].memory.id)
    first.archive.insert(LONG)

    def state(memory):
        queries = (None, "coffee", "tea number 5", "kettle costs euros")
        found = [memory.archive.search(query, limit=50).items for query in queries]
        return (
            memory.archive.count(),
            memory.archive.tags(),
            [(hit.memory, hit.passage) for hit in found[0]],
            [{(hit.memory.id, hit.passage) for hit in hits} for hits in found],
            [hits[0].memory.id for hits in found],
        )

    before = state(first)
    first.close()
    assert state(open_memory()) == before


@pytest.fixture(scope="module")
def shared(tmp_path_factory, cache_dir):
    memory = memory_of(
        Engine(temporary_settings(tmp_path_factory, cache_dir), embedder=HashEmbedder()), "default"
    )
    yield memory
    memory.close()


@hypothesis_settings(deadline=None, max_examples=50)
@given(st.text(min_size=1, max_size=120))
def test_any_text_that_is_taken_comes_back_as_it_was_and_is_kept_once(shared, text):
    try:
        kept = shared.archive.insert(text)
    except InvalidInput:
        return
    count = shared.archive.count()
    assert shared.archive.get(kept.memory.id) == kept.memory
    if kept.created:
        assert kept.memory.content == text
    again = shared.archive.insert(text)
    assert (again.created, again.memory.id) == (False, kept.memory.id)
    assert shared.archive.count() == count
