"""What a process uses, and how it is ended.

The figures come from `/proc`; without one they are None.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ENDING_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.01
_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process holds: resident and proportional memory, open file descriptors.

    Pages that several processes share count whole in `rss_kb` and by their share in `pss_kb`.
    """

    rss_kb: int
    pss_kb: int
    descriptors: int


def usage(pid: int, proc: Path = _PROC) -> Usage | None:
    """Return what a process uses now, or None if it has gone or there is no `/proc`."""
    folder = proc / str(pid)
    try:
        rss_kb = field_kb(folder / "status", "VmRSS")
        pss_kb = field_kb(folder / "smaps_rollup", "Pss")
        descriptors = sum(1 for _ in (folder / "fd").iterdir())
    except OSError:
        return None
    return None if rss_kb is None else Usage(rss_kb, pss_kb or 0, descriptors)


def cpu_seconds(pid: int, proc: Path = _PROC) -> list[float]:
    """Return the processor time of a process so far; an empty list without `/proc`."""
    try:
        stat = (proc / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    fields = stat.rpartition(")")[2].split()
    return [sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")]


def field_kb(path: Path, name: str) -> int | None:
    """Return the kilobytes of a line `name:  123 kB`, or None if no line has that name.

    Raises:
        OSError: The file can't be read.
    """
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        key, _, rest = line.partition(":")
        if key == name:
            return int(rest.split()[0])
    return None


def is_running(pid: int, proc: Path = _PROC) -> bool:
    """Return whether a process runs; one that has ended and waits for its parent does not."""
    if proc.is_dir():
        try:
            stat = (proc / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return False
        # The name, in parentheses, may hold anything; the state is what follows it.
        return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def kill(pid: int) -> None:
    """End a process at once and return when it is gone; one that has gone already is fine.

    Raises:
        TimeoutError: It is still there after `ENDING_SECONDS`.
    """
    with suppress(ProcessLookupError):
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    deadline = time.monotonic() + ENDING_SECONDS
    while is_running(pid):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} does not end")
        time.sleep(_POLL_SECONDS)


def children(pid: int, proc: Path = _PROC) -> tuple[list[int], int]:
    """Return the processes that `pid` has started and that run, and how many wait to be reaped."""
    running, waiting = [], 0
    for stat in proc.glob("[0-9]*/stat"):
        try:
            state, parent, *_ = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # It has ended meanwhile.
        if int(parent) == pid:
            if state in {"Z", "X"}:
                waiting += 1
            else:
                running.append(int(stat.parent.name))
    return running, waiting
