"""The access token of the user who starts a server for which none was created.

Other users of the machine can connect to a port of loopback, but can't read the file that the
token is in. Those who can read it can read the database beside it as well.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from typing import Final

from mcp_memory.agent.access_tokens import PREFIX
from mcp_memory.http.options import HttpOptions
from mcp_memory.settings import Settings
from mcp_memory.values.errors import StorageFault

_FILE_MODE: Final = 0o600
_SECRET_BYTES: Final = 32
"""By judgement: 256 random bits can't be guessed."""


def startup_token(settings: Settings, options: HttpOptions, *, tokens: bool) -> str | None:
    """Return the token in the file beside the database; create it if there is no other.

    It is the same after a restart. It is valid as long as the file exists.

    Args:
        settings: Those of the process.
        options: How it listens.
        tokens: Whether access tokens were created.

    Raises:
        StorageFault: The file can't be written.
    """
    if options.no_auth or options.issuer is not None or not options.is_local:
        return None
    path = _path(settings)
    text = _read(path)
    if text is None and not tokens:
        text = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        _write(path, text)
    return text


def announce(url: str, token: str | None, settings: Settings, options: HttpOptions) -> None:
    """Say on stderr where the server listens, and what its clients need."""
    lines = [f"mcp-memory listens on {url}"]
    if options.no_auth:
        lines.append(
            "Without a token anybody on this machine can read and change the memory of agent"
            f" {settings.agent!r}, until the first access token is created."
        )
    elif token is not None:
        headers = {"Authorization": f"Bearer {token}"}
        entry = {"type": options.transport, "url": url, "headers": headers}
        lines += [
            f"Clients need this access token, which is also in {_path(settings)}:",
            token,
            "For example as an entry of a client:",
            json.dumps({"mcpServers": {"memory": entry}}),
        ]
    elif options.issuer is None:
        lines.append("Clients need an access token: see `mcp-memory token --help`.")
    print("\n".join(lines), file=sys.stderr, flush=True)


def _path(settings: Settings) -> str:
    return f"{settings.db}.token"


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            text = file.read().strip()
    except (OSError, ValueError):
        return None
    return text if text.startswith(PREFIX) else None


def _write(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}"
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
        with os.fdopen(file, "w", encoding="ascii") as out:
            out.write(f"{text}\n")
        os.replace(temporary, path)
    except OSError as error:
        raise StorageFault(
            f"the access token can't be written to {path}: {error.strerror}",
            hint="Create one with `mcp-memory token create`",
        ) from error
