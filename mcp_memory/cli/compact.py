"""`mcp-memory compact`: a database file without what is dead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from mcp_memory.settings import load_settings

if TYPE_CHECKING:
    from mcp_memory.settings import Settings

_OWNER_SECONDS: Final = 3_600.0
_SHOWN: Final = {
    "checkpointed": "making a copy",
    "copied": "comparing the copy with the original",
    "checked": "putting it in place",
}
"""What comes after a step."""


@click.command()
def compact() -> None:
    """Make the database file as small as what is in it.

    An idle owner does it by itself once a third of the file is dead. It needs as much
    free space as the file has; clients go on meanwhile.
    """
    settings = load_settings()
    if not settings.db.exists():
        raise click.ClickException(f"there is no database {settings.db}")
    done = _compact(settings)
    before, after = done["before_bytes"], done["after_bytes"]
    saved = 1 - after / before if before else 0.0
    click.echo(
        f"{settings.db}: {_megabytes(before)} before, {_megabytes(after)} now ({-saved:+.0%})"
    )


def _compact(settings: Settings) -> dict[str, Any]:
    """Let the owner do it if there is one, which then serves its clients meanwhile."""
    from mcp_memory.owner.client import ask_owner
    from mcp_memory.owner.look import State, look
    from mcp_memory.owner.places import Places

    if look(Places(str(settings.db)), "ping", seconds=5.0).state is State.RUNNING:
        click.echo("the owner of the database compacts it …", err=True)
        return ask_owner(settings, "compact", seconds=_OWNER_SECONDS)
    return _compact_alone(settings)


def _compact_alone(settings: Settings) -> dict[str, Any]:
    from dataclasses import asdict

    from mcp_memory.owner.client import exclusive
    from mcp_memory.store.duckdb import Database
    from mcp_memory.store.duckdb.compaction import compact as compact_file
    from mcp_memory.values.errors import StorageFault

    def show(step: str) -> None:
        if step in _SHOWN:
            click.echo(f"{_SHOWN[step]} …", err=True)

    with exclusive(settings, "compact"):
        database = Database(settings.db)
        try:
            done = compact_file(database, hold=True, on_step=show)
        finally:
            database.close()
    if done is None:
        raise StorageFault("the database was in use", hint="Try again in a moment")
    return asdict(done)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
