"""Killed while an index is persisted, the one before is there or the new one, and both serve."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dying import STEPS, open_memory
from dying_persister import KILLED, persist

from mcp_memory.agent import AgentMemory
from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.values.locations import PREFIX

SCRIPT = Path(__file__).parents[1] / "support" / "dying_persister.py"
TIERS = ("memory", "message")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="each step dies in a fork of its own"),
]


def answers(memory: AgentMemory) -> list[tuple[str, float]]:
    """Return what searches find, from indexes that are loaded for it."""
    memory._engine.feed.forget()
    found = memory.archive.search("blue kettle", limit=50).items
    told = memory.conversations.search("the kettle whistles", limit=50).items
    return [
        *((hit.memory.id, round(hit.score, 4)) for hit in found),
        *((hit.message.id, round(hit.score, 4)) for hit in told),
    ]


def are_used(memory: AgentMemory) -> list[bool]:
    """Return of each index in memory whether it was read rather than built."""
    engine = memory._engine
    return [
        tier.indexes._persisted_at[memory.agent] is not None
        for tier in (engine.archival, engine.recall)
    ]


def numbers(memory: AgentMemory) -> list[int | None]:
    """Return by tier which of all that were ever persisted would be read."""
    found = [memory._engine.store.indexes.manifest(memory.agent, tier) for tier in TIERS]
    return [None if manifest is None else manifest["number"] for manifest in found]


def test_killed_at_any_step_the_old_or_the_new_one_is_used(
    tmp_path: Path, subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch
):
    environ = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tokenizer = Tokenizer(cache_dir=tmp_path)
    met = []
    for case in sorted((tmp_path / KILLED).iterdir()):
        step = (case / STEPS).read_text("utf-8").splitlines()[-1]
        memory = open_memory(case, tokenizer)
        with subtests.test(step, number=case.name):
            met.append(numbers(memory))
            after = answers(memory)
            assert are_used(memory) == [True, True]
            persist(memory)
            assert answers(memory) == after
            assert are_used(memory) == [True, True]
            with monkeypatch.context() as patch:
                patch.setattr(memory._engine.store.indexes, "manifest", lambda *_: None)
                assert answers(memory) == after
                assert are_used(memory) == [False, False]
        memory.close()
    assert met[0] == [1, 1]
    assert met[-1] == [2, 2]
    assert sorted(met, key=str) == met
