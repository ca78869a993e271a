"""What is imported before the first answer, which a client waits for."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = "import sys, mcp_memory.server.servers; print(*sys.modules)"


def test_the_server_is_there_before_the_database_driver_and_numpy():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    modules = set(done.stdout.split())
    assert "mcp_memory.server.app" in modules
    assert modules.isdisjoint({"duckdb", "numpy", "fastembed", "mcp_memory.tiers.engine"})
