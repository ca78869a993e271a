"""`mcp-memory compact` without an owner; with one it is tested beside the owner."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from fakes import HashEmbedder, memory_of
from stores import database_of

from mcp_memory.cli.compact import compact
from mcp_memory.settings import Settings
from mcp_memory.tiers.engine import Engine


@pytest.fixture(autouse=True)
def _environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_MEMORY_DB", str(settings.db))


def test_it_tells_the_size_before_and_after(settings: Settings) -> None:
    memory = memory_of(Engine(settings, embedder=HashEmbedder()))
    memory.core.append("human", "Drinks tea.")
    database = database_of(memory._engine.store)
    with database.transaction() as tx:
        tx.run(
            "INSERT INTO settings (key, value) SELECT 'k' || i, repeat(md5(i::text), 90)"
            " FROM range(9000) AS t(i)"
        )
    database.checkpoint()
    with database.transaction() as tx:
        tx.run("DELETE FROM settings WHERE key LIKE 'k%'")
    memory.close()
    before = settings.db.stat().st_size
    done = CliRunner().invoke(compact)
    assert done.exit_code == 0, done.exception
    after = settings.db.stat().st_size
    assert after < before / 2
    assert f"{before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now (-" in done.stdout
    assert "compacting" in done.stderr
    again = memory_of(Engine(settings, embedder=HashEmbedder()))
    assert "Drinks tea." in again.core.compiled()
    again.close()


def test_without_a_database_it_says_so_and_makes_none(settings: Settings) -> None:
    done = CliRunner().invoke(compact)
    assert done.exit_code == 1
    assert "there is no database" in done.stderr
    assert not settings.db.exists()
