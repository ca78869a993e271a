"""What was acknowledged is found by every client at once; what was deleted is found by none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from processes import RawServer, listening_url
from sites import ACCEPT, INITIALIZE, call
from talker import ERAS, Household, content_of, until

from mcp_memory.models.fetching import fetch_model
from mcp_memory.settings import DEFAULT_MODEL, load_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROUNDS = 4


class Asks(Protocol):
    """A client with several requests in flight."""

    def begin(self, tool: str, **arguments: object) -> int: ...
    def answer(self, number: int) -> dict[str, Any]: ...


class Remote:
    """A client over HTTP, in a session of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = httpx.Client(headers=ACCEPT, trust_env=False, timeout=60)
        hello = self._http.post(url, json=INITIALIZE)
        self._http.headers["Mcp-Session-Id"] = hello.headers["mcp-session-id"]
        self._http.post(url, json={"jsonrpc": "2.0", "method": "notifications/initialized"})
        self._pool = ThreadPoolExecutor(4)
        self._begun: dict[int, Future[dict[str, Any]]] = {}

    def begin(self, tool: str, **arguments: object) -> int:
        number = len(self._begun) + 2
        self._begun[number] = self._pool.submit(self._post, call(tool, number, **arguments))
        return number

    def answer(self, number: int) -> dict[str, Any]:
        return self._begun[number].result(60)

    def close(self) -> None:
        self._pool.shutdown()
        self._http.close()

    def _post(self, message: dict[str, Any]) -> dict[str, Any]:
        text = self._http.post(self._url, json=message).text
        lines = [line.removeprefix("data: ") for line in text.splitlines()]
        (answer,) = (json.loads(line) for line in lines if line.startswith("{") and '"id"' in line)
        return dict(answer)


@pytest.fixture
def everybody(house: Household) -> Iterator[list[Asks]]:
    """Give clients over stdio and HTTP, of one owner."""
    server = RawServer(house.home, "serve", "--transport", "http", "--port", "0", **house.settings)
    remotes: list[Remote] = []
    try:
        url = listening_url(server)
        remotes = [Remote(url) for _ in range(2)]
        yield [*(house.client(era=era) for era in ERAS), *remotes]
    finally:
        for remote in remotes:
            remote.close()
        server.kill()


def result_of(client: Asks, number: int) -> dict[str, Any]:
    return content_of(client.answer(number))


def seen(clients: Sequence[Asks], tool: str, query: str) -> list[set[str]]:
    """Return the texts that each client finds, all of them asking at once."""
    asked = [(client, client.begin(tool, query=query)) for client in clients]
    return [{hit["text"] for hit in result_of(*each)["results"]} for each in asked]


def look_at(clients: Sequence[Asks], word: str, text: str, *, gone: bool = False) -> None:
    """Check that each client finds a text by its word, or none does."""
    for texts in seen(clients, "archival_memory_search", word):
        assert (text in texts) is not gone, (word, text, texts)


def write(clients: Sequence[Asks], turn: str) -> dict[str, tuple[str, str]]:
    """Let each client write at once; look as soon as one is acknowledged, while others write.

    Returns:
        By id the word and text of each memory.
    """
    words = [f"zq{turn}x{place}" for place in range(len(clients))]
    texts = [f"{word} is where the spare key hangs" for word in words]
    begun = [
        (client, client.begin("archival_memory_insert", content=text))
        for client, text in zip(clients, texts, strict=True)
    ]
    said = [
        (client, client.begin("conversation_append", messages=[{"role": "user", "content": text}]))
        for client, text in zip(clients, texts, strict=True)
    ]
    stored: dict[str, tuple[str, str]] = {}
    for (client, number), word, text in zip(begun, words, texts, strict=True):
        stored[result_of(client, number)["id"]] = word, text
        look_at(clients, word, text)
    for (client, number), word, text in zip(said, words, texts, strict=True):
        result_of(client, number)
        for found in seen(clients, "conversation_search", word):
            assert text in found
    return stored


def change(clients: Sequence[Asks], stored: dict[str, tuple[str, str]]) -> None:
    """Let every second memory be superseded, the others be deleted, and look each time."""
    for place, (key, (word, text)) in enumerate(list(stored.items())):
        client = clients[place % len(clients)]
        if place % 2:
            new = f"new{word} is where it hangs now"
            result_of(client, client.begin("archival_memory_update", id=key, content=new))
            look_at(clients, f"new{word}", new)
            stored[key] = f"new{word}", new
        else:
            result_of(client, client.begin("archival_memory_delete", id=key))
            del stored[key]
        look_at(clients, word, text, gone=True)


def test_what_is_acknowledged_is_seen_by_all_and_what_is_gone_by_none(
    everybody: list[Asks],
) -> None:
    for turn in range(ROUNDS):
        change(everybody, write(everybody, str(turn)))


def test_it_is_so_right_after_the_owner_was_killed(house: Household) -> None:
    clients = [house.client(era=ERAS[place % 2]) for place in range(3)]
    stored: dict[str, tuple[str, str]] = {}
    gone: list[tuple[str, str]] = []
    for turn in range(3):
        new = write(clients, f"k{turn}")
        before = dict(new)
        change(clients, new)
        stored |= new
        gone += [item for key, item in before.items() if new.get(key) != item]
        house.kill_owner()
        for word, text in stored.values():
            look_at(clients, word, text)
        for word, text in gone:
            look_at(clients, word, text, gone=True)


@pytest.fixture(scope="module")
def model_cache() -> Path:
    """The user's own cache, so that the model is fetched once a machine."""
    cache = load_settings().cache_dir
    fetch_model(DEFAULT_MODEL, cache, offline=False)
    return cache


def test_other_words_find_it_at_once_and_after_its_vector_was_lost(
    house: Household, model_cache: Path
) -> None:
    clients = [house.client(cache_dir=model_cache) for _ in range(2)]

    def ready() -> bool:
        read = clients[0].ask("resources/read", {"uri": "memory://status"})
        embedding = json.loads(read["contents"][0]["text"])["embedding"]
        assert embedding["state"] != "unavailable", embedding
        return bool(embedding["state"] == "ready" and not embedding["pending"])

    for fact in ("We paint the kitchen dark green.", "The board meets on the third of March."):
        clients[0].call("archival_memory_insert", content=fact)
    until(ready, "the model", seconds=200)
    fact = "My sister Ingrid is afraid of dogs since one bit her."
    clients[0].call("archival_memory_insert", content=fact)
    for client in clients:
        found = client.call("archival_memory_search", query="a phobia in the family")
        assert found["results"][0]["text"] == fact
    # Its vector may not be written yet, and is computed again then.
    other = "Grandpa repairs clocks in his workshop."
    clients[0].call("archival_memory_insert", content=other)
    house.kill_owner()
    until(ready, "the model", seconds=200)
    for client in clients:
        found = client.call("archival_memory_search", query="a watchmaker's hobby")
        assert found["results"][0]["text"] == other
