"""`mcp-memory doctor`: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from mcp_memory.cli.output import echo, echo_json, show
from mcp_memory.settings import Settings, load_settings
from mcp_memory.values.errors import SettingsFault

if TYPE_CHECKING:
    from mcp_memory.cli.checks import Check, Checks

ANSWER_SECONDS: Final = 10.0
_STYLES: Final = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=ANSWER_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long the owner may take for each answer.",
)
def doctor(*, as_json: bool, timeout: float) -> None:
    """Check the installation, the database, and the clients of this machine.

    Folders and permissions, disk, the owner, the embedding model, the tokenizer, the
    database itself, and what each MCP client found here is set up to start. Nothing is
    changed, fetched or ended; it works while clients are connected.

    Exit status 1: there is a problem. Warnings alone end with 0.
    """
    checks = list(examine(timeout))
    problems = sum(check.level == "problem" for check in checks)
    warnings = sum(check.level == "warning" for check in checks)
    if as_json:
        report = {"ok": not problems, "checks": [asdict(check) for check in checks]}
        echo_json(report)
    else:
        _show(checks)
        echo(f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}")
    if problems:
        sys.exit(1)


def examine(seconds: float) -> Checks:
    """Look at everything, in the order in which it would be mended.

    Args:
        seconds: How long the owner may take for each answer.
    """
    from mcp_memory.cli.checks import Check
    from mcp_memory.cli.checks.clients import check_clients
    from mcp_memory.cli.checks.hosts import configurations
    from mcp_memory.cli.checks.machine import check_python, check_variables

    yield from check_python()
    yield from check_variables(os.environ)
    settings: Settings | None = None
    try:
        settings = load_settings()
    except SettingsFault as fault:
        yield Check("settings", "problem", fault.message, fault.hint)
    else:
        yield from _with_settings(settings, seconds)
    yield from check_clients(configurations(), settings)


def _with_settings(settings: Settings, seconds: float) -> Checks:
    from mcp_memory.cli.checks.machine import (
        check_disk,
        check_folders,
        check_model,
        check_tokenizer,
    )
    from mcp_memory.cli.checks.memory import check_database, check_owner

    yield from check_folders(settings)
    yield from check_disk(settings)
    yield from check_model(settings)
    yield from check_tokenizer(settings)
    owner, seen = check_owner(settings, seconds)
    yield from owner
    yield from check_database(settings, seen, seconds)


def _show(checks: list[Check]) -> None:
    rows: list[tuple[str, str]] = []
    styles: list[str] = []
    for check in checks:
        rows.append((check.level, f"{check.subject}: {check.text}"))
        styles.append(_STYLES[check.level])
        if check.hint:
            rows.append(("", f"-> {check.hint}"))
            styles.append("")
    show(rows, styles)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
