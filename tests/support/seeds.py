"""A pytest plugin that picks the seed of the fuzzer, the same for all processes, and prints it."""

from __future__ import annotations

import os
import random
from typing import Final

import pytest

VARIABLE: Final = "MCP_MEMORY_TEST_SEED"


def pytest_configure(config: pytest.Config) -> None:
    """Pick a seed unless the environment gives one; the other processes get it from there."""
    os.environ.setdefault(VARIABLE, str(random.SystemRandom().randrange(10**9)))


def pytest_report_header(config: pytest.Config) -> str:
    """Print the seed."""
    return f"fuzzer: {VARIABLE}={os.environ[VARIABLE]}"
