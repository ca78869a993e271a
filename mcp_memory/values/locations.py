"""Where the database and the cache are; light enough for the shim, which imports little else."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

from mcp_memory.values.errors import SettingsFault, report
from mcp_memory.values.project import DISTRIBUTION

TYPE_CHECKING = False  # As in typing, which takes milliseconds to import.
if TYPE_CHECKING:
    from platformdirs.api import PlatformDirsABC

PREFIX = "MCP_MEMORY_"

FORMER_NAME = "mcp-memory"
"""The folders' name in 0.1.0; another memory server uses the same one."""

DB_NAME = "memory.duckdb"
MODELS_FOLDER = "models"


_MARKS = frozenset("${%<")

# What a host leaves of a variable that it did not fill: ${name} and $(command) anywhere; {env:x},
# {{x}}, %NAME%, $NAME and <your key> only as the whole value.
_PLACEHOLDER = (
    r"(?s).*\$(?:\{[^{}]*\}|\([^()]*\)).*|\{(?:env|file|input):[^{}]*\}|.*\{\{[^{}]*\}\}.*"
    r"|%[A-Z_][A-Z0-9_]*%|\$(?:env:)?[A-Z_][A-Z0-9_]*|<your[ _-][^<>]*>|<YOUR[ _-][^<>]*>"
)


def own_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of this program in an environment, names in capitals.

    This is the one place that reads them. A value is returned without surrounding
    blanks. One that is empty, or a placeholder that a host did not fill, is left out:
    the default holds.
    """
    found = {
        name.upper(): value.strip()
        for name, value in environ.items()
        if name.upper().startswith(PREFIX)
    }
    return {name: value for name, value in found.items() if value and not is_placeholder(value)}


def is_placeholder(value: str) -> bool:
    """Return whether a value is a variable that a host should have filled, such as `${x}`."""
    # The client waits for this process to start, and a pattern takes a millisecond to compile.
    return not _MARKS.isdisjoint(value) and re.fullmatch(_PLACEHOLDER, value.strip()) is not None


def report_placeholders(environ: Mapping[str, str]) -> None:
    """Say on stderr, in a line each, which settings have a placeholder instead of a value."""
    for name, value in environ.items():
        if name.upper().startswith(PREFIX) and is_placeholder(value):
            report(f"{name} is {value.strip()[:80]!r}, which was not filled in: ignored", 0)


def default_db(directories: Callable[..., PlatformDirsABC] | None = None) -> str:
    """Return the path of the database if none is set.

    It is in the platform's data folder. A database in the folder that 0.1.0 used is
    returned as long as the new folder has none.

    Args:
        directories: The conventions of a platform; this platform's by default.

    Raises:
        SettingsFault: This user has no home folder.
    """
    new, former = _databases(directories)
    return former if os.path.exists(former) and not os.path.exists(new) else new


def former_db(directories: Callable[..., PlatformDirsABC] | None = None) -> str:
    """Return the path that 0.1.0 used if none was set; raises as `default_db` does."""
    return _databases(directories)[1]


def default_cache(db: str, directories: Callable[..., PlatformDirsABC] | None = None) -> str:
    """Return the path of the cache folder if none is set: beside the database without a home.

    The folder that 0.1.0 used is returned if it has models and the new one has none,
    so that they are not downloaded again.

    Args:
        db: The database.
        directories: The conventions of a platform; this platform's by default.
    """
    try:
        new, former = _folders(directories, "user_cache_dir")
    except SettingsFault:
        return f"{db}.cache"
    has_models = [os.path.exists(os.path.join(path, MODELS_FOLDER)) for path in (new, former)]
    return former if has_models == [False, True] else new


def expanded(path: str) -> str:
    """Return an absolute path, `~` replaced by the user's home.

    Raises:
        ValueError: It is empty, or names the home of a user who does not exist.
    """
    if not path.strip() or path == ".":
        raise ValueError("give the path of a file")
    whole = os.path.expanduser(path)
    if whole.startswith("~"):
        raise ValueError("names the home of a user who does not exist")
    return os.path.abspath(whole)


def _databases(directories: Callable[..., PlatformDirsABC] | None) -> list[str]:
    return [os.path.join(folder, DB_NAME) for folder in _folders(directories, "user_data_dir")]


def _folders(directories: Callable[..., PlatformDirsABC] | None, kind: str) -> list[str]:
    """Return a folder of the user by our two names.

    Raises:
        SettingsFault: This user has no home folder.
    """
    if directories is None:
        import platformdirs

        directories = platformdirs.PlatformDirs
    names = (DISTRIBUTION, FORMER_NAME)
    try:
        found = [str(getattr(directories(name, appauthor=False), kind)) for name in names]
    except RuntimeError:  # As `Path.home` does.
        found = []
    if not found or not os.path.isabs(found[0]):
        user = f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"
        raise SettingsFault(
            f"{PREFIX}DB",
            f"it is not set, and {user} has no home folder for a default",
            hint=f"Set {PREFIX}DB to a file that lasts, such as /data/{DB_NAME}, or set HOME",
        )
    return found
