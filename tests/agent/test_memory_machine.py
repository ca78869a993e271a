"""Memory against a plain dictionary: whatever is done in whatever order, both agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fakes import HashEmbedder, memory_of
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.settings import load_settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import InvalidInput, MatchFault, NotFound, ReadOnly
from mcp_memory.values.ids import new_id
from mcp_memory.values.records import Kind, NewMessage, Role

WINDOW = 1_000
AGENTS = ("ana", "ben")
CONVERSATIONS = ("main", "work")

agents = st.sampled_from(AGENTS)
conversations = st.sampled_from(CONVERSATIONS)
texts = (
    st.lists(
        st.sampled_from(["tea", "kettle", "咖啡", "ERR-42", "café", "\n", "Porto."]),
        min_size=1,
        max_size=5,
    )
    .map(" ".join)
    .filter(str.strip)
)
tags = st.lists(st.sampled_from(["a", "b", "c"]), unique=True, max_size=3)
kinds = st.sampled_from(list(Kind))
labels = st.sampled_from(["human", "persona", "working", "notes", "rules"])
lines = st.sampled_from(["one", "two", "three", "one two", ""])
roles: st.SearchStrategy[Role] = st.sampled_from(["user", "assistant", "tool"])
turns = st.lists(st.tuples(roles, texts, st.integers(0, 250)), min_size=1, max_size=4)


@dataclass
class Kept:
    """What the model knows of a memory."""

    content: str
    tags: tuple[str, ...]
    kind: Kind
    version: int = 1


@dataclass
class Model:
    """All that one agent has, in plain containers."""

    blocks: dict[tuple[str, str], str] = field(default_factory=dict)
    kept: dict[str, Kept] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in CONVERSATIONS})
    left: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CONVERSATIONS, 0))

    def twin(self, content: str) -> str | None:
        """Return the id of the memory that has this text."""
        same = (key for key, kept in self.kept.items() if kept.content.strip() == content.strip())
        return next(same, None)

    def block(self, label: str, conversation: str) -> str | None:
        """Return a block's value, None if there is none."""
        default = "" if label in {"human", "persona", "working"} else None
        return self.blocks.get((conversation if label == "working" else "", label), default)

    def write(self, label: str, conversation: str, value: str) -> None:
        """Set a block's value."""
        self.blocks[conversation if label == "working" else "", label] = value.strip("\n")


