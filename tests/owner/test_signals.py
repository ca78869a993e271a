"""SIGTERM ends a process within seconds, whatever the model does, and what was answered is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fakes
import pytest
from processes import environment
from talker import Household, Talker, content_of, program, until

from mcp_memory.owner.wire import RETRY_CODE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to handle there"),
]

END_SECONDS = 12
"""By judgement: a busy machine needs some seconds more than the program allows itself. A process
that waits for the model needs a minute."""

STUCK = f"""
import sys, threading
sys.path.insert(0, {str(Path(fakes.__file__).parent)!r})
def load(engine):
    from fakes import HashEmbedder
    class Stuck(HashEmbedder):
        def embed_passages(self, texts, *, urgent=True):
            threading.Event().wait(60)
            return super().embed_passages(texts)
    engine.use(Stuck(engine.settings.embedding_model))
from mcp_memory.tiers.engine import Engine
Engine._load_model = load
"""


def wait_for_model(client: Talker) -> None:
    def is_ready() -> bool:
        found = client.ask("resources/read", {"uri": "memory://status"})["contents"][0]["text"]
        return bool(json.loads(found)["embedding"]["state"] == "ready")

    client.call("core_memory_view")
    until(is_ready, "a model that is ready")


@contextmanager
def listener(house: Household) -> Iterator[subprocess.Popen[bytes]]:
    command = program("mcp_memory", "serve", "--transport", "http", "--port", "0", prelude=STUCK)
    environ = environment(house.home, **house.settings)
    log = subprocess.DEVNULL
    with subprocess.Popen(command, env=environ, stdin=log, stderr=log) as process:
        try:
            until(lambda: (house.places.read_address() or {}).get("ready"), "a listener")
            yield process
        finally:
            process.kill()


def is_kept_after_the_end(house: Household, process: subprocess.Popen[bytes]) -> None:
    """End a process with many inserts at work, and look for what it has acknowledged."""
    clients = [house.client() for _ in range(2)]
    wait_for_model(clients[0])
    # More than the model takes at once: most of these wait in a queue.
    begun = [
        (client, client.begin("archival_memory_insert", content=f"text {number} of {place}"))
        for number in range(20)
        for place, client in enumerate(clients)
    ]
    process.terminate()
    assert process.wait(timeout=END_SECONDS) == 0
    answers = [client.answer(number) for client, number in begun]
    kept = {content_of(answer)["id"] for answer in answers if "result" in answer}
    assert {a["error"]["code"] for a in answers if "error" in a} <= {RETRY_CODE}
    found = clients[0].call("archival_memory_search", top_k=50)
    assert kept <= {hit["id"] for hit in found["results"]}
    assert found["total"] == len(begun)


def test_an_owner_with_calls_that_wait_for_the_model_ends_soon(house: Household):
    is_kept_after_the_end(house, house.owner(STUCK))


def test_a_listener_with_calls_that_wait_for_the_model_ends_soon(house: Household):
    with listener(house) as process:
        is_kept_after_the_end(house, process)


def test_a_process_without_an_owner_ends_soon(house: Household):
    client = house.client(prelude=STUCK, owner="off")
    wait_for_model(client)
    begun = [client.begin("archival_memory_insert", content=f"text {n}") for n in range(20)]
    client.process.terminate()
    assert client.status(END_SECONDS) == 0
    kept = {content_of(answer)["id"] for number in begun for answer in client.answers(number)}
    found = house.client(owner="off").call("archival_memory_search", top_k=50)
    assert kept <= {hit["id"] for hit in found["results"]}
