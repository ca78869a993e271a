"""Whether an owner that does not answer works or hangs, judged from outside.

A long line or a thread that holds the interpreter keeps an owner from
answering anything, a ping or a heartbeat of its own included. What it can't
hide is the processor time that it uses: one that uses none does nothing.
"""

from __future__ import annotations

import os
import time

from mcp_memory.owner.places import Address, is_same, place
from mcp_memory.owner.wire import alive

STILL_SECONDS = 10.0
"""An owner that has used no processor time for so long hangs. By judgement: a busy one uses some
in each hundredth of a second, and the longest wait for a disk is shorter."""

BUSY_SECONDS = 300.0
"""One that works so long without an answer is in an endless loop. By judgement: the longest line
that is accepted takes a minute on a slow machine."""

PING_SECONDS = 5.0
"""How long an answer to a ping may take. By judgement: it takes a millisecond."""


class Silence:
    """Watches an owner that does not answer."""

    def __init__(self) -> None:
        self._address: Address | None = None
        self._began_at = 0.0
        self._moved_at = 0.0
        self._effort = ""

    def broken(self) -> None:
        """Note that an owner has answered."""
        self._address = None

    def is_final(self, address: Address) -> bool:
        """Return whether an owner hangs; ask again and again while it doesn't answer."""
        if alive(address, PING_SECONDS):
            self.broken()
            return False
        now, effort = time.monotonic(), _effort(address)
        if not is_same(address, self._address):
            self._address, self._began_at = address, now
            self._moved_at, self._effort = now, effort
        elif effort != self._effort:
            self._moved_at, self._effort = now, effort
        return now - self._moved_at >= STILL_SECONDS or now - self._began_at >= BUSY_SECONDS


def _effort(address: Address) -> str:
    """Return what changes whenever an owner's process works; always the same if it can't be seen.

    That is so in another container: its process can't be ended from here either.
    """
    pid = address.get("pid")
    if not isinstance(pid, int) or address.get("place") != place():
        return ""
    try:
        if os.path.exists("/proc/self/stat"):
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
            # Pages read from disk, and the time in the program and in the system.
            return " ".join((fields[9], fields[11], fields[12]))
        if os.name == "posix":
            return _processor_time(pid)
    except (OSError, IndexError):
        pass
    return ""


def _processor_time(pid: int) -> str:
    import subprocess

    with subprocess.Popen(  # noqa: S603  # a fixed program with a number
        ["/bin/ps", "-o", "time=", "-p", str(pid)], stdout=subprocess.PIPE, text=True
    ) as ps:
        return ps.communicate()[0]
