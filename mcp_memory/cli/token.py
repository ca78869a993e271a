"""`mcp-memory token`: who may reach a memory over HTTP."""

from __future__ import annotations

from typing import Any

import click

from mcp_memory.cli.output import echo, echo_json
from mcp_memory.settings import load_settings


@click.group()
def token() -> None:
    """Create, list and revoke access tokens for `serve --transport http|sse`.

    Every request over HTTP needs one, also on this machine; a server without any creates one at
    start for the user who starts it.
    Clients on stdio need none.
    """


@token.command()
@click.option("--agent", help="Whose memory its calls use; default: MCP_MEMORY_AGENT.")
@click.option(
    "--scope",
    type=click.Choice(["read", "write", "admin"]),
    default="write",
    show_default=True,
    help="read: search and view; write: also change; admin: also /metrics.",
)
@click.option("--expires", help="30d, 12h, 8w, or a date; default: never.")
@click.option("--name", default="", help="What it is for; shown in the list.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def create(agent: str | None, scope: str, expires: str | None, name: str, as_json: bool) -> None:
    """Create a token and print it once: only its hash is stored."""
    made = _ask(
        "token.create",
        {
            "agent": load_settings().agent if agent is None else agent,
            "scope": scope,
            "expires": expires,
            "name": name,
        },
    )
    if as_json:
        echo_json(made, indent=None)
        return
    echo(made["token"])
    until = f"until {made['expires_at']}" if made["expires_at"] else "it never expires"
    if made["agent"] not in _ask("agents", {})["agents"]:
        echo(f"Agent {made['agent']!r} has stored nothing yet: check its name.", err=True)
    echo(
        f"Token {made['id']} for agent {made['agent']}, scope {made['scope']}, {until}."
        " It is not shown again. Clients send it as the header"
        " `Authorization: Bearer TOKEN`.",
        err=True,
    )


@token.command("list")
@click.option("--agent", help="Only the tokens of this agent.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def list_tokens(agent: str | None, as_json: bool) -> None:
    """Show every token, without its secret."""
    rows = _ask("token.list", {"agent": agent})["tokens"]
    if as_json:
        echo_json(rows, indent=None)
        return
    if not rows:
        whose = "there are no tokens" if agent is None else f"agent {agent!r} has no tokens"
        echo(f"{whose}; create one with `mcp-memory token create`", err=True)
    for row in rows:
        name = f" ({row['name']})" if row["name"] else ""
        expires = f", expires {row['expires_at']}" if row["expires_at"] else ", never expires"
        used = f", last used {row['last_used_at']}" if row["last_used_at"] else ", not used yet"
        echo(f"{row['id']}  {row['state']:8} {row['scope']:5} {row['agent']}{name}{expires}{used}")


@token.command()
@click.argument("token_id", metavar="ID")
def revoke(token_id: str) -> None:
    """Revoke the token with this ID at once, also for open sessions."""
    row = _ask("token.revoke", {"id": token_id})
    echo(f"token {row['id']} of agent {row['agent']} is revoked")


def _ask(op: str, params: dict[str, Any]) -> dict[str, Any]:
    from mcp_memory.owner.client import ask

    return ask(load_settings(), op, params)
