"""Where each MCP client keeps its configuration, and what our entry in it says.

Reads only; a file that can't be read or understood is reported, never raised.
Of entries that are not ours nothing leaves this module: they hold the secrets
of other programs.
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
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

Reads = Literal["json", "jsonc", "toml"]

MAX_BYTES: Final = 64 * 1024 * 1024
"""Claude Code keeps much else in its file; one that is larger is not read."""

_PROGRAM: Final = "mcp-memory"
_RUNNERS: Final = frozenset({"uv", "uvx", "pipx", "docker", "podman"})
_WRAPPERS: Final = frozenset(
    {"bash", "cmd", "env", "nice", "powershell", "pwsh", "sh", "wsl", "zsh"}
)
_KEYS: Final = ("mcpServers", "servers", "mcp", "context_servers", "mcp_servers")
_URLS: Final = ("url", "httpUrl", "serverUrl")
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

# Each of them fits whatever comes, or a file without an end would be read again from each place.
_STRING: Final = r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"?'
_COMMENTS: Final = re.compile(_STRING + r"|//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_LAST_COMMAS: Final = re.compile(_STRING + r"|,(?=\s*[}\]])", re.DOTALL)
"""Strings, which stay, and what JSON knows not: a comment, a comma before a closing bracket."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where to look; the default is this machine, as the present user sees it.

    Attributes:
        platform: As in `sys.platform`.
        folder: The project whose own configurations are looked for too.
    """

    home: Path = field(default_factory=Path.home)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    platform: str = sys.platform
    folder: Path = field(default_factory=Path.cwd)

    @property
    def config(self) -> Path:
        """Where programs of the desktop keep their settings."""
        if self.platform == "darwin":
            return self.home / "Library" / "Application Support"
        if self.platform == "win32":
            return self._folder("APPDATA", self.home / "AppData" / "Roaming")
        return self.xdg

    @property
    def xdg(self) -> Path:
        """Where programs that follow XDG keep them, on every platform."""
        return self._folder("XDG_CONFIG_HOME", self.home / ".config")

    def own(self, variable: str, name: str) -> Path:
        """Return the folder that a variable names, or the one of that name at home."""
        return self._folder(variable, self.home / name)

    def _folder(self, variable: str, default: Path) -> Path:
        named = self.environment.get(variable, "")
        return Path(named) if os.path.isabs(named) else default


@dataclass(frozen=True, slots=True)
class Client:
    """A program that starts MCP servers.

    Attributes:
        key: Under which its file has the servers; dots go down.
        reads: What its parser takes; of `json` it is known that comments break it.
    """

    name: str
    key: str = "mcpServers"
    reads: Reads = "jsonc"


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
    """What one file says of us; `error` is why it can't be read, or what its client will trip on.

    `servers` is how many servers it has in all.
    """

    client: Client
    path: Path
    entries: tuple[Entry, ...] = ()
    servers: int = 0
    error: str | None = None


def configurations(machine: Machine | None = None) -> list[Configuration]:
    """Return what the configuration files say that are on this machine, client by client."""
    seen: set[Path] = set()
    found = []
    for client, path in _places(machine or Machine()):
        if path not in seen and os.path.exists(path):
            seen.add(path)
            found.append(read_configuration(client, path))
    return found


def read_configuration(client: Client, path: Path) -> Configuration:
    """Return what one file says of us."""
    error = None
    try:
        if not path.is_file():
            return Configuration(client, path, error="is no file")
        if path.stat().st_size > MAX_BYTES:
            return Configuration(client, path, error="is too large to be a configuration")
        text = path.read_bytes().decode("utf-8-sig")
        content, is_strict = _parsed(text, client.reads)
        if not is_strict and client.reads == "json":
            error = f"has comments or a comma too many, which {client.name} does not take"
        named = list(_servers(content, client))
    except OSError as failure:
        return Configuration(client, path, error=f"can't be read: {failure.strerror}")
    except UnicodeDecodeError:
        return Configuration(client, path, error="is not UTF-8 text")
    except (ValueError, RecursionError) as failure:
        # The message has a place and what was missed there, nothing of the text.
        return Configuration(client, path, error=f"is malformed: {failure}")
    entries = [
        entry
        for key, project, name, server in named
        if (entry := _entry(client, key, project, name, server)) is not None
    ]
    count = sum(1 for key, *_ in named if _is_key(client, key))
    return Configuration(client, path, tuple(entries), count, error)


def _places(machine: Machine) -> Iterator[tuple[Client, Path]]:
    """Give every file that a client may read, its users' before those of the project."""
    home, config, folder = machine.home, machine.config, machine.folder
    desktop = Client("Claude Desktop", reads="json")
    yield desktop, config / "Claude" / "claude_desktop_config.json"
    if machine.platform == "win32":
        # As an app of the store it lives in a folder of its own.
        packages = machine.own("LOCALAPPDATA", "AppData/Local") / "Packages"
        roaming = Path("LocalCache", "Roaming", "Claude", "claude_desktop_config.json")
        for package in sorted(packages.glob("Claude_*")):
            yield desktop, package / roaming
    code = Client("Claude Code", reads="json")
    yield code, machine.own("CLAUDE_CONFIG_DIR", "") / ".claude.json"
    yield code, folder / ".mcp.json"
    cursor = Client("Cursor")
    yield cursor, home / ".cursor" / "mcp.json"
    yield cursor, folder / ".cursor" / "mcp.json"
    for name in ("Code", "Code - Insiders", "VSCodium"):
        user = config / name / "User"
        vscode = Client({"Code": "VS Code", "Code - Insiders": "VS Code Insiders"}.get(name, name))
        vscode = Client(vscode.name, "servers")
        yield vscode, user / "mcp.json"
        yield Client(vscode.name, "mcp.servers"), user / "settings.json"
        for profile in sorted((user / "profiles").glob("*/mcp.json")):
            yield vscode, profile
        storage = user / "globalStorage"
        yield (
            Client("Cline"),
            storage / "saoudrizwan.claude-dev" / "settings" / "cline_mcp_settings.json",
        )
        yield (
            Client("Roo Code"),
            storage / "rooveterinaryinc.roo-cline" / "settings" / "mcp_settings.json",
        )
    yield Client("VS Code", "servers"), folder / ".vscode" / "mcp.json"
    yield Client("Windsurf"), home / ".codeium" / "windsurf" / "mcp_config.json"
    codex = Client("Codex", "mcp_servers", "toml")
    yield codex, machine.own("CODEX_HOME", ".codex") / "config.toml"
    yield codex, folder / ".codex" / "config.toml"
    gemini = Client("Gemini CLI")
    yield gemini, home / ".gemini" / "settings.json"
    yield gemini, folder / ".gemini" / "settings.json"
    opencode = Client("opencode", "mcp")
    for place in (machine.xdg / "opencode", folder):
        yield opencode, place / "opencode.json"
        yield opencode, place / "opencode.jsonc"
    zed = Client("Zed", "context_servers")
    yield (
        zed,
        (config / "Zed" if machine.platform == "win32" else machine.xdg / "zed")
        / ("settings.json"),
    )
    yield zed, folder / ".zed" / "settings.json"
    yield Client("Copilot CLI"), home / ".copilot" / "mcp-config.json"
    yield Client("Kiro"), home / ".kiro" / "settings" / "mcp.json"
    yield Client("LM Studio"), home / ".lmstudio" / "mcp.json"


