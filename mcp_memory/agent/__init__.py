"""Memory: all that an agent can do with its memory, in one object.

The surface, the commands and whatever embeds this package know this façade
and nothing below it. Every method is synchronous, may be called from any
thread, and returns only what is committed.
"""

from mcp_memory.agent.memories import Memories
from mcp_memory.agent.memory import AgentMemory, Overview

__all__ = ["AgentMemory", "Memories", "Overview"]
