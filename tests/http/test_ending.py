"""How it ends: what is being answered is answered, streams are cut, nothing hangs."""

from __future__ import annotations

import json
import signal
import sys
import threading
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.to_thread
import httpx
import pytest
from fakes import HashEmbedder
from processes import command, listening_url, raw_server
from sites import ACCEPT, INITIALIZE, bearer, call, listening, session, sse_session

from mcp_memory.http.listen import listen
from mcp_memory.http.options import HttpOptions

pytestmark = pytest.mark.anyio


class Waiting(HashEmbedder):
    """A model that is asked and takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def embed_passages(self, texts, *, urgent=True):
        self.asked.set()
        assert self.go_on.wait(20)
        return super().embed_passages(texts)


@pytest.fixture
def waiting(servers):
    embedder = Waiting()
    servers.memories().engine.use(embedder)
    yield embedder
    embedder.go_on.set()


async def test_a_request_in_flight_is_answered_before_the_end(waiting, servers):
    answers = []
    async with listening(servers) as site, site.raw() as http:
        headers = {"Mcp-Session-Id": await session(http)}

        async def store():
            message = call("archival_memory_insert", content="just in time")
            answers.append(await http.post("/mcp", json=message, headers=headers))

        async with anyio.create_task_group() as group:
            group.start_soon(store)
            await anyio.to_thread.run_sync(waiting.asked.wait, 20)
            site.stop.set()
            # It takes nobody new by now, and the request is still waited for.
            with anyio.fail_after(10):
                while True:
                    try:
                        async with site.raw() as other:
                            await other.get("/healthz")
                    except httpx.ConnectError:
                        break
                    except (httpx.RemoteProtocolError, httpx.ReadError):
                        pass  # It came in the very moment in which the listener was closed.
                    await anyio.sleep(0.02)
            assert not answers
            waiting.go_on.set()
    assert answers[0].status_code == 200
    assert servers.memories().open("default").archive.count() == 1


async def test_a_call_over_sse_is_answered_before_the_stream_is_cut(waiting, servers):
    async with (
        listening(servers, transport="sse") as site,
        site.raw() as http,
        http.stream("GET", "/sse") as stream,
    ):
        lines = stream.aiter_lines()
        path = await sse_session(http, lines)
        message = call("archival_memory_insert", content="just in time")
        assert (await http.post(path, json=message)).status_code == 202
        await anyio.to_thread.run_sync(waiting.asked.wait, 20)
        site.stop.set()
        threading.Timer(0.5, waiting.go_on.set).start()
        answers = [line async for line in lines if '"id":2' in line]
    assert '"isError":false' in answers[0]
    assert servers.memories().open("default").archive.count() == 1


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_open_streams_do_not_keep_it_from_ending(transport, servers):
    async with listening(servers, transport=transport) as site, site.raw() as http:
        path = "/sse"
        headers = {}
        if transport == "http":
            path = "/mcp"
            headers = {"Mcp-Session-Id": await session(http)}
        async with http.stream("GET", path, headers=headers) as stream:
            assert stream.status_code == 200
            site.stop.set()
            # Well before the grace that a request would have.
            with anyio.fail_after(4):
                async for _ in stream.aiter_raw():
                    pass


async def test_a_caller_that_is_cancelled_ends_the_listener_too(servers):
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            url = await group.start(
                partial(listen, servers, HttpOptions(port=0, no_auth=True), stop=anyio.Event())
            )
            async with httpx.AsyncClient(headers=ACCEPT, trust_env=False) as http:
                assert (await http.post(url, json=INITIALIZE)).status_code == 200
            group.cancel_scope.cancel()


@asynccontextmanager
async def half_sent(url, headers, message):
    """Send the head of a request and wait until the server reads its body.

    Gives a function that sends the body and returns all of the answer.
    """
    body = json.dumps(message).encode()
    place = httpx.URL(url)
    lines = [f"POST {place.path} HTTP/1.1", f"Host: {place.netloc.decode()}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += ["Connection: close", "Expect: 100-continue", "", ""]
    assert place.port is not None
    async with await anyio.connect_tcp(place.host, place.port) as stream:
        await stream.send("\r\n".join(lines).encode())
        assert (await stream.receive()).startswith(b"HTTP/1.1 100 ")

        async def finish():
            await stream.send(body)
            return b"".join([part async for part in stream]).decode()

        yield finish


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to handle there")
@pytest.mark.parametrize("transport", ["http", "sse"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_with_status_0(number, transport, tmp_path):
    """With a session, a stream and a request that is being answered."""
    made = await anyio.to_thread.run_sync(
        partial(command, tmp_path, "token", "create", "--agent", "ana")
    )
    token = made.stdout.strip()
    arguments = ("serve", "--transport", transport, "--port", "0")
    with raw_server(tmp_path, *arguments) as server:
        url = await anyio.to_thread.run_sync(listening_url, server)
        headers = {**ACCEPT, **bearer(token)}
        base = url.rpartition("/")[0]
        message = call("archival_memory_insert", content="just in time")
        answers = []
        async with httpx.AsyncClient(
            base_url=base, headers=headers, trust_env=False, timeout=60
        ) as http:
            if transport == "http":
                numbered = {"Mcp-Session-Id": await session(http)}
                async with (
                    http.stream("GET", "/mcp", headers=numbered),
                    half_sent(url, headers | numbered, message) as finish,
                ):
                    server.process.send_signal(number)
                    answers.append(await finish())
                    status = await anyio.to_thread.run_sync(partial(server.process.wait, 20))
            else:
                async with http.stream("GET", "/sse") as stream:
                    lines = stream.aiter_lines()
                    path = await sse_session(http, lines)
                    await http.post(path, json=message)
                    server.process.send_signal(number)
                    answers += [line async for line in lines if '"id":2' in line]
                    status = await anyio.to_thread.run_sync(partial(server.process.wait, 20))
        assert status == 0
        assert '"isError":false' in answers[0]
        assert "Traceback" not in "".join(server.errors)
