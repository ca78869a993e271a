"""Installs npm programs at pinned versions for tests, with a recent enough Node."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from filelock import FileLock

NODE_VERSION: Final = "24.21.0"
OLDEST_NODE_MAJOR: Final = 22
DIRECTORY_VARIABLE: Final = "MCP_MEMORY_TEST_NODE_DIR"
"""Folder for packages between runs; if it is set, a missing package is a failure, not a skip."""

_INSTALL_SECONDS: Final = 240
"""By judgement: below the 300 s that a test may take."""


class NodeUnavailable(Exception):
    """The packages can't be installed; the message says why."""


def install(packages: dict[str, str], folder: Path) -> tuple[Path, Path]:
    """Install packages at exact versions into a folder; those already installed are left alone.

    Returns:
        The Node program to run them with, and the folder `node_modules`.

    Raises:
        NodeUnavailable: There is no npm, or it can't install them.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise NodeUnavailable("npm is not on the path")
    folder.mkdir(parents=True, exist_ok=True)
    modules = folder / "node_modules"
    with FileLock(folder / "lock"):
        own_node = _new_enough(shutil.which("node"))
        wanted = packages if own_node else {**packages, "node": NODE_VERSION}
        missing = [
            f"{name}@{version}"
            for name, version in wanted.items()
            if _installed(modules / name) != version
        ]
        if missing:
            _run_npm(npm, folder, missing)
    node = own_node or _new_enough(str(modules / "node" / "bin" / "node"))
    if node is None:
        raise NodeUnavailable(f"there is no Node of version {OLDEST_NODE_MAJOR} or newer")
    return Path(node), modules


def _run_npm(npm: str, folder: Path, packages: list[str]) -> None:
    try:
        done = subprocess.run(
            [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", *packages],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=_INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NodeUnavailable(f"npm took over {_INSTALL_SECONDS} s") from error
    if done.returncode:
        raise NodeUnavailable(f"npm could not install {packages}: {done.stderr[-2000:]}")


def _installed(package: Path) -> str | None:
    try:
        version: str = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError):
        return None
    return version


def _new_enough(node: str | None) -> str | None:
    if node is None or not os.access(node, os.X_OK):
        return None
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    major = re.match(r"v(\d+)\.", done.stdout)
    return node if major is not None and int(major[1]) >= OLDEST_NODE_MAJOR else None
