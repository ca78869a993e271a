"""The SDKs that hosts are built with have a conversation with the server: list, call, read,
complete, subscribe, cancel. Each is installed at a pinned version from its registry.
"""

from __future__ import annotations

import json
import os
import subprocess
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from filelock import FileLock
from node_packages import DIRECTORY_VARIABLE, NodeUnavailable, install
from processes import COMMAND, environment

from mcp_memory.owner.connect import retire
from mcp_memory.owner.places import Places
from mcp_memory.server.tools import TOOLS

pytestmark = pytest.mark.slow

HERE: Final = Path(__file__).parent
PYTHON_FOLDER_VARIABLE: Final = "MCP_MEMORY_TEST_PYTHON_DIR"
"""Folder for environments of Python clients between runs."""

MCP_1: Final = "mcp==1.30.0"
FASTMCP: Final = "fastmcp==4.2.3"
TYPESCRIPT_1: Final = "@modelcontextprotocol/sdk"
TYPESCRIPT_2: Final = "@modelcontextprotocol/client"
INSPECTOR: Final = "@modelcontextprotocol/inspector"
NODE_PACKAGES: Final = {TYPESCRIPT_1: "1.32.2", TYPESCRIPT_2: "2.4.0", INSPECTOR: "2.12.0"}
CONTENT: Final = "The heron nests behind the mill."
SECONDS: Final = 120


def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for all processes that share the tests of this run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return the interpreter of an environment in which one package is installed."""
    given = os.environ.get(PYTHON_FOLDER_VARIABLE)
    folder = Path(given) if given else shared(tmp_path_factory) / "environments"

    def interpreter(requirement: str) -> str:
        home = folder / requirement.replace("==", "-")
        home.parent.mkdir(parents=True, exist_ok=True)
        program = home / ("Scripts" if os.name == "nt" else "bin") / "python"
        with FileLock(f"{home}.lock"):
            if not (home / "done").exists():
                venv.create(home, clear=True, with_pip=True)
                pip = [str(program), "-m", "pip", "install", "--quiet", requirement]
                done = subprocess.run(pip, capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stderr[-2_000:]
                (home / "done").touch()
        return str(program)

    return interpreter


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Return the Node program, and the folder with the packages."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    folder = Path(given) if given else shared(tmp_path_factory) / "node-clients"
    try:
        program, modules = install(NODE_PACKAGES, folder)
    except NodeUnavailable as reason:
        if given:
            raise
        pytest.skip(f"the clients can't be installed: {reason}")
    return str(program), modules


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The folder of a database; at the end its owner has gone."""
    yield tmp_path
    places = Places(str(tmp_path / "memory.duckdb"))
    address = places.read_address()
    if address is not None:
        retire(places, address)


def run(home: Path, *command: str) -> Any:
    """Return what a client says of its conversation with a server that is to be started."""
    done = subprocess.run(
        command,
        env=environment(home, owner="auto", owner_idle_seconds=5),
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(done.stdout)


def check(story: dict[str, Any]) -> None:
    assert story["tools"] == list(TOOLS)
    assert story["stored"]["created"] is True
    assert [hit["text"] for hit in story["found"]["results"]] == [CONTENT]
    assert 'label="human"' in story["core"]
    assert story["completed"] == ["human"]
    assert story["updated"] == "memory://core"
    assert story["cancelled"] is True
    human = next(block for block in story["after"]["blocks"] if block["label"] == "human")
    assert human["value"] == "Likes herons."


def test_version_1_of_the_python_sdk_can_do_everything(home: Path, python: Callable[[str], str]):
    check(run(home, python(MCP_1), str(HERE / "python_v1.py"), *COMMAND))


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_fastmcp_can_do_everything(home: Path, python: Callable[[str], str], mode: str):
    check(run(home, python(FASTMCP), str(HERE / "with_fastmcp.py"), mode, *COMMAND))


@pytest.mark.parametrize(
    ("package", "mode"),
    [(TYPESCRIPT_1, "legacy"), (TYPESCRIPT_2, "legacy"), (TYPESCRIPT_2, "auto")],
)
def test_the_typescript_sdk_can_do_everything(
    home: Path, node: tuple[str, Path], package: str, mode: str
):
    program, modules = node
    # Node looks for packages beside the program.
    script = modules.parent / f"{home.name}.mjs"
    script.write_bytes((HERE / "typescript.mjs").read_bytes())
    check(run(home, program, str(script), package, mode, *COMMAND))


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_inspector_lists_calls_and_reads(home: Path, node: tuple[str, Path], era: str):
    """Its command line offers no completion, subscription or cancellation."""
    program, modules = node
    launcher = modules / INSPECTOR / "clients" / "launcher" / "build" / "index.js"

    def ask(method: str, *arguments: str) -> dict[str, Any]:
        options: Sequence[str] = ["--cli", "-q", "--format", "json", "--protocol-era", era]
        result: dict[str, Any] = run(
            home, program, str(launcher), *options, "--method", method, *arguments, *COMMAND
        )["result"]
        return result

    # Strict: a schema that some hosts can't read is an error.
    listed = ask("tools/list", "--strict")
    assert [tool["name"] for tool in listed["tools"]] == list(TOOLS)
    given = ["--tool-args-json", json.dumps({"content": CONTENT})]
    stored = ask("tools/call", "--tool-name", "archival_memory_insert", *given)
    assert stored["structuredContent"]["created"] is True
    given = ["--tool-args-json", json.dumps({"query": "heron"})]
    found = ask("tools/call", "--tool-name", "archival_memory_search", *given)
    assert [hit["text"] for hit in found["structuredContent"]["results"]] == [CONTENT]
    (read,) = ask("resources/read", "--uri", "memory://core")["contents"]
    assert 'label="human"' in read["text"]
