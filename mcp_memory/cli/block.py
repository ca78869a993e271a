"""`mcp-memory block`: core memory from the outside, read-only blocks included."""

from __future__ import annotations

import sys

import click

from mcp_memory.owner.client import ask
from mcp_memory.settings import Settings, load_settings


@click.group()
def block() -> None:
    """List the blocks of core memory, or set one."""


def _whose(settings: Settings) -> dict[str, object]:
    return {"agent": settings.agent, "shared_blocks": list(settings.shared_blocks)}


@block.command("list")
def list_blocks() -> None:
    """Print every block with its value."""
    settings = load_settings()
    click.echo(ask(settings, "block.list", _whose(settings))["text"])


@block.command("set")
@click.argument("label")
@click.argument("value")
@click.option("--description", help="What the block is for; shown to the model.")
@click.option("--limit", type=click.IntRange(1, 100_000), help="In tokens; 2000 for a new block.")
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
    click.echo(f"block {done['label']}: {done['tokens']} of {done['limit']} tokens{state}")
