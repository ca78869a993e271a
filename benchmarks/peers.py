"""The servers that ours is measured beside, in the same run.

A bare server is what the SDK needs for one tool. The reference server of the
protocol's authors is installed with npm, pinned, into a folder of the run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from common import BenchmarkFault, err
from rawclient import Command

BARE_TOOL: Final = "reply"
NPM_PACKAGE: Final = "@modelcontextprotocol/server-memory"
NPM_VERSION: Final = "2026.8.31"
INSTALL_SECONDS: Final = 300.0

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


def bare_source(result: Mapping[str, Any]) -> str:
    """Return the program of a server whose only tool always answers `result`.

    It is written as one writes a server with the SDK: the high-level class, a plain function.
    """
    return _BARE.format(result=dict(result), tool=BARE_TOOL)


def bare_server(folder: Path, result: Mapping[str, Any], environment: Mapping[str, str]) -> Command:
    """Write the bare server into `folder` and return how it is started."""
    script = folder / "bare.py"
    script.write_text(bare_source(result), encoding="utf-8")
    return Command([sys.executable, str(script)], environment, folder)


def reference_server(folder: Path, environment: Mapping[str, str]) -> Command | None:
    """Install the reference server into `folder`; None, with a word on stderr, where npm can't.

    Raises:
        BenchmarkFault: The package is installed and has no program.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        err.print(f"{NPM_PACKAGE} is left out: there is no npm here")
        return None
    install = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
    try:
        subprocess.run(  # noqa: S603  # the package manager that the user has
            [*install, f"{NPM_PACKAGE}@{NPM_VERSION}"],
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=INSTALL_SECONDS,
        )
    except (subprocess.SubprocessError, OSError) as error:
        err.print(f"{NPM_PACKAGE} is left out: {error}", markup=False)
        return None
    package = folder / "node_modules" / NPM_PACKAGE
    own = {**environment, "MEMORY_FILE_PATH": str(folder / "memory.jsonl")}
    return Command([node, str(program(package))], own, folder)


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
