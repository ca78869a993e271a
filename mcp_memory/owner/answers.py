"""What a client asks first, answered from a file that the last owner has left.

A host waits only about two seconds for the handshake and the lists, and an owner may take
longer to start. The file has what this version answers to a client with these settings, for
each protocol version; core memory is added from its own copy, which is never older than the
database. There is one file for each set of settings: with other settings it is another agent.

A file that is missing, damaged, or of another version or user is ignored: the owner answers.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence

from mcp_memory import __version__
from mcp_memory.owner.places import FILE_MODE, Places
from mcp_memory.server.parsing import Message
from mcp_memory.values.locations import PREFIX
from mcp_memory.values.snapshot import read_files

HANDSHAKES = ("initialize", "server/discover")
LISTS = {
    "tools/list": "notifications/tools/list_changed",
    "resources/list": "notifications/resources/list_changed",
    "resources/templates/list": "notifications/resources/list_changed",
    "prompts/list": "notifications/prompts/list_changed",
}
"""The lists that are kept, and the notification of a change."""

ANY_VERSION = "*"
"""Stands for a protocol version that the server doesn't know: it offers another one."""

CORE = "{{core_memory}}"
"""Stands for the compiled core memory in the instructions of the file."""

_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
_CLIENT_KEYS = (
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/clientCapabilities",
)
_MAX_FILES = 64
"""Of the newest, which are kept; by judgement more than anyone has agents and versions."""


class Answers:
    """The kept answers for one client.

    Args:
        places: The files of the database's owner.
        settings: The settings of the client as it gave them.
    """

    def __init__(self, places: Places, settings: Mapping[str, str]) -> None:
        self._db = places.db
        self._lines = _read(_path(places, settings), settings_key(settings))
        self._protocol = ""

    def forget(self, method: str) -> None:
        """Leave a method to the owner: it answers otherwise."""
        self._lines = [line for line in self._lines if not line.startswith(f"{method} ".encode())]

    def result(self, method: str, params: Message) -> bytes | None:
        """Return the result of a request as JSON; None if the owner has to answer."""
        if not self._lines or (method not in HANDSHAKES and method not in LISTS):
            return None
        given = params.get("_meta")
        meta: Message = given if isinstance(given, dict) else {}
        modern = meta.get(_VERSION_KEY)
        if method == "initialize":
            found = self._initialize(params)
        elif params.get("cursor") is not None:
            return None
        elif modern is None:
            found = self._line(method, self._protocol)
        elif all(isinstance(meta.get(key), dict) for key in _CLIENT_KEYS):
            found = self._line(method, str(modern))
        else:
            return None
        return self._with_core(found) if found is not None and method in HANDSHAKES else found

    def _initialize(self, params: Message) -> bytes | None:
        asked, client = params.get("protocolVersion"), params.get("clientInfo")
        if not (
            isinstance(asked, str)
            and isinstance(params.get("capabilities"), dict)
            and isinstance(client, dict)
            and all(isinstance(client.get(name), str) for name in ("name", "version"))
        ):
            return None
        found = self._line("initialize", asked) or self._line("initialize", ANY_VERSION)
        if found is not None:
            self._protocol = str(json.loads(found).get("protocolVersion"))
        return found

    def _with_core(self, found: bytes) -> bytes | None:
        view = json.loads(self._lines[0])
        core = read_files(self._db, view["own"], tuple(view["shared"]), view["theirs"])
        if core is None:
            return None
        return found.replace(CORE.encode(), json.dumps(core)[1:-1].encode())

    def _line(self, method: str, version: str) -> bytes | None:
        start = f"{method} {version} ".encode()
        return next((line[len(start) :] for line in self._lines if line.startswith(start)), None)


def keep_answers(
    places: Places,
    settings: Mapping[str, str],
    view: Mapping[str, object],
    results: Sequence[tuple[str, str, Mapping[str, object]]],
) -> None:
    """Write the answers for clients with these settings, unless they are there already.

    Args:
        places: The files of the database's owner.
        settings: The settings of the client as it gave them.
        view: `own`, `shared` and `theirs`: what `read_files` is to be given for core memory.
        results: Method, protocol version and result.
    """
    path, key = _path(places, settings), settings_key(settings)
    lines = [json.dumps(view), *(f"{name} {of} {json.dumps(it)}" for name, of, it in results)]
    encoded = [line.encode() for line in lines]
    if _read(path, key) == encoded:
        return
    temporary = f"{path}.{os.getpid()}"
    body = b"\n".join(encoded)
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
        with os.fdopen(file, "wb") as out:
            out.write(f"{key} {_digest(body)}\n".encode() + body)
        os.replace(temporary, path)
    except OSError:
        # Only the speed of the next start is lost.
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    _remove_old(places)


def minimal_result(method: str, params: Message, reason: str) -> Message:
    """Return an answer to a handshake when there is no owner and no file: the reason is in it."""
    changes = {"listChanged": True}
    result: Message = {
        "capabilities": {"tools": changes, "prompts": changes, "resources": changes},
        "instructions": f"The memory can't be used at the moment: {reason}",
    }
    server = {"name": "mcp-memory", "version": __version__}
    if method == "initialize":
        asked = params.get("protocolVersion")
        version = asked if asked in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[-1]
        return {"protocolVersion": version, "serverInfo": server, **result}
    return {
        "supportedVersions": [*MODERN_VERSIONS],
        "resultType": "complete",
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {"io.modelcontextprotocol/serverInfo": server},
        **result,
    }


HANDSHAKE_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN_VERSIONS = ("2026-07-28",)
"""The protocol versions of the SDK, whose import takes too long for a client."""


def _path(places: Places, settings: Mapping[str, str]) -> str:
    return os.path.join(places.folder, f"answers-{settings_key(settings)[:16]}")


def settings_key(settings: Mapping[str, str]) -> str:
    """Return what distinguishes the answers; settings may contain secrets, so not themselves."""
    given = {name: value for name, value in settings.items() if name != f"{PREFIX}DB"}
    return _digest(json.dumps([__version__, sorted(given.items())]).encode())


def _digest(text: bytes) -> str:
    from _blake2 import blake2b  # What hashlib gives too, without loading OpenSSL.

    return blake2b(text, digest_size=16).hexdigest()


def _read(path: str, key: str) -> list[bytes]:
    """Return the lines of a file that is whole, of this user and for this key; else none."""
    try:
        with open(path, "rb") as file:
            about = os.fstat(file.fileno())
            head, _, body = file.read().partition(b"\n")
    except OSError:
        return []
    if os.name == "posix" and (about.st_uid != os.getuid() or about.st_mode & 0o022):
        return []
    return body.split(b"\n") if head == f"{key} {_digest(body)}".encode() else []


def _remove_old(places: Places) -> None:
    with contextlib.suppress(OSError):
        paths = [
            os.path.join(places.folder, name)
            for name in os.listdir(places.folder)
            if name.startswith("answers-")
        ]
        paths.sort(key=lambda path: os.stat(path).st_mtime)
        for path in paths[:-_MAX_FILES]:
            os.unlink(path)
