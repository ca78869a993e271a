"""Commands while clients are connected, and what the thin process of a client is made of."""

from __future__ import annotations

import json
import subprocess

import pytest
from processes import command, environment
from talker import UPDATED, Household, program

from mcp_memory.owner.client import exclusive
from mcp_memory.owner.wire import RETRY_CODE
from mcp_memory.settings import load_settings

pytestmark = pytest.mark.slow

SEE_MODULES = """
import sys
before = set(sys.modules)
from mcp_memory.__main__ import main
sys.argv = ["mcp-memory"]
try:
    main()
finally:
    print(*sorted(set(sys.modules) - before), file=sys.stderr)
"""
HEAVY = frozenset(
    {
        *("anyio", "asyncio", "click", "dataclasses", "duckdb", "filelock", "httpx", "mcp"),
        *("numpy", "platformdirs", "pydantic", "subprocess", "tempfile", "typing"),
    }
)
SHORT_TRIED = """
import mcp_memory.owner.connect as connect
connect.reach.__kwdefaults__["seconds"] = 2.0
"""


def test_the_process_that_a_client_starts_imports_next_to_nothing(house: Household):
    house.client()
    done = subprocess.run(
        [*program("unused")[:1], "-c", SEE_MODULES],
        env=environment(house.home, **house.settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == ""
    modules = done.stderr.split()
    # The check can fail: it sees what is imported.
    assert "mcp_memory.owner.shim" in modules
    assert not HEAVY & {module.partition(".")[0] for module in modules}


def test_a_block_is_set_through_the_owner_and_its_clients_hear_of_it(house: Household):
    client = house.client()
    client.watch()
    done = command(house.home, "block", "set", "human", "Name: Ana", **house.settings)
    assert done.returncode == 0, done.stderr
    client.wait_for(UPDATED)
    assert "Name: Ana" in str(client.call("core_memory_view"))
    seen = command(house.home, "status", "--json", **house.settings)
    assert json.loads(seen.stdout)["owner"]["state"] == "running"
    assert len(json.loads(seen.stdout)["clients"]) == 1
    assert house.owners() == [house.pid()]


def test_a_block_is_set_without_an_owner_and_none_is_left(house: Household):
    done = command(house.home, "block", "set", "human", "Name: Ana", **house.settings)
    assert done.returncode == 0, done.stderr
    assert house.processes() == []
    assert "Name: Ana" in str(house.client().call("core_memory_view"))


def test_a_command_that_needs_the_database_alone_gets_it_and_clients_wait(house: Household):
    client = house.client()
    client.call("core_memory_append", label="human", content="said before")
    pid = house.pid()
    with exclusive(load_settings(db=house.places.db), "reembed"):
        assert house.owners() == []
        number = client.begin("core_memory_view")
        late = house.start()
    assert "said before" in str(client.answer(number))
    late.greet()
    assert house.pid() != pid


def test_a_client_that_waits_too_long_for_a_command_gets_the_reason_and_goes_on(house: Household):
    client = house.client(prelude=SHORT_TRIED)
    client.watch()
    with exclusive(load_settings(db=house.places.db), "reembed"):
        error = client.answer(client.begin("core_memory_view"))["error"]
        assert error["code"] == RETRY_CODE
        assert error["data"] == {"retryable": True}
        assert "reembed" in error["message"]
    client.call("core_memory_append", label="human", content="said after")
    client.wait_for(UPDATED)
