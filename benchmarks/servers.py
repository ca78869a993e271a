"""The servers that ours is compared with: how each is installed, started and called.

A bare server is what the SDK needs for one tool. The others are installed in
pinned versions into a folder of their own and keep nothing outside of it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks import BenchmarkFault, harness
from benchmarks.client import Command
from benchmarks.harness import err
from mcp_memory import __version__

BARE_TOOL: Final = "reply"
NPM_PACKAGE: Final = "@modelcontextprotocol/server-memory"
NPM_VERSION: Final = "2026.8.31"
QDRANT_PACKAGE: Final = "mcp-server-qdrant"
QDRANT_VERSION: Final = "0.8.1"
SERVICE_PACKAGE: Final = "mcp-memory-service"
SERVICE_VERSION: Final = "12.4.0"
INSTALL_SECONDS: Final = 900.0

OURS: Final = "ours"

MODEL_OF_FASTEMBED: Final = "snowflake/snowflake-arctic-embed-s"
"""It takes the model's file under this name, which stands for the same network and tokenizer."""

_TOKENIZER: Final = (
    "config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)

_BARE: Final = """
from mcp.server import MCPServer
from mcp_types import CallToolResult

server = MCPServer("bare")
RESULT = CallToolResult.model_validate({result!r})


@server.tool()
def {tool}() -> CallToolResult:
    return RESULT


server.run("stdio")
"""

Call = tuple[str, dict[str, Any]]
"""A tool and its arguments."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that can be measured.

    Args:
        name: How the table calls it, with its version.
        command: Gives how it is started on a folder of its own.
        store: Gives the call that keeps a text; the number is different for each text.
        search: Gives the call that looks for something, by default settings.
        everything: The call that returns most of what is stored, if there is one.
    """

    name: str
    command: Callable[[Path], Command]
    store: Callable[[str, int], Call]
    search: Callable[[str], Call]
    everything: Call | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """The files of an embedding model: its folder, and the one that computes the vectors."""

    name: str
    folder: Path
    file: Path


def bare_source(result: Mapping[str, Any]) -> str:
    """Return the program of a server whose only tool always answers `result`.

    It is written as one writes a server with the SDK: the high-level class, a plain function.
    """
    return _BARE.format(result=dict(result), tool=BARE_TOOL)


def bare_server(
    folder: Path,
    result: Mapping[str, Any],
    environment: Mapping[str, str],
    python: str = sys.executable,
) -> Command:
    """Write the bare server into `folder` and return how it is started."""
    script = folder / "bare.py"
    script.write_text(bare_source(result), encoding="utf-8")
    return Command([python, str(script)], environment, folder)


def reference_server(folder: Path, environment: Mapping[str, str]) -> Command | None:
    """Install the reference server into `folder`; None, with a word on stderr, where npm can't.

    Raises:
        BenchmarkFault: The package is installed and has no program.
    """
    try:
        start = install_npm(folder)
    except BenchmarkFault as fault:
        err.print(f"{NPM_PACKAGE} is left out: {fault}", markup=False)
        return None
    return Command(start, {**environment, "MEMORY_FILE_PATH": str(folder / "memory.jsonl")}, folder)


def install_npm(folder: Path) -> list[str]:
    """Install the reference server, unless it is there, and return the words that start it.

    Raises:
        BenchmarkFault: There is no npm, it fails, or the package has no program.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise BenchmarkFault("there is no npm here")
    package = folder / "node_modules" / NPM_PACKAGE
    if not package.exists():
        install = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
        _run([*install, f"{NPM_PACKAGE}@{NPM_VERSION}"])
    return [node, str(program(package))]


def install_python(folder: Path, python: str, package: str, *more: str) -> Path:
    """Install a package into an environment, unless it is there, and return its programs' folder.

    Args:
        folder: Of the environment.
        python: The interpreter that it is made for.
        package: With its version.
        more: What it needs besides.

    Raises:
        BenchmarkFault: It can't be installed.
    """
    programs = folder / ("Scripts" if sys.platform == "win32" else "bin")
    own = programs / Path(python).name
    if not (folder / package).exists():
        _run([python, "-m", "venv", "--without-pip", str(folder)])
        own = next(path for path in (own, programs / "python") if path.exists())
        _run([sys.executable, "-m", "pip", "--python", str(own), "install", package, *more])
        (folder / package).touch()
    return programs


def ours() -> Peer:
    """Return our server, with its owner, as a client starts it."""
    return Peer(
        f"ours {__version__}",
        lambda folder: harness.server(folder / "memory.duckdb"),
        lambda text, _: ("archival_memory_insert", {"content": text}),
        lambda query: ("archival_memory_search", {"query": query}),
        ("archival_memory_search", {"top_k": 50}),
    )


def server_memory(folder: Path, base: Mapping[str, str]) -> Peer:
    """Install the reference server and return it; each text is an entity's observation.

    Raises:
        BenchmarkFault: It can't be installed.
    """
    start = install_npm(folder)

    def command(own: Path) -> Command:
        return Command(start, {**base, "MEMORY_FILE_PATH": str(own / "memory.jsonl")}, own)

    def store(text: str, number: int) -> Call:
        entity = {"name": f"memory {number}", "entityType": "memory", "observations": [text]}
        return "create_entities", {"entities": [entity]}

    return Peer(
        f"server-memory {NPM_VERSION}",
        command,
        store,
        lambda query: ("search_nodes", {"query": query}),
        ("read_graph", {}),
    )


def server_qdrant(folder: Path, base: Mapping[str, str], python: str, model: Model) -> Peer:
    """Install mcp-server-qdrant and return it, with its database in a file and our model.

    Raises:
        BenchmarkFault: It can't be installed.
    """
    programs = install_python(folder, python, f"{QDRANT_PACKAGE}=={QDRANT_VERSION}")
    cache = folder / "models"
    own = cache / f"models--{MODEL_OF_FASTEMBED.replace('/', '--')}"
    _lay_out(model, own / "snapshots" / "local")
    (own / "refs").mkdir(exist_ok=True)
    (own / "refs" / "main").write_text("local", encoding="utf-8")

    def command(data: Path) -> Command:
        settings = {
            "FASTEMBED_CACHE_PATH": str(cache),
            "HF_HUB_OFFLINE": "1",
            "EMBEDDING_MODEL": MODEL_OF_FASTEMBED,
            "QDRANT_LOCAL_PATH": str(data / "qdrant"),
            "COLLECTION_NAME": "memory",
        }
        return Command([str(programs / QDRANT_PACKAGE)], {**base, **settings}, data)

    return Peer(
        f"{QDRANT_PACKAGE} {QDRANT_VERSION}",
        command,
        lambda text, _: ("qdrant-store", {"information": text}),
        lambda query: ("qdrant-find", {"query": query}),
    )


def memory_service(folder: Path, base: Mapping[str, str], python: str, model: Model) -> Peer:
    """Install mcp-memory-service and return it, with sqlite-vec, onnxruntime and our model.

    Its interpreter has to let SQLite load extensions. It reads the model's output its own
    way: the mean of all tokens, where this model means the first.

    Raises:
        BenchmarkFault: It can't be installed.
    """
    needed = [f"{name}=={version(name)}" for name in ("onnxruntime", "tokenizers")]
    package = f"{SERVICE_PACKAGE}=={SERVICE_VERSION}"
    programs = install_python(folder, python, package, *needed)
    name = MODEL_OF_FASTEMBED.rpartition("/")[2]
    home = folder / "home"
    _lay_out(model, home / ".cache" / "mcp_memory" / "onnx_models" / name)

    def command(data: Path) -> Command:
        settings = {
            "HOME": str(home),
            "USERPROFILE": str(home),
            "HF_HUB_OFFLINE": "1",
            "MCP_EMBEDDING_MODEL": name,
            "MCP_MEMORY_USE_ONNX": "1",
            "MCP_MEMORY_STORAGE_BACKEND": "sqlite_vec",
            "MCP_MEMORY_SQLITE_PATH": str(data / "memory.db"),
            "MCP_MEMORY_BASE_DIR": str(data),
        }
        return Command([str(programs / "memory"), "server"], {**base, **settings}, data)

    return Peer(
        f"{SERVICE_PACKAGE} {SERVICE_VERSION}",
        command,
        # Without a conversation it refuses what is like something that it has, by a threshold
        # that is its own model's.
        lambda text, _: ("memory_store", {"content": text, "conversation_id": "benchmark"}),
        lambda query: ("memory_search", {"query": query}),
        ("memory_list", {"page_size": 100}),
    )


def program(package: Path) -> Path:
    """Return the program that an npm package installs.

    Raises:
        BenchmarkFault: It has none.
    """
    found = json.loads((package / "package.json").read_text(encoding="utf-8")).get("bin")
    names = [found] if isinstance(found, str) else list((found or {}).values())
    if not names:
        raise BenchmarkFault(f"{package.name} has no program")
    return package / str(names[0])


def _lay_out(model: Model, folder: Path) -> None:
    """Copy the model's files as others expect them: `onnx/model.onnx`, the tokenizer beside it."""
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model.file, folder / "onnx" / "model.onnx")
    for name in _TOKENIZER:
        shutil.copyfile(model.folder / name, folder / name)


def _run(command: Sequence[str]) -> None:
    """Run an installer.

    Raises:
        BenchmarkFault: It fails; the message has the last line that it said.
    """
    try:
        subprocess.run(  # noqa: S603  # the package manager that the user has
            command,
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=INSTALL_SECONDS,
        )
    except (subprocess.SubprocessError, OSError) as error:
        said = (getattr(error, "stderr", b"") or b"").decode("utf-8", "replace").strip()
        last = said.splitlines()[-1] if said else str(error)
        raise BenchmarkFault(f"can't be installed: {last}") from error
