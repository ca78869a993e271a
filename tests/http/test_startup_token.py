"""Without access tokens a server serves only the user who has started it."""

from __future__ import annotations

import json
import os
import stat

import anyio
import pytest
from sites import INITIALIZE, bearer, found, insert, listening

from mcp_memory.http.listen import listen
from mcp_memory.http.options import HttpOptions
from mcp_memory.owner.admin import OPERATIONS
from mcp_memory.values.errors import SettingsFault

pytestmark = pytest.mark.anyio


def token_of(servers) -> str:
    with open(f"{servers.settings.db}.token", encoding="ascii") as file:
        return file.read().strip()


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_who_has_no_token_is_refused(transport, servers, capsys):
    """The entry on stderr is served, and the file is the user's own."""
    async with listening(servers, transport=transport, no_auth=False) as site:
        async with site.raw() as http:
            path = "/mcp" if transport == "http" else "/messages"
            assert (await http.post(path, json=INITIALIZE)).status_code == 401
            assert (await http.get("/metrics")).status_code == 401
            assert (await http.get("/healthz")).status_code == 200
        entry = json.loads(capsys.readouterr().err.splitlines()[-1])["mcpServers"]["memory"]
        assert entry["url"] == site.url
        token = token_of(servers)
        assert entry["headers"] == bearer(token)
        async with site.client(token) as client:
            await insert(client, "my own")
            assert await found(client) == ["my own"]
        if os.name == "posix":
            assert stat.S_IMODE(os.stat(f"{servers.settings.db}.token").st_mode) == 0o600


async def test_the_token_is_the_same_after_a_restart_and_beside_others(servers):
    async with listening(servers, no_auth=False) as site:
        token = token_of(servers)
        other = await site.token("ana")
    async with listening(servers, no_auth=False) as site:
        assert token_of(servers) == token
        for text, status in ((token, 200), (other, 200), (token + "x", 401)):
            async with site.raw(text) as http:
                assert (await http.post("/mcp", json=INITIALIZE)).status_code == status


async def test_where_access_tokens_were_created_none_is_added(servers):
    async with listening(servers, no_auth=True) as site:
        await site.token("ana")
    async with listening(servers, no_auth=False) as site, site.raw() as http:
        assert (await http.post("/mcp", json=INITIALIZE)).status_code == 401
    with pytest.raises(FileNotFoundError):
        token_of(servers)


@pytest.mark.parametrize(
    "options",
    [{"host": "0.0.0.0"}, {"public_url": "https://memory.example.org"}],  # noqa: S104
)
async def test_nobody_else_is_served_without_a_token(options, servers):
    OPERATIONS["token.create"](servers, {"agent": "ana"})
    with pytest.raises(SettingsFault, match="this machine alone"):
        await listen(servers, HttpOptions(port=0, no_auth=True, **options), stop=anyio.Event())
