"""A database of an earlier version opens, and everything in it is found, listed and undone.

That version's answers are in tests/fixtures/schema-8.json; tests/fixtures/README.md says
how both files were made.
"""

import json
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from fakes import HashEmbedder
from stores import database_of

from mcp_memory.agent import AgentMemory, Memories
from mcp_memory.settings import load_settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import AccessDenied, MemoryFault
from mcp_memory.values.records import Kind, NewMessage

FIXTURES = Path(__file__).parents[1] / "fixtures"
OLD = json.loads((FIXTURES / "schema-8.json").read_text(encoding="utf-8"))
AGENTS = ("default", "scout")
AS_OF = datetime.fromisoformat(OLD["as_of"])


@dataclass
class Opened:
    """An open copy of the fixture."""

    memories: Memories

    def memory(self, agent: str = "default") -> AgentMemory:
        return self.memories.open(agent)

    @property
    def tokens(self):
        return self.memories.engine.access

    def usage(self):
        return database_of(self.memories.engine.store).read(
            "SELECT agent, day, requests, input_tokens, output_tokens FROM endpoint_usage"
            " ORDER BY agent, day"
        )

    def fill_pending(self) -> int:
        return self.memories.engine.fill_pending()


@contextmanager
def opened(path: Path):
    """Open a database with the settings and the embedder that the fixture was made with."""
    settings = load_settings(db=path, cache_dir=path.parent / "cache", **OLD["settings"])
    memories = Memories(Engine(settings, embedder=HashEmbedder()))
    try:
        yield Opened(memories)
    finally:
        memories.close()


@pytest.fixture
def path(tmp_path):
    return Path(shutil.copy(FIXTURES / "schema-8.duckdb", tmp_path / "memory.duckdb"))


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """A copy that is only read."""
    copy = tmp_path_factory.mktemp("old") / "memory.duckdb"
    with opened(Path(shutil.copy(FIXTURES / "schema-8.duckdb", copy))) as database:
        yield database


def _ids(page):
    ids = [getattr(hit, "memory", None) or hit.message for hit in page.items]
    return {"search": page.search, "total": page.total, "ids": [item.id for item in ids]}


CALLS: dict[str, Callable[..., Any]] = {
    "blocks": lambda m, conversation: m.core.all(conversation),
    "history": lambda m, label, conversation: m.core.history(label, conversation, None),
    "compiled": lambda m: m.core.compiled(),
    "memories": lambda m, as_of: [
        hit.memory for hit in m.archive.search(limit=50, as_of=as_of).items
    ],
    "memory": lambda m, key: m.archive.get(key),
    "memory_as_of": lambda m, key, as_of: m.archive.get(key, as_of),
    "search_memories": lambda m, kinds=(), **given: _ids(
        m.archive.search(kinds=[Kind(kind) for kind in kinds], **given)
    ),
    "tags": lambda m: m.archive.tags(),
    "conversations": lambda m: m.conversations.names(),
    "messages": lambda m, **given: [
        hit.message for hit in m.conversations.search(limit=50, **given).items
    ],
    "message": lambda m, key: m.conversations.get(key),
    "around": lambda m, key: [hit.message.id for hit in m.conversations.around(key, limit=5).items],
    "search_messages": lambda m, **given: _ids(m.conversations.search(**given)),
    "recent": lambda m, conversation: m.conversations.recent(conversation),
    "window": lambda m, conversation: m.conversations.window(conversation),
    "summaries": lambda m, conversation: m.conversations.summaries(conversation),
    "budget": lambda m, conversation: m.conversations.budget(conversation),
    "overflow": lambda m, conversation: m.conversations.overflow(conversation),
    "events": lambda m: m.events(1_000),
    "consolidated": lambda m: m.consolidated(),
    "overview": lambda m: m.overview(),
    "embedding": lambda m: m.embedding_state(),
}
"""How each of the old version's calls is made today."""


def arguments(one):
    """Return the arguments of an old call, its moments as times."""
    given = dict(one["arguments"])
    if "as_of" in given:
        given["as_of"] = datetime.fromisoformat(given["as_of"])
    return given


