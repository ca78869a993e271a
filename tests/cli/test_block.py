"""`mcp-memory block`: what has become of a block, told to a person."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result
from fakes import HashEmbedder, memory_of

from mcp_memory.cli.block import block
from mcp_memory.settings import Settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import NotFound


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("MCP_MEMORY_DB", str(settings.db))
    monkeypatch.setenv("MCP_MEMORY_CACHE_DIR", str(settings.cache_dir))
    monkeypatch.setenv("MCP_MEMORY_EMBEDDING_MODEL", settings.embedding_model)
    memory = memory_of(Engine(settings, embedder=HashEmbedder()))
    memory.core.append("human", "Name: Ana")
    memory.core.rethink("human", "Name: Anna")
    memory.core.finish_rethinking("spelled right")
    memory.core.append("working", "Goals: Rome", "trip")
    memory.close()
    return lambda *arguments: CliRunner().invoke(block, arguments)


def test_the_history_tells_when_by_whom_and_why(run: Callable[..., Result]) -> None:
    lines = run("history", "human").stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["version 2", "version 1"]
    assert lines[0].endswith(": spelled right")
    assert "consolidation" not in lines[1]
    assert "tokens  by the user" in lines[1]
    assert len(run("history", "human", "--limit", "1").stdout.splitlines()) == 1


def test_a_version_is_shown_as_it_was(run: Callable[..., Result]) -> None:
    assert run("history", "human", "--version", "1").stdout == "Name: Ana\n"
    refused = run("history", "human", "--version", "9")
    assert isinstance(refused.exception, NotFound)


def test_a_working_block_is_that_of_its_conversation(run: Callable[..., Result]) -> None:
    assert "has not been changed yet" in run("history", "working").stdout
    trip = run("history", "working", "--conversation", "trip", "--version", "1")
    assert trip.stdout == "Goals: Rome\n"


def test_a_block_that_is_not_there_is_named(run: Callable[..., Result]) -> None:
    assert isinstance(run("history", "nobody").exception, NotFound)


def test_a_client_without_a_name_is_not_taken_for_the_user(settings: Settings) -> None:
    memory = memory_of(Engine(settings, embedder=HashEmbedder()))
    memory.as_reader("somebody").core.append("human", "Name: Ana")
    memory.core.define("human", "Name: Anna")
    assert [item.block.editor for item in memory.core.history("human")] == [None, "unnamed"]
    memory.close()
