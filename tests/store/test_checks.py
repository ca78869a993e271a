"""Looking through a database: what is whole says so, and each kind of damage is found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from fakes import HashEmbedder, memory_of
from stores import database_of
from talker import until

from mcp_memory.agent import AgentMemory
from mcp_memory.settings import Settings
from mcp_memory.store.duckdb.checks import (
    agents,
    check,
    inspect,
    row_counts,
    schema_version,
)
from mcp_memory.store.duckdb.migrations import SCHEMA_VERSION
from mcp_memory.store.ports import Finding
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import DatabaseCorrupt, DatabaseLocked
from mcp_memory.values.records import NewMessage


@pytest.fixture
def filled(settings: Settings) -> Settings:
    """The settings of a closed database with something of every kind in it."""
    memory = memory_of(Engine(settings, embedder=HashEmbedder()))
    memory.core.append("human", "Ana, in Lisbon")
    for number in range(6):
        memory.conversations.append([NewMessage("user", f"message {number}")])
    memory.conversations.flush()
    kept = memory.archive.insert("the flight lands at 21:40").memory
    memory.archive.update(kept.id, content="the flight lands at 22:10")
    gone = memory.archive.insert("to be deleted").memory
    memory.archive.delete(gone.id)
    engine = memory._engine
    while engine.recall.without_window:
        engine._backlog.fill_windows(HashEmbedder())
    memory.close()
    return settings


def damage(settings: Settings, *statements: str) -> None:
    with duckdb.connect(str(settings.db)) as connection:
        for statement in statements:
            connection.execute(statement)


def trouble(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level != "ok"]


def test_a_whole_database_has_no_trouble(filled: Settings) -> None:
    findings = inspect(filled.db)
    assert trouble(findings) == []
    assert findings[0].text == f"schema {SCHEMA_VERSION}"
    assert len(findings) == 8


def test_it_can_be_looked_through_while_it_is_open(
    open_memory: Callable[..., AgentMemory],
) -> None:
    memory = open_memory()
    memory.archive.insert("Ana likes tea")
    read = database_of(memory._engine.store).read
    assert trouble(check(read)) == []
    assert (schema_version(read), agents(read)) == (SCHEMA_VERSION, ["default"])
    counts = row_counts(read)
    assert (counts["memories"], counts["vectors"], counts["messages"]) == (1, 1, 0)


def test_texts_that_wait_for_their_vectors_are_counted_and_no_trouble(settings: Settings) -> None:
    memory = memory_of(Engine(settings))
    memory.archive.insert("Ana likes tea")
    memory.close()
    findings = inspect(settings.db)
    assert trouble(findings) == []
    assert any("1 text pending" in finding.text for finding in findings)
    assert any("no embedding model was used yet" in finding.text for finding in findings)


def test_a_text_whose_vectors_a_crash_has_lost_is_no_trouble_and_gets_them_at_the_next_start(
    filled: Settings,
) -> None:
    damage(filled, "DELETE FROM vectors WHERE source = 'memory'")
    findings = inspect(filled.db)
    assert trouble(findings) == []
    assert any("1 text pending" in finding.text for finding in findings)
    engine = Engine(filled, embedder=HashEmbedder())
    engine.start()
    until(lambda: list(engine.store.vectors.blocks("default", "memory", 99)), "the vectors")
    engine.close()
    assert any("every text has its vectors" in finding.text for finding in inspect(filled.db))


DAMAGES = {
    "a block over its limit": (
        ["UPDATE blocks SET tokens = limit_tokens + 1"],
        "warning",
        "1 block over the limit: human",
    ),
    "a message that is gone": (
        ["DELETE FROM messages WHERE position = 2"],
        "problem",
        "messages are missing in 1 conversation: main",
    ),
    "a message id twice": (
        ["UPDATE messages SET id = (SELECT min(id) FROM messages) WHERE position IN (1, 2)"],
        "problem",
        "message id used more than once",
    ),
    "a summary without its parent": (
        ["UPDATE summaries SET parent = 'nobody'"],
        "problem",
        "1 summary without a parent",
    ),
    "a memory with two versions at once": (
        ["UPDATE memories SET retired_at = NULL WHERE version = 1"],
        "problem",
        "with two current versions",
    ),
    "a pending text that is gone": (
        [
            "INSERT INTO pending_vectors (agent, source, id, version)"
            " VALUES ('default', 'memory', 'nothing', 1)"
        ],
        "warning",
        "pending entries of 1 text that no longer exist",
    ),
    "vectors of a text that is gone": (
        ["INSERT INTO vectors BY NAME SELECT * REPLACE ('nothing' AS id) FROM vectors LIMIT 1"],
        "warning",
        "vectors of 1 text that no longer exist",
    ),
    "the vectors of a window that is gone": (
        [
            "INSERT INTO vectors BY NAME SELECT * REPLACE ('nothing' AS id) FROM vectors"
            " WHERE source = 'window' LIMIT 1"
        ],
        "warning",
        "vectors of 1 text that no longer exist",
    ),
    "vectors of another length": (
        ["UPDATE settings SET value = '384' WHERE key = 'embedding_dimension'"],
        "problem",
        "the model has 384 dimensions, the table of vectors FLOAT[64]",
    ),
    "vectors without a table": (
        [
            "DROP TABLE vectors",
            "INSERT INTO pending_vectors (agent, source, id, version)"
            " SELECT agent, 'memory', id, version FROM memories WHERE retired_at IS NULL"
            " UNION ALL SELECT agent, 'message', id, 1 FROM messages WHERE searchable",
        ],
        "problem",
        "no vectors at all",
    ),
    "a newer schema": (
        ["INSERT INTO migrations (version, name, applied_at) VALUES (999, 'later', now())"],
        "problem",
        f"schema 999, and this version knows up to {SCHEMA_VERSION}",
    ),
}


def test_a_file_of_which_much_is_dead_is_told_with_what_makes_it_smaller(
    filled: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_memory.store.duckdb.space.MIN_FILE_BYTES", 1_000_000)
    damage(
        filled,
        "INSERT INTO settings (key, value)"
        " SELECT 'k' || i, repeat(md5(i::text), 90) FROM range(9000) AS t(i)",
        "CHECKPOINT",
        "DELETE FROM settings WHERE key LIKE 'k%'",
    )
    [finding] = trouble(inspect(filled.db))
    assert finding.level == "warning"
    assert "dead" in finding.text
    assert "mcp-memory compact" in finding.hint


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_something_to_do_is_said(name: str, filled: Settings) -> None:
    statements, level, text = DAMAGES[name]
    damage(filled, *statements)
    found = [finding for finding in trouble(inspect(filled.db)) if text in finding.text]
    assert [finding.level for finding in found] == [level]
    assert found[0].hint


def test_a_looked_at_database_keeps_its_older_schema(settings: Settings) -> None:
    source = Path(__file__).parents[1] / "fixtures"
    oldest = sorted(source.glob("*.duckdb"))[0]
    settings.db.write_bytes(oldest.read_bytes())
    before = settings.db.read_bytes()
    findings = inspect(settings.db)
    assert trouble(findings) == []
    assert f", {SCHEMA_VERSION} after the next start" in findings[0].text
    assert settings.db.read_bytes() == before


def test_a_database_that_another_process_holds_is_not_looked_at(filled: Settings) -> None:
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(filled.db)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n" or os.name == "nt"
        with pytest.raises(DatabaseLocked) as caught:
            inspect(filled.db)
        assert caught.value.pid == process.pid
        process.kill()


def test_a_file_that_is_no_database_is_refused(settings: Settings) -> None:
    settings.db.write_bytes(b"something else" * 1_000)
    with pytest.raises(DatabaseCorrupt):
        inspect(settings.db)


def test_a_damaged_block_of_the_file_is_met(filled: Settings) -> None:
    damage(
        filled,
        "INSERT INTO events (agent, id, kind, text, data, created_at)"
        " SELECT 'default', 'e' || range, 'flushed', 'x',"
        " md5(range::text) || md5((range + 7)::text), now() FROM range(20000)",
        "CHECKPOINT",
    )
    content = bytearray(filled.db.read_bytes())
    # The headers stay, so that it opens; half of what follows is turned over.
    for at in range(len(content) // 2, len(content) - 4096, 997):
        content[at] ^= 0xFF
    filled.db.write_bytes(content)
    try:
        findings = inspect(filled.db)
    except DatabaseCorrupt:
        return
    assert any(finding.level == "problem" for finding in findings)
