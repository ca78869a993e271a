"""What the command line asks of an owner: each operation takes and gives JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mcp_memory.http.tokens_ops import TOKEN_OPS
from mcp_memory.owner.status import check, status
from mcp_memory.server.servers import Servers

Params = dict[str, Any]
Operation = Callable[[Servers, Params], Params]


def block_list(servers: Servers, params: Params) -> Params:
    """Return the compiled blocks of an agent: `{text}`."""
    return {"text": servers.memories().open(params["agent"]).core.compiled()}


def block_set(servers: Servers, params: Params) -> Params:
    """Set a block as its owner wants it: `{label, tokens, limit, read_only}`."""
    memory = servers.memories().open(params["agent"])
    done = memory.core.define(
        params["label"],
        params["value"],
        description=params.get("description"),
        limit=params.get("limit"),
        read_only=params.get("read_only"),
    )
    return {
        "label": done.label,
        "tokens": done.tokens,
        "limit": done.limit,
        "read_only": done.read_only,
    }


OPS: Final[dict[str, Operation]] = {
    "block.list": block_list,
    "block.set": block_set,
    "check": check,
    "status": status,
    **TOKEN_OPS,
}
