"""How a database comes to the present schema, and what is refused."""

import importlib
import shutil
from datetime import UTC, datetime

import duckdb
import make_fixture
import pytest
from fakes import HashEmbedder, memory_of

from mcp_memory.store.duckdb import DuckDBStore
from mcp_memory.store.duckdb.database import Database
from mcp_memory.store.duckdb.migrations import MIGRATIONS, SCHEMA_VERSION, Migration, migrate
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.access import Scope
from mcp_memory.values.errors import SchemaTooNew, StorageFault
from mcp_memory.values.records import Kind, NewMessage

migrations = importlib.import_module("mcp_memory.store.duckdb.migrations")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.duckdb"


def versions(database):
    return [row[0] for row in database.read("SELECT version FROM migrations ORDER BY version")]


def tables(database):
    return {row[0] for row in database.read("SELECT table_name FROM duckdb_tables()")}


def build(path, upto):
    connection = duckdb.connect(str(path))
    connection.execute("SET TimeZone = 'UTC'")
    done = migrate(connection, str(path), upto=upto)
    connection.close()
    return done


def test_steps_count_up_by_one_and_each_has_a_name():
    assert [step.version for step in MIGRATIONS] == list(range(1, SCHEMA_VERSION + 1))
    assert all(step.name and step.statements for step in MIGRATIONS)


def test_a_new_database_has_every_step_and_says_so(path):
    database = Database(path)
    assert versions(database) == [step.version for step in MIGRATIONS]
    database.close()


def test_opening_again_does_nothing_more(path):
    assert build(path, SCHEMA_VERSION) is True
    assert build(path, SCHEMA_VERSION) is False


@pytest.mark.parametrize("version", range(SCHEMA_VERSION))
def test_a_database_of_any_earlier_schema_becomes_what_a_new_one_is(path, tmp_path, version):
    build(path, version)
    old, new = Database(path), Database(tmp_path / "new.duckdb")
    columns = (
        "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() ORDER BY ALL"
    )
    assert versions(old) == versions(new)
    assert old.read(columns) == new.read(columns)
    indexes = "SELECT table_name, sql FROM duckdb_indexes() ORDER BY ALL"
    assert old.read(indexes) == new.read(indexes)
    assert {name for name, _ in new.read(indexes)} == {"memories", "messages"}
    assert tables(old) >= {"blocks", "messages", "memories", "summaries", "events", "tokens"}
    old.close()
    new.close()


def test_a_later_schema_is_refused_and_the_file_left_untouched(path):
    build(path, SCHEMA_VERSION)
    connection = duckdb.connect(str(path))
    connection.execute(
        "INSERT INTO migrations (version, name, applied_at) VALUES ($1, 'to come', $2)",
        (SCHEMA_VERSION + 7, datetime(2027, 1, 1, tzinfo=UTC)),
    )
    connection.close()
    content = path.read_bytes()
    with pytest.raises(SchemaTooNew) as fault:
        Database(path)
    assert (fault.value.found, fault.value.known) == (SCHEMA_VERSION + 7, SCHEMA_VERSION)
    assert path.read_bytes() == content
    assert not path.with_name(f"{path.name}.wal").exists()


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE half_done (a integer)", "DROP TABLE events", "NONSENSE"),
        ("DELETE FROM settings", "INSERT INTO nowhere (a) VALUES (1)"),
    ],
)
def test_a_step_that_fails_leaves_the_version_and_the_data_of_before(path, monkeypatch, statements):
    database = Database(path)
    with database.transaction() as tx:
        tx.run("INSERT INTO settings (key, value) VALUES ('a', 'v')")
    before = tables(database)
    database.close()
    failing = Migration(SCHEMA_VERSION + 1, "fails", statements)
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, failing))
        with pytest.raises(duckdb.Error):
            build(path, SCHEMA_VERSION + 1)
    database = Database(path)
    assert versions(database)[-1] == SCHEMA_VERSION
    assert tables(database) == before
    assert database.read("SELECT * FROM settings") == [("a", "v")]
    database.close()


def test_of_several_steps_those_before_the_failing_one_are_kept(path, monkeypatch):
    good = Migration(SCHEMA_VERSION + 1, "good", ("CREATE TABLE good (a integer)",))
    bad = Migration(SCHEMA_VERSION + 2, "bad", ("CREATE TABLE bad (a integer)", "NONSENSE"))
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, good, bad))
        with pytest.raises(duckdb.Error):
            build(path, SCHEMA_VERSION + 2)
    connection = duckdb.connect(str(path), read_only=True)
    found = connection.execute("SELECT max(version) FROM migrations").fetchone()
    names = {
        row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    }
    connection.close()
    assert found == (SCHEMA_VERSION + 1,)
    assert "good" in names
    assert "bad" not in names


def test_a_record_of_migrations_that_cannot_be_read_is_a_storage_fault(path):
    connection = duckdb.connect(str(path))
    connection.execute("CREATE TABLE migrations (nothing text)")
    connection.close()
    with pytest.raises(StorageFault):
        Database(path)


NUMBERED = ("blocks", "messages", "memories", "summaries", "events", "consolidations", "tokens")


