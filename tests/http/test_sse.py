"""The older SSE transport, for several users."""

from __future__ import annotations

import pytest
from sites import INITIALIZE, call, found, insert, listening, sse_endpoint

pytestmark = pytest.mark.anyio


async def test_two_tokens_see_only_their_own_agents(servers):
    async with listening(servers, transport="sse") as site:
        ana, ben = await site.token("ana"), await site.token("ben")
        async with site.client(ana) as one, site.client(ben) as other:
            await insert(one, "Ana keeps bees")
            await insert(other, "Ben keeps goats")
            assert await found(one) == ["Ana keeps bees"]
            assert await found(other) == ["Ben keeps goats"]


async def test_a_session_takes_no_message_of_another_token(servers):
    async with listening(servers, transport="sse") as site:
        one, other = await site.token("ana"), await site.token("ana")
        async with site.raw(one) as mine, mine.stream("GET", "/sse") as stream:
            lines = stream.aiter_lines()
            path = await sse_endpoint(lines)
            async with site.raw(other) as theirs:
                assert (await theirs.post(path, json=INITIALIZE)).status_code == 404
            async with site.raw() as nobody:
                assert (await nobody.post(path, json=INITIALIZE)).status_code == 401
                assert (await nobody.get("/sse")).status_code == 401
            assert (await mine.post(path, json=INITIALIZE)).status_code == 202


async def test_a_writing_tool_with_a_token_that_reads_is_answered_403(servers):
    async with listening(servers, transport="sse") as site:
        token = await site.token("ana", "read")
        async with site.raw(token) as http, http.stream("GET", "/sse") as stream:
            lines = stream.aiter_lines()
            path = await sse_endpoint(lines)
            await http.post(path, json=INITIALIZE)
            message = call("archival_memory_insert", content="smuggled")
            refused = await http.post(path, json=message)
            assert refused.status_code == 403
            assert 'scope="write"' in refused.headers["www-authenticate"]
            assert "oauth-protected-resource/sse" in refused.headers["www-authenticate"]


async def test_a_revoked_token_ends_its_stream(servers):
    async with listening(servers, transport="sse") as site:
        made = await site.op("token.create", agent="ana")
        async with site.raw(made["token"]) as http, http.stream("GET", "/sse") as stream:
            lines = stream.aiter_lines()
            path = await sse_endpoint(lines)
            await site.op("token.revoke", id=made["id"])
            async for _ in lines:
                pass
            assert (await http.post(path, json=INITIALIZE)).status_code == 401


async def test_behind_a_proxy_messages_go_to_the_path_that_it_has(servers):
    async with listening(
        servers,
        transport="sse",
        issuer="https://id.example.org",
        public_url="https://example.org/memory",
    ) as site:
        token = await site.token("ana")
        async with site.raw(token) as http, http.stream("GET", "/sse") as stream:
            assert (await sse_endpoint(stream.aiter_lines())).startswith(
                "/memory/messages/?session_id="
            )


async def test_only_get_opens_a_stream(servers):
    async with listening(servers, transport="sse") as site, site.raw() as http:
        assert (await http.post("/sse", json=INITIALIZE)).status_code == 405
        assert (await http.get("/messages/")).status_code == 405
