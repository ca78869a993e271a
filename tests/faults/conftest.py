"""Places where a memory can go wrong: small disks, folders that can't be written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from talker import Household


@pytest.fixture
def house(tmp_path: Path, cache_dir: Path) -> Iterator[Household]:
    household = Household(tmp_path, cache_dir)
    yield household
    household.clear()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 24 MB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "none", str(folder)],  # noqa: S607  the system's own
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield folder
    # Lazily: a process that is about to end may have it open.
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607  the system's own


@pytest.fixture
def small_house(disk: Path, cache_dir: Path) -> Iterator[Household]:
    """The same on the small disk."""
    household = Household(disk, cache_dir)
    yield household
    household.clear()
