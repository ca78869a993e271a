"""The name of the distribution, which is not the one of a stranger's on the package index."""

import re
import tomllib
from pathlib import Path

import pytest

from mcp_memory.settings import Settings
from mcp_memory.values.project import DISTRIBUTION, GIT_URL, install_hint

ROOT = Path(__file__).parents[2]
BY_NAME = re.compile(
    r"(?:pip install|pipx install|uv add|uv tool install|uvx|uv tool run)(?: -\S+)* "
    r"['\"]?mcp-(?:virtual-)?memory\b(?!\S* @)"
)
"""An installation by name from an index; one that gives a URL after ` @ ` is not."""


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_both_commands_start_the_same_program(project):
    assert project["name"] == DISTRIBUTION
    assert project["scripts"] == dict.fromkeys(
        (DISTRIBUTION, "mcp-memory"), "mcp_memory.__main__:main"
    )


def test_an_extra_refers_to_the_distribution_by_its_own_name(project):
    extras = project["optional-dependencies"]
    own = [name for names in extras.values() for name in names if "memory" in name]
    assert own
    for name in own:
        assert name.startswith(f"{DISTRIBUTION}[")


def test_the_hint_names_the_extras_and_the_one_url():
    assert install_hint() == (
        f"Run `pip install '.'` in the clone, or `pip install '{DISTRIBUTION} @ git+{GIT_URL}'`"
    )
    assert "'.[endpoint,test]'" in install_hint("endpoint", "test")


def test_nothing_tells_a_user_to_install_it_by_name_from_an_index():
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "smithery.yaml"]
    files += (ROOT / "docs").rglob("*.md")
    files += (ROOT / "mcp_memory").rglob("*.py")
    found = {
        str(path.relative_to(ROOT)): BY_NAME.findall(path.read_text("utf-8")) for path in files
    }
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "text",
    [
        "pip install mcp-memory[endpoint]",
        "pip install -q 'mcp-virtual-memory'",
        "uvx mcp-memory demo",
    ],
)
def test_an_installation_by_name_would_be_noticed(text):
    assert BY_NAME.search(text)


def test_the_git_url_stands_in_one_place():
    files = [path for path in ROOT.glob("*.*") if path.is_file()]
    for folder in ("mcp_memory", "docs", "benchmarks", ".ci", ".github", "schemas"):
        files += (path for path in (ROOT / folder).rglob("*.*") if path.is_file())
    holders = [
        str(path.relative_to(ROOT))
        for path in files
        if path.suffix not in {".pyc", ".duckdb"} and GIT_URL.encode() in path.read_bytes()
    ]
    assert holders == [str(Path("mcp_memory", "values", "project.py"))]


def test_smithery_starts_a_command_of_ours_with_settings_that_exist():
    text = (ROOT / "smithery.yaml").read_text("utf-8")
    assert re.findall(r"command: '(\S+)'", text) == [DISTRIBUTION]
    named = re.findall(r"\bMCP_MEMORY_(\w+)", text)
    assert named
    assert {name.lower() for name in named} <= Settings.model_fields.keys()
