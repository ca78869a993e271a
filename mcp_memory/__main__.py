"""The program: `mcp-memory`, or `python -m mcp_memory`.

What clients start is served without the imports of the command line.
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
    from mcp_memory.values.locations import report_placeholders

    report_placeholders(os.environ)
    if sys.argv[1:] in STDIO and _has_owner():
        from mcp_memory.owner.shim import serve_client

        sys.exit(serve_client(os.environ))
    from mcp_memory.cli import main as commands

    commands()


def _has_owner() -> bool:
    from mcp_memory.values.locations import PREFIX, own_settings

    # The command line refuses a wrong value.
    return own_settings(os.environ).get(f"{PREFIX}OWNER", "auto") == "auto"


if __name__ == "__main__":
    main()
