"""An index that was kept answers as one made anew, whatever came and went since."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from fakes import HashEmbedder, memory_of

from mcp_memory.agent import archive, base, conversations
from mcp_memory.search import postings
from mcp_memory.tiers import archival, keeping
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import StorageFault
from mcp_memory.values.kinds import DEFAULTS
from mcp_memory.values.records import Kind, NewMessage

WORDS = ["tea", "kettle", "Porto", "ERR-42", "run", "running", "咖啡", "北京", "heißt", "Ana"]
QUESTIONS = [*WORDS, "teapot", "running tea in Porto", "北京的咖啡"]
MOMENT = datetime(2026, 5, 1, tzinfo=UTC)
TIERS = ("memory", "message")


class Clock:
    """Goes on by little, now and then stands still, and is set back if it is told to."""

    def __init__(self, rng):
        self.moment = MOMENT
        self.rng = rng
        self.stands = False

    def __call__(self):
        if not self.stands:
            self.moment += timedelta(microseconds=self.rng.choice([0, 1, 5_000_000]))
        return self.moment


class Life:
    """Does at random what agents do to an engine on one database, and restarts it."""

    def __init__(self, settings, seed, monkeypatch, *, has_model):
        self.rng = random.Random(seed)
        self.clock = Clock(self.rng)
        for module in (archival, archive, base, conversations):
            monkeypatch.setattr(module, "now", self.clock)
        self.settings = settings
        self.has_model = has_model
        self.taken: Counter[bool] = Counter()
        self.open()

    def start(self):
        self.engine.close()
        self.open()

    def open(self):
        self.engine = Engine(self.settings, embedder=HashEmbedder() if self.has_model else None)
        taken = self.engine.keeping._taken

        def counted(texts, agent):
            found = taken(texts, agent)
            self.taken[found is not None] += 1
            return found

        self.engine.keeping._taken = counted  # type: ignore[method-assign]  # to count

    def text(self):
        longest = 600 if self.rng.random() < 0.1 else 12
        return " ".join(self.rng.choices([*WORDS, "a", "was"], k=self.rng.randint(1, longest)))

    def step(self, memory):
        kept = [hit.memory for hit in memory.archive.search(limit=50).items]
        match self.rng.randrange(8):
            case 0 | 1:
                tags = self.rng.sample(["tea", "work", "北京"], self.rng.randint(0, 2))
                memory.archive.insert(self.text(), tags=tags, kind=self.rng.choice(list(Kind)))
            case 2 | 3 | 4:
                said = [
                    NewMessage(
                        self.rng.choice(["user", "assistant"]),
                        self.text(),
                        name=self.rng.choice([None, "Ana", "王芳"]),
                        created_at=MOMENT + timedelta(hours=self.rng.randrange(40)),
                    )
                    for _ in range(self.rng.randint(1, 4))
                ]
                memory.conversations.append(said, self.rng.choice(["main", "béta", "zeta"]))
            case 5 if kept:
                memory.archive.delete(self.rng.choice(kept).id)
            case 6 if kept:
                memory.archive.update(self.rng.choice(kept).id, content=self.text())
            case 7 if kept:
                memory.archive.update(self.rng.choice(kept).id, tags=["moved"])

    def keep(self, agent="default"):
        with self.engine.lock:
            self.engine.archival.index(agent)
            self.engine.recall.index(agent)
        return [self.engine.keeping.keep((tier, agent), self.engine.lock) for tier in TIERS]

    def forget(self):
        with self.engine.store.database.transaction() as tx:
            tx.run("DELETE FROM kept_indexes")

    def answers(self, agent="default"):
        memory = memory_of(self.engine, agent)
        return [
            [
                (hit.score, hit.passage.start, hit.passage.end, hit.why, getattr(hit, name))
                for hit in part.search(question, limit=50).items
            ]
            for question in QUESTIONS
            for part, name in ((memory.archive, "memory"), (memory.conversations, "message"))
        ]

    def check(self, agent="default"):
        """Check that what is taken up answers as what is made anew."""
        self.clock.stands = True
        self.engine.archival.forget_indexes()
        with_kept = self.answers(agent)
        kept = self.engine.keeping._kept
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kept, "manifest", lambda *_: None)
            self.engine.archival.forget_indexes()
            anew = self.answers(agent)
        self.clock.stands = False
        assert with_kept == anew
        return anew


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(keeping, "KEPT_DOCUMENTS", 1)
    monkeypatch.setattr(keeping, "READ_ROWS", 3)
    monkeypatch.setattr(postings, "FOLD_ROWS", 4)
    monkeypatch.setattr(postings, "BULK_TERMS", 40)


@pytest.fixture
def live(settings, monkeypatch):
    lives = []

    def begin(seed=0, has_model=True, **changes):
        changed = settings.model_copy(update=changes)
        life = Life(changed, seed, monkeypatch, has_model=has_model)
        lives.append(life)
        return life

    yield begin
    for life in lives:
        life.engine.close()


def written(life, count=20, agent="default"):
    memory = memory_of(life.engine, agent)
    for _ in range(count):
        life.step(memory)
    return memory


@pytest.mark.parametrize("seed", range(4))
def test_kept_at_any_time_it_answers_as_one_made_anew(live, seed):
    life = live(seed)
    for _ in range(3):
        written(life, 12)
        life.clock.stands = True
        before = life.answers()
        assert life.keep() == [True, True]
        assert life.answers() == before
        life.clock.stands = False
        written(life, life.rng.randrange(12))
        if life.rng.random() < 0.5:
            life.start()
        life.check()
    assert life.taken[True] >= 3


def test_what_was_written_since_by_a_clock_that_was_set_back_is_found(live):
    life = live()
    memory = written(life)
    life.keep()
    life.clock.moment -= timedelta(hours=1)
    memory.archive.insert("the samovar is Russian")
    memory.conversations.append([NewMessage("user", "my samovar is Turkish")])
    life.check()
    assert life.taken[True] == 0
    assert len(memory.archive.search("samovar").items) > 0
    assert memory.conversations.search("samovar").items[0].message.content.endswith("Turkish")


def test_a_change_at_the_very_moment_that_was_kept_is_seen(live, monkeypatch):
    life = live()
    memory = memory_of(life.engine)
    monkeypatch.setattr(archival, "now", lambda: MOMENT)
    inserted = memory.archive.insert("the kettle whistles").memory
    memory.archive.insert("the teapot is blue")
    life.keep()
    memory.archive.update(inserted.id, content="the samovar whistles")
    memory.archive.insert("the cup is green")
    life.check()
    assert life.taken[True] == 1  # Of the conversations alone, where nothing was said.
    assert memory.archive.search("samovar").items[0].memory.id == inserted.id


def test_what_was_recorded_at_one_moment_stands_in_the_order_of_the_database(live, monkeypatch):
    life = live(has_model=False)
    memory = memory_of(life.engine)
    monkeypatch.setattr(archival, "now", lambda: MOMENT)
    with life.engine.lock:
        life.engine.archival.index("default")
    for number in range(12):
        # Every third is one of several passages.
        memory.archive.insert(f"kettle {number}" + " teapot" * (400 if number % 3 == 0 else 0))
    life.keep()
    life.check()
    equal = memory.archive.search("kettle", limit=50).items
    assert len({hit.score for hit in equal}) < len(equal) == 12
    assert life.taken[True] == 2


def test_messages_of_a_clock_that_was_set_back_have_the_neighbours_of_an_index_made_anew(live):
    life = live(has_model=False)
    memory = memory_of(life.engine)
    with life.engine.lock:
        life.engine.recall.index("default")
    for text in ("the kettle is new", "from where", "from Porto", "how dear", "ten euros"):
        life.clock.moment -= timedelta(seconds=20)
        memory.conversations.append([NewMessage("user", text, created_at=MOMENT)])
    life.keep()
    life.check()
    assert life.taken[True] == 2


def test_another_agent_never_gets_what_one_has_kept(live):
    life = live()
    written(life, 20, "one")
    written(life, 20, "two")
    assert life.keep("one") == [True, True]
    life.check("two")
    assert life.taken[True] == 0
    assert [hit.memory for hit in memory_of(life.engine, "three").archive.search("tea").items] == []
    life.keep("two")
    assert life.check("one") != life.check("two")
    assert life.taken[True] == 4


def test_scores_age_by_the_kinds_that_are_set_today(live):
    life = live()
    written(life, 30)
    life.keep()
    before = life.check()
    faster = {
        kind: policy.model_copy(update={"half_life_days": 1.0, "fade_floor": 0.1})
        for kind, policy in DEFAULTS.items()
    }
    life.settings = life.settings.model_copy(update={"kinds": faster})
    life.start()
    life.taken.clear()
    assert life.check() != before
    assert life.taken[True] == 2


def test_an_index_made_by_another_analysis_is_not_used(live, monkeypatch):
    life = live()
    written(life)
    life.keep()
    monkeypatch.setattr(keeping, "stamp", lambda: "another")
    life.check()
    assert life.taken[True] == 0


def test_the_stamp_changes_with_any_source_that_an_index_is_made_by(monkeypatch):
    plain = keeping.stamp()
    assert plain == keeping.stamp.__wrapped__()
    for source in ("search.language.analysis", "search.lexical", "findable"):
        monkeypatch.setattr(keeping, "_SOURCES", tuple(set(keeping._SOURCES) - {source}))
        assert keeping.stamp.__wrapped__() != plain
    monkeypatch.setattr(keeping, "_SOURCES", ("no_such_module",))
    assert keeping.stamp.__wrapped__() is None


def test_nothing_is_kept_or_taken_where_the_sources_cannot_be_read(live, monkeypatch):
    life = live()
    written(life)
    monkeypatch.setattr(keeping, "stamp", lambda: None)
    assert life.keep() == [True, True]
    assert life.engine.keeping.due() == []
    assert life.engine.store.database.read("SELECT count(*) FROM kept_indexes") == [(0,)]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM kept_indexes WHERE part = 0",
        "UPDATE kept_indexes SET data = '\\x00\\x01'::blob WHERE part = 0",
        "UPDATE kept_indexes SET data = '{}'::blob WHERE part < 0",
        "UPDATE kept_indexes SET data = 'nothing'::blob WHERE part < 0",
    ],
)
def test_what_is_damaged_is_not_used(live, damage):
    life = live()
    written(life)
    life.keep()
    with life.engine.store.database.transaction() as tx:
        tx.run(damage)
    life.check()
    assert life.taken[True] == 0


def test_what_cannot_be_read_is_not_asked_for_again(live, monkeypatch, caplog):
    life = live()
    written(life)
    life.keep()

    def fails(*_):
        raise StorageFault("a damaged block")

    monkeypatch.setattr(life.engine.keeping._kept, "read", fails)
    life.check()
    life.check()
    assert len(caplog.records) == len(TIERS)


def test_it_is_kept_again_once_a_quarter_has_changed(live):
    life = live()
    memory = memory_of(life.engine)
    for number in range(16):
        memory.archive.insert(f"kettle {number}")
    key = ("memory", "default")
    life.engine.archival.index("default")
    assert life.engine.keeping.due() == [key]
    life.keep()
    assert life.engine.keeping.due() == []
    life.start()
    memory = memory_of(life.engine)
    gone = [hit.memory.id for hit in memory.archive.search("kettle", limit=50).items]
    assert life.engine.keeping.due() == []
    memory.archive.delete(gone[0])
    memory.archive.insert("teapot")
    memory.archive.insert("cup")
    assert life.engine.keeping.due() == []
    life.start()
    memory = memory_of(life.engine)
    memory.archive.search("kettle")
    assert life.engine.keeping.due() == []
    memory.archive.update(gone[1], content="samovar")
    assert life.engine.keeping.due() == [key]
    life.keep()
    numbers = "SELECT DISTINCT number FROM kept_indexes WHERE tier = 'memory'"
    assert life.engine.store.database.read(numbers) == [(2,)]


def test_small_indexes_are_not_kept(live, monkeypatch):
    monkeypatch.setattr(keeping, "KEPT_DOCUMENTS", 40)
    life = live()
    written(life)
    life.engine.archival.index("default")
    assert life.engine.keeping.due() == []


def test_if_somebody_writes_meanwhile_it_is_put_off(live, monkeypatch):
    life = live()
    memory = written(life)
    with life.engine.lock:
        life.engine.archival.index("default")
    had = life.engine.keeping._had

    def interrupted(*arguments):
        memory.archive.insert("a samovar")
        return had(*arguments)

    key = ("memory", "default")
    with monkeypatch.context() as patch:
        patch.setattr(life.engine.keeping, "_had", interrupted)
        assert not life.engine.keeping.keep(key, life.engine.lock)
    assert key in life.engine.keeping.due()
    assert life.engine.keeping.keep(key, life.engine.lock)


def test_a_process_that_ends_leaves_what_was_kept_before(live):
    life = live()
    written(life)
    life.keep()
    count = "SELECT count(*), max(number) FROM kept_indexes WHERE tier = 'memory'"
    before = life.engine.store.database.read(count)
    key = ("memory", "default")
    assert not life.engine.keeping.keep(key, life.engine.lock, go_on=lambda: False)
    assert life.engine.store.database.read(count) == before
    life.check()
    assert life.taken[True] == 2


def test_without_room_it_is_said_once_and_nothing_else_happens(live, monkeypatch, caplog):
    life = live()
    written(life)
    with life.engine.lock:
        life.engine.archival.index("default")
    monkeypatch.setattr("mcp_memory.store.duckdb.keptindexes.SPARE_BYTES", 1 << 60)
    assert life.engine.keeping.keep(("memory", "default"), life.engine.lock)
    assert life.engine.keeping.due() == []
    assert ["of the disk are free" in record.message for record in caplog.records] == [True]
    assert life.engine.store.database.read("SELECT count(*) FROM kept_indexes") == [(0,)]


def test_the_background_keeps_what_was_made_anew(live, monkeypatch):
    # Else who waits for it would be taken to be at work.
    monkeypatch.setattr(keeping, "QUIET_SECONDS", 0.0)
    life = live()
    written(life)
    life.engine.start()
    with life.engine.lock:
        life.engine.archival.index("default")
    kept = "SELECT count(*) FROM kept_indexes WHERE tier = 'memory' AND part < 0"
    while life.engine.store.database.read(kept) == [(0,)]:
        pass
    life.check()
    assert life.taken[True] == 1
