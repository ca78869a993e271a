"""Killed while an index is kept, the one of before is there or the new one, and both serve."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dying import STEPS, open_memory
from dying_keeper import KEYS, KILLED, keep

from mcp_memory.agent import AgentMemory
from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.values.locations import PREFIX

SCRIPT = Path(__file__).parents[1] / "support" / "dying_keeper.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="each step dies in a fork of its own"),
]


def answers(memory: AgentMemory) -> list[tuple[str, float]]:
    """Return what searches find, from indexes that are loaded anew."""
    memory._engine.archival.forget_indexes()
    found = memory.archive.search("blue kettle", limit=50).items
    told = memory.conversations.search("the kettle whistles", limit=50).items
    return [
        *((hit.memory.id, round(hit.score, 4)) for hit in found),
        *((hit.message.id, round(hit.score, 4)) for hit in told),
    ]


def numbers(memory: AgentMemory) -> list[int | None]:
    """Return which of all that was ever kept would be taken up, by tier."""
    kept = memory._engine.keeping._kept
    found = [kept.manifest(agent, tier) for tier, agent in KEYS]
    return [None if one is None else one[0] for one in found]


def test_killed_at_any_step_the_old_or_the_new_one_is_taken_up(
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
        keeping = memory._engine.keeping
        taken: list[object] = []
        found = keeping._taken

        def noted(texts, agent, found=found, taken=taken):
            taken.append(found(texts, agent))
            return taken[-1]

        with subtests.test(step, number=case.name):
            monkeypatch.setattr(keeping, "_taken", noted)
            met.append(numbers(memory))
            after = answers(memory)
            assert len(taken) == len(KEYS)
            assert None not in taken
            keep(memory)
            assert answers(memory) == after
            rows = "SELECT count(DISTINCT (tier, number)) FROM kept_indexes"
            assert memory._engine.store.database.read(rows) == [(len(KEYS),)]
            monkeypatch.setattr(keeping, "_taken", lambda *_: None)
            assert answers(memory) == after
        memory.close()
    assert met[0] == [1, 1]
    assert met[-1] == [2, 2]
    assert sorted(met, key=str) == met
