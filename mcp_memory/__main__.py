"""The program: `mcp-memory`, and `python -m mcp_memory`, which is the same.

What clients start is served here without the command line's imports.
"""

import os
import sys

STDIO: tuple[list[str], ...] = (
    [],
    ["serve"],
    ["serve", "--transport", "stdio"],
    ["serve", "--transport=stdio"],
)


def main() -> None:
    """Serve a client on stdio through the owner, or run another command."""
    if sys.argv[1:] in STDIO and _has_owner():
        from mcp_memory.owner.shim import serve_client

        sys.exit(serve_client(os.environ))
    from mcp_memory.cli import main as commands

    commands()


def _has_owner() -> bool:
    from mcp_memory.values.locations import PREFIX, own_settings

    # A wrong value is for the command line to refuse.
    return own_settings(os.environ).get(f"{PREFIX}OWNER", "auto") == "auto"


if __name__ == "__main__":
    main()
