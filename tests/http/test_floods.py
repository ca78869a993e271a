"""What one client does to the connections of a listener does not stop the others."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import sys
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from processes import listening_url, raw_server
from sites import INITIALIZE, call, http_bytes, listening, session

from mcp_memory.http import bodies, connections
from mcp_memory.http.connections import Connections, _Parser
from mcp_memory.server.parsing import MAX_PARTS

pytestmark = pytest.mark.anyio

TYPE = "Content-Type: application/json"
HOST = "Host: localhost"
PATIENCE_SECONDS = 30


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def until_closed(stream: socket.socket) -> bytes:
    """Return all that a server sends until it closes the connection."""

    def read() -> bytes:
        parts = []
        with stream, contextlib.suppress(ConnectionError):
            while part := stream.recv(65_536):
                parts.append(part)
        return b"".join(parts)

    stream.settimeout(PATIENCE_SECONDS)
    return await anyio.to_thread.run_sync(read)


def connect(port: int, said: bytes = b"") -> socket.socket:
    stream = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
    stream.sendall(said)
    return stream


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of open files")
def test_1100_clients_that_say_one_byte_stop_nobody(tmp_path):
    """Without a token; a client over HTTP, and one on stdio that comes meanwhile, are served."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2_000)), hard))
    flood = []
    try:
        with raw_server(tmp_path, "serve", "--transport", "http", "--port", "0") as server:
            url = listening_url(server)
            port = int(url.rsplit(":", 1)[1].split("/")[0])
            flood += [connect(port, b"P") for _ in range(1_100)]
            for _ in range(3):
                health = url.removesuffix("/mcp") + "/healthz"
                assert httpx.get(health, trust_env=False, timeout=10).status_code == 200
            with raw_server(tmp_path, owner="auto") as client:
                assert client.initialize()["serverInfo"]
                assert client.tool("core_memory_view", {})["isError"] is False
            assert len("".join(server.errors)) < 10_000
            server.process.terminate()
            assert server.process.wait(timeout=20) == 0
    finally:
        for stream in flood:
            stream.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_when_all_places_are_taken_who_has_waited_longest_makes_room(servers, monkeypatch):
    monkeypatch.setattr("mcp_memory.http.listen.raise_file_limit", lambda: 8)
    async with listening(servers) as site:
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(connect(site.port, b"G")) for _ in range(4)]
            async with site.raw() as http:
                assert (await http.get("/healthz")).status_code == 200
            assert await until_closed(silent[0]) == b""
            assert silent[-1].send(b"E") == 1


async def test_who_is_being_answered_is_not_replaced(servers, monkeypatch):
    monkeypatch.setattr("mcp_memory.http.listen.raise_file_limit", lambda: 8)
    async with listening(servers) as site, site.raw() as http:
        headers = {"Mcp-Session-Id": await session(http)}
        async with contextlib.AsyncExitStack() as stack:
            streams = [http.stream("GET", "/mcp", headers=headers)]
            other = {"Mcp-Session-Id": await session(http)}
            streams.append(http.stream("GET", "/mcp", headers=other))
            for stream in streams:
                assert (await stack.enter_async_context(stream)).status_code == 200
            # One address has half of the places, and both of them have a request.
            refused = await until_closed(connect(site.port))
            assert status(refused) == 503


