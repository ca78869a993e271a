"""Who is let in to what: 401, 403, isolation, revocation, expiry."""

from __future__ import annotations

import json
from datetime import timedelta

import anyio
import httpx
import pytest
from mcp.shared.exceptions import MCPError
from sites import ERAS, INITIALIZE, call, found, insert, listening, session

from mcp_memory.http.listen import listen
from mcp_memory.http.options import HttpOptions
from mcp_memory.owner.admin import OPERATIONS
from mcp_memory.values.access import Scope
from mcp_memory.values.dates import now
from mcp_memory.values.errors import SettingsFault

pytestmark = pytest.mark.anyio


async def test_without_tokens_anybody_on_this_machine_has_the_agent_that_is_set(servers):
    async with listening(servers) as site, site.client() as client:
        await insert(client, "open house")
        assert await found(client, "open") == ["open house"]


@pytest.mark.parametrize("mode", ERAS)
async def test_two_tokens_see_only_their_own_agents(mode, servers):
    async with listening(servers) as site:
        ana, ben = await site.token("ana"), await site.token("ben")
        async with site.client(ana, mode) as one, site.client(ben, mode) as other:
            await insert(one, "Ana keeps bees")
            key = await insert(other, "Ben keeps goats")
            assert await found(one) == ["Ana keeps bees"]
            assert await found(other) == ["Ben keeps goats"]
            gone = await one.call_tool("archival_memory_delete", {"id": key})
            assert gone.is_error
            with pytest.raises(MCPError):
                await one.read_resource(f"memory://archival/{key}")


async def test_two_tokens_of_one_agent_share_its_memory_but_no_session(servers):
    async with listening(servers) as site:
        one, other = await site.token("ana"), await site.token("ana")
        async with site.client(one) as first, site.client(other) as second:
            await insert(first, "a shared note")
            assert await found(second) == ["a shared note"]
        async with site.raw(one) as first_http, site.raw(other) as second_http:
            number = await session(first_http)
            listed = {"jsonrpc": "2.0", "id": 5, "method": "tools/list"}
            headers = {"Mcp-Session-Id": number}
            assert (await first_http.post("/mcp", json=listed, headers=headers)).status_code == 200
            stolen = await second_http.post("/mcp", json=listed, headers=headers)
            assert stolen.status_code == 404
            assert (await second_http.delete("/mcp", headers=headers)).status_code == 404
            assert (await first_http.post("/mcp", json=listed, headers=headers)).status_code == 200


async def test_a_change_is_told_to_the_agents_own_clients_and_to_nobody_else(servers):
    news: dict[str, list[str]] = {"ana": [], "ben": []}
    told = anyio.Event()

    async def note(name, stream):
        async for event in stream:
            news[name].append(event.uri)
            told.set()

    async with listening(servers) as site:
        ana, too, ben = [await site.token(agent) for agent in ("ana", "ana", "ben")]
        async with (
            site.client(ana, "2026-07-28") as writer,
            site.client(too, "2026-07-28") as reader,
            site.client(ben, "2026-07-28") as stranger,
            reader.listen(resource_subscriptions=["memory://core"]) as heard,
            stranger.listen(resource_subscriptions=["memory://core"]) as strange,
            anyio.create_task_group() as group,
        ):
            group.start_soon(note, "ana", heard)
            group.start_soon(note, "ben", strange)
            human = {"label": "human", "content": "Name: Ana"}
            await writer.call_tool("core_memory_append", human)
            with anyio.fail_after(10):
                await told.wait()
            # A change of its own comes to the other: what came before it would be seen.
            told = anyio.Event()
            await stranger.call_tool("core_memory_append", {"label": "human", "content": "Ben"})
            with anyio.fail_after(10):
                await told.wait()
            group.cancel_scope.cancel()
    assert news == {"ana": ["memory://core"], "ben": ["memory://core"]}


async def test_with_tokens_a_request_without_one_is_told_where_to_get_it(servers):
    async with listening(servers) as site:
        await site.token()
        async with site.raw() as http:
            answer = await http.post("/mcp", json=INITIALIZE)
            assert answer.status_code == 401
            challenge = answer.headers["www-authenticate"]
            where = f"{site.base}/.well-known/oauth-protected-resource/mcp"
            assert challenge == f'Bearer scope="read", resource_metadata="{where}"'
            metadata = await http.get(where)
            assert metadata.json()["resource"] == site.url
            assert metadata.json()["scopes_supported"] == ["read", "write", "admin"]


