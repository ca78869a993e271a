"""Installs the pinned hosts into a folder and runs the tests that drive them.

`python tests/hosts/run.py [--dir DIR] [pytest's arguments]`. It needs npm, and the project
installed with its test extra for the Python that runs it. The versions stand in package.json;
a folder that has them already is used as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

# As in adapters.py, which this script can't import: it runs without the tests' package.
FOLDER_VARIABLE: Final = "MCP_HOSTS_DIR"
HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
# Claude Code asks for Node 22; where the machine's is older, npm brings one.
LEAST_NODE: Final = 22
NODE: Final = ("node", "24.21.0")
INSTALL_SECONDS: Final = 900


def main() -> int:
    """Install what is missing, run the tests and return pytest's exit status."""
    parser = argparse.ArgumentParser(description="Run the tests with real MCP hosts.")
    parser.add_argument("--dir", type=Path, default=ROOT / ".hosts", help="where the hosts go")
    parser.add_argument("--install-only", action="store_true", help="run no tests")
    options, pytest_arguments = parser.parse_known_args()

    folder = options.dir.resolve()
    wanted = _wanted()
    if any(_installed(folder, name) != version for name, version in wanted.items()):
        _install(folder, wanted)
    for name, version in wanted.items():
        if _installed(folder, name) != version:
            sys.exit(f"npm did not put {name} {version} into {folder}")
        print(f"{name} {version}", flush=True)
    if options.install_only:
        return 0

    command = [sys.executable, "-m", "pytest", str(HERE), "-m", "hosts", *pytest_arguments]
    environment = os.environ | {FOLDER_VARIABLE: str(folder)}
    return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


def _wanted() -> dict[str, str]:
    """Return the packages and their versions."""
    pinned: dict[str, str] = json.loads((HERE / "package.json").read_text("utf-8"))["dependencies"]
    return pinned if _node_version() >= LEAST_NODE else pinned | dict([NODE])


def _node_version() -> int:
    """Return the major version of the machine's Node, 0 if there is none."""
    node = shutil.which("node")
    if node is None:
        return 0
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.strip().removeprefix("v").split(".")[0])


def _installed(folder: Path, name: str) -> str | None:
    """Return the version of a package in the folder, None if it is not there."""
    try:
        manifest = (folder / "node_modules" / name / "package.json").read_text("utf-8")
    except FileNotFoundError:
        return None
    version: str = json.loads(manifest)["version"]
    return version


def _install(folder: Path, wanted: dict[str, str]) -> None:
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is not on the path: install Node.js, which brings it")
    folder.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((HERE / "package.json").read_text("utf-8")) | {"dependencies": wanted}
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    (folder / "package.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--no-package-lock"],
        cwd=folder,
        timeout=INSTALL_SECONDS,
        check=True,
    )


if __name__ == "__main__":
    sys.exit(main())
