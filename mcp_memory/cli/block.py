"""`mcp-memory block`: core memory for its owner, read-only blocks included."""

from __future__ import annotations

import sys
from typing import Any

import click

from mcp_memory.cli.output import echo, show
from mcp_memory.owner.client import ask, session
from mcp_memory.settings import DEFAULT_CONVERSATION, Settings, load_settings


@click.group()
def block() -> None:
    """List the blocks of core memory, set one, or show the history of one."""


def _whose(settings: Settings) -> dict[str, object]:
    return {"agent": settings.agent, "shared_blocks": list(settings.shared_blocks)}


@block.command("list")
def list_blocks() -> None:
    """Print every block with its value."""
    with session(load_settings(), "block list") as opened:
        echo(opened.read("memory://core"))


@block.command("set")
@click.argument("label")
@click.argument("value")
@click.option("--description", help="What the block is for; the model sees it.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), help="In tokens; default for a new block: 2000."
)
@click.option("--read-only/--writable", default=None, help="Whether the model may edit it.")
def set_block(
    label: str, value: str, description: str | None, limit: int | None, read_only: bool | None
) -> None:
    """Set block LABEL to VALUE; `-` reads the value from stdin."""
    settings = load_settings()
    done = ask(
        settings,
        "block.set",
        {
            **_whose(settings),
            "label": label,
            "value": sys.stdin.buffer.read().decode("utf-8") if value == "-" else value,
            "description": description,
            "limit": limit,
            "read_only": read_only,
        },
    )
    state = ", read-only" if done["read_only"] else ""
    echo(f"block {done['label']}: {done['tokens']} of {done['limit']} tokens{state}")


@block.command("history")
@click.argument("label")
@click.option("--conversation", default=DEFAULT_CONVERSATION, help="For the block `working`.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--version", type=click.IntRange(1), help="Print the value of this version.")
def show_history(label: str, conversation: str, limit: int, version: int | None) -> None:
    """Print who changed block LABEL, when and why, the newest change first."""
    settings = load_settings()
    revisions = ask(
        settings,
        "block.history",
        {
            **_whose(settings),
            "label": label,
            "conversation": conversation,
            "limit": limit,
            "version": version,
        },
    )["revisions"]
    if version is not None:
        echo(revisions[0]["value"])
    elif not revisions:
        echo(f"block {label} has not been changed yet")
    else:
        show([(f"version {item['version']}", _revision_line(item)) for item in revisions])


def _revision_line(item: dict[str, Any]) -> str:
    """Return when and by which connection a version was written, its size, and why."""
    text = f"{item['at']}  {item['tokens']} tokens  by {item['by'] or 'the user'}"
    if item["consolidation"]:
        text += f"  consolidation {item['consolidation']}"
        text += f" of the {item['author']}" if item["author"] != "client" else ""
        text += f": {item['reason']}" if item["reason"] else ""
    return text
