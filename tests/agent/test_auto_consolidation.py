"""Consolidation by a model behind an endpoint: asked over a real connection, its edits checked."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from fakes import HashEmbedder

from mcp_memory.agent import Memories
from mcp_memory.settings import load_settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import Conflict, InvalidInput, OverLimit, OwnerFault
from mcp_memory.values.records import NewMessage

numbers = itertools.count()


class Model:
    """A model behind HTTP that answers what it is told to, and keeps what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answer: Any = {"edits": []}
        self.asked: list[str] = []
        self.meanwhile = lambda: None

    def complete(self, prompt: str, max_tokens: int) -> str:
        try:
            reply = httpx.post(self.url, content=prompt.encode(), timeout=20, trust_env=False)
            reply.raise_for_status()
        except httpx.HTTPError as error:
            raise OwnerFault(f"the endpoint: {error}") from error
        return reply.text


@pytest.fixture
def model() -> Iterator[Model]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            served.asked.append(self.rfile.read(length).decode())
            served.meanwhile()
            answer = served.answer
            body = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(500 if answer == "broken" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its own name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    served = Model(f"http://127.0.0.1:{server.server_port}/")
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def memories(settings, model) -> Iterator[Memories]:
    changed = settings.model_copy(update={"auto_consolidate": "on"})
    memories = Memories(Engine(changed, embedder=HashEmbedder()))
    memories.schedule.complete = model.complete
    yield memories
    memories.close()


@pytest.fixture
def memory(memories):
    memory = memories.open("default")
    memory.core.append("human", "Ana lives in Porto")
    say(memory, "I live in Lisbon now")
    return memory


def say(memory, text):
    memory.conversations.append([NewMessage("user", text)])


def answer(value, label="human", **more):
    return {
        "reason": "She has moved.",
        "edits": [{"label": label, "value": value, "reason": "said today"}],
        **more,
    }


def test_its_edits_are_one_consolidation_with_author_reason_and_cost(memories, memory, model):
    told: list[frozenset[str]] = []
    memory.listen(told.append)
    model.answer = answer("Ana lives in Lisbon")
    done = memories.schedule.consolidate("default")
    assert memory.core.get("human").value == "Ana lives in Lisbon"
    assert memory.core.get("human").editor == "endpoint"
    unit = done.consolidation
    assert unit.author == "endpoint"
    assert unit.reason == "She has moved.; human: said today"
    assert unit.tokens > memory.count_tokens(model.asked[0])
    event = memory.events(1)[0]
    assert (event.kind, event.data["author"]) == ("rethought", "endpoint")
    assert event.data["tokens"] == unit.tokens
    assert memory.core.history("human")[0].consolidation == unit
    heard = {topic for topics in told for topic in topics}
    assert heard >= {"core/human", "events", "consolidation"}


def test_it_is_shown_what_is_new_and_which_blocks_it_may_rewrite(memories, memory, model):
    memory.core.define("rules", "Never lie.", read_only=True)
    memories.schedule.consolidate("default")
    [asked] = model.asked
    assert "I live in Lisbon now" in asked
    assert "only these blocks: persona, human." in asked


def test_a_block_that_it_was_not_shown_whole_it_may_not_rewrite(settings, model):
    small = settings.model_copy(update={"summarizer_window": 4_000, "context_window": 8_000})
    memories = Memories(Engine(small, embedder=HashEmbedder()))
    memory = memories.open("default")
    memory.core.append("human", "tea " * 1_900)
    memory.core.append("persona", "Be brief.")
    model.answer = answer("Ana lives in Lisbon")
    with pytest.raises(InvalidInput):
        memory.consolidator.run(model.complete)
    [asked] = model.asked
    assert "only these blocks: persona." in asked
    assert memory.count_tokens(asked) <= 2_000
    assert memory.core.get("human").tokens > 1_800
    memories.close()


def test_it_is_asked_once_for_the_same_news_and_not_without_any(memories, memory, model):
    assert memories.schedule.consolidate("default").changes == ()
    assert memories.schedule.consolidate("default") is None
    assert len(model.asked) == 1
    assert memories.schedule.consolidation_due("default") is None
    say(memory, "And I have a dog")
    assert memories.schedule.consolidate("default") is not None
    assert memories.schedule.consolidate("nobody") is None
    assert len(model.asked) == 2


def test_a_heartbeat_asks_it_once_nobody_is_at_work(settings, model):
    changed = settings.model_copy(update={"auto_consolidate": "on", "heartbeat_seconds": 60.0})
    memories = Memories(Engine(changed, embedder=HashEmbedder()))
    memories.schedule.complete = model.complete
    memory = memories.open("default")
    say(memory, "I live in Lisbon now")
    assert memories.schedule.beat()
    assert model.asked == []
    memories.engine.used_at -= 31
    assert not memories.schedule.beat()
    assert len(model.asked) == 1
    assert not memories.schedule.beat()
    assert [event.kind for event in memory.events()] == ["rethought", "rethink_reminder"]
    memories.close()


def test_it_is_off_unless_it_is_set(settings, model):
    memories = Memories(Engine(settings, embedder=HashEmbedder()))
    memories.schedule.complete = model.complete
    say(memories.open("default"), "I live in Lisbon now")
    assert memories.schedule.consolidate("default") is None
    assert model.asked == []
    memories.close()


@pytest.fixture(scope="module")
def granted(tmp_path_factory, cache_dir) -> Iterator[Memories]:
    settings = load_settings(
        db=tmp_path_factory.mktemp("endpoint") / "memory.duckdb",
        cache_dir=cache_dir,
        offline=True,
        embedding_model="fake/hash",
        shared_blocks="goals",
    )
    memories = Memories(Engine(settings, embedder=HashEmbedder()))
    yield memories
    memories.close()


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (answer("tea " * 3_000), OverLimit),
        (answer("Never mind", label="rules"), InvalidInput),
        (answer("Goals: none", label="working"), InvalidInput),
        (answer("All of us", label="goals"), InvalidInput),
        (answer("x", label="new"), InvalidInput),
        (answer("  "), InvalidInput),
        ({"edits": [*answer("one")["edits"], *answer("two")["edits"]]}, InvalidInput),
        (
            {"edits": [*answer("Ana, Lisbon")["edits"], *answer("x", label="y")["edits"]]},
            InvalidInput,
        ),
        ({"edits": [{"label": "human"}]}, InvalidInput),
        ({"edits": "none"}, InvalidInput),
        (answer("a\x00b"), InvalidInput),
        ("I would rather not.", InvalidInput),
        ("", InvalidInput),
        ("{" * 100_000, InvalidInput),
    ],
)
def test_an_answer_that_cannot_be_taken_changes_nothing_and_its_cost_is_shown(
    granted, model, wrong, fault
):
    memory = granted.open(f"agent-{next(numbers)}")
    memory.core.append("human", "Ana lives in Porto")
    memory.core.define("rules", "Never lie.", read_only=True)
    before = memory.core.compiled()
    model.answer = wrong
    with pytest.raises(fault):
        memory.consolidator.run(model.complete)
    assert memory.core.compiled() == before
    event = memory.events(1)[0]
    assert event.kind == "rethink_refused"
    assert memory.consolidated() == (None, event.data["tokens"])
    assert event.data["tokens"] > 0


