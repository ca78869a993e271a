"""`mcp-memory summarize`: shows the summary, and writes it anew from recall."""

from __future__ import annotations

from contextlib import closing

import pytest
from click.testing import CliRunner
from endpoints import says, stub_endpoint
from fakes import HashEmbedder, memory_of
from owners import running_owner

from mcp_memory.cli.summarize import summarize
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.records import NewMessage

WINDOW = 2_000


@pytest.fixture
def run(settings, monkeypatch):
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MCP_MEMORY_DB", str(settings.db))
    monkeypatch.setenv("MCP_MEMORY_CACHE_DIR", str(settings.cache_dir))
    monkeypatch.setenv("MCP_MEMORY_CONTEXT_WINDOW", str(WINDOW))
    monkeypatch.setenv("MCP_MEMORY_EMBEDDING_MODEL", "fake/hash")
    monkeypatch.setenv("MCP_MEMORY_OFFLINE", "1")

    def run_it(*arguments):
        return CliRunner().invoke(summarize, arguments)

    return run_it


def open_memory(settings):
    changed = settings.model_copy(update={"context_window": WINDOW, "rethink_every": 0})
    return closing(memory_of(Engine(changed, embedder=HashEmbedder())))


def fill(memory):
    """Let several flushes go by, the last with a client's summary of a word."""
    for number in range(40):
        text = f"On day {number} Marta sold boat INC-{number:03} in Porto." + " tea" * 150
        memory.conversations.append([NewMessage("user", text)])
    memory.conversations.overflow()
    memory.conversations.flush(summary="Nothing.")
    return memory.conversations.summary()


def test_before_a_flush_there_is_none_to_show(run, settings):
    with open_memory(settings) as memory:
        memory.conversations.append([NewMessage("user", "The launch is on May 5.")])
    assert "nothing has left" in run().output


def test_rebuilding_writes_the_newest_summary_from_every_message_that_has_left(run, settings):
    with open_memory(settings) as memory:
        before = fill(memory)
    assert "Nothing." in run().output
    done = run("--rebuild")
    assert done.exit_code == 0, done.output
    assert "Marta sold boat INC-" in done.output
    assert f"version {before.version + 1}," in done.output
    with open_memory(settings) as memory:
        after = memory.conversations.summary()
        assert (after.first, after.last, after.parent) == (
            before.first,
            before.last,
            before.parent,
        )
        assert after.tokens <= memory.conversations.summary_limit
    assert run("--rebuild").output.split("]\n", 1)[1] == done.output.split("]\n", 1)[1]


def test_the_endpoint_writes_it_only_if_asked_to(run, settings, monkeypatch):
    with open_memory(settings) as memory:
        fill(memory)
    assert "none is set" in str(run("--rebuild", "--by-endpoint").exception)
    with stub_endpoint() as stub:
        stub.play(says("Boats were sold."))
        monkeypatch.setenv("MCP_MEMORY_SUMMARIZER", stub.url)
        monkeypatch.setenv("MCP_MEMORY_SUMMARIZER_MODEL", "tiny")
        assert "Marta sold" in run("--rebuild").output
        assert stub.requests == []
        done = run("--rebuild", "--by-endpoint")
        assert "Boats were sold." in done.output
        assert "endpoint" in done.output
        assert len(stub.requests) >= 2


@pytest.mark.slow
def test_it_goes_through_the_owner_while_clients_are_connected(run, settings):
    with open_memory(settings) as memory:
        fill(memory)
    with running_owner(settings.db.parent, embedding_model="fake/hash", offline="1"):
        done = run("--rebuild")
        assert done.exit_code == 0, done.output
        assert "Marta sold boat INC-" in done.output
