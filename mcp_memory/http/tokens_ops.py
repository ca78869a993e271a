"""What the command line asks of the owner about access tokens: JSON in, JSON out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from mcp_memory.tiers.access import Token, read_expiry, read_scope
from mcp_memory.values.dates import now, show

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from mcp_memory.server.servers import Servers

Params = dict[str, Any]


def token_create(servers: Servers, params: Params) -> Params:
    """Make a token: `{agent, scope, name?, expires?}` gives its row with the text in `token`.

    Raises:
        InvalidInput: One of them can't be taken.
    """
    expires = params.get("expires")
    zone = servers.settings.zone
    token, text = servers.memories().engine.access.create(
        str(params["agent"]),
        read_scope(str(params.get("scope") or "write")),
        name=str(params.get("name") or ""),
        expires_at=read_expiry(str(expires), zone=zone) if expires else None,
    )
    return {**_row(token, zone), "token": text}


def token_list(servers: Servers, params: Params) -> Params:
    """Return `{tokens}`, oldest first; of one `agent` if it is given."""
    agent = params.get("agent")
    tokens = servers.memories().engine.access.all()
    rows = [_row(token, servers.settings.zone) for token in tokens if agent in {None, token.agent}]
    return {"tokens": rows}


def token_revoke(servers: Servers, params: Params) -> Params:
    """End the token `id`, also for the sessions it has open; return its row.

    Raises:
        NotFound: There is no such token.
    """
    token = servers.memories().engine.access.revoke(str(params["id"]))
    return _row(token, servers.settings.zone)


TOKEN_OPS: Final[dict[str, Callable[[Servers, Params], Params]]] = {
    "token.create": token_create,
    "token.list": token_list,
    "token.revoke": token_revoke,
}


def _row(token: Token, zone: ZoneInfo) -> Params:
    def shown(moment: datetime | None) -> str | None:
        return None if moment is None else show(moment, zone)

    return {
        "id": token.id,
        "name": token.name,
        "agent": token.agent,
        "scope": token.scope.value,
        "state": token.state(now()),
        "created_at": shown(token.created_at),
        "expires_at": shown(token.expires_at),
        "revoked_at": shown(token.revoked_at),
        "last_used_at": shown(token.last_used_at),
    }
