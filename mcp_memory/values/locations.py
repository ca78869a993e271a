"""Where the database is; light enough for the shim, which imports little else."""

from __future__ import annotations

import os
from collections.abc import Mapping

PREFIX = "MCP_MEMORY_"
APP_NAME = "mcp-memory"


def own_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of this program in an environment, names in capitals."""
    return {
        name.upper(): value for name, value in environ.items() if name.upper().startswith(PREFIX)
    }


def default_db() -> str:
    """Return the path of the database where none is set."""
    import platformdirs

    return os.path.join(platformdirs.user_data_dir(APP_NAME, appauthor=False), "memory.duckdb")


def expanded(path: str) -> str:
    """Return an absolute path, `~` replaced by the user's home.

    Raises:
        ValueError: It is empty, or names the home of a user that there is not.
    """
    if not path.strip() or path == ".":
        raise ValueError("give the path of a file")
    whole = os.path.expanduser(path)
    if whole.startswith("~"):
        raise ValueError("names the home of a user that there is not")
    return os.path.abspath(whole)
