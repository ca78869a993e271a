"""Memory: all that an agent can do with its memory, in one object.

The server, the commands and any program that embeds this package use this
façade and nothing below it. Every method is synchronous, may be called from
any thread, and returns only what is committed.

The names are imported on first use: the server answers its first handshake
before the database driver and numpy are imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mcp_memory.agent.access_tokens import AccessScope, AccessToken, AccessTokens
    from mcp_memory.agent.memories import Figures, Memories, Status
    from mcp_memory.agent.memory import AgentMemory, Overview

_MODULES: Final = {
    "AccessScope": "access_tokens",
    "AccessToken": "access_tokens",
    "AccessTokens": "access_tokens",
    "AgentMemory": "memory",
    "Figures": "memories",
    "Memories": "memories",
    "Overview": "memory",
    "Status": "memories",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


__all__ = [
    "AccessScope",
    "AccessToken",
    "AccessTokens",
    "AgentMemory",
    "Figures",
    "Memories",
    "Overview",
    "Status",
]
