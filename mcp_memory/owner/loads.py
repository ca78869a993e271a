"""What `mcp-memory load` asks of an owner: to take a batch, and how far the vectors are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mcp_memory.owner.places import Places
from mcp_memory.server.servers import Servers
from mcp_memory.values.errors import InvalidInput

if TYPE_CHECKING:
    from mcp_memory.agent.loading import Loaded

Params = dict[str, Any]


def put(servers: Servers, params: Params) -> Params:
    """Store the entries of a file beside the owner's: `{added, known, refused: [[place, why]]}`.

    They are in a file because a batch may be larger than the line of an operation. `what` is
    `memories` or `messages`.
    """
    folder = Path(Places(str(servers.settings.db)).folder)
    name = os.path.basename(str(params["file"]))
    entries = json.loads((folder / name).read_text("utf-8"))
    what = params["what"]
    if what not in {"memories", "messages"}:
        raise InvalidInput(f"{what!r} can't be loaded", field="what")
    changes = {"context_window": params["window"], "timezone": params["timezone"]}
    settings = servers.settings.model_copy(update=changes)
    memory = servers.memories(params["agent"]).open(params["agent"], settings)
    try:
        take = memory.loader.memories if what == "memories" else memory.loader.messages
        loaded: Loaded = take(entries, skip_bad=params["skip_bad"])
    finally:
        memory.close()
    return {"added": loaded.added, "known": loaded.known, "refused": loaded.refused}


def state(servers: Servers, params: Params) -> Params:
    """Return `{pending, state, detail}`: how many texts of all agents wait for their vectors."""
    engine = servers.memories(params["agent"]).engine
    found = engine.state(params["agent"])
    return {
        "pending": engine.vectors.pending_count(),
        "state": found.state,
        "detail": found.detail,
    }


LOAD_OPS: Final[dict[str, Callable[[Servers, Params], Params]]] = {
    "load.put": put,
    "load.state": state,
}