def _parsed(text: str, reads: Reads) -> tuple[Any, bool]:
    """Return the content, and whether it needed no leniency."""
    if reads == "toml":
        return tomllib.loads(text), True
    if not text.strip():
        return {}, True
    try:
        return json.loads(text), True
    except ValueError:
        bare = _LAST_COMMAS.sub(_kept, _COMMENTS.sub(_kept, text))
    return json.loads(bare), False


def _kept(found: re.Match[str]) -> str:
    # Lines stay, so that an error that is still there is named by its place.
    part = found[0]
    return part if part.startswith('"') else re.sub(r"[^\n]", " ", part)


def _servers(content: Any, client: Client) -> Iterator[tuple[str, str | None, str, Any]]:
    """Give key, project, name and content of every server, also under the keys of others."""
    if not isinstance(content, dict):
        raise ValueError("it holds no object")
    if not isinstance(_under(content, client.key) or {}, dict):
        raise ValueError(f"{client.key!r} is no object")
    for key in dict.fromkeys((client.key, *_KEYS)):
        for name, server in _items(_under(content, key)):
            yield key, None, name, server
    if client.name == "Claude Code":
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


def _is_key(client: Client, key: str) -> bool:
    return key == client.key


def _entry(client: Client, key: str, project: str | None, name: str, server: Any) -> Entry | None:
    """Return a server of a configuration if it is ours."""
    if not isinstance(server, dict):
        return None
    # Zed has had its command as an object of its own.
    nested = server.get("command")
    source = nested if isinstance(nested, dict) else server
    program = source.get("path", source.get("command"))
    arguments = source.get("args")
    parts = [program] if isinstance(program, str) else program
    words: tuple[str, ...] = ()
    if isinstance(parts, list):
        words = tuple(map(str, [*parts, *(arguments if isinstance(arguments, list) else [])]))
    variables = {
        name: str(value) for name, value in _items(source.get("env", source.get("environment")))
    }
    url = next((server[key] for key in _URLS if isinstance(server.get(key), str)), None)
    if not (
        _runs_us(words)
        or any(variable.startswith("MCP_MEMORY_") for variable in variables)
        or (not words and url is not None and _is_ours(name, url))
    ):
        return None
    enabled = not server.get("disabled", False) and server.get("enabled", True) is not False
    return Entry(
        name,
        words,
        variables,
        None if words or url is None else _shown(url),
        enabled,
        project,
        None if _is_key(client, key) else key,
    )


def _runs_us(words: tuple[str, ...]) -> bool:
    if not words:
        return False
    program = _base(words[0])
    rest = words[1:]
    if program == _PROGRAM:
        return True
    if re.fullmatch(r"py|pythonw?[\d.]*", program):
        return any(_base(word) in {_PROGRAM, "mcp_memory"} for word in rest)
    if program in _RUNNERS:
        # Their own paths may have any name; an image is a path and ours all the same.
        is_image = program in {"docker", "podman"}
        return any(
            _base(word) == _PROGRAM and (is_image or not re.search(r"[\\/]", word)) for word in rest
        )
    if program in _WRAPPERS:
        return any(_base(part) == _PROGRAM for word in rest for part in _split(word))
    return False


def _base(word: str) -> str:
    """Return the name of a program, package or image without folder, version and suffix."""
    name = re.split(r"[\\/]", word)[-1].lower()
    name = name.removesuffix(".exe").removesuffix(".cmd")
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
    return (
        "memory" in name.lower()
        and parts.hostname in _LOOPBACK
        and parts.path.rstrip("/") in {"/mcp", "/sse"}
    )


def _shown(url: str) -> str:
    """Return an address without what may be secret in it."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that can't be read"
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