def answer(memory, one):
    """Return what an old call answers now, of the fields that the old answer has."""
    try:
        return plain(CALLS[one["call"]](memory, **arguments(one)), one["answer"])
    except MemoryFault as fault:
        return {"fault": type(fault).__name__}


def plain(value, like):
    """Return a value as JSON has it, with the fields that `like` has: new ones may be added."""
    if isinstance(like, dict) and not (isinstance(value, dict) or value is None):
        return {name: plain(getattr(value, name, None), one) for name, one in like.items()}
    if isinstance(like, dict) and isinstance(value, dict):
        return {key: plain(one, like.get(key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        expected = like if isinstance(like, list) else []
        pairs = [*expected, *[None] * (len(value) - len(expected))]
        return [plain(one, other) for one, other in zip(value, pairs, strict=False)]
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value.value if isinstance(value, Enum) else value


def old_calls(*names, agent=None):
    return [
        one
        for one in OLD["calls"]
        if (not names or one["call"] in names) and agent in {None, one["agent"]}
    ]


NOT_LISTED = ("memory", "memory_as_of", "message", "around", "embedding")
LISTINGS = {name for name in CALLS if name not in NOT_LISTED and not name.startswith("search_")}


def everything(memory):
    """Return what a memory lists for the old version's calls.

    Searches are not compared hit by hit: the vectors of superseded texts count in the spread
    of the scores until the index is loaded again, so hits of nearly equal rank may swap.
    """
    return [CALLS[one["call"]](memory, **arguments(one)) for one in old_calls(*LISTINGS)]


def best(memory):
    """Return the best memory and message about what the test writes."""
    return (
        memory.archive.search("ferry Berlenga 10:15").items[0].memory,
        memory.conversations.search("ferry leaves 10:15").items[0].message,
    )


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("call", CALLS)
def test_every_answer_of_the_old_version_is_given_again(unchanged, call, agent):
    asked = old_calls(call, agent=agent)
    memory = unchanged.memory(agent)
    now = [answer(memory, one) for one in asked]
    memory.close()
    assert asked
    assert now == [one["answer"] for one in asked]


def test_every_token_is_listed_and_opens_what_it_did(unchanged):
    old = OLD["tokens"]
    assert plain(unchanged.tokens.all(), old["all"]) == old["all"]
    live = old["checked"]["live"]
    assert unchanged.tokens.check(live["secret"], at=AS_OF).id == live["id"]
    for name in ("revoked", "expired"):
        with pytest.raises(AccessDenied) as fault:
            unchanged.tokens.check(old["checked"][name]["secret"], at=AS_OF)
        assert fault.value.reason == old["checked"][name]["refused"] == name


def test_what_the_endpoint_has_cost_is_known(unchanged):
    assert [plain(row, None) for row in unchanged.usage()] == OLD["usage"]


def test_texts_without_vectors_get_them(path):
    with opened(path) as database:
        memory = database.memory()
        assert memory.embedding_state().pending == 2
        assert database.fill_pending() == 2
        assert memory.embedding_state().pending == 0
        hit = memory.archive.search("spare key behind the barometer").items[0]
        assert hit.memory.content == "The spare key hangs behind the barometer."
    with opened(path) as database:
        assert database.memory().embedding_state().pending == 0


def test_every_block_goes_back_to_its_first_value(path):
    with opened(path) as database:
        memory = database.memory()
        for one in old_calls("history", agent="default"):
            label, conversation = one["arguments"]["label"], one["arguments"]["conversation"]
            first = one["answer"][-1]["block"]
            before = memory.core.history(label, conversation, None)
            if first["scope"] == "conversation":
                memory.core.rethink(label, first["value"], None, conversation)
            else:
                memory.core.define(label, first["value"])
            after = memory.core.history(label, conversation, None)
            assert memory.core.get(label, conversation).value == first["value"]
            assert after[0].block.version == before[0].block.version + 1
            assert [item.block for item in after[1:]] == [item.block for item in before]


def test_every_changed_memory_goes_back_to_its_first_text(path):
    firsts = {
        one["answer"]["id"]: one["answer"]
        for one in reversed(old_calls("memory_as_of", agent="default"))
        if "fault" not in one["answer"]
    }
    changed = [
        one["answer"]
        for one in old_calls("memory", agent="default")
        if one["answer"].get("version", 1) > 1
    ]
    assert len(changed) == 3
    with opened(path) as database:
        memory = database.memory()
        for now in changed:
            first = firsts[now["id"]]
            done = memory.archive.update(
                now["id"], content=first["content"], tags=first["tags"], kind=Kind(first["kind"])
            )
            assert (done.id, done.version) == (now["id"], now["version"] + 1)
            assert memory.archive.get(now["id"]) == done
            hits = memory.archive.search(first["content"], limit=50).items
            assert {hit.memory.id: hit.memory for hit in hits}[now["id"]] == done


def test_a_deleted_memory_is_not_there_and_its_text_makes_a_new_one(path):
    with opened(path) as database:
        memory = database.memory()
        gone = [
            one["arguments"]["key"]
            for one in old_calls("memory", agent="default")
            if one["answer"] == {"fault": "NotFound"}
        ]
        assert len(gone) == 2
        done = memory.archive.insert("Mia likes nougat.")
        assert done.created
        assert done.memory.id not in gone


def test_a_text_that_is_there_already_is_not_stored_twice(path):
    with opened(path) as database:
        memory = database.memory()
        old = old_calls("memories", agent="default")[0]["answer"]
        for one in old:
            done = memory.archive.insert(one["content"])
            assert not done.created
            assert done.memory.id == one["id"]
        assert memory.archive.count() == len(old)


def test_writing_goes_on_and_reopening_gives_the_same(path):
    with opened(path) as database:
        memory = database.memory()
        conversations, archive = memory.conversations, memory.archive
        count, ends = archive.count(), conversations.budget("main").counts["conversation_messages"]
        inserted = archive.insert("The ferry to Berlenga leaves at 9:40.", tags=["travel"]).memory
        updated = archive.update(inserted.id, content="The ferry to Berlenga leaves at 10:15.")
        doomed = archive.insert("This is deleted at once.").memory
        archive.delete(doomed.id)
        memory.core.append("human", "Likes ferries")
        appended = conversations.append([NewMessage("user", "The ferry leaves at 10:15 now.")])
        parent = conversations.summary("main")
        flush = conversations.flush("main")
        assert flush.evicted > 0
        assert flush.summary.parent == parent.id
        assert flush.summary.first == parent.last + 1
        assert conversations.get(appended.ids[0]).index == ends
        assert archive.count() == count + 1
        assert best(memory) == (updated, conversations.get(appended.ids[0]))
        seen = everything(memory)
    with opened(path) as database:
        memory = database.memory()
        assert everything(memory) == seen
        assert best(memory) == (updated, memory.conversations.get(appended.ids[0]))
        assert memory.conversations.summary("main") == flush.summary
        memories = {one["id"] for one in old_calls("memories", agent="default")[0]["answer"]}
        assert memories | {inserted.id} == {one.id for one in CALLS["memories"](memory, None)}
        for one in old_calls("message", agent="default"):
            assert answer(memory, one) == one["answer"]


def test_the_fixture_has_what_it_is_for():
    histories = old_calls("history", agent="default")
    blocks = [item["block"] for one in histories for item in one["answer"]]
    assert {block["scope"] for block in blocks} == {"agent", "conversation", "shared"}
    assert {block["editor"] for block in blocks} > {None, "desktop", "cursor", "endpoint"}
    assert all(len(one["answer"]) > 1 for one in histories)
    memories = old_calls("memories", agent="default")[0]["answer"]
    assert {memory["kind"] for memory in memories} == {kind.value for kind in Kind}
    summaries = [one for item in old_calls("summaries") for one in item["answer"]]
    assert {one["author"] for one in summaries} == {
        "client",
        "extractive",
        "sampling",
        "endpoint",
    }
    assert {one["version"] for one in summaries} == {1, 2}
    assert any(one["parent"] for one in summaries)
    events = old_calls("events", agent="default")[0]["answer"]
    assert {one["kind"] for one in events} == {
        "pressure_warning",
        "flushed",
        "rethink_reminder",
        "rethought",
        "rethink_refused",
    }
