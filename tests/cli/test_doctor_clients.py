"""What `mcp-memory doctor` says of the entries that clients have for this program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mcp_memory.cli.checks import Check
from mcp_memory.cli.checks.clients import check_clients
from mcp_memory.cli.checks.hosts import Client, Configuration, Entry
from mcp_memory.settings import Settings


def entry_checks(settings: Settings | None = None, **entry: Any) -> list[Check]:
    given = {"name": "memory", "command": (sys.executable, "-m", "mcp_memory")} | entry
    found = Configuration(Client("Cursor"), Path("/c.json"), (Entry(**given),), 1)
    return list(check_clients([found], settings))


@pytest.mark.parametrize(
    ("entry", "level", "text"),
    [
        ({}, "ok", "agent 'default', database the default one"),
        ({"environment": {"MCP_MEMORY_AGENT": "ana"}}, "ok", "agent 'ana'"),
        ({"url": "http://localhost/mcp", "command": ()}, "ok", "reaches a server"),
        ({"command": ("${env:TOOLS}/mcp-memory",)}, "ok", "agent 'default'"),
        ({"environment": {"MCP_MEMORY_DB": "${env:X}/a"}}, "ok", "database ${env:X}/a"),
        ({"misplaced": "servers"}, "problem", "does not read"),
        ({"enabled": False}, "warning", "switched off"),
        ({"command": ()}, "problem", "no command"),
        ({"command": ("no-such-program", "mcp-memory")}, "problem", "on the PATH"),
        ({"command": ("bin/mcp-memory",)}, "warning", "depends on the folder"),
        ({"command": ("~/no-such/mcp-memory",)}, "warning", "not every client replaces the ~"),
        ({"environment": {"MCP_MEMORY_DATABSE": "/a"}}, "warning", "no setting MCP_MEMORY_DATABSE"),
        ({"environment": {"MCP_MEMORY_TIMEZONE": "Mars"}}, "problem", "MCP_MEMORY_TIMEZONE"),
    ],
)
def test_an_entry_is_looked_at(entry: dict[str, Any], level: str, text: str) -> None:
    found = [check for check in entry_checks(**entry) if text in check.text]
    assert [check.level for check in found] == [level]
    assert bool(found[0].hint) is (level != "ok")


@pytest.mark.parametrize(
    ("command", "is_foreign"),
    [
        ("uvx mcp-memory", True),
        ("uvx mcp-memory@0.1.0 serve", True),
        ("uvx --from mcp-memory[x]==0.1 mcp-memory", True),
        ("cmd /c pipx run mcp-memory", True),
        ("uv tool run mcp-memory", True),
        ("uvx --from git+https://git.example.org/a.git mcp-memory", False),
        ("uvx --from=/src/clone mcp-memory", False),
        ("uvx mcp-virtual-memory", False),
        ("uv --directory /src/clone run mcp-memory", False),
        ("bash -lc mcp-memory", False),
    ],
)
def test_a_command_that_installs_another_project_is_a_problem(
    command: str, is_foreign: bool
) -> None:
    found = entry_checks(command=tuple(command.split()))
    assert any("is another project" in check.text for check in found) is is_foreign


def test_clients_that_do_not_share_one_memory_are_named(settings: Settings) -> None:
    found = [
        Configuration(
            Client(name),
            Path(f"/{name}.json"),
            (Entry("memory", (sys.executable, "-m", "mcp_memory"), {"MCP_MEMORY_DB": db}),),
            1,
        )
        for name, db in (("Cursor", str(settings.db)), ("Zed", "/other.duckdb"))
    ]
    (apart,) = [check for check in check_clients(found, settings) if check.subject == "clients"]
    assert apart.level == "warning"
    assert "do not share one memory" in apart.text
    assert "Zed: " in apart.text
    (else_,) = [check for check in check_clients(found[1:], settings) if check.subject == "clients"]
    assert "another database than the one that was checked" in else_.text
    assert [c for c in check_clients(found[:1], settings) if c.subject == "clients"] == []


def test_clients_of_one_database_that_differ_in_the_model_are_a_problem() -> None:
    command = (sys.executable, "-m", "mcp_memory")
    found = [
        Configuration(
            Client(name),
            Path(f"/{name}.json"),
            (Entry("memory", command, {"MCP_MEMORY_DB": db, "MCP_MEMORY_TOKENIZER": tokens}),),
            1,
        )
        for name, db, tokens in (
            ("Cursor", "/a.duckdb", "o200k_base"),
            ("Zed", "/a.duckdb", "cl100k_base"),
            ("Kiro", "/b.duckdb", "cl100k_base"),
        )
    ]
    problems = [check for check in check_clients(found, Settings()) if check.level == "problem"]
    assert [
        "MCP_MEMORY_TOKENIZER: Cursor: o200k_base; Zed: cl100k_base" in check.text
        for check in problems
    ] == [True]
