"""The system's allocator: how it hands out large blocks, and that it gives memory back.

glibc alone: elsewhere nothing is done, and nothing needs to be.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
"""Parameters of `mallopt`; from glibc's malloc.h."""

LARGE_BYTES: Final = 8 << 20
"""Blocks from this size come from the system and go back to it when they are freed. glibc raises
this limit by itself to 32 MB, and then keeps what a model's largest batch took: with 512 tokens
77 MB, of which 28 are in use at once. By `python -m benchmarks compare` an insert
takes 1.29 of the former time with 1 MB, 1.07 and 1.11 with 8 MB, and 1.05 without a limit; an owner
has 330, 415 and 479 MB."""

ARENAS: Final = 4
"""Heaps of all threads together, in place of eight a processor. By judgement: few threads are
outside of Python at the same time."""


def limit_heap() -> bool:
    """Let this process keep little freed memory; return whether the system can do that."""
    mallopt = _function("mallopt")
    if mallopt is None:
        return False
    # Set alone, a limit for blocks would make the heap shrink and grow with each small call.
    for parameter, value in (
        (_M_MMAP_THRESHOLD, LARGE_BYTES),
        (_M_TRIM_THRESHOLD, 2 * LARGE_BYTES),
        (_M_ARENA_MAX, ARENAS),
    ):
        mallopt(parameter, value)
    return True


def give_back_memory() -> bool:
    """Return freed memory to the system; return whether the system can do that."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)
    return trim is not None


@cache
def _function(name: str) -> Callable[..., int] | None:
    """Return a function of glibc; None on other systems, musl included."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    # musl has a `mallopt` in no version, and its allocator keeps little.
    return getattr(library, name, None) if hasattr(library, "malloc_trim") else None
