"""Two ways to simulate a full disk: a limit on file size, and a file that fills the disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

FULL_PRELUDE: Final = """
import resource, signal
resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, resource.RLIM_INFINITY))
def lift(*_):
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
signal.signal(signal.SIGUSR1, lift)
"""
"""Code for a process: its files stay below 2.5 MB until it receives SIGUSR1. By judgement."""


def fill_disk(folder: Path, left_bytes: int = 0) -> Callable[[], None]:
    """Fill the disk of a folder up to `left_bytes`; return a function that frees it again."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize > left_bytes:
            file.write(bytes(4_096))
    return ballast.unlink
