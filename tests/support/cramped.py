"""Ways to leave a process no room to write."""

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
"""No file of the process grows over 2.5 MB until it gets the signal."""


def fill(folder: Path, left_bytes: int = 0) -> Callable[[], None]:
    """Take the room of a disk but for so many bytes; return what gives it back."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize > left_bytes:
            file.write(bytes(4_096))
    return ballast.unlink
