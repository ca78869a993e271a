"""Real hosts with a scripted model: what one run stores, the next one finds.

No network: each host talks to an endpoint of the test's own. There is no embedding model
either, so the search is by words; what is held here is the way through the host.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from mcp_memory.owner.locks import ProcessLock
from mcp_memory.owner.places import Places

from .adapters import FOLDER_VARIABLE, HOSTS, RUN_SECONDS, Host, Run
from .endpoint import Call, scripted_model

pytestmark = [pytest.mark.hosts, pytest.mark.slow]

IDLE_SECONDS = 2
GONE_SECONDS = 30
WORDS = dict(
    zip((host.name for host in HOSTS), ("heron", "walnut", "tundra", "cobalt"), strict=True)
)


class Meeting:
    """Where hosts wait for each other, so that all run at the same time for sure."""

    def __init__(self, names: Sequence[str]) -> None:
        self.awaited = set(names)
        self._off = False
        self._changed = threading.Condition()

    def arrive(self, name: str) -> None:
        """Wait for all others; coming again is nothing new."""
        with self._changed:
            self.awaited.discard(name)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._off or not self.awaited, RUN_SECONDS / 2)

    def call_off(self) -> None:
        """Let go of those who wait."""
        with self._changed:
            self._off = True
            self._changed.notify_all()


def skipped_without(*hosts: Host) -> pytest.MarkDecorator:
    missing = ", ".join(host.name for host in hosts if not host.installed())
    return pytest.mark.skipif(
        bool(missing),
        reason=f"not in the folder that {FOLDER_VARIABLE} names: {missing} (tests/hosts/run.py)",
    )


@pytest.fixture
def server(tmp_path: Path, cache_dir: Path) -> Iterator[Callable[[str], dict[str, str]]]:
    """Give the environment of the MCP server; at the end its owner has gone."""
    db = tmp_path / "memory.duckdb"

    def environment(owner: str) -> dict[str, str]:
        return {
            "MCP_MEMORY_DB": str(db),
            "MCP_MEMORY_CACHE_DIR": str(cache_dir),
            "MCP_MEMORY_OFFLINE": "1",
            "MCP_MEMORY_OWNER": owner,
            "MCP_MEMORY_OWNER_IDLE_SECONDS": str(IDLE_SECONDS),
        }

    yield environment
    wait_until_gone(Places(str(db)))


def wait_until_gone(places: Places) -> None:
    """Wait until nobody owns a database."""
    if not Path(places.folder).is_dir():
        return
    lock = ProcessLock(places.lock)
    for _ in range(GONE_SECONDS * 20):
        if lock.acquire():
            lock.release()
            return
        threading.Event().wait(0.05)
    pytest.fail(f"the owner still runs: {places.read_address()}")


def wait_for(places: Places, pattern: str) -> None:
    """Wait until the owner has left a file."""
    for _ in range(GONE_SECONDS * 20):
        if any(Path(places.folder).glob(pattern)):
            return
        threading.Event().wait(0.05)
    pytest.fail(f"there is no file {pattern}")


@dataclass(frozen=True)
class Result:
    """A tool's result, as a host passed it on."""

    to_model: str
    to_person: str
    """All that the host wrote; the model repeats the result at the end."""

    def has(self, text: str) -> bool:
        return text in self.to_model and text in self.to_person


def result_through(
    host: Host,
    run: Callable[[str], Run],
    call: Call,
    at_the_end: Callable[[], object] = lambda: None,
) -> Result:
    """Run a host whose model makes one call and repeats the result."""
    with scripted_model(call, at_the_end=at_the_end) as model:
        ended = host.run(run(model.url))
    story = f"{host.name}\n{ended.output}\nasked: {model.requests}\noutside: {model.outside}"
    assert ended.status == 0, story
    assert len(model.results) == 1, story
    return Result(model.results[0], ended.output)


