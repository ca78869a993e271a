"""The name of the distribution and where it is installed from."""

from __future__ import annotations

DISTRIBUTION = "mcp-virtual-memory"
"""On the package index `mcp-memory` is another project."""

COMMANDS = (DISTRIBUTION, "mcp-memory")
"""Both start the same program."""

GIT_URL = "https://git.example.org/mcp-virtual-memory.git"
"""A placeholder until there is a public repository. Nobody can register example.org (RFC 2606)."""


def install_hint(*extras: str) -> str:
    """Return how to install this program, from the clone or from the repository."""
    chosen = f"[{','.join(extras)}]" if extras else ""
    return (
        f"Run `pip install '.{chosen}'` in the clone,"
        f" or `pip install '{DISTRIBUTION}{chosen} @ git+{GIT_URL}'`"
    )
