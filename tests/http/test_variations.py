"""What clients write in other ways than the SDK is served; what has two meanings is refused."""

from __future__ import annotations

import json

import pytest
from sites import INITIALIZE, call, exchange, http_bytes, listening

from mcp_memory.http.requests import normalized, read_host, read_origin
from mcp_memory.owner.admin import OPERATIONS
from mcp_memory.settings import load_settings
from mcp_memory.values.errors import InvalidInput, SettingsFault

pytestmark = pytest.mark.anyio

MODERN = {
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/list",
}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
TYPE = "Content-Type: application/json"
ACCEPT = "Accept: application/json, text/event-stream"


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("target", "lines"),
    [
        ("/mcp/", (TYPE, ACCEPT)),
        ("//mcp", (TYPE, ACCEPT)),
        ("/mcp?from=a-host", (TYPE, ACCEPT)),
        ("/mcp%2F", (TYPE, ACCEPT)),
        ("/mcp", (TYPE,)),
        ("/mcp", (TYPE, "Accept:")),
        ("/mcp", (TYPE, "Accept: */*")),
        ("/mcp", (TYPE, "Accept: application/json")),
        ("/mcp", (TYPE, "Accept: APPLICATION/JSON;q=0.9, Text/Event-Stream")),
        ("/mcp", (TYPE, "Accept: application/json", "Accept: text/event-stream")),
        ("/mcp", (TYPE, "accept: text/html")),
        ("/mcp", ("CONTENT-TYPE: APPLICATION/JSON", ACCEPT)),
        ("/mcp", ("Content-Type: application/json; charset=UTF-8", ACCEPT)),
        ("/mcp", ("Content-Type:application/json;charset=utf-8", ACCEPT)),
        ("/mcp", ("Content-Type: application/vnd.mcp+json", ACCEPT)),
        ("/mcp", (ACCEPT,)),
        ("/mcp", (TYPE, ACCEPT, "Content-Encoding: identity")),
        ("/mcp", (TYPE, ACCEPT, "Origin:")),
        ("/mcp", (TYPE, ACCEPT, "Origin: HTTP://LocalHost:6274")),
    ],
)
async def test_every_usual_way_to_write_a_request_is_served(target, lines, servers):
    async with listening(servers) as site:
        answer = await exchange(site, http_bytes(target, INITIALIZE, "Host: localhost", *lines))
        assert status(answer) == 200, answer
        assert b'"serverInfo"' in answer


@pytest.mark.parametrize(
    "host", ["LOCALHOST", "LocalHost:80", "localhost.", "127.0.0.1:", "[0:0:0:0:0:0:0:1]:9"]
)
async def test_a_host_is_the_same_in_every_spelling(host, servers):
    async with listening(servers) as site:
        answer = await exchange(site, http_bytes("/mcp", INITIALIZE, f"Host: {host}", TYPE))
        assert status(answer) == 200


async def test_the_absolute_form_of_a_target_counts_before_the_host(servers):
    async with listening(servers) as site:
        for named, other, expected in (
            ("localhost", "evil.example", 200),
            ("evil.example", "localhost", 421),
        ):
            target, host = f"http://{named}/mcp", f"Host: {other}"
            answer = await exchange(site, http_bytes(target, INITIALIZE, host, TYPE))
            assert status(answer) == expected


async def test_a_body_may_begin_with_a_byte_order_mark(servers):
    async with listening(servers) as site:
        body = b"\xef\xbb\xbf" + json.dumps(INITIALIZE).encode()
        answer = await exchange(site, http_bytes("/mcp", body, "Host: localhost", TYPE))
        assert status(answer) == 200


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/event-stream;q=0"])
async def test_who_takes_no_stream_gets_one_document(accept, servers):
    headers = {} if accept is None else {"Accept": accept}
    async with listening(servers) as site, site.raw() as http:
        del http.headers["accept"]
        answer = await http.post("/mcp", json=INITIALIZE, headers=headers)
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["id"] == INITIALIZE["id"]
        headers["Mcp-Session-Id"] = answer.headers["mcp-session-id"]
        stored = await http.post(
            "/mcp", json=call("archival_memory_insert", content="é\r\n\r\ndata: x"), headers=headers
        )
        assert stored.json()["result"]["isError"] is False
        found = await http.post("/mcp", json=call("archival_memory_search"), headers=headers)
        text = found.json()["result"]["structuredContent"]["results"][0]["text"]
        assert text == "é\r\n\r\ndata: x"
        done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await http.post("/mcp", json=done, headers=headers)).status_code == 202


async def test_who_takes_streams_gets_a_stream(servers):
    async with listening(servers) as site, site.raw() as http:
        answer = await http.post("/mcp", json=INITIALIZE)
        assert answer.headers["content-type"].startswith("text/event-stream")


async def test_a_modern_client_that_takes_no_stream_is_served_but_not_a_stream_of_changes(servers):
    listed = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    async with listening(servers) as site, site.raw(Accept="application/json", **MODERN) as http:
        answer = await http.post("/mcp/", json=listed)
        assert answer.status_code == 200
        assert answer.json()["result"]["tools"]
        listen = {**listed, "method": "subscriptions/listen"}
        answer = await http.post(
            "/mcp", json=listen, headers={"Mcp-Method": "subscriptions/listen"}
        )
        assert answer.status_code == 406


