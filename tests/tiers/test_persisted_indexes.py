"""A persisted index answers as one that is built, whatever came and went since."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fakes import FakeClock, HashEmbedder, memory_of
from talker import until

import mcp_memory.search
from mcp_memory.agent import AgentMemory
from mcp_memory.settings import Settings
from mcp_memory.store.duckdb.store import DuckDBStore
from mcp_memory.tiers import indexes
from mcp_memory.tiers.engine import Engine
from mcp_memory.tiers.indexes import TierIndexes
from mcp_memory.values.errors import StorageFault
from mcp_memory.values.kinds import DEFAULTS
from mcp_memory.values.records import Kind, NewMessage

WORDS = ["tea", "kettle", "Porto", "ERR-42", "run", "running", "咖啡", "北京", "heißt", "Ana"]
QUESTIONS = [*WORDS, "teapot", "running tea in Porto", "北京的咖啡"]
MOMENT = datetime(2026, 5, 1, tzinfo=UTC)
AGENT = "default"
ROWS = "SELECT tier, number, part FROM search_indexes ORDER BY ALL"


class Life:
    """Does at random what agents do on one store, and restarts its engine."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = FakeClock(MOMENT, tick=timedelta(milliseconds=1))
        self.settings = settings
        self.start()

    def start(self) -> None:
        self.store = DuckDBStore(self.settings.db)
        self.engine = Engine(
            self.settings, store=self.store, embedder=HashEmbedder(), clock=self.clock
        )

    def restart(self) -> None:
        self.engine.close()
        self.start()

    @property
    def tiers(self) -> tuple[TierIndexes, TierIndexes]:
        return self.engine.archival.indexes, self.engine.recall.indexes

    def memory(self, agent: str = AGENT) -> AgentMemory:
        return memory_of(self.engine, agent)

    def write(self, count: int = 20, agent: str = AGENT) -> AgentMemory:
        memory = self.memory(agent)
        for _ in range(count):
            self._step(memory)
        return memory

    def load(self, agent: str = AGENT) -> list[bool]:
        """Load both indexes again, and return of each whether a persisted one was used."""
        self.engine.feed.forget()
        with self.engine.view(agent):
            for tier in self.tiers:
                tier.get(agent)
        return [tier._persisted_at[agent] is not None for tier in self.tiers]

    def persist(self, agent: str = AGENT) -> None:
        self.load(agent)
        assert [tier.persist(agent) for tier in self.tiers] == [True, True]

    def answers(self, agent: str = AGENT) -> list[list[tuple[object, ...]]]:
        memory, self.clock.tick = self.memory(agent), timedelta(0)
        found: list[list[tuple[object, ...]]] = [
            [
                (hit.score, hit.passage, hit.why, getattr(hit, name))
                for hit in part.search(question, limit=50).items
            ]
            for question in QUESTIONS
            for part, name in ((memory.archive, "memory"), (memory.conversations, "message"))
        ]
        self.clock.tick = timedelta(milliseconds=1)
        return found

    def check(self, agent: str = AGENT) -> list[bool]:
        """Check that it answers as one that is built; return what `load` does."""
        used = self.load(agent)
        answers = self.answers(agent)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.store.indexes, "manifest", lambda *_: None)
            assert self.load(agent) == [False, False]
            assert self.answers(agent) == answers
        self.engine.feed.forget()
        return used

    def _step(self, memory: AgentMemory) -> None:
        rng = self.rng
        stored = [hit.memory for hit in memory.archive.search(limit=50).items]
        match rng.randrange(8):
            case 0 | 1:
                tags = rng.sample(["tea", "work", "北京"], rng.randint(0, 2))
                memory.archive.insert(self._text(), tags=tags, kind=rng.choice(list(Kind)))
            case 2 | 3 | 4:
                said = [
                    NewMessage(
                        "user",
                        self._text(),
                        name=rng.choice([None, "Ana", "王芳"]),
                        created_at=MOMENT + timedelta(hours=rng.randrange(40)),
                    )
                    for _ in range(rng.randint(1, 4))
                ]
                memory.conversations.append(said, rng.choice(["main", "béta", "zeta"]))
            case 5 if stored:
                memory.archive.delete(rng.choice(stored).id)
            case 6 if stored:
                text = f"{self._text()} {self.store.seq(memory.agent)}"
                memory.archive.update(rng.choice(stored).id, content=text)
            case 7 if stored:
                memory.archive.update(rng.choice(stored).id, tags=["moved"])

    def _text(self) -> str:
        longest = 600 if self.rng.random() < 0.1 else 12
        return " ".join(self.rng.choices([*WORDS, "a", "was"], k=self.rng.randint(1, longest)))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "PERSISTED_DOCUMENTS", 1)
    monkeypatch.setattr("mcp_memory.store.duckdb.rows.READ_ROWS", 3)
    monkeypatch.setattr("mcp_memory.search.postings.FOLD_ROWS", 4)
    monkeypatch.setattr("mcp_memory.search.postings.BULK_TERMS", 40)


