"""Paging against a plain list: appends, flushes, edits and crashes in whatever order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from mcp_memory.agent import AgentMemory, Memories
from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.paging.budget import KEEP_LAST
from mcp_memory.settings import load_settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.records import NewMessage, Role
from mcp_memory.values.render import counted_message

WINDOWS = (1_000, 4_000, 32_000)
CONVERSATION = "main"

windows = st.sampled_from(WINDOWS)
roles: st.SearchStrategy[Role] = st.sampled_from(["user", "assistant", "tool", "tool"])
sizes = st.integers(1, 300) | st.sampled_from([900, 1_500, 5_000, 40_000])
turns = st.lists(st.tuples(roles, sizes), min_size=1, max_size=6)


class PagingMachine(RuleBasedStateMachine):
    """Windows of several sizes on one conversation, in a process that dies now and then."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.folder = folder
        self.tokenizer = tokenizer
        self.said: list[str] = []
        self.lives = 0
        self.appended_by: AgentMemory | None = None
        self.open(folder / "memory.duckdb")

    def open(self, db: Path) -> None:
        self.db = db
        self.settings = load_settings(
            db=db, offline=True, embedding_model="fake/hash", rethink_every=0
        )
        self.engine = Engine(self.settings, tokenizer=self.tokenizer)  # Without a model: words do.
        self.memories = Memories(self.engine)
        self.readers: dict[int, AgentMemory] = {}
        self.appended_by = None

    def reader(self, window: int) -> AgentMemory:
        if window not in self.readers:
            changed = self.settings.model_copy(update={"context_window": window})
            self.readers[window] = self.memories.open("ana", changed)
        return self.readers[window]

    def teardown(self) -> None:
        self.engine.close()

    @initialize(window=windows)
    def begin(self, window: int) -> None:
        self.reader(window)

    @rule(window=windows, said=turns)
    def say(self, window: int, said: list[tuple[Role, int]]) -> None:
        memory = self.reader(window)
        texts = [f"n{len(self.said) + at}x" + " leaf" * size for at, (_, size) in enumerate(said)]
        messages = [NewMessage(role, text) for (role, _), text in zip(said, texts, strict=True)]
        memory.conversations.append(messages, CONVERSATION)
        self.said += texts
        self.appended_by = memory
        for reader in self.readers.values():
            self.fits(reader)

    def fits(self, memory: AgentMemory) -> None:
        """Check that a window holds no more than it has room for, if anything could leave."""
        budget = memory.conversations.budget(CONVERSATION)
        recent = memory.conversations.recent(CONVERSATION)
        # Results that are among the last stay with their call, where that fits.
        assert budget.used_tokens <= budget.window_tokens or len(recent) <= KEEP_LAST

    @rule(window=windows, summary=st.sampled_from([None, "It was tea."]), shown=st.booleans())
    def flush(self, window: int, summary: str | None, shown: bool) -> None:
        memory = self.reader(window)
        before = memory.conversations.recent(CONVERSATION)
        if shown:
            memory.conversations.overflow(CONVERSATION)
        done = memory.conversations.flush(CONVERSATION, summary)
        assert done.evicted + done.kept == len(before)

    @rule(window=windows)
    def show_overflow(self, window: int) -> None:
        self.reader(window).conversations.overflow(CONVERSATION)

    @rule(value=st.sampled_from(["", "Name: Ana", "tea " * 600, "tea " * 1_900]))
    def rethink(self, value: str) -> None:
        self.reader(WINDOWS[-1]).core.rethink("human", value)
        self.appended_by = None

    @rule(window=windows)
    def rewrite(self, window: int) -> None:
        conversations = self.reader(window).conversations
        newest = conversations.summary(CONVERSATION)
        if newest is not None:
            done = conversations.rewrite_summary(CONVERSATION, "Leaves.", "endpoint", newest.id)
            assert done is not None
            assert (done.version, done.parent) == (newest.version + 1, newest.parent)

    @rule(data=st.data(), window=windows)
    def search(self, data: st.DataObject, window: int) -> None:
        if self.said:
            at = data.draw(st.integers(0, len(self.said) - 1))
            found = self.reader(window).conversations.search(f"n{at}x", limit=50)
            # The result of a tool is found as well, if it is not one of a memory search.
            assert self.said[at] in {hit.message.content for hit in found.items}

    @rule(window=windows)
    def leave(self, window: int) -> None:
        if len(self.readers) > 1 and window in self.readers:
            if self.readers[window] is self.appended_by:
                self.appended_by = None
            self.readers.pop(window).close()

    @rule()
    def crash(self) -> None:
        """Go on with what is on the disk at this moment: the process was never told to end."""
        self.lives += 1
        folder = self.folder / f"life{self.lives}"
        folder.mkdir()
        paths = [path for path in (self.db, Path(f"{self.db}.wal")) if path.exists()]
        # By another process: a plain copy in this one would drop the driver's lock.
        copy = "import shutil, sys; [shutil.copy(path, sys.argv[1]) for path in sys.argv[2:]]"
        command = [sys.executable, "-S", "-E", "-c", copy, str(folder), *map(str, paths)]
        subprocess.run(command, check=True)
        old = self.engine
        self.open(folder / self.db.name)
        old.close()
        self.reader(WINDOWS[1])

    @invariant()
    def queue_and_what_has_left_are_everything(self) -> None:
        for memory in self.readers.values():
            conversations = memory.conversations
            summary = conversations.summary(CONVERSATION)
            left = 0 if summary is None else summary.last + 1
            recent = conversations.recent(CONVERSATION)
            assert [message.index for message in recent] == list(range(left, len(self.said)))
            window = memory.settings.context_window
            for message in recent:
                whole = self.said[message.index]
                rendered = self.tokenizer.count(counted_message(message))
                assert message.tokens == rendered <= window
                assert message.content == whole or "[cut: " in message.content
            queue = sum(message.tokens for message in recent)
            budget = conversations.budget(CONVERSATION)
            assert budget.parts.queue == queue
            assert budget.counts["conversation_messages"] == len(self.said)
            assert memory.overview().messages == len(self.said)

    @invariant()
    def summaries_are_one_chain(self) -> None:
        memory = next(iter(self.readers.values()))
        every = memory.conversations.summaries(CONVERSATION)
        # Of the versions that tell of the same messages, the last is the one that counts.
        chain = list({summary.last: summary for summary in every}.values())
        parent, first = None, 0
        for summary in chain:
            assert (summary.parent, summary.first) == (parent, first)
            assert summary.last >= summary.first
            parent, first = summary.id, summary.last + 1
        assert memory.conversations.summary(CONVERSATION) == (chain[-1] if chain else None)

    @invariant()
    def everything_is_in_recall_memory(self) -> None:
        memory = next(iter(self.readers.values()))
        page = memory.conversations.search(conversation=CONVERSATION, limit=50)
        assert page.total == len(self.said)
        newest = self.said[::-1][:50]
        assert sorted(hit.message.content for hit in page.items) == sorted(newest)


def test_paging_agrees_with_a_plain_list(tmp_path_factory, cache_dir):
    tokenizer = Tokenizer(cache_dir=cache_dir)
    run_state_machine_as_test(
        lambda: PagingMachine(tmp_path_factory.mktemp("machine"), tokenizer),  # type: ignore[arg-type]  # a factory does
        settings=settings(
            max_examples=10,
            stateful_step_count=20,
            deadline=None,
            # Finding the smallest example takes minutes; the steps of a failure are few anyway.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
