"""A client's first requests are answered before there is an owner, from what the last one left."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from processes import environment
from talker import ERAS, LEGACY, MODERN, Household, Talker, content_of, owners_with, until

from mcp_memory.owner import answers
from mcp_memory.owner.answers import LISTS, Answers, minimal_result
from mcp_memory.owner.locks import ProcessLock
from mcp_memory.owner.places import Places
from mcp_memory.values.locations import own_settings

pytestmark = pytest.mark.slow

TURN = {"role": "user", "content": "hello"}

Json = dict[str, Any]


def kept(house: Household) -> list[Path]:
    return sorted(Path(house.places.folder).glob("answers-*"))


def first_run(house: Household, text: str = "Name: Ana", **settings: str) -> None:
    """Store in core memory, and wait until the owner has left what the next start needs."""
    before = len(kept(house))
    client = house.client(**settings)
    client.call("core_memory_append", label="human", content=text)
    until(lambda: len(kept(house)) > before, "the kept answers")
    assert client.end() == 0
    _end_owner(house)


def _end_owner(house: Household) -> None:
    house.end_owner()
    until(lambda: not house.owners(), "the end of the owner")


@pytest.fixture
def no_owner(house: Household):
    """Nobody can become the owner while the test runs, unless it lets go."""
    election = ProcessLock(house.places.election)
    house.places.make()
    yield election
    election.release()


def hello(client: Talker, version: str = LEGACY) -> Json:
    return client.ask(
        "initialize",
        {
            "protocolVersion": version,
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    )


@pytest.mark.parametrize("era", ERAS)
def test_the_first_requests_are_answered_with_core_memory_before_there_is_an_owner(
    house: Household, no_owner: ProcessLock, era: str
):
    first_run(house)
    assert no_owner.acquire()
    client = house.start(era=era)
    assert "Name: Ana" in client.greet()["instructions"]
    lists = {method: client.ask(method) for method in LISTS}
    assert "core_memory_append" in json.dumps(lists["tools/list"])
    assert house.owners() == []
    # Everything else waits for an owner.
    numbers = [client.begin("conversation_append", messages=[TURN]) for _ in range(5)]
    assert not any(client.answers(number) for number in numbers)
    no_owner.release()
    for number in numbers:
        content_of(client.answer(number))
    # The owner says the same, so there is nothing to notify of.
    assert {method: client.ask(method) for method in LISTS} == lists
    assert not any("list_changed" in str(message.get("method")) for message in client.messages)


@pytest.mark.parametrize("version", [*HANDSHAKE_PROTOCOL_VERSIONS, "1999-01-01"])
def test_what_is_kept_is_what_the_owner_answers_in_each_version_of_the_handshake(
    house: Household, version: str
):
    fresh = house.start()
    said = hello(fresh, version)
    fresh.notify("notifications/initialized")
    lists = {method: fresh.ask(method) for method in LISTS}
    fresh.call("core_memory_view")
    until(lambda: bool(kept(house)), "the kept answers")
    fresh.end()
    _end_owner(house)
    early = house.start()
    assert hello(early, version).keys() == said.keys()
    early.notify("notifications/initialized")
    assert {method: early.ask(method) for method in LISTS} == lists


def test_core_memory_is_the_newest_that_was_acknowledged_and_nothing_erased_is_shown(
    house: Household,
):
    first_run(house, "a secret")
    client = house.client()
    client.call("core_memory_replace", label="human", old_content="a secret", new_content="new")
    house.kill_owner()
    client.kill()
    said = hello(house.start())["instructions"]
    assert "a secret" not in said
    assert "new" in said


def test_after_a_death_in_the_middle_of_a_change_no_older_core_memory_is_shown(house: Household):
    first_run(house, "before")
    # The process dies when the change is durable, and before the copy is written again.
    owner = house.owner(
        "import os, mcp_memory.agent.blocks as blocks\n"
        "def write(path, agent, core):\n"
        "    'after' in core and os._exit(9)\n"
        "blocks.write_snapshot = write"
    )
    client = house.client()
    client.begin("core_memory_replace", label="human", old_content="before", new_content="after")
    owner.wait(timeout=60)
    client.kill()
    said = hello(house.start())["instructions"]
    assert "before" not in said
    assert "after" in said


def test_another_agent_never_sees_core_memory_of_this_one(house: Household):
    first_run(house, "of the default agent")
    first_run(house, "of the other", agent="other")
    for agent, own, foreign in (
        ("other", "of the other", "of the default agent"),
        ("default", "of the default agent", "of the other"),
        ("third", "human", "of the other"),
    ):
        said = hello(house.start(agent=agent))["instructions"]
        assert own in said
        assert foreign not in said


def test_shared_blocks_are_shown_as_the_owner_shows_them(house: Household):
    shared = {"shared_blocks": "team"}
    client = house.client(**shared)
    client.call("rethink_memory", label="team", new_memory="tabs", description="Our style")
    until(lambda: bool(kept(house)), "the kept answers")
    client.end()
    _end_owner(house)
    assert "tabs" in hello(house.start(**shared))["instructions"]


@pytest.mark.parametrize("harm", ["cut", "other version", "another file", "empty", "garbage"])
def test_a_kept_file_that_is_not_right_is_ignored(house: Household, harm: str):
    first_run(house)
    (path,) = kept(house)
    content = path.read_bytes()
    if harm == "another file":
        first_run(house, agent="other")
        other = next(each for each in kept(house) if each != path)
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(
            {
                "cut": content[:-10],
                "other version": content.replace(b"tools/list ", b"tools/lost "),
                "empty": b"",
                "garbage": os.urandom(3_000),
            }[harm]
        )
    client = house.client()
    assert len(client.ask("tools/list")["tools"]) > 10
    assert "Name: Ana" in hello(house.start())["instructions"]


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_a_kept_file_that_others_may_write_is_ignored(house: Household):
    first_run(house)
    (path,) = kept(house)
    assert path.stat().st_mode & 0o077 == 0
    settings = own_settings(environment(house.home, **house.settings))
    params: Json = {
        "protocolVersion": LEGACY,
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    assert Answers(house.places, settings).result("initialize", params) is not None
    path.chmod(0o666)
    assert Answers(house.places, settings).result("initialize", params) is None


OTHER_TOOLS = """
import sys, mcp_memory.server.tools as tools
tools.TOOLS.pop("context_budget")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a script can't stand for a program there")
@pytest.mark.parametrize("era", ERAS)
def test_a_client_is_told_if_the_owner_lists_other_tools(
    house: Household, tmp_path: Path, era: str
):
    first_run(house)
    client = house.start(era=era, prelude=owners_with(OTHER_TOOLS, tmp_path))
    client.greet()
    assert "context_budget" in str(client.ask("tools/list"))
    if era == MODERN:
        client.request("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    client.wait_for("notifications/tools/list_changed")
    assert "context_budget" not in str(client.ask("tools/list"))
    assert client.heard("notifications/prompts/list_changed") == 0


def test_the_versions_that_a_client_is_offered_without_an_owner_are_those_of_the_server():
    assert answers.HANDSHAKE_VERSIONS == HANDSHAKE_PROTOCOL_VERSIONS
    assert answers.MODERN_VERSIONS == MODERN_PROTOCOL_VERSIONS
    for version in (*HANDSHAKE_PROTOCOL_VERSIONS, "1999-01-01", None):
        said = minimal_result("initialize", {"protocolVersion": version}, "why")
        assert said["protocolVersion"] in HANDSHAKE_PROTOCOL_VERSIONS
        assert "why" in str(said["instructions"])


def test_only_the_newest_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answers, "_MAX_FILES", 3)
    places = Places(str(tmp_path / "memory.duckdb"))
    places.make()
    for number in range(6):
        answers.keep_answers(places, {"MCP_MEMORY_AGENT": str(number)}, {}, [])
        newest = Path(places.folder) / max(
            os.listdir(places.folder), key=lambda name: os.stat(f"{places.folder}/{name}").st_mtime
        )
        os.utime(newest, (number, number))
    assert len(os.listdir(places.folder)) <= 4