async def test_a_head_that_does_not_end_is_not_waited_for(servers, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    async with listening(servers) as site:
        assert status(await until_closed(connect(site.port, b"GET / HTTP/1.1\r\nA"))) == 408
        assert await until_closed(connect(site.port)) == b""


async def test_a_connection_without_a_further_request_is_closed(servers, monkeypatch):
    monkeypatch.setattr(connections, "KEEP_ALIVE_SECONDS", 0.2)
    async with listening(servers) as site:
        request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        answer = await until_closed(connect(site.port, request + request))
        assert answer.count(b"200 OK") == 2


async def test_a_head_without_end_is_refused(servers):
    async with listening(servers) as site:
        head = b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 100_000
        assert status(await until_closed(connect(site.port, head))) == 400


async def test_a_body_that_does_not_come_is_not_waited_for(servers, monkeypatch):
    monkeypatch.setattr(bodies, "READ_SECONDS", 0.2)
    async with listening(servers) as site:
        head = f"POST /mcp HTTP/1.1\r\n{HOST}\r\n{TYPE}\r\nContent-Length: 9\r\n\r\n{{"
        assert status(await until_closed(connect(site.port, head.encode()))) == 408


async def test_a_body_that_nobody_reads_is_thrown_away_and_the_connection_stays(servers):
    """Its sender sees why, also if the body comes after the answer."""
    async with listening(servers) as site:
        await site.token()
        request = http_bytes("/mcp", b"x" * 3_000_000, HOST, TYPE)
        head, end, body = request.replace(b"Connection: close\r\n", b"").partition(b"\r\n\r\n")
        async with await anyio.connect_tcp("127.0.0.1", site.port) as stream:
            await stream.send(head + end)
            with anyio.fail_after(PATIENCE_SECONDS):
                assert status(await stream.receive()) == 401
                await stream.send(body + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                seen = b""
                while b"alive" not in seen:
                    seen += await stream.receive()


async def test_a_body_in_parts_of_one_byte_is_refused(servers):
    async with listening(servers) as site:
        head = f"POST /mcp HTTP/1.1\r\n{HOST}\r\n{TYPE}\r\nTransfer-Encoding: chunked\r\n\r\n"
        stream = connect(site.port, head.encode())
        with contextlib.suppress(ConnectionError):
            stream.sendall(b"1\r\n \r\n" * 200_000)
        assert status(await until_closed(stream)) == 400


async def test_who_does_not_read_its_answers_is_disconnected(servers, monkeypatch):
    monkeypatch.setattr(connections, "READ_SECONDS", 0.2)
    monkeypatch.setattr(connections, "MIN_BYTES_PER_SECOND", 1e9)
    async with listening(servers) as site, site.raw() as http:
        headers = {"Mcp-Session-Id": await session(http)}
        # Requests and answers are more than all buffers hold.
        lines = (HOST, TYPE, f"Mcp-Session-Id: {headers['Mcp-Session-Id']}", f"X: {'x' * 9_000}")
        stream = socket.socket()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stream.connect(("127.0.0.1", site.port))
        stream.settimeout(PATIENCE_SECONDS)
        request = http_bytes("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, *lines)
        request = request.replace(b"Connection: close\r\n", b"")

        def send_without_reading() -> None:
            for _ in range(3_000):
                stream.sendall(request)

        with stream, pytest.raises(ConnectionError):
            await anyio.to_thread.run_sync(send_without_reading)
        assert (await http.get("/healthz")).status_code == 200


async def test_a_body_of_millions_of_values_is_refused_before_it_is_parsed(servers, caplog):
    async with listening(servers) as site, site.raw() as http:
        values = b"[" + b"[]," * 20_000_000 + b"[]]"
        answer = await http.post(
            "/mcp", content=values, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 400
        assert f"{MAX_PARTS:,} values" in answer.json()["error"]["message"]
    assert "Traceback" not in caplog.text


async def test_a_token_that_reads_sends_no_large_bodies(servers):
    async with listening(servers) as site, site.raw(await site.token(scope="read")) as http:
        message = call("archival_memory_search", query="x" * 1_100_000)
        assert (await http.post("/mcp", json=message)).status_code == 413


async def test_large_bodies_of_one_token_are_read_one_at_a_time(servers):
    async with listening(servers, max_body_bytes=1_000_000) as site, site.raw() as http:
        head = f"POST /mcp HTTP/1.1\r\n{HOST}\r\n{TYPE}\r\nContent-Length: 900000\r\n\r\n"
        half = head.encode() + b" " * 600_000
        with connect(site.port, half) as one, connect(site.port, half) as other:
            refused, _, _ = await anyio.to_thread.run_sync(
                select.select, [one, other], [], [], PATIENCE_SECONDS
            )
            answer = await until_closed(refused[0])
            assert status(answer) == 503
            assert b"retry-after" in answer
            # Small ones are not counted.
            assert (await http.post("/mcp", json=INITIALIZE)).status_code == 200


async def test_a_large_body_counts_as_many_requests(servers):
    async with listening(servers, requests_per_minute=10) as site:
        token = await site.token()
        async with site.raw(token) as http:
            headers = {"Mcp-Session-Id": await session(http)}
            message = call("archival_memory_insert", content="z " * 500_000)
            assert (await http.post("/mcp", json=message, headers=headers)).status_code == 200
            again = await http.post("/mcp", json=INITIALIZE)
            assert again.status_code == 429
            assert int(again.headers["retry-after"]) > 30


async def test_a_token_has_so_many_requests_open_and_no_more(servers):
    async with listening(servers, sessions_per_token=2) as site:
        token = await site.token()
        head = (
            f"POST /mcp HTTP/1.1\r\n{HOST}\r\n{TYPE}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Length: 9\r\n\r\n"
        )
        with contextlib.ExitStack() as stack:
            half = [stack.enter_context(connect(site.port, head.encode())) for _ in range(3)]
            refused, _, _ = await anyio.to_thread.run_sync(
                select.select, half, [], [], PATIENCE_SECONDS
            )
            assert b" 503 " in refused[0].recv(65_536)
            async with site.raw(await site.token()) as other:
                assert (await other.post("/mcp", json=INITIALIZE)).status_code == 200


def test_an_address_has_at_most_half_of_the_places():
    places: Any = Connections(4)

    class Silent:
        def __init__(self):
            self.transport = self
            self.is_aborted = False

        def abort(self):
            self.is_aborted = True

    of_one = [Silent() for _ in range(3)]
    assert all(places.admit(item, "2001:db8::1") for item in of_one)
    assert [item.is_aborted for item in of_one] == [True, False, False]
    for item in of_one[1:]:
        places.works(item)
    assert not places.admit(Silent(), "2001:db8::2")
    assert places.admit(Silent(), "192.0.2.1")


def test_the_parts_of_a_body_may_be_small_but_not_all_of_them():
    import h11

    parser = _Parser(h11.SERVER)
    parser.receive_data(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    parser.receive_data(b"40\r\n" + b"x" * 64 + b"\r\n")
    assert isinstance(parser.next_event(), h11.Request)
    assert isinstance(parser.next_event(), h11.Data)
    parser.receive_data(b"1\r\nx\r\n" * 20_000)

    def read_on() -> None:
        while parser.next_event() is not h11.NEED_DATA:
            pass

    with pytest.raises(h11.RemoteProtocolError):
        read_on()