class MemoryMachine(RuleBasedStateMachine):
    """Two agents on one database that is closed and opened now and then."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.settings = load_settings(
            db=folder / "memory.duckdb",
            offline=True,
            embedding_model="fake/hash",
            context_window=WINDOW,
            rethink_every=0,
        )
        self.models = {agent: Model() for agent in AGENTS}
        self.open()

    def open(self) -> None:
        self.engine = Engine(self.settings, embedder=HashEmbedder(), tokenizer=self.tokenizer)
        self.memories = {agent: memory_of(self.engine, agent) for agent in AGENTS}

    @rule()
    def close_and_open(self) -> None:
        self.engine.close()
        self.open()

    def teardown(self) -> None:
        self.engine.close()

    @rule(agent=agents, content=texts, with_tags=tags, kind=kinds)
    def insert(self, agent: str, content: str, with_tags: list[str], kind: Kind) -> None:
        model = self.models[agent]
        twin = model.twin(content)
        done = self.memories[agent].archive.insert(content, tags=with_tags, kind=kind)
        assert done.created is (twin is None)
        if twin is None:
            assert done.memory.id not in model.kept
            model.kept[done.memory.id] = Kept(content, tuple(with_tags), kind)
            return
        assert done.memory.id == twin
        kept = model.kept[twin]
        merged = tuple(dict.fromkeys((*kept.tags, *with_tags)))
        if merged != kept.tags:
            kept.tags = merged
            kept.version += 1

    @precondition(lambda self: any(model.kept for model in self.models.values()))
    @rule(data=st.data(), content=st.none() | texts, new_tags=st.none() | tags)
    def update(self, data: st.DataObject, content: str | None, new_tags: list[str] | None) -> None:
        agent, key = self.any_memory(data)
        model, archive = self.models[agent], self.memories[agent].archive
        twin = None if content is None else model.twin(content)
        if (content is None and new_tags is None) or twin not in {None, key}:
            with pytest.raises(InvalidInput):
                archive.update(key, content=content, tags=new_tags)
            return
        archive.update(key, content=content, tags=new_tags)
        kept = model.kept[key]
        kept.content = kept.content if content is None else content
        kept.tags = kept.tags if new_tags is None else tuple(new_tags)
        kept.version += 1

    @precondition(lambda self: any(model.kept for model in self.models.values()))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        agent, key = self.any_memory(data)
        archive = self.memories[agent].archive
        assert archive.delete(key).id == key
        del self.models[agent].kept[key]
        with pytest.raises(NotFound):
            archive.get(key)

    @rule(agent=agents)
    def miss(self, agent: str) -> None:
        other = next(name for name in AGENTS if name != agent)
        for key in (new_id(), *self.models[other].kept):
            with pytest.raises(NotFound):
                self.memories[agent].archive.delete(key)

    @rule(
        agent=agents,
        query=st.none() | texts,
        some_tags=tags,
        every=st.booleans(),
        some_kinds=st.lists(kinds, max_size=2),
    )
    def find(
        self,
        agent: str,
        query: str | None,
        some_tags: list[str],
        every: bool,
        some_kinds: list[Kind],
    ) -> None:
        page = self.memories[agent].archive.search(
            query, tags=some_tags, tag_match="all" if every else "any", kinds=some_kinds, limit=50
        )
        match = all if every else any
        expected = {
            key
            for key, kept in self.models[agent].kept.items()
            if (not some_tags or match(tag in kept.tags for tag in some_tags))
            and (not some_kinds or kept.kind in some_kinds)
        }
        assert {hit.memory.id for hit in page.items} == expected
        assert page.total == len(expected) == len(page.items)
        for hit in page.items:
            content = self.models[agent].kept[hit.memory.id].content
            assert content[hit.passage.start : hit.passage.end] == hit.passage.text
        if query is None:
            # By date, and a memory keeps the date it was first kept at.
            order = [key for key in self.models[agent].kept if key in expected]
            assert [hit.memory.id for hit in page.items] == order[::-1]

    @rule(agent=agents, label=labels, line=lines, conversation=conversations)
    def append_to_block(self, agent: str, label: str, line: str, conversation: str) -> None:
        model, core = self.models[agent], self.memories[agent].core
        value = model.block(label, conversation)
        if value is None:
            with pytest.raises(NotFound):
                core.append(label, line, conversation)
        elif label == "rules":
            with pytest.raises(ReadOnly):
                core.append(label, line, conversation)
        elif not line:
            with pytest.raises(InvalidInput):
                core.append(label, line, conversation)
        else:
            core.append(label, line, conversation)
            model.write(label, conversation, f"{value}\n{line}" if value else line)

    @rule(
        agent=agents,
        label=labels,
        old=lines.filter(bool),
        new=st.sampled_from(["four", "five"]),
        conversation=conversations,
    )
    def replace_in_block(
        self, agent: str, label: str, old: str, new: str, conversation: str
    ) -> None:
        model, core = self.models[agent], self.memories[agent].core
        value = model.block(label, conversation)
        if value is None:
            with pytest.raises(NotFound):
                core.replace(label, old, new, conversation)
        elif label == "rules":
            with pytest.raises(ReadOnly):
                core.replace(label, old, new, conversation)
        elif value.count(old) != 1:
            with pytest.raises(MatchFault) as fault:
                core.replace(label, old, new, conversation)
            assert len(fault.value.lines) == value.count(old)
        else:
            core.replace(label, old, new, conversation)
            model.write(label, conversation, value.replace(old, new))

    @rule(
        agent=agents,
        label=labels,
        value=lines,
        conversation=conversations,
        description=st.none() | st.just("What it is for."),
    )
    def rethink_block(
        self, agent: str, label: str, value: str, conversation: str, description: str | None
    ) -> None:
        model, core = self.models[agent], self.memories[agent].core
        present = model.block(label, conversation)
        if label == "rules" and present is not None:
            with pytest.raises(ReadOnly):
                core.rethink(label, value, description, conversation)
        elif label == "rules":
            core.define(label, value, description=description, read_only=True)
            model.write(label, conversation, value)
        elif present is None and description is None:
            with pytest.raises(InvalidInput):
                core.rethink(label, value, description, conversation)
        else:
            core.rethink(label, value, description, conversation)
            model.write(label, conversation, value)

    @rule(agent=agents, conversation=conversations, said=turns)
    def say(self, agent: str, conversation: str, said: list[tuple[Role, str, int]]) -> None:
        model = self.models[agent]
        messages = [NewMessage(role, text + " leaf" * size) for role, text, size in said]
        done = self.memories[agent].conversations.append(messages, conversation)
        model.said[conversation] += [message.content for message in messages]
        assert len(set(done.ids)) == len(messages)
        if done.flush is not None:
            self.evicted(agent, conversation, done.flush.evicted, done.flush.kept)

    @rule(agent=agents, conversation=conversations, summary=st.sampled_from([None, "It was tea."]))
    def flush(self, agent: str, conversation: str, summary: str | None) -> None:
        done = self.memories[agent].conversations.flush(conversation, summary)
        self.evicted(agent, conversation, done.evicted, done.kept)
        if done.evicted and summary is not None:
            assert done.summary is not None
            assert done.summary.content == summary

    @rule(agent=agents, conversation=st.none() | conversations, query=st.none() | texts)
    def recall(self, agent: str, conversation: str | None, query: str | None) -> None:
        page = self.memories[agent].conversations.search(query, conversation=conversation, limit=50)
        expected = {
            (name, index): content
            for name, said in self.models[agent].said.items()
            for index, content in enumerate(said)
            if conversation in {None, name}
        }
        found = {(h.message.conversation, h.message.index): h.message.content for h in page.items}
        assert page.total == len(expected)
        assert len(found) == len(page.items) == min(len(expected), 50)
        assert found.items() <= expected.items()

    @invariant()
    def blocks_agree(self) -> None:
        for agent, memory in self.memories.items():
            model = self.models[agent]
            for conversation in CONVERSATIONS:
                shown = {block.label: block.value for block in memory.core.all(conversation)}
                assert shown == {
                    label: value
                    for label in ("human", "persona", "working", "notes", "rules")
                    if (value := model.block(label, conversation)) is not None
                }

    @invariant()
    def memories_agree(self) -> None:
        for agent, memory in self.memories.items():
            kept = self.models[agent].kept
            assert memory.archive.count() == len(kept)
            for key, expected in list(kept.items())[-3:]:
                found = memory.archive.get(key)
                assert (found.content, found.tags, found.kind, found.version) == (
                    expected.content,
                    expected.tags,
                    expected.kind,
                    expected.version,
                )

    @invariant()
    def conversations_agree(self) -> None:
        for agent, memory in self.memories.items():
            model = self.models[agent]
            assert memory.overview().messages == sum(map(len, model.said.values()))
            for conversation, said in model.said.items():
                recent = memory.conversations.recent(conversation)
                left = model.left[conversation]
                assert [(m.index, m.content) for m in recent] == [
                    *enumerate(said[left:], start=left)
                ]
                summary = memory.conversations.summary(conversation)
                assert (0 if summary is None else summary.last + 1) == left
                queue = sum(message.tokens for message in recent)
                assert memory.conversations.budget(conversation).parts.queue == queue

    def any_memory(self, data: st.DataObject) -> tuple[str, str]:
        every = [(agent, key) for agent, model in self.models.items() for key in model.kept]
        return every[data.draw(st.integers(0, len(every) - 1))]

    def evicted(self, agent: str, conversation: str, evicted: int, kept: int) -> None:
        model = self.models[agent]
        model.left[conversation] += evicted
        assert kept == len(model.said[conversation]) - model.left[conversation]


def test_memory_agrees_with_a_plain_dictionary(tmp_path_factory, cache_dir):
    tokenizer = Tokenizer(cache_dir=cache_dir)
    run_state_machine_as_test(
        # A factory is as good as the class that the signature asks for.
        lambda: MemoryMachine(tmp_path_factory.mktemp("machine"), tokenizer),  # type: ignore[arg-type]  # a factory does
        settings=settings(
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            # Finding the smallest example takes minutes; the steps of a failure are few anyway.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