@pytest.mark.parametrize(
    "host",
    [
        "localhost:1@evil.example",
        "evil.example@localhost",
        "evil.example/healthz?",
        "evil.example/healthz#",
        "localhost/evil.example",
        "localhost, evil.example",
        "localhost evil.example",
        "localhost:1:2",
        "localhost:x",
        "[::1",
        "[::1]evil.example",
        "[localhost]",
        "127.1",
        "",
    ],
)
async def test_a_host_that_only_resembles_ours_is_another_one(host, servers):
    async with listening(servers) as site:
        answer = await exchange(site, http_bytes("/mcp", INITIALIZE, f"Host: {host}", TYPE))
        assert status(answer) in {400, 421}


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://localhost:1@evil.example",
        "http://localhost.evil.example",
        "http://evil.example?http://localhost",
        "http://localhost/evil",
        "http://localhost:",
        "localhost",
        "file://",
    ],
)
async def test_an_origin_that_only_resembles_ours_is_another_one(origin, servers):
    async with listening(servers) as site:
        answer = await exchange(
            site, http_bytes("/mcp", INITIALIZE, "Host: localhost", TYPE, f"Origin: {origin}")
        )
        assert status(answer) == (200 if origin == "http://localhost:" else 403)


@pytest.mark.parametrize(
    "lines",
    [
        ("Authorization: Bearer one", "Authorization: Bearer two"),
        ("Origin: http://localhost", "Origin: https://evil.example"),
        ("Mcp-Session-Id: one", "Mcp-Session-Id: two"),
        ("Host: evil.example",),
    ],
)
async def test_a_header_that_comes_twice_is_refused(lines, servers):
    async with listening(servers) as site:
        answer = await exchange(
            site, http_bytes("/mcp", INITIALIZE, "Host: localhost", TYPE, *lines)
        )
        assert status(answer) == 400


@pytest.mark.parametrize("forwarded", ["X-Forwarded-Host", "X-Original-Url", "Forwarded"])
async def test_what_a_proxy_may_have_forwarded_changes_nothing(forwarded, servers):
    async with listening(servers) as site:
        for host, expected in (("localhost", 200), ("evil.example", 421)):
            lines = (f"Host: {host}", TYPE, f"{forwarded}: localhost;host=localhost")
            answer = await exchange(site, http_bytes("/mcp", INITIALIZE, *lines))
            assert status(answer) == expected


@pytest.mark.parametrize(
    "line",
    [
        "Content-Type: text/plain",
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: multipart/form-data",
        "Content-Encoding: gzip",
    ],
)
async def test_a_body_that_is_no_plain_json_is_told_what_to_send(line, servers):
    async with listening(servers) as site:
        answer = await exchange(site, http_bytes("/mcp", INITIALIZE, "Host: localhost", line))
        assert status(answer) == 415
        assert b"Content-" in answer.split(b"\r\n\r\n", 1)[1]


async def test_another_path_says_where_mcp_is(servers):
    async with listening(servers) as site, site.raw() as http:
        for path in ("/", "/sse", "/mcp/mcp"):
            answer = await http.post(path, json=INITIALIZE)
            assert answer.status_code == 404
            assert "/mcp" in answer.json()["error_description"]


@pytest.mark.parametrize("name", [" ana ", "ana ", "ana\u00a0", "\u2003ana"])
async def test_an_agents_name_is_never_changed_into_another(name, servers):
    """At each door: the command, the setting."""
    with pytest.raises(InvalidInput, match="white space"):
        OPERATIONS["token.create"](servers, {"agent": name})
    with pytest.raises(SettingsFault, match="white space"):
        load_settings(agent=name)


def test_the_canonical_form_of_a_request_has_no_other():
    scope = {
        "method": "POST",
        "path": "//MCP//",
        "headers": [(b"content-type", b"Text/JSON"), (b"x-a", b"1"), (b"x-a", b"2")],
    }
    once, wanted = normalized(scope)
    again, _ = normalized(once)
    assert wanted.json
    assert again == once
    assert once["path"] == "/MCP"
    assert dict(once["headers"])[b"x-a"] == b"1, 2"


def test_hosts_and_origins_are_compared_in_one_form():
    assert read_host("Memory.Example.ORG.:443") == ("memory.example.org", "443")
    assert read_origin("HTTPS://Example.org:443") == "https://example.org"
    assert read_origin("http://example.org:443") == "http://example.org:443"
    assert read_host("user@example.org") is None


async def test_a_token_in_any_usual_spelling_of_the_scheme_is_read(servers):
    async with listening(servers) as site:
        token = await site.token()
        for value in (f"bearer {token}", f"BEARER  {token} "):
            line = f"Authorization: {value}"
            answer = await exchange(
                site, http_bytes("/mcp", INITIALIZE, "Host: localhost", TYPE, line)
            )
            assert status(answer) == 200
