"""Checks how each MCP client on this machine is set up to start this program."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from mcp_memory.cli.checks import Check, Checks
from mcp_memory.cli.checks.hosts import Configuration, Entry, program_name
from mcp_memory.cli.checks.machine import unknown_settings
from mcp_memory.settings import Settings, settings_of
from mcp_memory.values.errors import SettingsFault
from mcp_memory.values.locations import PREFIX
from mcp_memory.values.project import install_hint

_DB: Final = f"{PREFIX}DB"
_AGENT: Final = f"{PREFIX}AGENT"
_SAME_FOR_ALL: Final = ("embedding_model", "tokenizer")
_SETUP: Final = 'See the README, "Add it to your client"'
_VARIABLE: Final = re.compile(r"\$\{|\{env:|\$\w|%\w+%")
"""A variable that the client replaces before it starts the program; its value is unknown here."""


def check_clients(found: Sequence[Configuration], settings: Settings | None) -> Checks:
    """Check every configuration that was found.

    Args:
        settings: Those of this process, None if they are wrong.
    """
    entries = 0
    for configuration in found:
        subject = configuration.client.name
        if configuration.error is not None:
            yield Check(
                subject,
                "warning",
                f"{configuration.path} {configuration.error}",
                f"Correct the file; until then {subject} may start no server at all",
            )
        if not configuration.entries and configuration.error is None:
            yield Check(subject, "ok", f"{configuration.path} has no entry for mcp-memory")
        for entry in configuration.entries:
            entries += 1
            yield from _check_entry(configuration, entry)
    if not entries:
        yield Check("clients", "warning", "no client that was found here starts mcp-memory", _SETUP)
    elif settings is not None:
        yield from _check_databases(found, settings)
        yield from _check_same(found)


def _check_entry(configuration: Configuration, entry: Entry) -> Checks:
    subject = configuration.client.name
    project = f" for {entry.project}" if entry.project else ""
    where = f"{configuration.path}, entry {entry.name!r}{project}"
    if entry.misplaced is not None:
        yield Check(
            subject,
            "problem",
            f"{where}: it stands under {entry.misplaced!r}, which {subject} does not read",
            f"Move it to {configuration.client.key!r}",
        )
    if not entry.enabled:
        yield Check(subject, "warning", f"{where}: it is switched off", "Switch it on to use it")
    if entry.url is not None:
        yield Check(subject, "ok", f"{where}: reaches a server at {entry.url}")
        return
    trouble = list(_check_command(subject, where, entry))
    trouble += _check_environment(subject, where, entry)
    yield from trouble
    if not trouble:
        agent = entry.environment.get(_AGENT, "default")
        database = entry.environment.get(_DB, "the default one")
        yield Check(subject, "ok", f"{where}: agent {agent!r}, database {database}")


def _check_command(subject: str, where: str, entry: Entry) -> Checks:
    hint = "Set the command to the absolute path that `which mcp-memory` shows"
    if not entry.command:
        yield Check(subject, "problem", f"{where}: it has no command", hint)
        return
    if _is_from_index(entry.command):
        text = f"{where}: `mcp-memory` on the package index is another project"
        yield Check(subject, "problem", text, f"{install_hint()}. {hint}")
    program = entry.command[0]
    if _VARIABLE.search(program):
        return
    if program.startswith("~"):
        yield Check(
            subject,
            "warning",
            f"{where}: not every client replaces the ~ of {program}",
            hint,
        )
        program = os.path.expanduser(program)
    is_path = re.search(r"[\\/]", program) is not None
    if is_path and not os.path.isabs(program):
        yield Check(
            subject,
            "warning",
            f"{where}: {program} depends on the folder that {subject} starts in",
            hint,
        )
    elif is_path and not os.path.exists(program):
        yield Check(subject, "problem", f"{where}: there is no {program}", hint)
    elif shutil.which(program, path=entry.environment.get("PATH")) is None:
        reason = f"{program} can't be run" if is_path else f"there is no {program} on the PATH"
        yield Check(subject, "problem", f"{where}: {reason}", hint)


def _is_from_index(command: Sequence[str]) -> bool:
    """Return whether a command downloads the package that is called `mcp-memory`."""
    names = {program_name(word) for word in command}
    if not ({"uvx", "pipx"} & names or {"uv", "tool"} <= names):
        return False
    text = " ".join(command)
    sources = re.findall(r"--(?:from|spec)[ =](\S+)", text) or text.split()
    return any(re.fullmatch(r"mcp-memory(?:[\[=@<>~!](?!.*://).*)?", word) for word in sources)


def _check_environment(subject: str, where: str, entry: Entry) -> list[Check]:
    found = [
        Check(
            subject,
            "warning",
            f"{where}: there is no setting {name}",
            "See `mcp-memory serve --help` for the settings",
        )
        for name in unknown_settings(entry.environment)
    ]
    try:
        settings_of(_given(entry.environment))
    except SettingsFault as fault:
        found.append(Check(subject, "problem", f"{where}: {fault.message}", fault.hint))
    return found


def _check_databases(found: Sequence[Configuration], settings: Settings) -> Checks:
    """Report clients that do not see each other's memories."""
    names: dict[Path, set[str]] = {}
    for configuration in found:
        for entry in configuration.entries:
            if entry.url is None and not _VARIABLE.search(entry.environment.get(_DB, "")):
                names.setdefault(_database(entry), set()).add(configuration.client.name)
    shown = "; ".join(f"{', '.join(sorted(who))}: {path}" for path, who in names.items())
    if len(names) > 1:
        yield Check(
            "clients",
            "warning",
            f"they do not share one memory: {shown}",
            f"Give all the same {_DB} if they should",
        )
    elif names and settings.db not in names:
        yield Check(
            "clients",
            "warning",
            f"they use another database than the one that was checked here: {shown}",
            f"Run it again with {_DB}={next(iter(names))}",
        )


def _check_same(found: Sequence[Configuration]) -> Checks:
    """Report clients of one database that differ in a setting that must be the same for all."""
    for name in _SAME_FOR_ALL:
        values: dict[Path, dict[str, set[str]]] = {}
        for configuration in found:
            for entry in configuration.entries:
                if entry.url is None and (given := _settings(entry)) is not None:
                    users = values.setdefault(given.db, {}).setdefault(getattr(given, name), set())
                    users.add(configuration.client.name)
        for db, users_of in values.items():
            if len(users_of) > 1:
                shown = "; ".join(f"{', '.join(sorted(who))}: {v}" for v, who in users_of.items())
                yield Check(
                    "clients",
                    "problem",
                    f"they share {db}, each with its own {PREFIX}{name.upper()}: {shown}",
                    "Set the same in every client: the owner refuses a client that differs",
                )


def _settings(entry: Entry) -> Settings | None:
    try:
        return settings_of(_given(entry.environment))
    except SettingsFault:
        return None  # Reported for the entry itself.


def _database(entry: Entry) -> Path:
    try:
        # The settings of this process do not apply to one that a client starts.
        return settings_of({_DB: entry.environment[_DB]} if _DB in entry.environment else {}).db
    except SettingsFault:
        return Path(entry.environment[_DB])


def _given(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of an entry, without those that have a variable of the client."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    return {
        name: value
        for name, value in environment.items()
        if name.upper() in known and not _VARIABLE.search(value)
    }
