"""Killed between any two steps, a call is done or not begun, and can be repeated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from dying import BEFORE, CALLS, STEPS, Calls, open_memory

from mcp_memory.agent import AgentMemory
from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.tiers.core import WORKING
from mcp_memory.values.errors import MatchFault, NotFound
from mcp_memory.values.locations import PREFIX
from mcp_memory.values.render import counted_message

SCRIPT = Path(__file__).parents[1] / "support" / "dying.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="each step dies in a fork of its own"),
]

Seen = dict[str, Any]


def seen(memory: AgentMemory) -> Seen:
    """Return all that a client can see, but for ids and the times of recording."""
    state: Seen = {
        "blocks": {block.label: versions_of(memory, block.label) for block in memory.core.all()},
        "memories": {
            (hit.memory.content, hit.memory.kind, hit.memory.tags, hit.memory.version)
            for hit in memory.archive.search(limit=50).items
        },
        "events": [(event.kind, event.conversation, event.text) for event in memory.events(100)],
        "overview": memory.overview(),
        "pending": memory.embedding_state().pending,
    }
    for conversation in memory.conversations.names():
        summary = memory.conversations.summary(conversation)
        state[conversation] = {
            "said": said(memory, conversation),
            "recent": [message.index for message in memory.conversations.recent(conversation)],
            "summary": summary
            and (summary.first, summary.last, summary.content, summary.parent is None),
            "parts": memory.conversations.budget(conversation).parts,
        }
    return state


def versions_of(memory: AgentMemory, label: str) -> list[tuple[object, ...]]:
    """Return the versions of a block, each with what the consolidation that made it changed."""
    return [
        (step.block.version, step.block.value, unit and (unit.reason, unit.changed))
        for step in memory.core.history(label)
        for unit in (step.consolidation,)
    ]


def said(memory: AgentMemory, conversation: str) -> list[tuple[int, str, str]]:
    """Return every message of recall memory, from a listing without a query."""
    page = memory.conversations.search(conversation=conversation, limit=50)
    assert page.total == len(page.items)
    return sorted((h.message.index, h.message.role, h.message.content) for h in page.items)


def check_whole(memory: AgentMemory) -> None:
    """Check that queue, summary, events, recall memory, search and budget tell one story."""
    found = {
        (hit.message.conversation, hit.message.index)
        for hit in memory.conversations.search("kettle", limit=50).items
    }
    everything = set()
    for name in memory.conversations.names():
        indexes = [index for index, _, _ in said(memory, name)]
        assert indexes == list(range(len(indexes)))
        everything |= {(name, index) for index in indexes}
        recent = memory.conversations.recent(name)
        summary = memory.conversations.summary(name)
        left = 0 if summary is None else summary.last + 1
        assert [message.index for message in recent] == indexes[left:]
        flushes = [
            event
            for event in memory.events(100)
            if event.kind == "flushed" and event.conversation == name
        ]
        assert (summary is None) is (not flushes)
        if summary is not None:
            assert flushes[0].data["summary"] == summary.id
            assert (summary.parent is None) is (len(flushes) == 1)
        budget = memory.conversations.budget(name)
        assert budget.counts["queue_messages"] == len(recent)
        assert budget.counts["conversation_messages"] == len(indexes)
        count = memory.count_tokens
        assert budget.parts.queue == sum(count(counted_message(message)) for message in recent)
        assert budget.parts.summary == (0 if summary is None else count(summary.content))
    assert found == everything
    assert memory.overview().messages == len(everything)
    kept = memory.archive.search(limit=50).items
    assert memory.overview().memories == len(kept)
    for hit in kept:
        best = memory.archive.search(hit.memory.content, limit=50)
        assert hit.memory.content in {other.memory.content for other in best.items}
        assert best.total == len(kept)
    assert memory.embedding_state().pending == 0
    for block in memory.core.all():
        assert block.tokens == memory.count_tokens(block.value)
        assert block.label == WORKING or memory.core.get(block.label) == block


@contextmanager
def closing_memory(
    folder: Path, calls: Calls, tokenizer: Tokenizer, **settings: object
) -> Iterator[AgentMemory]:
    memory = open_memory(folder, tokenizer, **calls.settings | settings)
    try:
        yield memory
    finally:
        memory.close()


def states_of(before: Path, folder: Path, calls: Calls, tokenizer: Tokenizer) -> list[Seen]:
    """Return what may be seen after a kill: before, where a call may stop, after each call."""

    def after(count: int, **settings: object) -> Seen:
        copy = Path(tempfile.mkdtemp(dir=folder)) / "copy"
        shutil.copytree(before, copy)
        with closing_memory(copy, calls, tokenizer, **settings) as memory:
            for call in calls.calls[:count]:
                call(memory)
        with closing_memory(copy, calls, tokenizer) as memory:
            return seen(memory)

    stopped = [after(1, **settings) for settings in calls.stops]
    return [after(0), *stopped, *(after(count + 1) for count in range(len(calls.calls)))]


def repeat(memory: AgentMemory, calls: Calls, *, begun: bool) -> None:
    """Call all again; what was corrected or deleted by then may not be there to be so again."""
    for call in calls.calls:
        with suppress(NotFound, MatchFault) if begun else nullcontext():
            call(memory)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(cache_dir=tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What kills at every step have left; see `dying`."""
    folder = tmp_path_factory.mktemp("killed")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", CALLS)
def test_killed_at_any_step_a_call_is_done_or_not_begun_and_can_be_repeated(
    name: str, killed: Path, tmp_path: Path, tokenizer: Tokenizer, subtests: pytest.Subtests
):
    calls = CALLS[name]
    before, *allowed = states_of(killed / BEFORE, tmp_path, calls, tokenizer)
    met: list[Seen] = []
    for case in sorted((killed / name).iterdir()):
        step = (case / STEPS).read_text("utf-8").splitlines()[-1]
        with (
            subtests.test(step, number=case.name),
            closing_memory(case, calls, tokenizer) as memory,
        ):
            check_whole(memory)
            state = seen(memory)
            assert state in (before, *allowed)
            met.append(state)
            repeat(memory, calls, begun=state != before)
            check_whole(memory)
            if state == before or (calls.idempotent and state != allowed[-1]):
                assert seen(memory) == allowed[-1]
    # Nothing is proven if no kill came before the first write or after the last one.
    assert met[0] == before != met[-1] == allowed[-1]
    assert all(state in met for state in allowed)