def test_what_was_there_before_change_numbers_is_the_first_change_of_its_agent(old):
    database = Database(old)
    for table in (*NUMBERED, "vectors"):
        assert database.read(f"SELECT DISTINCT seq FROM {table}") in ([(1,)], []), table
    retired = "SELECT DISTINCT retired_at IS NULL, retired_seq FROM memories ORDER BY ALL"
    assert database.read(retired) == [(False, 1), (True, None)]
    database.close()
    store = DuckDBStore(old)
    assert [store.seq(agent) for agent in ("default", "other", "new")] == [1, 1, 0]
    with store.transaction() as unit:
        assert unit.seq("default") == 2
    store.close()


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_rows_of_any_earlier_schema_are_loaded_in_the_order_of_recording(path, version):
    build(path, version)
    connection = duckdb.connect(str(path))
    connection.execute("SET TimeZone = 'UTC'")
    # The rows lie in the opposite order, and their ids say nothing about it.
    connection.execute(
        "INSERT INTO messages (agent, conversation, position, id, role, content, tokens,"
        " searchable, created_at, recorded_at) SELECT 'ana', 'main', i, md5(i::text), 'user',"
        " 'said', 1, true, now(), TIMESTAMPTZ '2026-01-05 09:00:00+00' + to_seconds(i)"
        " FROM range(50) AS t(i) ORDER BY i DESC"
    )
    connection.execute(
        "INSERT INTO memories (agent, id, version, content, content_hash, kind, tags, tokens,"
        " happened_at, recorded_at) SELECT 'ana', md5(i::text), 1, 'known', md5(i::text), 'fact',"
        " [], 1, now(), TIMESTAMPTZ '2026-01-05 09:00:00+00' + to_seconds(i)"
        " FROM range(50) AS t(i) ORDER BY i DESC"
    )
    connection.close()
    store = DuckDBStore(path)
    upto = store.seq("ana")
    assert upto == 1
    messages = [message.index for message in store.messages.searchable("ana", 0, upto)]
    moments = [memory.recorded_at for memory in store.memories.searchable("ana", 0, upto)]
    assert messages == list(range(50))
    assert moments == sorted(moments)
    assert len(moments) == 50
    store.close()


@pytest.fixture
def old(tmp_path):
    """Give a copy of the database that schema 1 left."""
    copy = tmp_path / "schema-1.duckdb"
    shutil.copyfile(make_fixture.FIXTURE, copy)
    return copy


@pytest.fixture
def opened(old, settings):
    changed = settings.model_copy(update={"db": old})
    engine = Engine(changed, embedder=HashEmbedder())
    yield lambda agent="default": memory_of(engine, agent)
    engine.close()


def test_every_row_of_a_database_of_schema_1_is_there_today(old):
    database = Database(old)
    assert versions(database) == [step.version for step in MIGRATIONS]

    def rows(table, columns):
        return database.read(f"SELECT {columns} FROM {table} ORDER BY ALL")

    for table, columns, expected in (
        ("blocks", make_fixture.BLOCK_COLUMNS, make_fixture.BLOCKS),
        ("messages", make_fixture.MESSAGE_COLUMNS, make_fixture.MESSAGES),
        ("summaries", make_fixture.SUMMARY_COLUMNS, make_fixture.SUMMARIES),
        ("memories", make_fixture.MEMORY_COLUMNS, make_fixture.MEMORIES),
        ("pending_vectors", make_fixture.PENDING_COLUMNS, make_fixture.PENDING),
    ):
        assert rows(table, columns) == sorted(expected), table
    assert database.read("SELECT count(*) FROM vectors") == [(7,)]
    database.close()


def test_a_database_of_schema_1_is_read_by_the_memory_of_today(opened):
    memory = opened()
    human = memory.core.get("human")
    assert (human.value, human.version, human.limit) == ("Name: Ana\nLives in Porto", 2, 2_000)
    assert memory.core.get("rules").read_only
    assert memory.core.get("working").value == "Plan the trip."
    assert [m.index for m in memory.conversations.recent()] == [2, 3]
    summary = memory.conversations.summary()
    assert summary is not None
    assert (summary.content, summary.first, summary.last) == ("Ana flies TP-532.", 0, 1)
    assert memory.archive.count() == 2
    assert memory.archive.get("00000000m1").content == "Ana drinks green tea."
    assert memory.archive.tags() == ["db", "food", "infra"]
    assert memory.embedding_state().pending == 1
    assert [block.value for block in opened("other").core.all()][1] == "Name: Ben"


def test_a_database_of_schema_1_takes_access_tokens(opened):
    access = opened()._engine.access
    assert not access.exist()
    _, text = access.create("default", Scope.READ)
    assert access.check(text).agent == "default"


def test_a_database_of_schema_1_is_searched_by_words_and_by_meaning(opened):
    memory = opened()
    page = memory.archive.search("ERR_CONN_4031")
    assert page.items[0].memory.id == "00000000m2"
    assert (page.search, page.total) == ("hybrid", 2)
    assert memory.conversations.search("TP-532").items[0].message.id == "0000000001"
    # Its vectors are still pending: words alone find it.
    found = memory.conversations.search("咖啡").items
    assert "0000000004" in {hit.message.id for hit in found}


def test_a_database_of_schema_1_is_written_by_the_memory_of_today(opened):
    memory = opened()
    memory.core.append("human", "Has a cat.")
    said = [NewMessage("user", "And a dog."), NewMessage("user", "And a fish.")]
    added = memory.conversations.append(said)
    assert [m.index for m in memory.conversations.recent()] == [2, 3, 4, 5]
    assert added.ids == tuple(m.id for m in memory.conversations.recent()[2:])
    again = memory.archive.insert("Ana drinks green tea.", kind=Kind.PREFERENCE)
    assert (again.created, again.memory.id) == (False, "00000000m1")
    memory.conversations.flush(summary="All of it.")
    summary = memory.conversations.summary()
    assert summary is not None
    assert (summary.parent, summary.first, summary.last) == ("000000000s", 2, 2)