@pytest.mark.parametrize(
    "host", [pytest.param(host, marks=skipped_without(host), id=host.name) for host in HOSTS]
)
def test_a_host_finds_in_its_next_run_what_it_stored(
    host: Host, tmp_path: Path, server: Callable[[str], dict[str, str]]
) -> None:
    def run(url: str) -> Run:
        return Run(tmp_path / "home", url, server("off"))

    text = f"Ana's code word is {WORDS[host.name]}."
    stored = result_through(host, run, Call("archival_memory_insert", {"content": text}))
    assert stored.has("created")

    found = result_through(host, run, Call("archival_memory_search", {"query": "code word"}))
    assert found.has(text)


SIX: tuple[Call, ...] = (
    Call("core_memory_view"),
    Call("core_memory_append", {"label": "human", "content": "Likes rain."}),
    Call("archival_memory_insert", {"content": "The spare key hangs in the shed."}),
    Call("archival_memory_search", {"query": "spare key"}),
    Call("conversation_append", {"messages": [{"role": "user", "content": "Where is it?"}]}),
    Call("conversation_search", {"query": "Where is it?"}),
)
"""They read and write."""


@pytest.mark.parametrize(
    "host", [pytest.param(host, marks=skipped_without(host), id=host.name) for host in HOSTS]
)
def test_without_an_owner_the_first_request_has_memory_and_tools_and_all_calls_succeed(
    host: Host, tmp_path: Path, server: Callable[[str], dict[str, str]]
) -> None:
    places = Places(str(tmp_path / "memory.duckdb"))

    def run(url: str) -> Run:
        return Run(tmp_path / "home", url, server("auto"))

    note = f"The code word is {WORDS[host.name]}."
    kept = Call("core_memory_append", {"label": "human", "content": note})
    assert result_through(host, run, kept, lambda: wait_for(places, "answers-*")).has(note)
    wait_until_gone(places)

    with scripted_model(*SIX) as model:
        ended = host.run(run(model.url))
    story = f"{host.name}\n{ended.output}\nasked: {model.requests}"
    assert ended.status == 0, story
    # Instructions, core memory, and the tools themselves: nothing to be searched for first.
    assert "You have a persistent memory" in model.first, story
    assert note in model.first, story
    for call in SIX:
        assert call.tool in model.first, story
    assert len(model.results) == len(SIX), story
    for call, result in zip(SIX, model.results, strict=True):
        assert "rror" not in result, (call.tool, result)
    assert "Likes rain." in model.results[1]
    assert "The spare key" in model.results[3]
    assert "Where is it?" in model.results[5]


@skipped_without(*HOSTS)
def test_four_hosts_at_once_store_in_one_database_and_all_find_everything(
    tmp_path: Path, server: Callable[[str], dict[str, str]]
) -> None:
    def all_at_once(tool: str, arguments: Callable[[Host], dict[str, str]]) -> list[Result]:
        names = [host.name for host in HOSTS]
        connected, done = Meeting(names), Meeting(names)

        def one(host: Host) -> Result:
            def run(url: str) -> Run:
                return Run(tmp_path / host.executable, url, server("auto"))

            # Nobody calls before all are connected, nobody leaves before all have called.
            call = Call(tool, arguments(host), before=lambda: connected.arrive(host.name))
            try:
                return result_through(host, run, call, lambda: done.arrive(host.name))
            finally:
                connected.call_off()
                done.call_off()

        with ThreadPoolExecutor(len(HOSTS)) as pool:
            results = list(pool.map(one, HOSTS))
        assert not connected.awaited
        assert not done.awaited
        return results

    texts = {host.name: f"{host.name} has the code word {WORDS[host.name]}." for host in HOSTS}
    stored = all_at_once("archival_memory_insert", lambda host: {"content": texts[host.name]})
    assert all(result.has("created") for result in stored)

    found = all_at_once("archival_memory_search", lambda _: {"query": "code word"})
    for result in found:
        assert [text for text in texts.values() if not result.has(text)] == []
