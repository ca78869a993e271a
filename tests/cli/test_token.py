"""`mcp-memory token`, alone and while a server runs."""

from __future__ import annotations

import json

import httpx
import pytest
from processes import command, listening_url, raw_server
from sites import ACCEPT, INITIALIZE, bearer

pytestmark = pytest.mark.slow


def test_a_token_is_made_listed_and_revoked(tmp_path):
    made = command(tmp_path, "token", "create", "--agent", "ana", "--name", "laptop")
    text = made.stdout.strip()
    assert text.startswith("mcpm_")
    assert "never expires" in made.stderr
    assert text not in made.stderr
    listed = command(tmp_path, "token", "list")
    assert text.split("_")[1] in listed.stdout
    assert "laptop" in listed.stdout
    assert text not in listed.stdout
    key = text.split("_")[1]
    assert command(tmp_path, "token", "revoke", key).returncode == 0
    rows = json.loads(command(tmp_path, "token", "list", "--json").stdout)
    assert [(row["id"], row["state"]) for row in rows] == [(key, "revoked")]


def test_what_cannot_be_taken_is_one_line_on_stderr(tmp_path):
    for arguments in (
        ("create", "--agent", "ana", "--expires", "soon"),
        ("create", "--agent", "two\nlines"),
        ("revoke", "0000000000"),
    ):
        done = command(tmp_path, "token", *arguments)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1


def test_tokens_are_made_and_revoked_while_a_server_runs(tmp_path):
    with raw_server(tmp_path, "serve", "--transport", "http", "--port", "0") as server:
        url = listening_url(server)
        with httpx.Client(headers=ACCEPT, trust_env=False, timeout=30) as http:
            assert http.post(url, json=INITIALIZE).status_code == 200
            made = command(tmp_path, "token", "create", "--json", "--expires", "1d")
            row = json.loads(made.stdout)
            assert http.post(url, json=INITIALIZE).status_code == 401
            headers = bearer(row["token"])
            assert http.post(url, json=INITIALIZE, headers=headers).status_code == 200
            assert command(tmp_path, "token", "revoke", row["id"]).returncode == 0
            assert http.post(url, json=INITIALIZE, headers=headers).status_code == 401
        server.process.terminate()
        assert server.process.wait(timeout=20) == 0
    # The server is gone: nobody holds the database any more.
    assert "revoked" in command(tmp_path, "token", "list").stdout
