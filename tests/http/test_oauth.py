"""The server as an OAuth resource server: JWTs of an issuer on this machine."""

from __future__ import annotations

import base64
import time
from typing import Any

import jwt
import pytest
from issuer import AUDIENCE, Issuer, running_issuer
from sites import INITIALIZE, found, insert, listening, session

from mcp_memory.http.options import HttpOptions
from mcp_memory.values.errors import SettingsFault

pytestmark = pytest.mark.anyio


@pytest.fixture
def issuer(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with running_issuer() as made:
        yield made


def options(issuer: Issuer, **changes: Any) -> dict[str, Any]:
    return {
        "issuer": issuer.url,
        "public_url": "https://memory.example.org",
        "jwks_refetch_seconds": 0,
        **changes,
    }


async def status(site, token: str) -> int:
    async with site.raw(token) as http:
        code: int = (await http.post("/mcp", json=INITIALIZE)).status_code
        return code


async def test_the_subject_of_a_token_is_the_agent(issuer, servers):
    async with listening(servers, **options(issuer)) as site:
        async with site.client(issuer.token(sub="ana")) as client:
            await insert(client, "Ana keeps bees")
        async with site.client(issuer.token(sub="ben")) as client:
            assert await found(client) == []
        async with site.client(issuer.token(sub="ana")) as client:
            assert await found(client) == ["Ana keeps bees"]


async def test_another_claim_can_name_the_agent(issuer, servers):
    async with listening(servers, **options(issuer, agent_claim="memory")) as site:
        async with site.client(issuer.token(memory="team")) as client:
            await insert(client, "of the team")
        assert await status(site, issuer.token()) == 401
        for name in ("two\nlines", " ana ", "ana\u00a0"):
            assert await status(site, issuer.token(memory=name)) == 401
    assert servers.memories().open("team").archive.count() == 1


async def test_a_session_outlives_a_refreshed_token_but_not_another_subject(issuer, servers):
    async with listening(servers, **options(issuer)) as site:
        async with site.raw(issuer.token(exp=int(time.time()) + 300)) as http:
            number = await session(http)
        headers = {"Mcp-Session-Id": number}
        listed = {"jsonrpc": "2.0", "id": 5, "method": "tools/list"}
        async with site.raw(issuer.token()) as http:
            assert (await http.post("/mcp", json=listed, headers=headers)).status_code == 200
        async with site.raw(issuer.token(sub="ben")) as http:
            assert (await http.post("/mcp", json=listed, headers=headers)).status_code == 404


async def test_the_metadata_name_the_issuer(issuer, servers):
    where = "https://memory.example.org/.well-known/oauth-protected-resource/mcp"
    async with (
        listening(servers, **options(issuer, scope_prefix="memory:")) as site,
        site.raw() as http,
    ):
        answer = await http.post("/mcp", json=INITIALIZE)
        assert answer.status_code == 401
        expected = f'Bearer scope="memory:read", resource_metadata="{where}"'
        assert answer.headers["www-authenticate"] == expected
        for path in ("", "/mcp"):
            document = (await http.get(f"/.well-known/oauth-protected-resource{path}")).json()
            assert document["resource"] == AUDIENCE
            assert document["authorization_servers"] == [issuer.url]
            assert document["scopes_supported"][0] == "memory:read"
        other = await http.get("/.well-known/oauth-protected-resource/elsewhere")
        assert other.status_code == 404


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"scope": "read"}, 200),
        ({"scope": None, "scp": ["email", "read"]}, 200),
        ({"scope": None, "scp": "admin"}, 200),
        ({"scope": "openid email"}, 403),
        ({"scope": None}, 403),
        ({"scope": "readwrite"}, 403),
        ({"iss": "https://elsewhere.example"}, 401),
        ({"aud": "https://elsewhere.example/mcp"}, 401),
        ({"aud": ["https://elsewhere.example", AUDIENCE]}, 200),
        ({"aud": None}, 401),
        ({"exp": None}, 401),
        ({"exp": 1_000_000_000}, 401),
        ({"nbf": 4_000_000_000}, 401),
        ({"sub": None}, 401),
        ({"sub": ""}, 401),
    ],
)
async def test_each_claim_is_held_to(claims, expected, issuer, servers):
    async with listening(servers, **options(issuer)) as site:
        assert await status(site, issuer.token(**claims)) == expected


