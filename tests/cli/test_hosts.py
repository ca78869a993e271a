"""Finding and reading the configurations of MCP clients, on folders made for the test."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from mcp_memory.cli.checks.hosts import Client, Machine, configurations, read_configuration

OURS = {"command": "/opt/mcp-memory", "env": {"MCP_MEMORY_AGENT": "ana"}}
OTHER = {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-memory"]}


def machine(tmp_path: Path, platform: str = "linux", **environment: str) -> Machine:
    return Machine(tmp_path / "home", environment, platform, tmp_path / "project")


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def entry_of(tmp_path: Path, server: object, name: str = "x", client: Client | None = None):
    """Return what is made of one server, None if it is not taken for ours."""
    path = write(tmp_path / "one.json", {"mcpServers": {name: server}})
    found = read_configuration(client or Client("Cursor"), path)
    assert found.error is None
    assert found.servers == 1
    return found.entries[0] if found.entries else None


LINUX = {
    "Claude Desktop": (".config/Claude/claude_desktop_config.json", "mcpServers"),
    "Claude Code": (".claude.json", "mcpServers"),
    "Cursor": (".cursor/mcp.json", "mcpServers"),
    "VS Code": (".config/Code/User/mcp.json", "servers"),
    "VS Code Insiders": (".config/Code - Insiders/User/mcp.json", "servers"),
    "VSCodium": (".config/VSCodium/User/profiles/a1/mcp.json", "servers"),
    "Cline": (
        ".config/Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json",
        "mcpServers",
    ),
    "Roo Code": (
        ".config/Code/User/globalStorage/rooveterinaryinc.roo-cline/settings/mcp_settings.json",
        "mcpServers",
    ),
    "Windsurf": (".codeium/windsurf/mcp_config.json", "mcpServers"),
    "Gemini CLI": (".gemini/settings.json", "mcpServers"),
    "opencode": (".config/opencode/opencode.json", "mcp"),
    "Zed": (".config/zed/settings.json", "context_servers"),
    "Copilot CLI": (".copilot/mcp-config.json", "mcpServers"),
    "Kiro": (".kiro/settings/mcp.json", "mcpServers"),
    "LM Studio": (".lmstudio/mcp.json", "mcpServers"),
}


@pytest.mark.parametrize("name", LINUX)
def test_our_entry_is_found_where_a_client_keeps_it(name: str, tmp_path: Path) -> None:
    where, key = LINUX[name]
    path = write(tmp_path / "home" / where, {key: {"memory": OURS, "other": OTHER}})
    (found,) = configurations(machine(tmp_path))
    assert (found.client.name, found.path, found.servers) == (name, path, 2)
    (entry,) = found.entries
    assert entry.name == "memory"
    assert entry.command == ("/opt/mcp-memory",)
    assert entry.environment == {"MCP_MEMORY_AGENT": "ana"}
    assert (entry.misplaced, entry.project, entry.enabled, found.error) == (None, None, True, None)


@pytest.mark.parametrize(
    ("platform", "where", "name"),
    [
        (
            "darwin",
            "Library/Application Support/Claude/claude_desktop_config.json",
            "Claude Desktop",
        ),
        ("darwin", ".config/zed/settings.json", "Zed"),
        ("win32", "AppData/Roaming/Claude/claude_desktop_config.json", "Claude Desktop"),
        ("win32", "AppData/Roaming/Zed/settings.json", "Zed"),
        (
            "win32",
            "AppData/Local/Packages/Claude_x1/LocalCache/Roaming/Claude/claude_desktop_config.json",
            "Claude Desktop",
        ),
        ("win32", "AppData/Roaming/Code/User/mcp.json", "VS Code"),
    ],
)
def test_other_systems_have_other_folders(
    platform: str, where: str, name: str, tmp_path: Path
) -> None:
    write(tmp_path / "home" / where, {"mcpServers": {"memory": OURS}})
    (found,) = configurations(machine(tmp_path, platform))
    assert found.client.name == name


def test_folders_that_the_environment_names_come_first(tmp_path: Path) -> None:
    names = {"XDG_CONFIG_HOME": "xdg", "CODEX_HOME": "codex", "CLAUDE_CONFIG_DIR": "claude"}
    write(tmp_path / "xdg/Claude/claude_desktop_config.json", {"mcpServers": {"memory": OURS}})
    write(tmp_path / "codex/config.toml", '[mcp_servers.memory]\ncommand = "mcp-memory"\n')
    write(tmp_path / "claude/.claude.json", {"mcpServers": {"memory": OURS}})
    environment = {name: str(tmp_path / folder) for name, folder in names.items()}
    found = configurations(machine(tmp_path, **environment))
    assert [item.client.name for item in found] == ["Claude Desktop", "Claude Code", "Codex"]
    assert all(item.entries for item in found)


def test_the_configurations_of_the_project_are_looked_at_too(tmp_path: Path) -> None:
    project = tmp_path / "project"
    write(project / ".mcp.json", {"mcpServers": {"memory": OURS}})
    write(project / ".vscode/mcp.json", {"servers": {"memory": OURS}})
    found = configurations(machine(tmp_path))
    assert [item.client.name for item in found] == ["Claude Code", "VS Code"]


def test_claude_codes_entries_for_one_folder_name_it(tmp_path: Path) -> None:
    content = {"projects": {"/projects/a": {"mcpServers": {"memory": OURS}}, "/projects/b": {}}}
    write(tmp_path / "home/.claude.json", content)
    (found,) = configurations(machine(tmp_path))
    assert [entry.project for entry in found.entries] == ["/projects/a"]


def test_codex_is_read_as_toml(tmp_path: Path) -> None:
    text = '# mine\n[mcp_servers.memory]\ncommand = "uvx"\nargs = ["mcp-memory"]\nenabled = false\n'
    write(tmp_path / "home/.codex/config.toml", text)
    (found,) = configurations(machine(tmp_path))
    assert found.entries[0].command == ("uvx", "mcp-memory")
    assert not found.entries[0].enabled


def test_opencodes_form_of_a_command_is_read(tmp_path: Path) -> None:
    server = {
        "type": "local",
        "command": ["mcp-memory", "serve"],
        "environment": {"MCP_MEMORY_DB": "/a.duckdb"},
        "enabled": True,
    }
    write(tmp_path / "home/.config/opencode/opencode.jsonc", {"mcp": {"memory": server}})
    (found,) = configurations(machine(tmp_path))
    assert found.entries[0].command == ("mcp-memory", "serve")
    assert found.entries[0].environment == {"MCP_MEMORY_DB": "/a.duckdb"}


def test_zeds_older_form_of_a_command_is_read(tmp_path: Path) -> None:
    server = {"command": {"path": "/opt/mcp-memory", "args": [], "env": {"MCP_MEMORY_AGENT": "z"}}}
    entry = entry_of(tmp_path, server)
    assert entry.command == ("/opt/mcp-memory",)
    assert entry.environment == {"MCP_MEMORY_AGENT": "z"}


@pytest.mark.parametrize(
    "command",
    [
        ["/home/ana/.venv/bin/mcp-memory"],
        [r"C:\Tools\mcp-memory.exe", "serve"],
        ["uvx", "mcp-memory@0.1.0"],
        ["uvx", "--from", "git+https://git.example.org/mcp-virtual-memory.git", "mcp-memory"],
        ["/opt/venv/bin/mcp-virtual-memory"],
        ["uvx", "--from", "mcp-memory[x]==0.1", "mcp-memory"],
        ["uv", "--directory", "/src/checkout", "run", "mcp-memory"],
        ["/usr/bin/python3.12", "-m", "mcp_memory"],
        ["docker", "run", "-i", "--rm", "ghcr.io/somebody/mcp-memory:latest"],
        ["cmd", "/c", "uvx", "mcp-memory"],
        ["bash", "-lc", "exec /opt/bin/mcp-memory serve"],
        ["env", "A=1", "/opt/bin/mcp-memory"],
    ],
)
def test_a_command_that_starts_us_is_ours(command: list[str], tmp_path: Path) -> None:
    assert entry_of(tmp_path, {"command": command[0], "args": command[1:]}) is not None


@pytest.mark.parametrize(
    "server",
    [
        OTHER,
        {"command": "uvx", "args": ["mcp-memory-service"]},
        {"command": "uvx", "args": ["mcp-server-git", "--repository", "/home/ana/mcp-memory"]},
        {"command": "npx", "args": ["server-filesystem", "/home/ana/mcp-memory"]},
        {"url": "https://example.com/mcp"},
        {"url": "http://127.0.0.1:8765/other"},
        {"url": "http://[broken"},
        {"args": ["mcp-memory"]},
        {"command": 7, "args": {"a": 1}, "env": ["x"]},
        ["mcp-memory"],
        None,
    ],
)
def test_a_server_of_others_is_not_ours(server: object, tmp_path: Path) -> None:
    assert entry_of(tmp_path, server, name="memory") is None


def test_a_server_that_is_reached_by_address_shows_no_secret_of_it(tmp_path: Path) -> None:
    server = {"type": "http", "url": "http://ana:pw@localhost:8765/mcp?token=abc#d"}
    entry = entry_of(tmp_path, server, name="my-memory")
    assert entry.url == "http://localhost:8765/mcp"


@pytest.mark.parametrize("off", [{"disabled": True}, {"enabled": False}])
def test_an_entry_that_is_switched_off_says_so(off: dict[str, bool], tmp_path: Path) -> None:
    assert not entry_of(tmp_path, OURS | off).enabled


def test_an_entry_under_the_key_of_another_client_is_named_as_misplaced(tmp_path: Path) -> None:
    path = write(tmp_path / "mcp.json", {"mcpServers": {"memory": OURS}})
    found = read_configuration(Client("VS Code", "servers"), path)
    assert found.entries[0].misplaced == "mcpServers"
    assert found.servers == 0


COMMENTED = """\
// of mine, with "quotes" and a // in it
{
  "mcpServers": { /* all
    of them */
    "memory": {
      "command": "mcp-memory", // here
      "env": { "MCP_MEMORY_DB": "/a//b/*c*/,]\\"}.duckdb", },
    }, // ,,
    /* "gone": { "command": "mcp-memory" }, */
  },
}
"""


def test_comments_and_last_commas_are_read_over(tmp_path: Path) -> None:
    path = write(tmp_path / "mcp.json", COMMENTED)
    found = read_configuration(Client("Cursor"), path)
    assert found.error is None
    assert found.entries[0].environment == {"MCP_MEMORY_DB": '/a//b/*c*/,]"}.duckdb'}


def test_a_client_that_takes_no_comments_is_told_of_them(tmp_path: Path) -> None:
    path = write(tmp_path / "mcp.json", COMMENTED)
    found = read_configuration(Client("Claude Desktop", reads="json"), path)
    assert found.error == "has comments or a trailing comma, which Claude Desktop does not accept"
    assert found.entries


def test_long_rules_of_slashes_are_read_over_at_once(tmp_path: Path) -> None:
    rules = "\n".join(["//" * 200] * 50)
    text = '{"mcpServers": {"memory": {"command": "mcp-memory",\n' + rules + "\n}, x}}"
    found = read_configuration(Client("Cursor"), write(tmp_path / "mcp.json", text))
    assert found.error is not None
    assert "line 52" in found.error


@pytest.mark.parametrize(
    "endless",
    [",/*", '"\\"', '"', "//", "/* */,", ", \t", '"\\\n', "\\"],
    ids=["comment", "escaped", "quoted", "rule", "commas", "blanks", "continued", "backslashes"],
)
def test_a_file_without_an_end_is_read_once(endless: str, tmp_path: Path) -> None:
    # Read again from each place it would take hours, and the test would be ended.
    text = '{"a": ' + endless * 300_000
    found = read_configuration(Client("Cursor"), write(tmp_path / "mcp.json", text))
    assert found.error is not None
    assert "malformed" in found.error


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"mcpServers": {', "malformed"),
        (b'{"mcpServers": {"a": secret-word}}', "malformed"),
        (b'"only a text"', "contains no object"),
        (b'{"mcpServers": ["mcp-memory"]}', "'mcpServers' is not an object"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[" * 100_000, "malformed"),
    ],
)
def test_a_file_that_is_malformed_is_reported(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_bytes(content)
    found = read_configuration(Client("Cursor"), path)
    assert reason in str(found.error)
    assert "secret-word" not in str(found.error)
    assert found.entries == ()


def test_toml_that_is_malformed_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "home/.codex/config.toml", "[mcp_servers\n")
    (found,) = configurations(machine(tmp_path))
    assert "malformed" in str(found.error)


def test_an_empty_file_is_one_without_servers(tmp_path: Path) -> None:
    found = read_configuration(Client("Cursor"), write(tmp_path / "mcp.json", " \n"))
    assert (found.error, found.servers) == (None, 0)


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    text = "\ufeff" + json.dumps({"mcpServers": {"memory": OURS}})
    assert read_configuration(Client("Cursor"), write(tmp_path / "mcp.json", text)).entries


def test_what_is_no_file_is_reported_and_not_waited_for(tmp_path: Path) -> None:
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe")
        assert read_configuration(Client("Cursor"), tmp_path / "pipe").error == "is not a file"
    assert read_configuration(Client("Cursor"), tmp_path).error == "is not a file"


def test_a_machine_without_clients_has_no_configurations(tmp_path: Path) -> None:
    assert configurations(machine(tmp_path)) == []
