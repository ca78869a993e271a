"""What the command line asks of an owner: each operation takes and gives JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mcp_memory.http.tokens_ops import TOKEN_OPS
from mcp_memory.owner.loads import LOAD_OPS
from mcp_memory.owner.searching import SEARCH_OPS
from mcp_memory.owner.status import check, compact, status
from mcp_memory.owner.summaries import SUMMARY_OPS
from mcp_memory.server.servers import Servers
from mcp_memory.values.errors import NotFound

if TYPE_CHECKING:
    from mcp_memory.agent import AgentMemory
    from mcp_memory.values.records import Revision

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


def block_history(servers: Servers, params: Params) -> Params:
    """Return the newest versions of a block, or one: `{revisions: [{version, at, by, …}]}`."""
    memory = _memory(servers, params)
    try:
        conversation, wanted = params["conversation"], params.get("version")
        limit = params["limit"] if wanted is None else None
        found = memory.core.history(params["label"], conversation, limit)
        if wanted is not None:
            found = tuple(item for item in found if item.block.version == wanted)
            if not found:
                raise NotFound(
                    f"block {params['label']!r} has no version {wanted}",
                    key=params["label"],
                    hint="The history without --version names those there are",
                )
    finally:
        memory.close()
    revisions = [_revision(item) for item in found]
    if wanted is not None:
        revisions[0]["value"] = found[0].block.value
    return {"revisions": revisions}


def _revision(item: Revision) -> Params:
    block, unit = item.block, item.consolidation
    return {
        "version": block.version,
        "at": block.changed_at.isoformat(timespec="seconds"),
        "by": block.editor,
        "tokens": block.tokens,
        "consolidation": None if unit is None else unit.id,
        "author": None if unit is None else unit.author,
        "reason": None if unit is None else unit.reason,
    }


def _memory(servers: Servers, params: Params) -> AgentMemory:
    """Return the memory of the agent that is named, with the shared blocks it is granted."""
    granted = tuple(params.get("shared_blocks", ()))
    settings = servers.settings.model_copy(update={"shared_blocks": granted})
    return servers.memories().open(params["agent"], settings)


OPS: Final[dict[str, Operation]] = {
    "block.history": block_history,
    "block.list": block_list,
    "block.set": block_set,
    "check": check,
    "compact": compact,
    "status": status,
    **LOAD_OPS,
    **SEARCH_OPS,
    **SUMMARY_OPS,
    **TOKEN_OPS,
}
