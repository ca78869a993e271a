"""What the server imports before its first answer, and what it may know of the memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import mcp_memory

SCRIPT = "import sys, mcp_memory.server.servers; print(*sys.modules)"
BELOW = re.compile(r"\.(?:_?engine|database)\.\w+")


def test_the_server_is_there_before_the_database_driver_and_numpy():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    modules = set(done.stdout.split())
    assert "mcp_memory.server.app" in modules
    assert modules.isdisjoint({"duckdb", "numpy", "fastembed", "mcp_memory.tiers.engine"})


def test_server_http_owner_and_cli_reach_for_nothing_below_the_facade():
    # Imports are held by a contract of import-linter; this is for attributes.
    package = Path(mcp_memory.__file__).parent
    reaching = [
        f"{path}: {found[0]}"
        for part in ("server", "http", "owner", "cli")
        for path in sorted((package / part).rglob("*.py"))
        for found in BELOW.finditer(path.read_text("utf-8"))
    ]
    assert reaching == []
