"""Finds the configurations of the MCP clients on this machine, and our entries in them.

Reads only. A file that can't be read or parsed is reported, not raised. Of the entries
of other programs nothing leaves this module: they contain secrets.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from mcp_memory.values.locations import PREFIX
from mcp_memory.values.project import COMMANDS

_CONTAINERS: Final = frozenset({"docker", "podman"})
_RUNNERS: Final = frozenset({"uv", "uvx", "pipx"})
_WRAPPERS: Final = frozenset(
    {"bash", "cmd", "env", "nice", "powershell", "pwsh", "sh", "wsl", "zsh"}
)
_KEYS: Final = ("mcpServers", "servers", "mcp", "context_servers", "mcp_servers")
_URLS: Final = ("url", "httpUrl", "serverUrl")
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

# A string, a comment, and a comma before a closing bracket. Each matches without an end too;
# otherwise a file without one would be scanned again from every position.
_STRING: Final = r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"?'
_COMMENTS: Final = re.compile(_STRING + r"|//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_LAST_COMMAS: Final = re.compile(_STRING + r"|,(?=\s*[}\]])", re.DOTALL)


def _home() -> Path:
    """Return the user's home; without one, a path below which there is nothing."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.devnull)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where to look; the default is this machine, as the present user sees it.

    Attributes:
        platform: As in `sys.platform`.
        folder: The project whose own configurations are looked for too.
    """

    home: Path = field(default_factory=_home)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    platform: str = sys.platform
    folder: Path = field(default_factory=Path.cwd)

    def folders(self, named: Mapping[str, tuple[str, str]]) -> dict[str, Path]:
        """Return the folders by the names that hosts.toml has for them."""
        found = {name: self._folder(*where) for name, where in named.items()}
        config = found["xdg"]
        if self.platform == "darwin":
            config = self.home / "Library" / "Application Support"
        elif self.platform == "win32":
            config = self._folder("APPDATA", "AppData/Roaming")
        return found | {"home": self.home, "project": self.folder, "config": config}

    def _folder(self, variable: str, default: str) -> Path:
        named = self.environment.get(variable, "")
        return Path(named) if os.path.isabs(named) else self.home / default


@dataclass(frozen=True, slots=True)
class Client:
    """A program that starts MCP servers.

    Attributes:
        key: Where its file has the servers; dots go down.
        reads: What its parser accepts; comments break `json`.
    """

    name: str
    key: str = "mcpServers"
    reads: Literal["json", "jsonc", "toml"] = "jsonc"


@dataclass(frozen=True, slots=True)
class Entry:
    """One server of ours in a client's configuration.

    Attributes:
        command: The program and its arguments; empty if it is reached at `url`.
        environment: What the client sets for it.
        project: The folder that it is for, None for all.
        misplaced: The key it stands under, if the client does not read that.
    """

    name: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    url: str | None = None
    enabled: bool = True
    project: str | None = None
    misplaced: str | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """Our entries in one file.

    Attributes:
        servers: How many servers the file has in all.
        error: Why it can't be read, or what its client will not accept.
    """

    client: Client
    path: Path
    entries: tuple[Entry, ...] = ()
    servers: int = 0
    error: str | None = None


def configurations(machine: Machine | None = None) -> list[Configuration]:
    """Return the configurations that exist on this machine, client by client."""
    machine = machine or Machine()
    table = tomllib.loads(resources.files(__package__).joinpath("hosts.toml").read_text("utf-8"))
    folders = machine.folders(table["folders"])
    found: dict[Path, Configuration] = {}
    for row in table["client"]:
        files = row.pop("files") + row.pop("windows", [])[: machine.platform == "win32"]
        client = Client(**row)
        for file in files:
            folder, _, pattern = file.partition("/")
            for path in sorted(folders[folder].glob(pattern)):
                if path not in found and os.path.exists(path):
                    found[path] = read_configuration(client, path)
    return list(found.values())


def read_configuration(client: Client, path: Path) -> Configuration:
    """Return our entries in one file."""
    error = None
    try:
        if not path.is_file():
            return Configuration(client, path, error="is not a file")
        content, is_strict = _parsed(path.read_bytes().decode("utf-8-sig"), client.reads)
        if not is_strict and client.reads == "json":
            error = f"has comments or a trailing comma, which {client.name} does not accept"
        servers = list(_servers(content, client))
    except OSError as failure:
        return Configuration(client, path, error=f"can't be read: {failure.strerror}")
    except UnicodeDecodeError:
        return Configuration(client, path, error="is not UTF-8 text")
    except (ValueError, RecursionError) as failure:
        # The message names a place and what was expected there, nothing of the text.
        return Configuration(client, path, error=f"is malformed: {failure}")
    entries = [
        entry
        for key, project, name, server in servers
        if (entry := _entry(name, server, project, None if key == client.key else key)) is not None
    ]
    count = sum(key == client.key for key, *_ in servers)
    return Configuration(client, path, tuple(entries), count, error)


def _parsed(text: str, reads: str) -> tuple[Any, bool]:
    """Return the content, and whether it is strictly of its format."""
    if reads == "toml":
        return tomllib.loads(text), True
    if not text.strip():
        return {}, True
    try:
        return json.loads(text), True
    except ValueError:
        return json.loads(_LAST_COMMAS.sub(_blanked, _COMMENTS.sub(_blanked, text))), False


def _blanked(found: re.Match[str]) -> str:
    # Lines stay, so that the position in a remaining error is right.
    part = found[0]
    return part if part.startswith('"') else re.sub(r"[^\n]", " ", part)


def _servers(content: Any, client: Client) -> Iterator[tuple[str, str | None, str, Any]]:
    """Give key, project, name and content of every server, also under the keys of others."""
    if not isinstance(content, dict):
        raise ValueError("it contains no object")
    if not isinstance(_under(content, client.key) or {}, dict):
        raise ValueError(f"{client.key!r} is not an object")
    for key in dict.fromkeys((client.key, *_KEYS)):
        for name, server in _items(_under(content, key)):
            yield key, None, name, server
    # Claude Code has the servers of a folder below the folder's path.
    for project, settings in _items(content.get("projects")):
        for name, server in _items(_under(settings, client.key)):
            yield client.key, project, name, server


def _under(content: Any, key: str) -> Any:
    for step in key.split("."):
        content = content.get(step) if isinstance(content, dict) else None
    return content


def _items(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        yield from content.items()


def _entry(name: str, server: Any, project: str | None, misplaced: str | None) -> Entry | None:
    """Return a server of a configuration if it is ours."""
    if not isinstance(server, dict):
        return None
    # Older versions of Zed have the command as an object of its own, opencode as a list.
    nested = server.get("command")
    source = nested if isinstance(nested, dict) else server
    program, arguments = source.get("path", source.get("command")), source.get("args")
    words: tuple[str, ...] = ()
    if isinstance(program, (str, list)):
        parts = program if isinstance(program, list) else [program]
        words = tuple(map(str, parts + (arguments if isinstance(arguments, list) else [])))
    variables = {key: str(v) for key, v in _items(source.get("env", source.get("environment")))}
    url = next((server[key] for key in _URLS if isinstance(server.get(key), str)), None)
    if words:
        url = None
    if not (
        _runs_us(words)
        or any(variable.startswith(PREFIX) for variable in variables)
        or (url is not None and _is_ours(name, url))
    ):
        return None
    return Entry(
        name,
        words,
        variables,
        None if url is None else _shown(url),
        not server.get("disabled", False) and server.get("enabled", True) is not False,
        project,
        misplaced,
    )


def _runs_us(words: tuple[str, ...]) -> bool:
    program, rest = program_name(words[0]) if words else "", words[1:]
    if program in COMMANDS:
        return True
    if re.fullmatch(r"py|pythonw?[\d.]*", program):
        return any(program_name(word) in {*COMMANDS, "mcp_memory"} for word in rest)
    if program in _CONTAINERS:
        return any(program_name(word) in COMMANDS for word in rest)
    if program in _RUNNERS:
        # A path among their arguments may have any name.
        return any(program_name(w) in COMMANDS for w in rest if not re.search(r"[\\/]", w))
    if program in _WRAPPERS:
        return any(program_name(part) in COMMANDS for word in rest for part in _split(word))
    return False


def program_name(word: str) -> str:
    """Return the name of a program, package or image without folder, version and suffix."""
    name = re.split(r"[\\/]", word)[-1].lower().removesuffix(".exe").removesuffix(".cmd")
    return re.split(r"[\[=@:<>~!]", name)[0]


def _split(word: str) -> list[str]:
    try:
        return [word, *shlex.split(word)]
    except ValueError:
        return [word, *word.split()]


def _is_ours(name: str, url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    is_local = parts.hostname in _LOOPBACK and parts.path.rstrip("/") in {"/mcp", "/sse"}
    return is_local and "memory" in name.lower()


def _shown(url: str) -> str:
    """Return an address without its parts that may be secret."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that can't be read"
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
