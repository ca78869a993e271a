"""What is too much, from elsewhere or in the wrong name: 413, 421, 403, 429, 503."""

from __future__ import annotations

import anyio
import pytest
from sites import INITIALIZE, listening, session

from mcp_memory.http.tenants import Rate

pytestmark = pytest.mark.anyio

NO_SESSION = 'mcp_memory_sessions{transport="http"} 0.0'


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1", "[::1]", "[::1]:80"])
async def test_every_name_of_this_machine_is_taken_as_a_host(host, servers):
    async with listening(servers) as site, site.raw(Host=host) as http:
        assert (await http.post("/mcp", json=INITIALIZE)).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil", "x:1"]
)
async def test_another_host_is_misdirected(host, servers):
    async with listening(servers) as site, site.raw(Host=host) as http:
        assert (await http.post("/mcp", json=INITIALIZE)).status_code == 421
        assert (await http.get("/metrics")).status_code == 421
        # A probe knows the machine by whatever address it has.
        assert (await http.get("/healthz")).status_code == 200


async def test_a_web_page_from_elsewhere_is_refused(servers):
    async with listening(servers) as site:
        async with site.raw(Origin="https://evil.example") as http:
            assert (await http.post("/mcp", json=INITIALIZE)).status_code == 403
        async with site.raw(Origin="http://localhost:6274") as http:
            assert (await http.post("/mcp", json=INITIALIZE)).status_code == 200


async def test_a_web_page_that_is_allowed_gets_the_headers_of_cors(servers):
    origin = "https://app.example"
    async with (
        listening(servers, allowed_origins=(origin,)) as site,
        site.raw(Origin=origin) as http,
    ):
        asked = await http.options(
            "/mcp",
            headers={
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization, mcp-protocol-version",
            },
        )
        assert asked.headers["access-control-allow-origin"] == origin
        answer = await http.post("/mcp", json=INITIALIZE)
        assert answer.status_code == 200
        assert "mcp-session-id" in answer.headers["access-control-expose-headers"].lower()


@pytest.mark.parametrize("scope", ["read", "write"])
async def test_a_body_over_the_limit_is_too_large(scope, servers):
    async with listening(servers, max_body_bytes=2_000) as site:
        token = await site.token(scope=scope)
        async with site.raw(token) as http:
            assert (await http.post("/mcp", json=INITIALIZE)).status_code == 200
            declared = await http.post("/mcp", content=b"x" * 2_001)
            assert declared.status_code == 413

            async def chunks():
                for _ in range(30):
                    yield b"x" * 100

            headers = {"Content-Type": "application/json"}
            assert (await http.post("/mcp", content=chunks(), headers=headers)).status_code == 413


async def test_too_many_requests_of_one_token_are_told_when_to_come_again(servers):
    async with listening(servers, requests_per_minute=5) as site:
        one, other = await site.token("ana"), await site.token("ana")
        async with site.raw(one) as http:
            statuses = [(await http.post("/mcp", json=INITIALIZE)).status_code for _ in range(5)]
            assert statuses == [200] * 5
            answer = await http.post("/mcp", json=INITIALIZE)
            assert answer.status_code == 429
            assert 1 <= int(answer.headers["retry-after"]) <= 12
        async with site.raw(other) as http:
            assert (await http.post("/mcp", json=INITIALIZE)).status_code == 200


async def test_a_token_has_so_many_sessions_and_no_more(servers):
    async with listening(servers, sessions_per_token=2) as site:
        one, other = await site.token("ana"), await site.token("ben")
        async with site.raw(one) as http:
            first = await session(http)
            await session(http)
            assert (await http.post("/mcp", json=INITIALIZE)).status_code == 503
            assert (await http.delete("/mcp", headers={"Mcp-Session-Id": first})).status_code == 200
            assert (await http.post("/mcp", json=INITIALIZE)).status_code == 200
        async with site.raw(other) as http:
            assert (await http.post("/mcp", json=INITIALIZE)).status_code == 200


async def test_a_token_has_so_many_sse_streams_and_no_more(servers):
    async with listening(servers, transport="sse", sessions_per_token=1) as site:
        token = await site.token("ana")
        async with site.raw(token) as http:
            async with http.stream("GET", "/sse") as first:
                assert first.status_code == 200
                assert (await http.get("/sse")).status_code == 503
            with anyio.fail_after(10):
                while True:
                    async with http.stream("GET", "/sse") as again:
                        if again.status_code == 200:
                            break
                    await anyio.sleep(0.05)


async def test_a_session_that_is_idle_ends_with_all_that_the_caller_had(servers):
    async with listening(servers, session_idle_seconds=0.1) as site:
        one, observer = await site.token("ana"), await site.token("ops", scope="admin")
        async with site.raw(one) as http, site.raw(observer) as probe:
            number = await session(http)
            # The figures are no use of the session, which another request would prolong.
            with anyio.fail_after(20):
                while NO_SESSION not in (await probe.get("/metrics")).text:
                    pass
            listed = {"jsonrpc": "2.0", "id": 5, "method": "tools/list"}
            headers = {"Mcp-Session-Id": number}
            answer = await http.post("/mcp", json=listed, headers=headers)
            assert answer.status_code == 404
            assert await session(http) != number


def test_a_rate_takes_its_number_at_once_and_then_evenly():
    rate = Rate(per_minute=6)
    assert [rate.wait_seconds(100.0) for _ in range(6)] == [0.0] * 6
    assert rate.wait_seconds(100.0) == pytest.approx(10.0)
    # What has to wait is not counted: the wait grows no longer.
    assert rate.wait_seconds(105.0) == pytest.approx(5.0)
    assert rate.wait_seconds(110.0) == 0.0
    assert rate.wait_seconds(110.0) == pytest.approx(10.0)
    assert [rate.wait_seconds(500.0) for _ in range(7)][:6] == [0.0] * 6
