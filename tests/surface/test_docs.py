"""What README and docs say: links, commands, Python code and figures."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from mcp_memory.cli import cli
from mcp_memory.cli.demo.script import load_conversation

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")],
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _blocks(page: Path, *languages: str) -> list[str]:
    return [
        text for language, text in _FENCE.findall(page.read_text("utf-8")) if language in languages
    ]


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_leads_somewhere(page):
    text = _FENCE.sub("", page.read_text("utf-8"))
    for link in (first or second for first, second in _LINK.findall(text)):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def _commands() -> list[str]:
    lines = [
        line.removeprefix("$ ")
        for page in PAGES
        for block in _blocks(page, "", "console", "sh")
        for line in block.splitlines()
    ]
    return sorted({line for line in lines if line.startswith("mcp-memory ")})


@pytest.mark.parametrize("line", _commands())
def test_every_command_is_one_that_the_program_accepts(line):
    arguments = shlex.split(line)[1:]
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        name = arguments.pop(0)
        found = command.get_command(context, name)
        assert found is not None, name
        command, context = found, click.Context(found, parent=context)
    command.make_context(command.name, arguments)  # It fails on what the command doesn't take.


def test_the_gate_finds_the_two_commands_of_the_readme():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    for end in (" demo", "/pytest"):
        [_] = [line for line in lines if re.match(rf"python3 -m venv \.venv .*{end}$", line)]


def test_the_readme_says_how_long_the_conversation_of_the_demo_is():
    assert f"of {len(load_conversation())} messages" in (ROOT / "README.md").read_text("utf-8")


def test_no_page_installs_by_name_from_an_index():
    for page in PAGES:
        for line in page.read_text("utf-8").splitlines():
            assert not re.search(r"(pip install|uvx|uv tool install) (-\S+ )*'?mcp[-_]", line), line


def test_the_python_code_of_the_library_page_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MCP_MEMORY_DB", str(tmp_path / "memory.duckdb"))
    monkeypatch.setenv("MCP_MEMORY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MCP_MEMORY_OFFLINE", "1")  # Without a model it searches by words.
    monkeypatch.chdir(tmp_path)
    blocks = _blocks(ROOT / "docs" / "library.md", "python")
    assert blocks
    exec(compile("\n".join(blocks), "docs/library.md", "exec"), {})  # noqa: S102 - our own page


def test_every_file_that_the_architecture_page_names_exists():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = set(re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", text))
    assert len(named) > 20
    package = ROOT / "mcp_memory"
    missing = [name for name in named if not any((at / name).exists() for at in (ROOT, package))]
    assert not missing