@pytest.mark.parametrize(
    "authorization",
    ["Bearer mcpm_nonsense", "Bearer mcpm_0000000000_x", "Bearer x.y.z", "Bearer mcpm_é_x"],
)
async def test_a_token_that_was_never_made_is_refused(authorization, servers):
    async with listening(servers) as site:
        await site.token()
        async with site.raw() as http:
            headers = {"Authorization": authorization.encode()}
            answer = await http.post("/mcp", json=INITIALIZE, headers=headers)
            assert answer.status_code == 401
            assert 'error="invalid_token"' in answer.headers["www-authenticate"]


async def test_the_secret_counts_and_not_the_id_alone(servers):
    async with listening(servers) as site:
        text = await site.token()
        for wrong in (text[:-1], text + "x", text[:16] + "A" * (len(text) - 16), text.upper()):
            async with site.raw(wrong) as http:
                assert (await http.post("/mcp", json=INITIALIZE)).status_code == 401
        async with site.raw(text) as http:
            assert (await http.post("/mcp", json=INITIALIZE)).status_code == 200


@pytest.mark.parametrize("mode", ERAS)
async def test_a_token_that_reads_is_offered_the_reading_tools_alone(mode, servers):
    async with listening(servers) as site:
        write, read = await site.token("ana"), await site.token("ana", "read")
        async with site.client(write, mode) as client:
            await insert(client, "to be read")
        async with site.client(read, mode) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert "archival_memory_search" in tools
            assert "archival_memory_insert" not in tools
            assert await found(client) == ["to be read"]


async def test_a_writing_tool_with_a_token_that_reads_is_answered_403(servers):
    async with listening(servers) as site:
        read = await site.token("ana", "read")
        async with site.raw(read) as http:
            number = await session(http)
            headers = {"Mcp-Session-Id": number}
            message = call("archival_memory_insert", content="smuggled")
            answer = await http.post("/mcp", json=message, headers=headers)
            assert answer.status_code == 403
            challenge = answer.headers["www-authenticate"]
            assert 'error="insufficient_scope"' in challenge
            assert 'scope="write"' in challenge
            assert 'resource_metadata="' in challenge
            assert (await http.post("/mcp", json=[message], headers=headers)).status_code == 400
            searched = await http.post("/mcp", json=call("archival_memory_search"), headers=headers)
            assert searched.status_code == 200
            assert "smuggled" not in searched.text


async def test_metrics_need_the_scope_admin(servers):
    async with listening(servers) as site:
        write, admin = await site.token(scope="write"), await site.token(scope="admin")
        async with site.raw(write) as http:
            refused = await http.get("/metrics")
            assert refused.status_code == 403
            assert 'scope="admin"' in refused.headers["www-authenticate"]
        async with site.raw(admin) as http:
            assert (await http.get("/metrics")).status_code == 200
            assert (await http.post("/mcp", json=INITIALIZE)).status_code == 200


async def test_a_revoked_token_ends_its_sessions_and_its_streams(servers):
    async with listening(servers) as site:
        made = await site.op("token.create", agent="ana", scope="write")
        async with site.raw(made["token"]) as http:
            number = await session(http)
            headers = {"Mcp-Session-Id": number}
            async with http.stream("GET", "/mcp", headers=headers) as stream:
                assert stream.status_code == 200
                row = await site.op("token.revoke", id=made["id"])
                assert row["state"] == "revoked"
                # The stream ends; nothing else would make it.
                with anyio.fail_after(10):
                    async for _ in stream.aiter_raw():
                        pass
            answer = await http.post("/mcp", json=call("core_memory_view"), headers=headers)
            assert answer.status_code == 401
            assert "revoked" in answer.json()["error_description"]


async def test_a_revoked_token_ends_the_stream_of_changes_of_a_modern_client(servers):
    async with listening(servers) as site:
        made = await site.op("token.create", agent="ana", scope="write")
        keeper = await site.token("ana")
        ended = anyio.Event()
        async with site.client(made["token"], "2026-07-28") as client:
            with anyio.fail_after(15):
                async with client.listen(resource_subscriptions=["memory://core"]) as stream:
                    await site.op("token.revoke", id=made["id"])
                    try:
                        async for _ in stream:
                            pass
                    except Exception:
                        # How a client says that a stream has been cut is its own affair.
                        ended.set()
                    else:
                        ended.set()
            assert ended.is_set()
            with pytest.raises(MCPError):
                await client.call_tool("core_memory_view", {})
        async with site.client(keeper) as client:
            assert await found(client) == []


