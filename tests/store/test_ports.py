"""The contract of a storage engine: every method of every port, for each engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcp_memory.store import open_store
from mcp_memory.store.ports import (
    Change,
    ModelRecord,
    Pending,
    Source,
    Spent,
    Store,
    TextVectors,
    UnitOfWork,
)
from mcp_memory.values.access import Scope, Token
from mcp_memory.values.errors import StorageFault
from mcp_memory.values.records import (
    SHARED,
    Block,
    Consolidation,
    Event,
    Kind,
    Memory,
    Message,
    Role,
    Summary,
    VersionRange,
)
from mcp_memory.values.requests import Where

Factory = Callable[[Path], Store]

FACTORIES: dict[str, Factory] = {
    "duckdb in memory": lambda folder: open_store(None),
    "duckdb in a file": lambda folder: open_store(folder / "memory.duckdb"),
}
"""How each engine is opened in a folder; again in the same folder if it has a file."""

MODEL = ModelRecord("org/small", "ab" * 32, 3)
START = datetime(2026, 1, 5, 9, tzinfo=UTC)
ALL = 1_000
"""A change number above all."""


def at(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


@pytest.fixture(params=FACTORIES)
def factory(request: pytest.FixtureRequest) -> Factory:
    return FACTORIES[request.param]


@pytest.fixture
def store(factory: Factory, tmp_path: Path):
    store = factory(tmp_path)
    yield store
    store.close()


@pytest.fixture
def reopened(factory: Factory, tmp_path: Path):
    """Close a store and open it again, if it has a file."""
    opened: list[Store] = []

    def reopen(store: Store) -> Store:
        if store.path is None:
            return store
        store.close()
        opened.append(factory(tmp_path))
        return opened[-1]

    yield reopen
    for store in opened:
        store.close()


def plain(change: Change) -> dict[str, Any]:
    """Return a change that can be compared: its rows are in no order, its vectors are lists."""
    fields = {name: getattr(change, name) for name in Change.__slots__}
    for name in ("messages", "memories"):
        fields[name] = sorted(fields[name], key=lambda row: row.id)
    fields["vectors"] = [
        (text.item, [tuple(span) for span in text.ranges], text.vectors.tolist(), text.first)
        for text in change.vectors
    ]
    return fields


def commit(store: Store, *writes: Callable[[UnitOfWork], object]) -> tuple[Change, ...]:
    """Write in one unit of work, and check that its changes are those that are read."""
    with store.transaction() as unit:
        for write in writes:
            write(unit)
    check(store, unit)
    return unit.changes


def check(store: Store, unit: UnitOfWork) -> None:
    """Check that the changes of a unit that was committed are those that are read."""
    for change in unit.changes:
        assert store.seq(change.agent) == change.seq
        read = [plain(found) for found in store.changes(change.agent, change.seq - 1)]
        assert read == [plain(change)]


def block(label: str = "human", version: int = 1, value: str = "Ana", **more: Any) -> Block:
    made = Block(
        label=label,
        value=value,
        tokens=4,
        limit=2_000,
        description="The person.",
        read_only=False,
        scope="agent",
        version=version,
        changed_at=at(version),
        editor="editor",
    )
    return replace(made, **more)


def message(index: int, role: Role = "user", conversation: str = "main", **more: Any) -> Message:
    made = Message(
        id=f"{conversation}-{index}",
        conversation=conversation,
        index=index,
        role=role,
        content=f"said {index}",
        tokens=index + 1,
        created_at=at(index),
        recorded_at=at(index),
        name={"user": "Ana", "tool": "conversation_search"}.get(role),
    )
    return replace(made, **more)


def memory(number: int, version: int = 1, **more: Any) -> Memory:
    made = Memory(
        id=f"m{number}",
        version=version,
        content=f"fact {number} in version {version}",
        kind=Kind.FACT,
        tags=("tea",),
        tokens=5,
        happened_at=at(number),
        recorded_at=at(number),
    )
    return replace(made, **more)


def event(number: int, minutes: int, kind: str = "flushed", conversation: str | None = "main"):
    data = {"number": number, "text": "咖啡"}
    return Event(
        id=f"e{number}",
        kind=kind,
        conversation=conversation,
        text="text",
        created_at=at(minutes),
        data=data,
    )


def summary(last: int, minutes: int, **more: Any) -> Summary:
    made = Summary(
        id=f"s{last}-{minutes}",
        conversation="main",
        parent=None,
        first=0,
        last=last,
        content="It was said.",
        tokens=3,
        author="client",
        created_at=at(minutes),
    )
    return replace(made, **more)


def vectors(
    text_id: str, count: int = 1, *, source: Source = "memory", agent: str = "ana", first: int = 0
) -> TextVectors:
    ranges = [(10 * number, 10 * number + 10) for number in range(first, first + count)]
    rows = np.arange(3 * count, dtype=np.float32).reshape(count, 3) + first
    return TextVectors(Pending(agent, source, text_id, 1), ranges, rows, first)


def put_blocks(store: Store, *blocks: Block, conversation: str = "", agent: str = "ana") -> None:
    for item in blocks:
        with store.transaction() as unit:
            store.blocks.insert(unit, agent, conversation, item)
        check(store, unit)


def put_messages(store: Store, *messages: Message, agent: str = "ana") -> None:
    commit(store, lambda unit: store.messages.insert(unit, agent, messages))


def put_memories(store: Store, *memories: Memory, agent: str = "ana") -> None:
    commit(store, lambda unit: store.memories.insert(unit, agent, memories))


def put_summaries(store: Store, item: Summary) -> None:
    commit(store, lambda unit: store.summaries.insert(unit, "ana", item))


def put_events(store: Store, item: Event) -> None:
    commit(store, lambda unit: store.events.insert(unit, "ana", item))


def put_consolidations(store: Store, item: Consolidation) -> None:
    commit(store, lambda unit: store.consolidations.insert(unit, "ana", item))


def put_vectors(store: Store, text: TextVectors) -> None:
    commit(store, lambda unit: store.vectors.insert(unit, [text]))


def replace_memory(store: Store, new: Memory) -> None:
    commit(
        store,
        lambda unit: store.memories.retire(unit, "ana", new.id, new.recorded_at, superseded=True),
        lambda unit: store.memories.insert(unit, "ana", [new]),
    )


def delete_memory(store: Store, memory_id: str, moment: datetime) -> None:
    commit(
        store,
        lambda unit: store.memories.retire(unit, "ana", memory_id, moment, superseded=False),
    )


def use_model(store: Store, model: ModelRecord = MODEL) -> None:
    with store.transaction() as unit:
        store.vectors.set_model(unit, model)


# The unit of work and the change numbers


def test_a_new_store_has_no_changes(store: Store) -> None:
    assert store.seq("ana") == 0
    assert list(store.changes("ana", 0)) == []


def test_each_agent_counts_its_own_changes(store: Store, reopened) -> None:
    put_messages(store, message(0))
    put_messages(store, message(0, id="other"), agent="ben")
    with store.transaction() as unit:
        assert (unit.seq("ana"), unit.seq("ana"), unit.seq("eva")) == (2, 2, 1)
        store.messages.insert(unit, "ana", [message(1)])
        store.memories.insert(unit, "ana", [memory(1)])
        store.memories.insert(unit, "eva", [memory(2)])
        assert {change.agent: change.seq for change in unit.changes} == {"ana": 2, "eva": 1}
    again = reopened(store)
    assert [again.seq(agent) for agent in ("ana", "ben", "eva", "")] == [2, 1, 1, 0]


def test_a_unit_with_everything_in_it_is_read_back_as_one_change(store: Store) -> None:
    use_model(store)
    put_memories(store, memory(1), memory(2))
    change, of_all = commit(
        store,
        lambda unit: store.blocks.insert(unit, "ana", "", block()),
        lambda unit: store.messages.insert(unit, "ana", [message(0), message(1)]),
        lambda unit: store.memories.insert(unit, "ana", [memory(3)]),
        lambda unit: store.memories.retire(unit, "ana", "m1", at(9), superseded=False),
        lambda unit: store.summaries.insert(unit, "ana", summary(0, 9)),
        lambda unit: store.events.insert(unit, "ana", event(1, 9)),
        lambda unit: store.consolidations.insert(unit, "ana", consolidation()),
        lambda unit: store.tokens.insert(unit, token(), b"digest"),
        lambda unit: store.vectors.insert(unit, [vectors("m2", 2)]),
    )
    assert change.deleted == ("m1",)
    assert [item.id for item in change.memories] == ["m3"]
    assert [len(getattr(change, name)) for name in ("blocks", "messages", "summaries")] == [1, 2, 1]
    assert [len(getattr(change, name)) for name in ("events", "consolidations")] == [1, 1]
    # Tokens are the store's.
    assert (of_all.agent, of_all.tokens) == (SHARED, ((token(), b"digest"),))


def test_changes_are_read_in_order_and_without_those_that_are_known(store: Store) -> None:
    for index in range(12):
        put_messages(store, message(index))
    put_memories(store, memory(1))
    assert [change.seq for change in store.changes("ana", 0)] == list(range(1, 14))
    assert [change.seq for change in store.changes("ana", 11)] == [12, 13]
    assert list(store.changes("ana", 13)) == []
    assert list(store.changes("ben", 0)) == []


def test_many_rows_are_written_like_few(store: Store) -> None:
    use_model(store)
    put_messages(store, *(message(index) for index in range(50)))
    put_memories(store, *(memory(number) for number in range(10, 60)))
    commit(store, lambda unit: store.vectors.insert(unit, [vectors("m10", 40)]))
    assert store.messages.tally("ana", ALL) == (50, at(49))
    assert store.memories.tally("ana", ALL) == (50, at(59))
    assert store.vectors.count(Pending("ana", "memory", "m10", 1)) == 40


def test_what_is_rolled_back_leaves_nothing(store: Store, reopened) -> None:
    use_model(store)
    called: list[str] = []
    store.on_commit = lambda: called.append("store")

    def fail() -> None:
        with store.transaction() as unit:
            unit.on_commit(lambda: called.append("unit"))
            store.blocks.insert(unit, "ana", "", block())
            store.messages.insert(unit, "ana", [message(0)])
            store.memories.insert(unit, "ana", [memory(1)])
            store.summaries.insert(unit, "ana", summary(0, 1))
            store.events.insert(unit, "ana", event(1, 1))
            store.consolidations.insert(unit, "ana", consolidation())
            store.tokens.insert(unit, token(), b"digest")
            store.values.put(unit, "key", "value")
            store.usage.add(unit, "ana", date(2026, 1, 5), Spent(1, 2, 3))
            store.vectors.insert(unit, [vectors("m1")])
            store.vectors.defer(unit, [Pending("ana", "memory", "m1", 1)])
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  it is our own
        fail()
    assert called == []
    for is_open_again in (False, True):
        opened = reopened(store) if is_open_again else store
        assert opened.seq("ana") == 0
        assert list(opened.changes("ana", 0)) == []
        assert opened.blocks.current("ana", ALL) == {}
        assert opened.messages.tally("ana", ALL)[0] == 0
        assert opened.memories.tally("ana", ALL)[0] == 0
        assert opened.summaries.all("ana", "main") == []
        assert opened.events.recent("ana", 9) == []
        assert opened.consolidations.present("ana", ALL) is None
        assert opened.tokens.all() == []
        assert opened.values.get("key") is None
        assert opened.usage.on(date(2026, 1, 5)) == Spent()
        assert opened.vectors.pending_count() == 0
        assert list(opened.vectors.blocks("ana", "memory", ALL)) == []
    put_messages(opened, message(0))
    assert opened.seq("ana") == 1


def test_what_is_called_after_a_commit_is_called_once_and_after_it(store: Store) -> None:
    called: list[tuple[str, str | None]] = []

    def note(name: str) -> None:
        called.append((name, store.values.get("key")))

    store.on_commit = lambda: note("store")
    with store.transaction() as unit:
        unit.on_commit(lambda: note("unit"))
        store.values.put(unit, "key", "value")
        assert called == []
    assert sorted(called) == [("store", "value"), ("unit", "value")]


# Core memory


def test_the_current_block_is_the_newest_version_up_to_a_number(store: Store) -> None:
    first, second = block(), block(version=2, value="Ana 咖啡")
    own = block("working", scope="conversation", editor=None, read_only=True)
    put_blocks(store, first, second)
    put_blocks(store, own, conversation="main")
    put_blocks(store, block(value="Ben"), agent="ben")
    assert store.blocks.current("ana", 0) == {}
    assert store.blocks.current("ana", 1) == {("", "human"): first}
    assert store.blocks.current("ana", 2) == {("", "human"): second}
    assert store.blocks.current("ana", 3) == {("", "human"): second, ("main", "working"): own}


def test_a_shared_block_belongs_to_no_agent(store: Store) -> None:
    shared = block(scope="shared")
    put_blocks(store, shared, agent=SHARED)
    assert store.blocks.current(SHARED, ALL) == {("", "human"): shared}


def test_the_history_of_a_block_is_newest_first(store: Store) -> None:
    versions = [block(version=number, value=f"Ana {number}") for number in (1, 2, 3)]
    put_blocks(store, *versions)
    put_blocks(store, block("other"))
    assert store.blocks.history("ana", "", "human", None) == versions[::-1]
    assert store.blocks.history("ana", "", "human", 2) == versions[:0:-1]
    assert store.blocks.history("ana", "main", "human", None) == []


def test_blocks_have_the_values_that_they_had_at_a_moment(store: Store) -> None:
    put_blocks(store, block(), block(version=2, value="later"), block("other", value="other"))
    put_blocks(store, block("own", value="own", scope="conversation"), conversation="main")
    read = store.blocks.values_at
    assert read("ana", at(0), ["human"]) == {}
    assert read("ana", at(1), ["human"]) == {("", "human"): (1, "Ana")}
    assert read("ana", at(2), ["human", "own"]) == {
        ("", "human"): (2, "later"),
        ("main", "own"): (1, "own"),
    }


# Recall memory


@pytest.fixture
def talk(store: Store) -> Store:
    """A store with five messages of one conversation and one of another, one a change."""
    roles: tuple[Role, ...] = ("user", "assistant", "tool", "user", "system")
    for index, role in enumerate(roles):
        put_messages(store, message(index, role))
    put_messages(store, message(7, conversation="work"))
    put_messages(store, message(0, id="ben's"), agent="ben")
    return store


def test_messages_are_read_by_id_and_by_place(talk: Store) -> None:
    found = talk.messages.get("ana", ["main-1", "work-7", "nothing", "ben's"])
    assert {item.id: item for item in found} == {
        "main-1": message(1, "assistant"),
        "work-7": message(7, conversation="work"),
    }
    assert [item.index for item in talk.messages.slice("ana", "main", 1, 3)] == [1, 2]
    assert talk.messages.slice("ana", "main", 5, 9) == []
    assert talk.messages.get("ana", []) == []


def test_the_state_of_recall_memory_is_that_of_a_number(talk: Store) -> None:
    assert talk.messages.sizes("ana", "main", 1, 3) == [("assistant", 2), ("tool", 3)]
    assert talk.messages.conversations("ana", 5) == {"main": at(4)}
    assert talk.messages.conversations("ana", 6) == {"main": at(4), "work": at(7)}
    assert talk.messages.tally("ana", 2) == (2, at(1))
    assert talk.messages.tally("ana", 0)[0] == 0


def test_a_search_finds_messages_of_a_range_of_numbers(talk: Store) -> None:
    def ids(after: int, upto: int) -> list[str]:
        return [item.id for item in talk.messages.searchable("ana", after, upto)]

    # Not what a tool has returned.
    assert ids(0, ALL) == ["main-0", "main-1", "main-3", "main-4", "work-7"]
    assert ids(1, 4) == ["main-1", "main-3"]
    assert ids(6, ALL) == []
    (found,) = talk.messages.searchable("ana", 3, 4)
    assert replace(found, tokens=0) == message(3, tokens=0)


def test_what_came_since_a_moment_is_counted_and_read(talk: Store) -> None:
    port = talk.messages
    assert [port.user_turns_since("ana", moment) for moment in (None, at(0), at(3))] == [3, 2, 1]
    assert [port.count_dialogue_since("ana", moment) for moment in (None, at(1))] == [4, 2]
    found = port.dialogue_since("ana", at(0), limit=2, max_chars=4)
    assert [(item.id, item.content) for item in found] == [("work-7", "said"), ("main-3", "said")]
    assert len(port.dialogue_since("ana", None, limit=9, max_chars=100)) == 4


def test_all_messages_are_read_page_by_page_to_fill_a_cache(talk: Store) -> None:
    pages = [talk.messages.everything("ana", first, 4) for first in (0, 4, 8)]
    assert [len(page) for page in pages] == [4, 2, 0]
    assert len({item.id for page in pages for item in page}) == 6


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where(), ["work-7", "main-4", "main-3", "main-2", "main-1", "main-0"]),
        (Where(groups=(("role", ("user", "tool")),)), ["work-7", "main-3", "main-2", "main-0"]),
        (
            Where(groups=(("role", ("user",)), ("conversation", ("main",)))),
            ["main-3", "main-0"],
        ),
        (Where(start=at(1), end=at(4)), ["main-3", "main-2", "main-1"]),
        (Where(as_of=at(1)), ["main-1", "main-0"]),
        (Where(groups=(("conversation", ("nowhere",)),)), []),
    ],
)
def test_a_page_of_messages_has_what_the_filter_lets_through(
    talk: Store, where: Where, expected: list[str]
) -> None:
    page, total = talk.messages.page("ana", where, offset=0, limit=9)
    assert ([item.id for item in page], total) == (expected, len(expected))
    page, total = talk.messages.page("ana", where, offset=1, limit=1)
    assert ([item.id for item in page], total) == (expected[1:2], len(expected))


# Archival memory


def test_a_memory_is_read_in_its_current_version(store: Store) -> None:
    put_memories(store, memory(1), memory(2), memory(3))
    new = memory(1, 2, recorded_at=at(10))
    replace_memory(store, new)
    delete_memory(store, "m2", at(11))
    found = store.memories.get("ana", ["m1", "m2", "m3", "m4"])
    assert {item.id: item for item in found} == {"m1": new, "m3": memory(3)}
    assert store.memories.get("ben", ["m1"]) == []
    assert store.memories.get("ana", []) == []


def test_a_memory_is_read_as_it_was_at_a_moment(store: Store) -> None:
    put_memories(store, memory(1))
    replace_memory(store, memory(1, 2, recorded_at=at(10)))
    read = store.memories.as_of
    versions = [read("ana", "m1", at(minutes)) for minutes in (0, 1, 9, 10, 99)]
    assert [item and item.version for item in versions] == [None, 1, 1, 2, 2]


def test_a_change_says_whether_a_memory_was_replaced_or_deleted(store: Store) -> None:
    put_memories(store, memory(1))
    replace_memory(store, memory(1, 2))
    delete_memory(store, "m1", at(3))
    found = [(change.deleted, len(change.memories)) for change in store.changes("ana", 0)]
    assert found == [((), 1), ((), 1), (("m1",), 0)]


def test_the_state_of_archival_memory_is_that_of_a_number(store: Store) -> None:
    put_memories(store, memory(1), memory(2))
    replace_memory(store, memory(1, 2, recorded_at=at(10)))
    delete_memory(store, "m2", at(11))

    def state(upto: int) -> tuple[list[tuple[str, int]], int, set[str]]:
        found = store.memories.searchable("ana", 0, upto)
        hashes = store.memories.hashes("ana", upto)
        return (
            sorted((item.id, item.version) for item in found),
            store.memories.tally("ana", upto)[0],
            set(hashes.values()),
        )

    assert state(0) == ([], 0, set())
    assert state(1) == ([("m1", 1), ("m2", 1)], 2, {"m1", "m2"})
    assert state(2) == ([("m1", 2), ("m2", 1)], 2, {"m1", "m2"})
    assert state(3) == ([("m1", 2)], 1, {"m1"})
    assert store.memories.hashes("ana", 1) != store.memories.hashes("ana", 2)
    assert store.memories.tally("ana", 1)[1] == at(2)
    assert store.memories.tally("ana", 2)[1] == at(10)


def test_what_changed_between_two_numbers_is_retired_and_found(store: Store) -> None:
    put_memories(store, memory(1), memory(2))
    replace_memory(store, memory(1, 2))
    delete_memory(store, "m2", at(11))
    put_memories(store, memory(3))
    port = store.memories
    assert sorted(port.retired("ana", 0, ALL)) == ["m1", "m2"]
    assert [port.retired("ana", number, number + 1) for number in range(4)] == [
        [],
        ["m1"],
        ["m2"],
        [],
    ]
    assert [(item.id, item.version) for item in port.searchable("ana", 1, ALL)] == [
        ("m1", 2),
        ("m3", 1),
    ]
    (found,) = port.searchable("ana", 3, 4)
    assert replace(found, tokens=0) == memory(3, tokens=0)


def test_memories_are_searched_in_the_order_of_change_and_recording(store: Store) -> None:
    put_memories(store, memory(5), memory(3), memory(4, recorded_at=at(3)))
    put_memories(store, memory(1))
    found = [item.id for item in store.memories.searchable("ana", 0, ALL)]
    assert found == ["m3", "m4", "m5", "m1"]


def test_tags_are_those_in_use_the_most_frequent_first(store: Store) -> None:
    put_memories(
        store,
        memory(1, tags=("tea", "source:a")),
        memory(2, tags=("tea", "cup", "source:a")),
        memory(3, tags=("gone",)),
    )
    delete_memory(store, "m3", at(9))
    assert store.memories.tags("ana", 9, "source:") == ["tea", "cup"]
    assert store.memories.tags("ana", 1, "none") == ["source:a"]


def test_ids_are_completed_newest_first(store: Store) -> None:
    put_memories(store, memory(10), memory(11), memory(20), memory(12))
    delete_memory(store, "m11", at(99))
    assert store.memories.recent_ids("ana", "m1", 9) == ["m12", "m10"]
    assert store.memories.recent_ids("ana", "m", 1) == ["m20"]


def test_memories_since_a_moment_are_counted_and_read(store: Store) -> None:
    put_memories(store, memory(1), memory(2), memory(3), memory(4))
    delete_memory(store, "m3", at(99))
    assert [store.memories.count_since("ana", moment) for moment in (None, at(1))] == [3, 2]
    found = store.memories.since("ana", at(1), limit=1, max_chars=4)
    assert [(item.id, item.content) for item in found] == [("m4", "fact")]


def test_all_memories_are_read_page_by_page_to_fill_a_cache(store: Store) -> None:
    put_memories(store, *(memory(number) for number in range(5)))
    delete_memory(store, "m3", at(99))
    pages = [store.memories.everything("ana", first, 3) for first in (0, 3, 6)]
    assert [len(page) for page in pages] == [3, 1, 0]
    assert {item.id for page in pages for item in page} == {"m0", "m1", "m2", "m4"}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where(), ["m4", "m3", "m2", "m1"]),
        (Where(groups=(("kind", ("episode", "project")),)), ["m4", "m3"]),
        (Where(groups=(("tags", ("cup", "pot")),)), ["m3", "m2"]),
        (Where(groups=(("tags", ("tea",)), ("tags", ("cup",)))), ["m2"]),
        (Where(groups=(("kind", ("fact",)), ("tags", ("cup",)))), ["m2"]),
        (Where(start=at(2), end=at(4)), ["m3", "m2"]),
        (Where(as_of=at(2)), ["m2", "m1"]),
        (Where(groups=(("tags", ("nothing",)),)), []),
    ],
)
def test_a_page_of_memories_has_what_the_filter_lets_through(
    store: Store, where: Where, expected: list[str]
) -> None:
    put_memories(
        store,
        memory(1),
        memory(2, tags=("tea", "cup")),
        memory(3, tags=("pot",), kind=Kind.PROJECT),
        memory(4, tags=(), kind=Kind.EPISODE),
        memory(5),
    )
    delete_memory(store, "m5", at(1))
    page, total = store.memories.page("ana", where, offset=0, limit=9)
    assert ([item.id for item in page], total) == (expected, len(expected))
    page, total = store.memories.page("ana", where, offset=1, limit=1)
    assert ([item.id for item in page], total) == (expected[1:2], len(expected))


def test_a_memory_that_has_gone_keeps_its_place_on_later_pages(store: Store) -> None:
    put_memories(store, *(memory(number) for number in range(4)))
    where = Where(as_of=at(10))
    first, total = store.memories.page("ana", where, offset=0, limit=1)
    assert ([item.id for item in first], total) == (["m3"], 4)
    delete_memory(store, "m2", at(20))
    put_memories(store, memory(9, recorded_at=at(30)))
    page, total = store.memories.page("ana", where, offset=1, limit=9)
    assert ([item and item.id for item in page], total) == ([None, "m1", "m0"], 4)
    page, total = store.memories.page("ana", replace(where, as_of=at(40)), offset=0, limit=9)
    assert ([item.id for item in page], total) == (["m9", "m3", "m1", "m0"], 4)


# Summaries and the queue


def test_the_newest_summary_is_the_newest_version_up_to_a_number(store: Store) -> None:
    first = summary(1, 1)
    second = summary(3, 2, parent=first.id, first=2)
    rewritten = summary(3, 3, parent=first.id, first=2, content="Better.", version=2)
    for item in (first, second, rewritten):
        put_summaries(store, item)
    read = store.summaries
    assert [read.newest("ana", "main", upto) for upto in range(4)] == [
        None,
        first,
        second,
        rewritten,
    ]
    assert [read.queue_start("ana", "main", upto) for upto in range(4)] == [0, 2, 4, 4]
    assert read.all("ana", "main") == [first, second, rewritten]
    assert read.newest("ana", "work", ALL) is None
    assert read.queue_start("ben", "main", ALL) == 0


# Events


def test_events_are_listed_newest_first(store: Store) -> None:
    events = [event(1, 1), event(2, 2, "updated", None), event(3, 3, conversation="work")]
    for item in events:
        put_events(store, item)
    assert store.events.recent("ana", 9) == events[::-1]
    assert store.events.recent("ana", 1) == events[2:]
    assert store.events.recent("ben", 9) == []
    last_at = store.events.last_at
    assert last_at("ana", ["flushed"], None) == at(3)
    assert last_at("ana", ["flushed"], "main") == at(1)
    assert last_at("ana", ["updated", "flushed"], None) == at(3)
    assert last_at("ana", ["other"], None) is None


def test_of_old_events_the_newest_and_the_last_of_each_kind_stay(store: Store) -> None:
    for item in (
        event(1, 1, "rare"),
        event(2, 2),
        event(3, 3, conversation="work"),
        event(4, 4),
        event(5, 5),
        event(6, 6),
    ):
        put_events(store, item)
    commit(store, lambda unit: store.events.insert(unit, "ben", event(7, 1)))
    assert store.events.prune(at(6), 2) == 2
    assert [item.id for item in store.events.recent("ana", 9)] == ["e6", "e5", "e3", "e1"]
    assert [item.id for item in store.events.recent("ben", 9)] == ["e7"]
    assert store.events.prune(at(6), 2) == 0


def test_a_number_never_falls_when_events_are_pruned(store: Store, reopened) -> None:
    for item in (event(1, 10), event(2, 0)):
        put_events(store, item)
    assert store.events.prune(at(5), 1) == 1
    assert store.seq("ana") == 2
    again = reopened(store)
    assert again.seq("ana") == 2
    put_messages(again, message(0))
    assert again.seq("ana") == 3
    assert [change.seq for change in again.changes("ana", 0)] == [1, 3]


# Consolidations


def consolidation(number: int = 1, **more: Any) -> Consolidation:
    made = Consolidation(id=f"c{number}", author="client", began_at=at(number), began_by="chat")
    return replace(made, **more)


def test_a_consolidation_is_present_until_it_is_finished(store: Store) -> None:
    port = store.consolidations
    begun = consolidation()
    commit(store, lambda unit: port.insert(unit, "ana", begun))
    assert (port.present("ana", 0), port.present("ana", 1)) == (None, begun)
    assert port.last_at("ana", ALL) is None
    finished = replace(
        begun,
        finished_at=at(5),
        finished_by="chat",
        reason="Tidy.",
        changed=(VersionRange("human", "", 1, 3), VersionRange("näme", "main", 0, 1, shared=True)),
    )
    commit(store, lambda unit: port.finish(unit, "ana", finished))
    assert port.present("ana", ALL) is None
    assert (port.last_at("ana", 1), port.last_at("ana", 2)) == (None, at(5))
    assert port.naming("ana", "human") == port.naming(None, "näme") == [finished]
    assert port.naming("ben", "human") == port.naming("ana", "hum") == []


def test_the_tokens_of_consolidations_are_added_up(store: Store) -> None:
    for number, tokens in ((1, 30), (2, 12)):
        item = consolidation(number, author="endpoint", finished_at=at(number), tokens=tokens)
        put_consolidations(store, item)
    assert (store.consolidations.tokens("ana"), store.consolidations.tokens("ben")) == (42, 0)
    assert store.consolidations.present("ana", ALL) is None
    assert store.consolidations.last_at("ana", ALL) == at(2)


# Access tokens, single values and costs


def token(**more: Any) -> Token:
    made = Token(
        id="t1",
        name="phone",
        agent="ana",
        scope=Scope.WRITE,
        created_at=at(0),
        expires_at=at(99),
        revoked_at=None,
        last_used_at=None,
    )
    return replace(made, **more)


def test_access_tokens_are_revoked_and_their_use_is_no_change(store: Store) -> None:
    port = store.tokens
    commit(store, lambda unit: port.insert(unit, token(), b"\x00secret"))
    assert port.all() == [(token(), b"\x00secret")]
    with store.transaction() as unit:
        port.note_uses(unit, {"t1": ("ana", at(3))})
    assert (unit.changes, store.seq(SHARED)) == ((), 1)
    used = token(last_used_at=at(3))
    assert port.all() == [(used, b"\x00secret")]
    revoked = replace(used, revoked_at=at(4))
    commit(store, lambda unit: port.revoke(unit, revoked, b"\x00secret"))
    assert port.all() == [(revoked, b"\x00secret")]
    assert (store.seq(SHARED), store.seq("ana")) == (2, 0)


def test_a_value_takes_the_place_of_the_one_before(store: Store, reopened) -> None:
    assert store.values.get("key") is None
    for value in ("one", "咖啡"):
        with store.transaction() as unit:
            store.values.put(unit, "key", value)
        assert store.values.get("key") == value
    assert reopened(store).values.get("key") == "咖啡"


def test_costs_are_added_up_over_agents_and_corrected(store: Store) -> None:
    day = date(2026, 1, 5)
    with store.transaction() as unit:
        store.usage.add(unit, "ana", day, Spent(1, 100, 10))
        store.usage.add(unit, "ana", day, Spent(0, -40, 0))
        store.usage.add(unit, "ben", day, Spent(1, 5, 5))
        store.usage.add(unit, "ana", date(2026, 1, 6), Spent(9, 9, 9))
    assert store.usage.on(day) == Spent(2, 65, 15)
    assert store.usage.on(date(2026, 1, 7)) == Spent()


# Vectors


def stored(store: Store, source: Source, upto: int = ALL, agent: str = "ana"):
    """Return number, range and vector of each row by text."""
    found: dict[str, list[tuple[int, tuple[int, int], list[float]]]] = {}
    for part in store.vectors.blocks(agent, source, upto):
        assert part.vectors.dtype == np.float32
        spans = zip(part.starts.tolist(), part.ends.tolist(), strict=True)
        rows = zip(part.ids, part.numbers.tolist(), spans, part.vectors.tolist(), strict=True)
        for text_id, number, span, vector in rows:
            found.setdefault(text_id, []).append((number, span, vector))
    return found


def test_before_there_is_a_model_there_are_no_vectors(store: Store) -> None:
    put_memories(store, memory(1))
    assert store.vectors.model() is None
    assert stored(store, "memory") == {}
    assert store.vectors.lost() == []
    assert store.vectors.without_window() == []
    use_model(store)
    assert store.vectors.model() == MODEL


def test_vectors_are_those_of_an_agent_a_source_and_a_number(store: Store) -> None:
    use_model(store)
    for text in (
        vectors("m1", 2),
        vectors("m1", 1, first=2),
        vectors("m2"),
        vectors("main-0", source="message"),
        vectors("main-0", source="window"),
        vectors("m1", agent="ben"),
    ):
        put_vectors(store, text)
    assert stored(store, "memory") == {
        "m1": [
            (0, (0, 10), [0, 1, 2]),
            (1, (10, 20), [3, 4, 5]),
            (2, (20, 30), [2, 3, 4]),
        ],
        "m2": [(0, (0, 10), [0, 1, 2])],
    }
    assert [len(stored(store, "memory", upto).get("m1", [])) for upto in (0, 1, 2)] == [0, 2, 3]
    assert set(stored(store, "message")) == set(stored(store, "window")) == {"main-0"}
    assert set(stored(store, "memory", agent="ben")) == {"m1"}


def test_vectors_that_are_known_are_no_change_for_this_process(store: Store) -> None:
    use_model(store)
    with store.transaction() as unit:
        store.vectors.insert(unit, [vectors("m1", 2)], known=True)
    assert [(change.seq, change.vectors) for change in unit.changes] == [(1, ())]
    (change,) = store.changes("ana", 0)
    assert plain(change)["vectors"] == [
        (Pending("ana", "memory", "m1", 1), [(0, 10), (10, 20)], [[0, 1, 2], [3, 4, 5]], 0)
    ]


def test_vectors_are_counted_and_deleted_by_version_or_by_text(store: Store) -> None:
    use_model(store)
    old, new = Pending("ana", "memory", "m1", 1), Pending("ana", "memory", "m1", 2)
    texts = [vectors("m1", 2), replace(vectors("m1", 3), item=new), vectors("m2")]
    commit(store, lambda unit: store.vectors.insert(unit, texts))
    assert [store.vectors.count(item) for item in (old, new)] == [2, 3]
    with store.transaction() as unit:
        store.vectors.delete(unit, [old])
        store.vectors.delete(unit, [])
        store.vectors.defer(unit, [new, Pending("ana", "memory", "m2", 1)])
    assert [store.vectors.count(item) for item in (old, new)] == [0, 3]
    with store.transaction() as unit:
        store.vectors.delete_text(unit, "ana", "memory", "m1")
    assert store.vectors.count(new) == 0
    assert store.vectors.pending(9) == [Pending("ana", "memory", "m2", 1)]
    assert set(stored(store, "memory")) == {"m2"}


def test_a_text_is_pending_until_it_is_settled(store: Store) -> None:
    port = store.vectors
    items = [
        Pending("ana", "memory", "m1", 1),
        Pending("ana", "message", "m1", 1),
        Pending("ben", "memory", "m1", 1),
    ]
    with store.transaction() as unit:
        port.defer(unit, items)
    assert set(port.pending(9)) == set(items)
    assert len(port.pending(2)) == 2
    assert [port.pending_count(agent) for agent in ("ana", "ben", "eva", None)] == [2, 1, 0, 3]
    assert port.is_pending("ben", "memory", "m1")
    assert not port.is_pending("ben", "message", "m1")
    with store.transaction() as unit:
        port.settle(unit, items[:1])
        port.delete_text(unit, "ben", "memory", "m1")
    assert port.pending(9) == items[1:2]


def test_texts_without_vectors_that_nobody_has_listed_are_lost(store: Store) -> None:
    use_model(store)
    put_memories(store, memory(1), memory(2), memory(3))
    replace_memory(store, memory(1, 2))
    put_messages(store, message(0), message(1, "tool"), message(2))
    texts = [vectors("m2"), vectors("main-0", source="message")]
    commit(store, lambda unit: store.vectors.insert(unit, texts))
    with store.transaction() as unit:
        store.vectors.defer(unit, [Pending("ana", "memory", "m3", 1)])
    assert set(store.vectors.lost()) == {
        Pending("ana", "memory", "m1", 2),
        Pending("ana", "message", "main-2", 1),
    }


def test_messages_without_a_window_are_listed_newest_first(store: Store) -> None:
    use_model(store)
    put_messages(store, message(0), message(1, "tool"), message(2), message(3))
    windows = [vectors("main-2", source="window")]
    commit(store, lambda unit: store.vectors.insert(unit, windows))
    assert store.vectors.without_window() == [
        ("ana", "main", 3, "main-3"),
        ("ana", "main", 0, "main-0"),
    ]


def test_another_model_drops_the_vectors_and_no_number_falls(store: Store, reopened) -> None:
    use_model(store)
    put_memories(store, memory(1), memory(2))
    replace_memory(store, memory(1, 2))
    put_messages(store, message(0), message(1, "tool"))
    for text in (vectors("m1"), vectors("m2"), vectors("b1", agent="ben")):
        put_vectors(store, text)
    with store.transaction() as unit:
        store.vectors.defer(unit, [Pending("ana", "memory", "gone", 1)])
    other = ModelRecord("org/large", "cd" * 32, 5)
    with store.transaction() as unit:
        store.vectors.set_model(unit, other)
        store.vectors.defer_all(unit)
    again = reopened(store)
    assert again.vectors.model() == other
    assert stored(again, "memory") == {}
    assert set(again.vectors.pending(9)) == {
        Pending("ana", "memory", "m1", 2),
        Pending("ana", "memory", "m2", 1),
        Pending("ana", "message", "main-0", 1),
    }
    assert [again.seq(agent) for agent in ("ana", "ben")] == [5, 1]
    five = TextVectors(
        Pending("ben", "memory", "b1", 1), [(0, 4)], np.ones((1, 5), dtype=np.float32)
    )
    commit(again, lambda unit: again.vectors.insert(unit, [five]))
    assert again.seq("ben") == 2


def test_vectors_of_another_length_are_refused_whole(store: Store) -> None:
    use_model(store)
    four = TextVectors(
        Pending("ana", "memory", "m1", 1), [(0, 4)], np.ones((1, 4), dtype=np.float32)
    )
    with pytest.raises(StorageFault):
        commit(
            store,
            lambda unit: store.messages.insert(unit, "ana", [message(0)]),
            lambda unit: store.vectors.insert(unit, [four]),
        )
    assert (store.seq("ana"), store.messages.tally("ana", ALL)[0]) == (0, 0)


# Persisted search indexes


def write_index(store: Store, *blocks: bytes, go_on: Callable[[], bool] = lambda: True) -> bool:
    size = sum(map(len, blocks))
    return store.indexes.write("ana", "memory", iter(blocks), lambda: {"size": size}, go_on)


def read_index(store: Store) -> bytes | None:
    manifest = store.indexes.manifest("ana", "memory")
    if manifest is None:
        return None
    content = store.indexes.read("ana", "memory", manifest)
    assert manifest["size"] == len(content)
    return content


def test_a_persisted_index_takes_the_place_of_the_one_before(store: Store, reopened) -> None:
    assert read_index(store) is None
    assert write_index(store, b"one", b"two")
    assert read_index(store) == b"onetwo"
    large = bytes(range(256)) * 12_000
    assert write_index(store, large, b"end")
    again = reopened(store)
    assert read_index(again) == large + b"end"
    assert again.indexes.manifest("ana", "message") is None
    assert again.indexes.manifest("ben", "memory") is None


def test_an_index_that_is_given_up_leaves_the_one_before(store: Store) -> None:
    assert write_index(store, b"before")
    answers = iter((True, False))
    assert not write_index(store, bytes(3 << 20), go_on=lambda: next(answers))
    assert read_index(store) == b"before"


def test_an_index_takes_no_change_number(store: Store) -> None:
    assert write_index(store, b"index")
    assert store.seq("ana") == 0


# The store itself


def test_texts_are_counted_again_for_another_tokenizer_and_only_then(store: Store) -> None:
    put_blocks(store, block())
    put_messages(store, message(0), message(1))
    put_memories(store, memory(1))
    commit(store, lambda unit: store.summaries.insert(unit, "ana", summary(0, 1)))
    assert store.recount(len, "letters") == 5
    assert store.recount(len, "letters") == 0
    assert store.blocks.current("ana", ALL)["", "human"].tokens == len("Ana")
    assert store.memories.get("ana", ["m1"])[0].tokens == len(memory(1).content)
    assert store.seq("ana") == 4


def test_a_whole_store_is_probed_checked_and_described(store: Store) -> None:
    use_model(store)
    put_messages(store, message(0), message(1))
    put_messages(store, message(0, id="ben's"), agent="ben")
    with store.transaction() as unit:
        store.vectors.defer_all(unit)
    store.probe()
    assert [found for found in store.check() if found.level != "ok"] == []
    found = store.statistics()
    assert len(store.agents()) == 2
    assert found.rows["messages"] == 3
    assert (found.file_bytes > 0) is (store.path is not None)


def test_upkeep_and_compaction_lose_nothing(store: Store, reopened) -> None:
    put_messages(store, message(0))
    assert store.maintain(quiet=True) is False
    generation = store.generation
    if store.path is None:
        with pytest.raises(StorageFault):
            store.compact()
    else:
        assert store.compact() is not None
        assert store.compact(only_if_wasteful=True) is None
    assert store.generation == generation
    assert store.seq("ana") == 1
    put_messages(store, message(1))
    again = reopened(store)
    assert again.messages.tally("ana", ALL) == (2, at(1))


def test_closing_again_does_nothing(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(StorageFault):
        store.messages.tally("ana", ALL)
