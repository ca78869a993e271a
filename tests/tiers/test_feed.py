"""Change numbers, and memory that follows them: whatever one engine writes the next call sees."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest
from fakes import FakeClock, HashEmbedder

from mcp_memory.agent import AgentMemory, Memories
from mcp_memory.search.queries import Filter, parse_query
from mcp_memory.settings import Settings
from mcp_memory.store.duckdb.store import DuckDBStore
from mcp_memory.store.ports import Change
from mcp_memory.tiers import events, maintenance
from mcp_memory.tiers.engine import Engine
from mcp_memory.tiers.maintenance import maintain
from mcp_memory.values.access import Scope
from mcp_memory.values.errors import AccessDenied, StorageFault
from mcp_memory.values.records import ROLES, Kind, NewMessage, StoreChunk

MOMENT = datetime(2026, 5, 1, tzinfo=UTC)
LATER = MOMENT + timedelta(days=365)
AGENTS = ("ana", "bob")
CONVERSATIONS = ("main", "béta")
WORDS = ["tea", "kettle", "Porto", "ERR-42", "running", "咖啡", "samovar", "blue"]


class Server:
    """An engine on a store that others use as well, as if it were a process of its own."""

    def __init__(self, store: DuckDBStore, settings: Settings, clock: FakeClock) -> None:
        self.embedder = HashEmbedder()
        self.engine = Engine(settings, store=store, embedder=self.embedder, clock=clock)
        self._memories = Memories(self.engine)
        self._opened = {agent: self._memories.open(agent) for agent in AGENTS}

    def __getitem__(self, agent: str) -> AgentMemory:
        return self._opened[agent]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(MOMENT, tick=timedelta(milliseconds=1))


@pytest.fixture
def small(settings: Settings) -> Settings:
    """Return settings with which windows overflow soon, and a shared block."""
    return settings.model_copy(
        update={"context_window": 1_500, "rethink_every": 4, "shared_blocks": ("team",)}
    )


@pytest.fixture
def store(settings: Settings) -> Iterator[DuckDBStore]:
    store = DuckDBStore(settings.db)
    yield store
    store.close()


@pytest.fixture
def serve(store: DuckDBStore, small: Settings, clock: FakeClock) -> Callable[[], Server]:
    """Begin another process on the store."""
    return lambda: Server(store, small, clock)


def listed(page: Any) -> list[object]:
    return [page.total, *(getattr(hit, "memory", None) or hit.message for hit in page.items)]


def found(server: Server, agent: str, tier: Any, word: str) -> tuple[dict[str, object], set[str]]:
    """Return what a search finds by a word, and the keys of what it finds by meaning.

    Not the scores: texts that are gone count in the statistics of an index until it is loaded.
    """
    with server.engine.view(agent):
        index = tier.index(agent)
        question = parse_query(word, index.speakers, MOMENT, ZoneInfo("UTC"))
        prepared = index.prepare(question, Filter((), None, None, LATER))
        by_word = index.search(prepared, None, offset=0, limit=500).found
        near = index.nearest(server.embedder.embed_query(word), at_least=0.5, limit=500)
        records = tier.get_many(agent, [item.key for item in by_word])
        return records, {item.key for item in near}


def looks(server: Server, agent: str) -> dict[str, Callable[[], object]]:
    """Return ways to look at the memory of an agent, by name."""
    memory, engine = server[agent], server.engine
    said, archive, core = memory.conversations, memory.archive, memory.core
    ways: dict[str, Callable[[], object]] = {
        "memories by date": lambda: listed(archive.search(limit=50)),
        "messages by date": lambda: listed(said.search(limit=50)),
        "overview": memory.overview,
        "conversations": said.names,
        "events": lambda: memory.events(100),
        "consolidated": memory.consolidated,
        "pending": lambda: memory.embedding_state().pending,
        "tokens": engine.access.all,
        "history": lambda: core.history("human"),
        "ids": lambda: archive.recent_ids("", 500),
    }
    for word in WORDS:
        for tier in (engine.archival, engine.recall):
            ways[f"{tier.tier} by {word}"] = partial(found, server, agent, tier, word)
    for name in CONVERSATIONS:
        ways |= {
            f"core of {name}": partial(core.all, name),
            f"budget of {name}": partial(said.budget, name),
            f"queue of {name}": partial(said.recent, name),
            f"summary of {name}": partial(said.summary, name),
        }
    return ways


def snapshot(server: Server) -> dict[tuple[str, str], object]:
    return {
        (agent, name): look() for agent in AGENTS for name, look in looks(server, agent).items()
    }


class Life:
    """Does at random what agents do, now through one server and then through the other."""

    def __init__(self, seed: int, servers: list[Server]) -> None:
        self.rng = random.Random(seed)
        self.servers = servers
        self.tokens: list[tuple[str, str]] = []

    def text(self) -> str:
        longest = 400 if self.rng.random() < 0.05 else 12
        return " ".join(self.rng.choices([*WORDS, "a", "was"], k=self.rng.randint(1, longest)))

    def step(self) -> None:
        server = self.rng.choice(self.servers)
        memory, name = server[self.rng.choice(AGENTS)], self.rng.choice(CONVERSATIONS)
        act = self.rng.choice([self.store, self.talk, self.talk, self.think, self.change_tokens])
        act(server, memory, name)

    def store(self, server: Server, memory: AgentMemory, name: str) -> None:
        rng, archive = self.rng, memory.archive
        stored = [hit.memory for hit in archive.search(limit=50).items]
        match rng.randrange(6):
            case 1 if stored:
                text = f"{self.text()} {len(server.embedder.embedded)}"
                archive.update(rng.choice(stored).id, content=text)
            case 2 if stored:
                archive.update(rng.choice(stored).id, tags=["moved"])
            case 3 if stored:
                archive.delete(rng.choice(stored).id)
            case 4:
                # What is loaded has no vectors before they are computed afterwards.
                memory.loader.memories([{"content": self.text()} for _ in range(3)])
                if rng.random() < 0.5:
                    rng.choice(self.servers).engine.fill_pending()
            case _:
                tags = rng.sample(["tea", "work"], rng.randint(0, 2))
                archive.insert(self.text(), tags=tags, kind=rng.choice(list(Kind)))

    def talk(self, server: Server, memory: AgentMemory, name: str) -> None:
        rng, said = self.rng, memory.conversations
        match rng.randrange(7):
            case 0:
                said.flush(name, rng.choice([None, f"They spoke of {self.text()}"[:300]]))
            case 1 if (summary := said.summary(name)) is not None:
                said.rewrite_summary(name, f"Of {rng.choice(WORDS)}.", "endpoint", summary.id)
            case 2 if recent := said.recent(name):
                said.store([StoreChunk(recent[0].index, recent[0].index, "Of the tea.")], name)
            case _:
                roles = rng.choices(ROLES, k=rng.randint(1, 4))
                said.append([NewMessage(role, self.text()) for role in roles], name)

    def think(self, server: Server, memory: AgentMemory, name: str) -> None:
        rng, core = self.rng, memory.core
        match rng.randrange(3):
            case 0:
                label = rng.choice(["human", "working", "team", "notes"])
                core.rethink(label, self.text()[:300], "What is known.", name)
            case 1:
                core.append(rng.choice(["persona", "working", "team"]), rng.choice(WORDS), name)
            case _:
                core.finish_rethinking(rng.choice([None, "It was due."]))

    def change_tokens(self, server: Server, memory: AgentMemory, name: str) -> None:
        if self.tokens and self.rng.random() < 0.5:
            key, text = self.tokens.pop()
            server.engine.access.revoke(key)
            for other in self.servers:
                with pytest.raises(AccessDenied):
                    other.engine.access.check(text)
        else:
            token, text = server.engine.access.create(memory.agent, Scope.WRITE)
            self.tokens.append((token.id, text))
            assert {other.engine.access.check(text) for other in self.servers} == {token}


@pytest.mark.parametrize("seed", range(3))
def test_what_one_engine_writes_the_next_call_through_another_sees(
    serve: Callable[[], Server], seed: int
):
    servers = [serve(), serve()]
    life = Life(seed, servers)
    for number in range(1, 121):
        life.step()
        agent = life.rng.choice(AGENTS)
        way = life.rng.choice(list(looks(servers[0], agent)))
        one, other = (looks(server, agent)[way]() for server in servers)
        assert one == other, way
        if number % 40 == 0:
            one, other, fresh = map(snapshot, (*servers, serve()))
            assert one == other
            assert one == fresh


def test_vectors_that_one_engine_still_batches_are_not_written_over_those_of_another(
    serve: Callable[[], Server],
):
    one, other = serve(), serve()
    one.engine.vectors.on_batched = lambda: None
    changed = one["ana"].archive.insert("green tea").memory.id
    gone = one["ana"].archive.insert("black coffee").memory.id
    other["ana"].archive.update(changed, content="white wine")
    other["ana"].archive.delete(gone)
    one.engine.vectors.write_batch()
    fresh = serve()
    for server in (one, other, fresh):
        index = server.engine.archival.index("ana")
        for text, keys in (("green tea", []), ("black coffee", []), ("white wine", [changed])):
            vector = server.embedder.embed_query(text)
            found = index.nearest(vector, at_least=0.9, limit=5)
            assert [item.key for item in found] == keys


def test_a_vector_is_not_given_to_a_text_that_another_engine_has_changed_meanwhile(
    serve: Callable[[], Server],
):
    one, other = serve(), serve()
    one["ana"].loader.memories([{"content": "green tea"}])
    (hit,) = one["ana"].archive.search().items
    embed = one.embedder.embed_passages

    def embed_slowly(texts: list[str], *, urgent: bool = True) -> Any:
        one.embedder.embed_passages = embed  # type: ignore[method-assign]  # only the first time
        other["ana"].archive.update(hit.memory.id, content="white wine")
        return embed(texts)

    one.embedder.embed_passages = embed_slowly  # type: ignore[assignment]
    one.engine.fill_pending()
    for server in (one, other, serve()):
        index = server.engine.archival.index("ana")
        assert not index.nearest(one.embedder.embed_query("green tea"), at_least=0.9, limit=5)


def windows(server: Server) -> list[int]:
    """Return how many windows of three and of five messages an index has."""
    return [len(held) for held in server.engine.recall.index("ana")._windows._windows]


def test_windows_that_one_engine_has_embedded_are_found_by_another(serve: Callable[[], Server]):
    one, other = serve(), serve()
    servers = (one, other)
    for server in servers:
        server.engine.recall.index("ana")
    one["ana"].conversations.append([NewMessage("user", f"{word} it is") for word in WORDS])
    while one.engine.recall.without_window:
        one.engine._backlog.fill_windows(one.embedder)
    one.engine.vectors.write_batch()
    with other.engine.view("ana"):
        pass
    assert [windows(server) for server in (*servers, serve())] == [[len(WORDS)] * 2] * 3


def test_an_index_that_is_being_filled_misses_no_window_that_is_written_meanwhile(
    serve: Callable[[], Server], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mcp_memory.store.duckdb.vectors.BLOCK_ROWS", 4)
    one = serve()
    engine = one.engine
    one["ana"].conversations.append([NewMessage("user", f"{word} it is") for word in WORDS * 3])
    engine.vectors.on_batched = lambda: None
    while engine.recall.without_window:
        engine._backlog.fill_windows(one.embedder)
    engine.recall.forget()
    engine.indexes.on_unfilled = lambda: None
    engine.recall.index("ana")
    engine.vectors.write_batch()
    while engine.indexes.fill_more():
        pass
    assert windows(one) == windows(serve()) == [len(WORDS) * 3] * 2


def numbers(store: DuckDBStore) -> list[int]:
    return [store.seq(agent) for agent in AGENTS]


def test_numbers_count_every_commit_of_an_agent_in_order(
    store: DuckDBStore, serve: Callable[[], Server]
):
    one, other = serve(), serve()
    seen: list[Change] = []

    class Listener:
        def apply(self, change: Change) -> None:
            seen.append(change)

        def forget(self) -> None:
            raise AssertionError("nothing was lost")

    one.engine.feed.follow(Listener())
    for number in range(5):
        server = (one, other)[number % 2]
        with server.engine.transaction() as unit:
            for agent in AGENTS[: 1 + number % 2]:
                server.engine.events.add(unit, agent, events.WARNING, str(number))
    with one.engine.view(*AGENTS):
        pass
    assert numbers(store) == [5, 2]
    followed = {
        agent: [(c.seq, c.events[0].text) for c in seen if c.agent == agent] for agent in AGENTS
    }
    assert followed == {
        "ana": [(1, "0"), (2, "1"), (3, "2"), (4, "3"), (5, "4")],
        "bob": [(1, "1"), (2, "3")],
    }
    changes = [(change.seq, change.events[0].text) for change in store.changes("ana", 2)]
    assert changes == followed["ana"][2:]


def test_what_is_rolled_back_takes_no_number_and_changes_nothing_in_memory(
    store: DuckDBStore, serve: Callable[[], Server]
):
    one = serve()
    one["ana"].archive.insert("green tea")
    before, at = snapshot(one), numbers(store)
    engine, memory = one.engine, one["ana"]
    stored = memory.archive.search().items[0].memory
    draft = engine.archival.draft("white wine", (), Kind.FACT, None)
    block = engine.core.append("ana", "main", "human", "never")

    def fail() -> None:
        with engine.transaction() as unit:
            engine.events.add(unit, "ana", events.WARNING, "never")
            engine.archival.insert(unit, "ana", [draft])
            engine.archival.delete(unit, "ana", stored)
            engine.core.insert(unit, "ana", "", block)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert snapshot(one) == before
    assert numbers(store) == at
    one["ana"].archive.insert("black tea")
    assert next(change.seq for change in store.changes("ana", at[0])) == at[0] + 1


def test_a_commit_that_fails_changes_nothing_in_memory(
    store: DuckDBStore, serve: Callable[[], Server], monkeypatch: pytest.MonkeyPatch
):
    one = serve()
    one["ana"].archive.insert("green tea")
    before, at = snapshot(one), numbers(store)

    class Refusing:
        """A connection whose disk is full at the moment of the commit."""

        def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        def commit(self) -> None:
            self._connection.rollback()
            raise duckdb.IOException("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store.database, "_connection", Refusing(store.database._connection))
        for write in (
            lambda: one["ana"].archive.insert("white wine"),
            lambda: one["ana"].core.append("human", "likes wine"),
            lambda: one["ana"].conversations.append([NewMessage("user", "wine")]),
            lambda: one.engine.access.create("ana", Scope.READ),
        ):
            with pytest.raises(StorageFault):
                write()
    assert snapshot(one) == before == snapshot(serve())
    assert numbers(store) == at


def test_what_can_not_follow_a_commit_is_loaded_again(
    serve: Callable[[], Server], caplog: pytest.LogCaptureFixture
):
    one, other = serve(), serve()
    snapshot(one)

    class Broken:
        def apply(self, change: Change) -> None:
            raise StorageFault("a row can't be read")

        def forget(self) -> None: ...

    one.engine.feed.follow(Broken())
    one["ana"].archive.insert("green tea")
    one["ana"].archive.insert("black tea")
    one["ana"].core.append("human", "likes tea")
    other["ana"].core.append("human", "and coffee")
    assert snapshot(one) == snapshot(other)
    assert "a row can't be read" in caplog.text


def test_numbers_survive_a_restart(settings: Settings):
    for number in range(1, 4):
        store = DuckDBStore(settings.db)
        assert store.seq("ana") == number - 1
        engine = Engine(settings, store=store, embedder=HashEmbedder())
        with engine.transaction() as unit:
            engine.events.add(unit, "ana", events.WARNING, "again")
            assert unit.seq("ana") == number
        engine.close()


def test_numbers_never_fall_when_their_rows_are_deleted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    clock = FakeClock(MOMENT)
    engine = Engine(settings, embedder=HashEmbedder(), clock=clock)
    memory = Memories(engine).open("ana")
    memory.archive.insert("green tea")
    key = memory.archive.insert("black tea").memory.id
    memory.archive.delete(key)
    with engine.transaction() as unit:
        for _ in range(2):
            engine.events.add(unit, "ana", events.WARNING, "full")
    at = engine.store.seq("ana")
    monkeypatch.setattr(events, "MAX_OLD", 0)
    clock.moment = MOMENT + maintenance.KEEP_EVENTS + timedelta(days=1)
    maintain(engine, quiet=True)
    assert len(engine.events.recent("ana", 10)) == 1
    memory.archive.insert("white wine")
    at += 2  # Its row, and its vector.
    assert engine.store.seq("ana") == at
    engine.reembed(HashEmbedder("fake/other", dimension=32))
    engine.close()
    again = Engine(settings, embedder=HashEmbedder("fake/other", dimension=32))
    assert again.store.seq("ana") >= at
    again.close()


def test_a_look_at_what_is_known_reads_nothing(
    store: DuckDBStore, serve: Callable[[], Server], monkeypatch: pytest.MonkeyPatch
):
    one, other = serve(), serve()
    memory = other["ana"]
    memory.conversations.append([NewMessage("user", "green tea")])
    memory.archive.insert("green tea")
    memory.core.append("human", "likes tea")
    snapshot(one)
    one.engine.recall.index("ana")
    read: list[str] = []
    for name in ("read", "read_columns"):
        real = getattr(store.database, name)

        def noted(sql: str, *values: object, real: Callable[..., Any] = real) -> Any:
            read.append(sql)
            return real(sql, *values)

        monkeypatch.setattr(store.database, name, noted)
    shown = one["ana"]
    for _ in range(3):
        with one.engine.view("ana", "bob", ""):
            pass
        assert shown.archive.search("green tea").items
        assert shown.conversations.search("green tea").items
        assert shown.core.all()
        assert shown.conversations.budget().counts["queue_messages"] == 1
        assert shown.conversations.recent()
        assert shown.conversations.names() == ["main"]
        assert shown.archive.count() == 1
        assert one.engine.access.all() == ()
    assert read == []
    memory.archive.insert("black tea")
    read.clear()
    assert len(shown.archive.search("tea").items) == 2
    caught_up = len(read)
    assert caught_up
    assert len(shown.archive.search("tea").items) == 2
    assert len(read) == caught_up