async def test_a_token_is_refused_from_the_moment_it_expires(servers):
    async with listening(servers) as site:
        access = servers.memories().engine.access
        _, text = access.create("ana", Scope.WRITE, expires_at=now() + timedelta(seconds=1.5))
        async with site.raw(text) as http:
            number = await session(http)
            async with http.stream("GET", "/mcp", headers={"Mcp-Session-Id": number}) as stream:
                with anyio.fail_after(15):
                    async for _ in stream.aiter_raw():
                        pass
            answer = await http.post("/mcp", json=INITIALIZE)
            assert answer.status_code == 401
            assert "expired" in answer.json()["error_description"]


async def test_the_first_token_closes_a_server_that_was_open(servers):
    async with listening(servers) as site, site.raw() as http:
        number = await session(http)
        text = await site.token("default")
        listed = {"jsonrpc": "2.0", "id": 5, "method": "tools/list"}
        answer = await http.post("/mcp", json=listed, headers={"Mcp-Session-Id": number})
        assert answer.status_code == 401
        async with site.raw(text) as owner:
            # The session of before is nobody's, not even that of the same agent.
            headers = {"Mcp-Session-Id": number}
            assert (await owner.post("/mcp", json=listed, headers=headers)).status_code == 404


async def test_revoking_the_last_token_does_not_open_the_door(servers):
    async with listening(servers) as site:
        made = await site.op("token.create", agent="ana", scope="write")
        await site.op("token.revoke", id=made["id"])
        async with site.raw() as http:
            assert (await http.post("/mcp", json=INITIALIZE)).status_code == 401


@pytest.mark.parametrize(
    "options",
    [
        {"host": "0.0.0.0"},  # noqa: S104 - refused is what is tested
        {"host": "::"},
        {"host": "192.0.2.7"},
        {"public_url": "https://memory.example.org"},
        {"allowed_hosts": ("memory.example.org",)},
    ],
)
async def test_without_a_token_nothing_but_this_machine_is_served(options, servers):
    with pytest.raises(SettingsFault) as fault:
        await listen(servers, HttpOptions(port=0, **options), stop=anyio.Event())
    assert "token create" in fault.value.hint


async def test_an_address_for_every_name_wants_to_know_one(servers):
    OPERATIONS["token.create"](servers, {"agent": "ana"})
    options = HttpOptions(port=0, host="0.0.0.0")  # noqa: S104 - refused is what is tested
    with pytest.raises(SettingsFault) as fault:
        await listen(servers, options, stop=anyio.Event())
    assert "--public-url" in fault.value.hint


async def test_with_a_token_and_a_name_it_listens_on_every_address(servers):
    OPERATIONS["token.create"](servers, {"agent": "ana"})
    async with listening(
        servers,
        host="0.0.0.0",  # noqa: S104 - that it may is what is tested
        public_url="https://memory.example.org",
    ) as site:
        port = site.base.rpartition(":")[2]
        async with httpx.AsyncClient(trust_env=False) as http:
            url = f"http://127.0.0.1:{port}/mcp"
            headers = {"Host": "memory.example.org"}
            answer = await http.post(url, json=INITIALIZE, headers=headers)
            assert answer.status_code == 401
            where = "https://memory.example.org/.well-known/oauth-protected-resource/mcp"
            assert f'resource_metadata="{where}"' in answer.headers["www-authenticate"]


async def test_a_port_in_use_is_named(servers):
    async with listening(servers) as site:
        port = int(site.base.rpartition(":")[2])
        with pytest.raises(SettingsFault) as fault:
            await listen(servers, HttpOptions(port=port), stop=anyio.Event())
        assert fault.value.setting == "--port"


async def test_when_a_token_was_used_is_written_down(servers):
    async with listening(servers) as site:
        text = await site.token("ana")
        async with site.client(text) as client:
            await found(client)
    row = OPERATIONS["token.list"](servers, {})["tokens"][0]
    assert row["last_used_at"] is not None
    assert text not in json.dumps(row)
