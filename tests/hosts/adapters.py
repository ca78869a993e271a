"""How each host is told about the server and the model, and run once without a person.

The server is set up as docs/hosts.md tells users to, in the user's own configuration.
The hosts are npm packages in the folder that `MCP_HOSTS_DIR` names, as `run.py` puts
them there. Each runs in an empty home, with everything off that would ask the network.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER_VARIABLE: Final = "MCP_HOSTS_DIR"
RUN_SECONDS: Final = 120
_SERVER: Final = "memory"
_PROMPT: Final = "Do what the script says."
# What a program needs to start at all; nothing else of the user's environment reaches a host.
_KEPT: Final = ("SYSTEMROOT", "COMSPEC", "PATHEXT", "TEMP", "TMP", "TMPDIR")

Prepare = Callable[["Run"], tuple[list[str], dict[str, str]]]


@dataclass(frozen=True)
class Run:
    """What a host needs for one run."""

    home: Path
    url: str
    """The model's endpoint, and the proxy."""
    server: dict[str, str]
    """The environment of the MCP server."""

    def write(self, path: str, content: Any) -> Path:
        """Write a file below the home and return its path."""
        target = self.home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        target.write_text(text, encoding="utf-8")
        return target


@dataclass(frozen=True)
class Ended:
    """How a run of a host ended."""

    status: int | None
    """None if it had to be killed after `RUN_SECONDS`."""
    output: str
    """What it wrote, errors included."""


@dataclass(frozen=True)
class Host:
    """An MCP host."""

    name: str
    package: str
    """Below node_modules: what has to be there for the host to run."""
    executable: str
    prepare: Prepare
    """Writes the configuration; returns the arguments and the environment of the host's own."""

    def installed(self) -> bool:
        """Return whether the host is in the folder."""
        return (_modules() / self.package / "package.json").is_file()

    def run(self, run: Run) -> Ended:
        """Run the host on one prompt to its end; one that hangs is ended with its children."""
        project = run.home / "project"
        project.mkdir(parents=True, exist_ok=True)
        arguments, environment = self.prepare(run)
        suffix = ".cmd" if sys.platform == "win32" else ""
        program = _modules() / ".bin" / f"{self.executable}{suffix}"
        output = run.home / "output.txt"
        # Into a file: a pipe would be open for as long as any child of the host lives.
        with output.open("wb") as file:
            process = subprocess.Popen(
                [str(program), *arguments],
                env=_environment(run) | environment,
                cwd=project,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            status = None
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = process.wait(timeout=RUN_SECONDS)
            finally:
                if status is None:
                    _kill(process)
        return Ended(status, output.read_text(encoding="utf-8", errors="replace"))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a host and what it started: some are a script around the program proper."""
    if sys.platform == "win32":
        taskkill = Path(os.environ["SYSTEMROOT"]) / "System32" / "taskkill.exe"
        subprocess.run([taskkill, "/F", "/T", "/PID", str(process.pid)], check=False)
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=20)


def _modules() -> Path:
    return Path(os.environ.get(FOLDER_VARIABLE, ".")) / "node_modules"


def _environment(run: Run) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    path = os.pathsep.join([str(_modules() / ".bin"), os.environ.get("PATH", os.defpath)])
    home = str(run.home)
    return kept | {
        "PATH": path,
        "HOME": home,
        "USERPROFILE": home,
        "APPDATA": str(run.home / "AppData" / "Roaming"),
        "LOCALAPPDATA": str(run.home / "AppData" / "Local"),
        "HTTP_PROXY": run.url,
        "HTTPS_PROXY": run.url,
        "http_proxy": run.url,
        "https_proxy": run.url,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "NO_COLOR": "1",
    }


_PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "hosts.md"


def documented(host: str) -> list[str]:
    """Return the blocks of code that users of a host are told to use, for this installation."""
    section = re.search(
        rf"^## {re.escape(host)}\n(.*?)(?=^## |\Z)", _PAGE.read_text("utf-8"), re.M | re.S
    )
    assert section is not None, host
    program = Path(sys.executable).with_name("mcp-memory")
    blocks = re.findall(r"^```\w+\n(.*?)^```", section[1], re.M | re.S)
    return [block.replace("/path/to/mcp-memory", program.as_posix()) for block in blocks]


def _claude_code(run: Run) -> tuple[list[str], dict[str, str]]:
    add, rule = documented("Claude Code")
    # `claude mcp add-json NAME -s user JSON` writes it there.
    *_, name, scope, user, entry = shlex.split(add)
    assert (scope, user) == ("-s", "user")
    servers = {name: {**json.loads(entry), "env": run.server}}
    run.write(".claude.json", {"mcpServers": servers})
    run.write(".claude/settings.json", rule)
    return ["-p", _PROMPT, "--model", "sonnet"], {
        "ANTHROPIC_BASE_URL": run.url,
        "ANTHROPIC_API_KEY": "none",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }


def _codex(run: Run) -> tuple[list[str], dict[str, str]]:
    (entry,) = documented("Codex")
    # A JSON string is also one of TOML.
    variables = "\n".join(f"{name} = {json.dumps(value)}" for name, value in run.server.items())
    run.write(
        ".codex/config.toml",
        f"""
model = "scripted"
model_provider = "scripted"
approval_policy = "never"
sandbox_mode = "read-only"
check_for_update_on_startup = false

[features]
plugins = false
remote_plugin = false
apps = false

[analytics]
enabled = false

[model_providers.scripted]
name = "scripted"
base_url = "{run.url}/v1"
wire_api = "responses"

{entry}
[mcp_servers.{_SERVER}.env]
{variables}
""",
    )
    return ["exec", "--skip-git-repo-check", _PROMPT], {}


def _gemini_cli(run: Run) -> tuple[list[str], dict[str, str]]:
    (entry,) = map(json.loads, documented("Gemini CLI"))
    entry["mcpServers"][_SERVER]["env"] = run.server
    settings = {
        **entry,
        "security": {
            "auth": {"selectedType": "gemini-api-key"},
            "folderTrust": {"enabled": False},
        },
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
    }
    run.write(".gemini/settings.json", settings)
    return ["-p", _PROMPT, "-m", "gemini-2.5-flash"], {
        "GEMINI_API_KEY": "none",
        "GOOGLE_GEMINI_BASE_URL": run.url,
    }


def _opencode(run: Run) -> tuple[list[str], dict[str, str]]:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{run.url}/v1", "apiKey": "none"},
        "models": {"scripted": {"tool_call": True}},
    }
    (entry,) = map(json.loads, documented("opencode"))
    entry["mcp"][_SERVER]["environment"] = run.server
    # What a careful user has beside: everything that is not allowed is asked for.
    entry["permission"] = {"*": "ask", **entry["permission"]}
    config = {
        **entry,
        "provider": {"scripted": provider},
        "model": "scripted/scripted",
        "small_model": "scripted/scripted",
        "autoupdate": False,
        "share": "disabled",
    }
    run.write(".config/opencode/opencode.json", config)
    return ["run", _PROMPT], {
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    }


HOSTS: Final = (
    Host("Claude Code", "@anthropic-ai/claude-code", "claude", _claude_code),
    Host("Codex", "@openai/codex", "codex", _codex),
    Host("Gemini CLI", "@google/gemini-cli", "gemini", _gemini_cli),
    Host("opencode", "opencode-ai", "opencode", _opencode),
)