def test_a_block_that_was_changed_while_it_was_asked_is_not_overwritten(memories, memory, model):
    model.answer = answer("Ana lives in Lisbon")
    model.meanwhile = lambda: memory.core.append("human", "She has a dog")
    with pytest.raises(Conflict):
        memory.consolidator.run(model.complete)
    assert memory.core.get("human").value == "Ana lives in Porto\nShe has a dog"


def test_what_a_model_writes_around_its_json_is_passed_over(memories, memory, model):
    model.answer = f"Sure!\n```json\n{json.dumps(answer('Ana lives in Lisbon'))}\n```\nDone."
    assert memories.schedule.consolidate("default").changes[0].after == "Ana lives in Lisbon"


def test_an_endpoint_that_fails_is_left_alone_until_there_is_more(memories, memory, model):
    model.answer = "broken"
    assert memories.schedule.consolidate("default") is None
    assert memories.schedule.consolidate("default") is None
    assert len(model.asked) == 1
    model.answer = answer("Ana lives in Lisbon")
    say(memory, "Still there?")
    assert memories.schedule.consolidate("default") is not None


def test_a_clients_own_consolidation_goes_on_beside_it(memories, memory, model):
    memory.core.rethink("persona", "Be brief.")
    model.answer = answer("Ana lives in Lisbon")
    memories.schedule.consolidate("default")
    memory.core.append("persona", "Be kind.")
    done = memory.core.finish_rethinking("manners")
    assert [c.label for c in done.consolidation.changed] == ["human", "persona"]
    assert memory.core.history("human")[0].consolidation is not None
