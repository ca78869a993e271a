"""`mcp-memory compact`: the database file without the space of deleted rows."""

from __future__ import annotations

import click

from mcp_memory.cli.output import echo
from mcp_memory.settings import load_settings


@click.command()
def compact() -> None:
    """Rewrite the database file without the space of deleted rows.

    An owner does this by itself after its last client has left, if a third of the file is
    unused. It needs as much free disk space as the file has; clients wait meanwhile.
    """
    from mcp_memory.owner.client import LONG_SECONDS, ask

    settings = load_settings()
    if not settings.db.exists():
        raise click.ClickException(f"there is no database {settings.db}")
    echo("compacting ...", err=True)
    done = ask(settings, "compact", seconds=LONG_SECONDS)
    before, after = done["before_bytes"], done["after_bytes"]
    saved = 1 - after / before if before else 0.0
    echo(f"{settings.db}: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now ({-saved:+.0%})")
