"""What was freed goes back to the system, where the system's allocator would keep it."""

from __future__ import annotations

import subprocess
import sys

import pytest

TAKEN = """
import sys
import numpy as np
from mcp_memory.tiers import heap
def taken():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4_096
"""

FREED = """
# Smaller than what glibc maps by itself; the last one keeps the heap from shrinking.
arrays = [np.ones(12_000) for _ in range(1_000)]
del arrays[:-1]
before = taken()
print(heap.give_back_memory(), before - taken())
"""

BATCHES = """
can = heap.limit_heap()
before = taken()
for _ in range(3):
    # What comes after the batch keeps the heap from shrinking.
    batch, after = [np.ones(1 << 20) for _ in range(8)], [np.ones(1_000) for _ in range(50)]
    del batch
print(can, taken() - before)
"""


def run(script: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", TAKEN + script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    can, found = done.stdout.split()
    if can == "False":
        pytest.skip("this is not glibc")
    return int(found)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems' allocators do it themselves")
def test_memory_that_was_freed_is_given_back_to_the_system():
    assert run(FREED) > 50_000_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems' allocators do it themselves")
def test_the_memory_of_a_large_batch_is_free_again_after_it():
    assert run(BATCHES) < 20_000_000


def test_on_every_system_it_can_be_asked_for():
    done = subprocess.run(
        [sys.executable, "-c", "from mcp_memory.tiers import heap; print(heap.limit_heap())"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() in {"True", "False"}
