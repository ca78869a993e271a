"""What the command line asks of an owner: each operation takes and gives JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mcp_memory.http.tokens_ops import TOKEN_OPS
from mcp_memory.owner.status import check, status
from mcp_memory.server.servers import Servers

if TYPE_CHECKING:
    from mcp_memory.memory import Memory

Params = dict[str, Any]
Operation = Callable[[Servers, Params], Params]


def block_list(servers: Servers, params: Params) -> Params:
    """Return the compiled blocks of an agent: `{text}`."""
    memory = _memory(servers, params)
    try:
        return {"text": memory.core.compiled()}
    finally:
        memory.close()


def block_set(servers: Servers, params: Params) -> Params:
    """Set a block as its owner wants it: `{label, tokens, limit, read_only}`."""
    memory = _memory(servers, params)
    try:
        done = memory.core.define(
            params["label"],
            params["value"],
            description=params.get("description"),
            limit=params.get("limit"),
            read_only=params.get("read_only"),
        )
    finally:
        memory.close()
    return {
        "label": done.label,
        "tokens": done.tokens,
        "limit": done.limit,
        "read_only": done.read_only,
    }


def _memory(servers: Servers, params: Params) -> Memory:
    """Return the memory of the agent that is named, with the shared blocks it is granted."""
    granted = tuple(params.get("shared_blocks", ()))
    settings = servers.settings.model_copy(update={"shared_blocks": granted})
    return servers.memories().open(params["agent"], settings)


OPS: Final[dict[str, Operation]] = {
    "block.list": block_list,
    "block.set": block_set,
    "check": check,
    "status": status,
    **TOKEN_OPS,
}