@pytest.fixture
def live(settings: Settings) -> Iterator[Callable[..., Life]]:
    lives: list[Life] = []

    def begin(seed: int = 0) -> Life:
        lives.append(Life(settings, seed))
        return lives[-1]

    yield begin
    for life in lives:
        life.engine.close()


@pytest.fixture
def life(live: Callable[..., Life]) -> Life:
    """A life with both indexes persisted."""
    life = live()
    life.write()
    life.persist()
    return life


@pytest.mark.parametrize("seed", range(3))
def test_whenever_it_is_persisted_it_answers_as_one_that_is_built(
    live: Callable[..., Life], seed: int
):
    life = live(seed)
    for _ in range(3):
        life.write(12)
        life.persist()
        life.write(life.rng.randrange(12))
        if life.rng.random() < 0.5:
            life.restart()
        assert life.check() == [True, True]


def test_rows_that_are_newer_than_it_are_found_whatever_the_clock_says(life: Life):
    memory = life.memory()
    life.clock.moment = MOMENT - timedelta(days=1)
    memory.archive.insert("the samovar is Russian")
    memory.conversations.append([NewMessage("user", "my samovar is Turkish")])
    assert life.check() == [True, True]
    assert memory.archive.search("samovar").items[0].memory.content == "the samovar is Russian"
    assert memory.conversations.search("samovar").items[0].message.content.endswith("Turkish")


def test_what_was_superseded_or_deleted_since_is_not_found(live: Callable[..., Life]):
    life = live()
    memory = life.memory()
    changed = memory.archive.insert("the kettle whistles").memory
    gone = memory.archive.insert("the teapot is blue").memory
    memory.conversations.append([NewMessage("user", "which kettle?")])
    life.persist()
    memory.archive.update(changed.id, content="the samovar whistles")
    memory.archive.delete(gone.id)
    assert life.check() == [True, True]
    assert [
        hit.memory.content for hit in memory.archive.search("kettle teapot whistles").items
    ] == ["the samovar whistles"]


def test_what_is_written_while_it_is_persisted_is_found(live: Callable[..., Life]):
    life = live()
    memory = life.write()
    life.load()

    def go_on() -> bool:
        memory.archive.insert(f"samovar {life.store.seq(AGENT)}")
        return True

    assert life.tiers[0].persist(AGENT, go_on)
    assert life.check() == [True, False]
    assert memory.archive.search("samovar").items


def test_another_agent_never_gets_it(life: Life):
    life.write(agent="two")
    assert life.check("two") == [False, False]
    assert life.memory("three").archive.search("tea").items == ()
    life.persist("two")
    assert life.check("two") == life.check() == [True, True]


def test_scores_age_by_the_kinds_that_are_set_today(life: Life):
    before = life.answers()
    faster = {
        kind: policy.model_copy(update={"half_life_days": 1.0, "fade_floor": 0.1})
        for kind, policy in DEFAULTS.items()
    }
    life.settings = life.settings.model_copy(update={"kinds": faster})
    life.clock.moment = MOMENT + timedelta(days=30)
    life.restart()
    assert life.check() == [True, True]
    assert life.answers() != before


def test_one_made_by_other_code_is_not_used(life: Life, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(indexes, "stamp", lambda: "another")
    assert life.check() == [False, False]


def test_one_that_is_ahead_of_the_store_is_not_used(life: Life):
    # As after a backup of the rows alone was restored.
    with life.store.database.transaction() as tx:
        rows = tx.run("SELECT tier, data FROM search_indexes WHERE part < 0")
        for tier, data in rows:
            ahead = json.dumps(json.loads(data) | {"seq": life.store.seq(AGENT) + 1})
            tx.run(
                "UPDATE search_indexes SET data = $1 WHERE part < 0 AND tier = $2",
                ahead.encode(),
                tier,
            )
    assert life.check() == [False, False]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM search_indexes WHERE part = 0",
        "UPDATE search_indexes SET data = '\\x00\\x01'::blob WHERE part = 0",
        "UPDATE search_indexes SET data = '{}'::blob WHERE part < 0",
        "UPDATE search_indexes SET data = 'nothing'::blob WHERE part < 0",
    ],
)
def test_one_that_is_damaged_is_not_used(life: Life, damage: str):
    with life.store.database.transaction() as tx:
        tx.run(damage)
    assert life.check() == [False, False]


