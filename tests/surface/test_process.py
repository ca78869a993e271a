"""The server as a process of its own, over real pipes and sockets."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest
from mcp import Client
from mcp.client.sse import sse_client
from processes import HEAVY, command, environment, listening_url, raw_server, stdio

from mcp_memory.cli.schemas import schema_files
from mcp_memory.settings import Settings

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

_SEE_MODULES = """
import sys, anyio
from mcp import Client
from mcp_memory.settings import load_settings
from mcp_memory.owner import process  # What the owner is made of brings nothing heavy either.
from mcp_memory.server.servers import Servers

async def main():
    servers = Servers(load_settings())
    server = servers.server()
    async with Client(server, mode=sys.argv[1]) as client:
        await client.list_tools()
        print([name for name in sys.argv[2:] if name in sys.modules])
        await client.call_tool("core_memory_view", {})
        print([name for name in sys.argv[2:] if name in sys.modules])
    servers.close()

anyio.run(main)
"""


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_the_handshake_is_answered_before_anything_heavy_is_imported(mode, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _SEE_MODULES, mode, *HEAVY],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    before, after = done.stdout.splitlines()
    assert before == "[]"
    # The check can fail: a call that needs the database does import it.
    assert "duckdb" in after


def test_core_memory_of_the_last_run_is_in_the_first_instructions(tmp_path):
    with raw_server(tmp_path) as first:
        first.initialize()
        first.tool("core_memory_append", {"label": "human", "content": "Name: Ana"})
        first.kill()
    with raw_server(tmp_path) as second:
        assert "Name: Ana" in second.initialize()["instructions"]


def test_stdout_carries_messages_and_nothing_else(tmp_path):
    with raw_server(tmp_path, log_level="debug") as server:
        server.initialize()
        server.tool("archival_memory_insert", {"content": "x"})
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.stdout is not None
        for line in server.process.stdout:
            assert json.loads(line)["jsonrpc"] == "2.0"
        assert server.process.wait(timeout=20) == 0


def test_calls_in_flight_when_the_client_ends_are_answered_first(tmp_path):
    with raw_server(tmp_path) as server:
        server.initialize()
        for number in range(20):
            arguments = {"content": f"A text of call {number}, and of no other."}
            call = {"name": "archival_memory_insert", "arguments": arguments}
            request = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call}
            server.send(json.dumps(request).encode())
        server.process.stdin.close()
        answers = [json.loads(line) for line in server.process.stdout]
        assert server.process.wait(timeout=60) == 0
    stored = {answer["id"]: answer["result"] for answer in answers}
    assert sorted(stored) == list(range(20))
    assert not any(result.get("isError") for result in stored.values())


def test_a_line_without_an_owner_has_the_limits_of_one_with_it(tmp_path):
    with raw_server(tmp_path) as server:
        server.initialize()
        server.send(b'{"jsonrpc":"2.0","id":4,"method":"x","a":[' + b"[]," * 200_000 + b"1]}")
        assert "more than 100,000 values" in server.answer(4)["error"]["message"]
        server.send(b'{"jsonrpc":"2.0","id":5,"method":"x","a":"' + b"x" * 80_000_000 + b'"}')
        assert "longer than" in server.answer(5)["error"]["message"]
        assert not server.tool("core_memory_view", {}, 6).get("isError")


@pytest.mark.parametrize("owner", ["", "off"])
def test_a_host_that_filled_in_no_setting_is_served_with_the_defaults(tmp_path, owner):
    """Each placeholder is one line on stderr, an empty value none; the handshake is answered."""
    empty = dict.fromkeys(Settings.model_fields, "")
    given = dict.fromkeys(Settings.model_fields, "${user_config.it}")
    kept = {"offline": "1", "owner_idle_seconds": "0", "owner": owner}
    for settings, lines in ((empty, 0), (given, len(given) - len(kept))):
        with raw_server(tmp_path, **settings | kept) as server:
            assert "core_memory" in server.initialize()["instructions"]
            stored = server.tool("archival_memory_insert", {"content": "Tea is in the cupboard"})
            assert not stored.get("isError"), stored
            assert server.end() == 0
            assert sum("was not filled in" in line for line in server.errors) == lines
    assert list(tmp_path.glob("**/memory.duckdb"))


def test_a_line_that_is_no_message_is_answered(tmp_path):
    with raw_server(tmp_path) as server:
        server.initialize()
        server.send(
            b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":'
            b'"archival_memory_insert","arguments":{"content":"half \\ud83d pair"}}}'
        )
        error = server.answer(7)["error"]
        assert error["code"] == -32700
        assert "surrogate" in error["message"]
        server.send(b"this is no JSON")
        listed = server.tool("archival_memory_search", {}, number=8)
        assert listed["structuredContent"]["total"] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to handle there")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number, tmp_path):
    with raw_server(tmp_path) as server:
        server.initialize()
        server.tool("archival_memory_insert", {"content": "stored"})
        server.process.send_signal(number)
        assert server.process.wait(timeout=20) == 0
    with raw_server(tmp_path) as again:
        again.initialize()
        found = again.tool("archival_memory_search", {"query": "stored"})
        assert found["structuredContent"]["total"] == 1


def test_a_database_in_use_is_named_with_the_process_that_holds_it(tmp_path):
    with raw_server(tmp_path) as first, raw_server(tmp_path) as second:
        first.initialize()
        first.tool("core_memory_view", {})
        second.initialize()
        refused = second.tool("core_memory_view", {})
        assert refused["isError"]
        assert f"process {first.process.pid}" in refused["content"][0]["text"]
        assert "MCP_MEMORY_DB" in refused["content"][0]["text"]
        first.kill()
        # Once the other one is gone the next call works.
        assert not second.tool("core_memory_view", {}, number=3).get("isError")


async def test_twenty_calls_in_flight_are_twenty_memories(tmp_path):
    async with stdio(tmp_path) as client:
        ids: list[str] = []

        async def insert(number: int) -> None:
            result = await client.call_tool(
                "archival_memory_insert", {"content": f"parallel note {number}"}
            )
            assert not result.is_error
            ids.append(result.structured_content["id"])

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(insert, number)
        assert len(set(ids)) == 20
        listed = await client.call_tool("archival_memory_search", {"top_k": 50})
        assert {hit["id"] for hit in listed.structured_content["results"]} == set(ids)


@pytest.mark.timeout(600)
def test_every_acknowledged_write_survives_thirty_kills(tmp_path):
    """SIGKILL while several writes are under way, thirty times."""
    acknowledged: set[str] = set()
    with ExitStack() as servers:
        # The next one starts meanwhile; before the handshake it opens no database.
        coming = servers.enter_context(raw_server(tmp_path))
        for turn in range(30):
            server, coming = coming, servers.enter_context(raw_server(tmp_path))
            server.initialize()
            for number in range(12):
                params = {
                    "name": "archival_memory_insert",
                    "arguments": {"content": f"turn {turn} note {number}"},
                }
                request = {
                    "jsonrpc": "2.0",
                    "id": 100 + number,
                    "method": "tools/call",
                    "params": params,
                }
                server.send(json.dumps(request).encode())
            assert server.process.stdout is not None
            for _ in range(1 + turn % 8):
                answer = json.loads(server.process.stdout.readline())
                acknowledged.add(answer["result"]["structuredContent"]["id"])
            server.kill()
    found_ids: set[str] = set()
    with raw_server(tmp_path, max_reply_tokens=100_000) as server:
        server.initialize()
        cursor = None
        while True:
            page = server.tool("archival_memory_search", {"top_k": 50, "cursor": cursor})
            found_ids |= {hit["id"] for hit in page["structuredContent"]["results"]}
            cursor = page["structuredContent"].get("next_cursor")
            if cursor is None:
                break
    assert len(acknowledged) >= 30
    assert acknowledged <= found_ids


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_streamable_http_serves_both_eras(mode, tmp_path):
    with raw_server(tmp_path, "serve", "--transport", "http", "--port", "0") as server:
        url = await anyio.to_thread.run_sync(listening_url, server)
        async with Client(url, mode=mode) as client:
            assert len((await client.list_tools()).tools) == 15
            await client.call_tool("archival_memory_insert", {"content": "over http"})
        async with Client(url, mode=mode) as client:
            found = await client.call_tool("archival_memory_search", {"query": "http"})
            assert found.structured_content["total"] == 1
        server.process.terminate()
        assert server.process.wait(timeout=20) == 0


async def test_sse_serves_older_clients(tmp_path):
    with raw_server(tmp_path, "serve", "--transport", "sse", "--port", "0") as server:
        url = await anyio.to_thread.run_sync(listening_url, server)
        async with Client(sse_client(url), mode="legacy") as client:
            await client.call_tool("archival_memory_insert", {"content": "over sse"})
            found = await client.call_tool("archival_memory_search", {"query": "sse"})
            assert found.structured_content["total"] == 1


def test_other_than_loopback_addresses_are_refused(tmp_path):
    done = command(tmp_path, "serve", "--transport", "http", "--host", "0.0.0.0", "--port", "0")  # noqa: S104 - refused is what is tested
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line.startswith("mcp-memory: ")]
    assert len(said) == 1
    assert "not a loopback address" in said[0]
    assert "token create" in said[0]
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_one_line_and_status_2(tmp_path):
    done = command(tmp_path, "serve", warn_at="much")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "MCP_MEMORY_WARN_AT" in done.stderr
    assert done.stdout == ""


def test_schemas_and_tables_are_what_the_server_announces(tmp_path):
    root = Path(__file__).parents[2]
    done = command(tmp_path, "schemas", "--check", "--root", str(root))
    assert done.returncode == 0, done.stderr


def test_a_schema_that_has_drifted_is_found(tmp_path):
    folder = tmp_path / "schemas"
    folder.mkdir()
    for name, text in schema_files().items():
        (folder / name).write_text(text, "utf-8")
    assert command(tmp_path, "schemas", "--check", "--root", str(tmp_path)).returncode == 0
    (folder / "tools.json").write_text("{}", "utf-8")
    done = command(tmp_path, "schemas", "--check", "--root", str(tmp_path))
    assert done.returncode == 1
    assert "tools.json" in done.stderr


def test_help_names_the_commands_and_settings(tmp_path):
    for arguments in (["--help"], ["serve", "--help"], ["block", "--help"], ["reembed", "--help"]):
        done = command(tmp_path, *arguments)
        assert done.returncode == 0
        assert "Usage: mcp-memory" in done.stdout


def test_blocks_are_set_and_listed_from_the_outside(tmp_path):
    done = command(tmp_path, "block", "set", "rules", "Be kind.", "--read-only", "--limit", "50")
    assert done.stdout == "block rules: 3 of 50 tokens, read-only\n"
    listed = command(tmp_path, "block", "list").stdout
    assert 'label="rules"' in listed
    assert 'read_only="true"' in listed
    over = command(tmp_path, "block", "set", "rules", "word " * 60)
    assert over.returncode == 1
    assert "over the limit of 50 tokens by" in over.stderr