async def test_scopes_carry_the_prefix_that_is_set(issuer, servers):
    async with listening(servers, **options(issuer, scope_prefix="memory:")) as site:
        assert await status(site, issuer.token(scope="memory:read")) == 200
        assert await status(site, issuer.token(scope="read write admin")) == 403


async def test_what_is_not_signed_by_the_issuers_key_is_refused(issuer, servers):
    good = issuer.token()
    header, body, signature = good.split(".")
    claims = jwt.decode(good, options={"verify_signature": False})
    nothing = base64.urlsafe_b64encode(b'{"alg":"none","kid":"one"}').rstrip(b"=").decode()
    public = issuer.published[0]["n"]
    forged = Issuer()
    forged.server_close()
    forged.url = issuer.url
    async with listening(servers, **options(issuer)) as site:
        assert await status(site, good) == 200
        for bad in (
            f"{header}.{body}.{signature[:-6]}AAAAAA",
            f"{nothing}.{body}.",
            jwt.encode(claims, public, algorithm="HS256", headers={"kid": "one"}),
            forged.token(),
            jwt.encode(claims, issuer.keys["key"], algorithm="RS256"),
            "a.b.c",
        ):
            assert await status(site, bad) == 401


async def test_a_symmetric_key_among_the_published_ones_signs_nothing(issuer, servers):
    secret = "s" * 40
    encoded = base64.urlsafe_b64encode(secret.encode()).rstrip(b"=").decode()
    issuer.published.append({"kty": "oct", "kid": "shared", "k": encoded, "alg": "HS256"})
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    async with listening(servers, **options(issuer)) as site:
        forged = jwt.encode(claims, secret, algorithm="HS256", headers={"kid": "shared"})
        assert await status(site, forged) == 401
        assert await status(site, issuer.token()) == 200


async def test_a_new_key_is_fetched_when_a_token_names_it(issuer, servers):
    async with listening(servers, **options(issuer)) as site:
        old = issuer.token()
        assert await status(site, old) == 200
        fetched = len(issuer.asked)
        assert await status(site, old) == 200
        assert len(issuer.asked) == fetched
        issuer.rotate("two", "ES256")
        assert await status(site, issuer.token()) == 200
        assert len(issuer.asked) == fetched + 1


async def test_made_up_keys_do_not_make_the_server_ask_again_and_again(issuer, servers):
    async with listening(servers, **options(issuer, jwks_refetch_seconds=60)) as site:
        assert await status(site, issuer.token()) == 200
        asked = len(issuer.asked)
        for number in range(5):
            issuer.keys["kid"] = f"made-up-{number}"
            assert await status(site, issuer.token()) == 401
        assert len(issuer.asked) == asked


async def test_while_the_keys_cannot_be_had_nobody_is_let_in(issuer, servers):
    token = issuer.token()
    issuer.down = True
    async with listening(servers, **options(issuer)) as site:
        assert await status(site, token) == 503
        issuer.down = False
        assert await status(site, token) == 200


async def test_the_keys_can_be_somewhere_that_is_set(issuer, servers):
    where = issuer.url.removesuffix("/realm") + "/keys"
    async with listening(servers, **options(issuer, jwks_url=where)) as site:
        assert await status(site, issuer.token()) == 200
    assert set(issuer.asked) == {"/keys"}


async def test_tokens_of_the_database_are_taken_beside_those_of_the_issuer(issuer, servers):
    async with listening(servers, **options(issuer)) as site:
        text = await site.token("ana")
        assert await status(site, text) == 200
        assert await status(site, issuer.token()) == 200


def test_an_issuer_without_an_audience_is_refused():
    with pytest.raises(SettingsFault):
        HttpOptions(issuer="https://id.example.org").check(tokens=True)