def test_one_that_can_not_be_read_is_not_asked_for_again(
    life: Life, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fails(*_: object) -> bytes:
        raise StorageFault("a damaged block")

    monkeypatch.setattr(life.store.indexes, "read", fails)
    assert life.check() == life.check() == [False, False]
    assert len(caplog.records) == len(life.tiers)


def test_the_stamp_changes_with_any_source_that_makes_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = indexes.stamp()
    copy = tmp_path / "search"
    shutil.copytree(Path(next(iter(mcp_memory.search.__path__))), copy)
    monkeypatch.setattr(mcp_memory.search, "__path__", [str(copy)])
    assert indexes.stamp.__wrapped__() == plain
    for source in ("passages.py", "language/analysis.py"):
        with (copy / source).open("a") as file:
            file.write("# changed\n")
        changed = indexes.stamp.__wrapped__()
        assert changed != plain
        plain = changed


def test_nothing_is_persisted_or_used_where_the_sources_can_not_be_read(
    life: Life, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(indexes, "__file__", "/nowhere/indexes.py")
    assert indexes.stamp.__wrapped__() is None
    monkeypatch.setattr(indexes, "stamp", lambda: None)
    before = life.store.database.read(ROWS)
    assert life.load() == [False, False]
    assert [tier.persist(AGENT) for tier in life.tiers] == [True, True]
    assert [tier.due() for tier in life.tiers] == [[], []]
    assert life.store.database.read(ROWS) == before


def test_it_is_persisted_again_once_a_quarter_has_changed(live: Callable[..., Life]):
    life = live()
    memory = life.memory()
    for number in range(16):
        memory.archive.insert(f"kettle {number}")
    life.load()
    assert life.tiers[0].due() == [AGENT]
    life.persist()
    assert life.tiers[0].due() == []
    gone = [hit.memory.id for hit in memory.archive.search("kettle", limit=50).items]
    memory.archive.delete(gone[0])
    memory.archive.insert("teapot")
    memory.archive.insert("cup")
    assert life.tiers[0].due() == []
    # What has changed since counts after a restart as well.
    life.restart()
    assert life.load()[0]
    assert life.tiers[0].due() == []
    life.memory().archive.update(gone[1], content="samovar")
    assert life.tiers[0].due() == [AGENT]
    assert life.tiers[0].persist(AGENT)
    memories = [row for row in life.store.database.read(ROWS) if row[0] == "memory"]
    assert {number for _, number, _ in memories} == {2}


def test_a_small_one_is_not_persisted(life: Life, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(indexes, "PERSISTED_DOCUMENTS", 1_000)
    life.write()
    life.load()
    assert [tier.due() for tier in life.tiers] == [[], []]


def test_if_the_process_ends_meanwhile_the_one_before_stays(life: Life):
    before = life.store.database.read(ROWS)
    life.load()
    assert not life.tiers[0].persist(AGENT, lambda: False)
    assert life.store.database.read(ROWS) == before
    assert life.check() == [True, True]


def test_without_room_it_is_said_once_and_nothing_else_happens(
    live: Callable[..., Life], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    life = live()
    life.write()
    life.load()
    monkeypatch.setattr("mcp_memory.store.duckdb.indexes.SPARE_BYTES", 1 << 60)
    assert life.tiers[0].persist(AGENT)
    assert life.tiers[0].due() == []
    assert ["of the disk are free" in record.message for record in caplog.records] == [True]
    assert life.store.database.read(ROWS) == []


def test_the_background_persists_what_was_built(
    live: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
):
    # Else the one that waits for it would be taken to be at work.
    monkeypatch.setattr(indexes, "QUIET_SECONDS", 0.0)
    life = live()
    life.write()
    life.engine.start()
    life.load()
    manifest = life.store.indexes.manifest
    until(lambda: manifest(AGENT, "memory") and manifest(AGENT, "message"), "both indexes")
    life.restart()
    assert life.check() == [True, True]
