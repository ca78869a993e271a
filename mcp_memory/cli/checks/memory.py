"""Checks of the database and of the process that owns it."""

from __future__ import annotations

import os
from typing import Any

from mcp_memory import __version__
from mcp_memory.cli.checks import Check, Checks
from mcp_memory.owner.look import Look, State, alone, look
from mcp_memory.owner.places import Places
from mcp_memory.settings import Settings
from mcp_memory.values.errors import DatabaseLocked, MemoryFault

_UNCHECKED = "the database was not checked"


def check_owner(settings: Settings, seconds: float) -> tuple[list[Check], Look]:
    """Check the owner; return also its state, for `check_database`.

    Args:
        seconds: How long it may take to answer.
    """
    places = Places(str(settings.db))
    seen = look(places, seconds=seconds)
    checks = list(_owner(places, seen, seconds))
    if settings.owner == "off" and seen.state is State.RUNNING:
        text = "MCP_MEMORY_OWNER is off here: such a client is refused while an owner runs"
        checks.append(Check("owner", "warning", text, "Leave it out, or set it in every client"))
    elif settings.owner == "off":
        text = "MCP_MEMORY_OWNER is off: one client at a time can use the database"
        checks.append(Check("owner", "ok", text))
    version = (seen.address or {}).get("version")
    if seen.state is State.RUNNING and version != __version__:
        checks.append(
            Check(
                "owner",
                "warning",
                f"the owner is version {version}, this command is {__version__}",
                "The next client of the newer version replaces it"
                if (seen.address or {}).get("kind") == "detached"
                else "Restart `mcp-memory serve`",
            )
        )
    return checks, seen


def check_database(settings: Settings, seen: Look, seconds: float) -> Checks:
    """Check the consistency of the database: through the owner if one runs."""
    if not os.path.exists(settings.db):
        # Nobody can have it open, and a check creates no folders.
        yield from _inspected(settings)
    elif seen.state is State.RUNNING:
        yield from _through_owner(settings, seconds)
    elif seen.state in {State.SILENT, State.BUSY}:
        yield Check(
            "database",
            "warning",
            f"{_UNCHECKED}: {seen.holder or 'the owner'} has it open",
            "Run this again when the owner answers or has ended",
        )
    else:
        yield from _directly(settings, seconds)


def _owner(places: Places, seen: Look, seconds: float) -> Checks:
    address = seen.address or {}
    pid = address.get("pid")
    if seen.state is State.NONE:
        yield Check("owner", "ok", "none is running; it starts with the first client")
    elif seen.state is State.STALE:
        yield Check(
            "owner",
            "ok",
            f"none is running; process {pid} has died and left its address, which is harmless",
        )
    elif seen.state is State.BUSY:
        yield Check(
            "owner",
            "warning",
            f"{seen.holder} has the lock of the owner and accepts no clients",
            f"Wait a moment and run this again; if nothing changes, see {places.log}",
        )
    elif seen.state is State.SILENT:
        detached = address.get("kind") == "detached"
        yield Check(
            "owner",
            "problem",
            f"process {pid} did not answer within {seconds:g} s",
            f"End it with {_kill(pid)}: nothing that was acknowledged is lost, and "
            + ("the next call starts another" if detached else "start `mcp-memory serve` again"),
        )
    elif seen.refusal:
        yield Check(
            "owner", "problem", f"process {pid} refused: {seen.refusal}", f"See {places.log}"
        )
    else:
        where = "a socket" if "unix" in address else "a port of this machine"
        yield Check("owner", "ok", f"process {pid} answers at {where}")


def _through_owner(settings: Settings, seconds: float) -> Checks:
    seen = look(Places(str(settings.db)), "check", seconds=seconds)
    if seen.state is State.SILENT:
        yield Check(
            "database",
            "warning",
            f"{_UNCHECKED}: the owner took longer than {seconds:g} s",
            "Give it more time with --timeout",
        )
    elif seen.state is not State.RUNNING:
        yield Check("database", "warning", f"{_UNCHECKED}: the owner has just left", "Run it again")
    elif seen.refusal:
        yield Check("database", "problem", seen.refusal)
    else:
        yield from _findings(seen.result.get("findings"))
        yield from _embedding(settings, seen.result.get("embedding"))


def _directly(settings: Settings, seconds: float) -> Checks:
    try:
        with alone(Places(str(settings.db)), seconds=seconds) as is_alone:
            if is_alone:
                yield from _inspected(settings)
                return
    except MemoryFault as fault:
        yield Check("database", "problem", fault.message, fault.hint)
    else:
        yield Check("database", "warning", f"{_UNCHECKED}: an owner is starting", "Run it again")


def _inspected(settings: Settings) -> Checks:
    from mcp_memory.agent.memories import inspect_file

    try:
        findings = inspect_file(settings.db, settings.embedding_model)
    except DatabaseLocked as fault:
        yield Check(
            "database",
            "warning",
            f"{_UNCHECKED}: {fault.message}, which is not an owner",
            "It may be a server with MCP_MEMORY_OWNER=off, which shares the database with no other",
        )
    except MemoryFault as fault:
        yield Check("database", "problem", fault.message, fault.hint)
    else:
        for finding in findings:
            yield Check("database", finding.level, finding.text, finding.hint)


def _findings(findings: Any) -> Checks:
    for finding in findings if isinstance(findings, list) else []:
        yield Check("database", finding["level"], finding["text"], finding["hint"])


def _embedding(settings: Settings, state: Any) -> Checks:
    shown: dict[str, Any] = state if isinstance(state, dict) else {}
    if shown.get("state") == "unavailable":
        yield Check(
            "model",
            "warning",
            f"the owner searches by words alone: {shown.get('detail')}",
            "Correct it and end the owner; the next call starts another",
        )
    if shown.get("model") not in {None, settings.embedding_model}:
        yield Check(
            "model",
            "warning",
            f"the owner uses {shown['model']}, and {settings.embedding_model} is set here",
            "Set MCP_MEMORY_EMBEDDING_MODEL the same everywhere: a client with another is refused",
        )


def _kill(pid: object) -> str:
    return f"`taskkill /F /PID {pid}`" if os.name == "nt" else f"`kill -9 {pid}`"
