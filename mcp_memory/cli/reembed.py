"""`mcp-memory reembed`: recompute all vectors with the model that is set."""

from __future__ import annotations

import click

from mcp_memory.cli.output import echo
from mcp_memory.settings import load_settings


@click.command()
def reembed() -> None:
    """Recompute all vectors with the embedding model that is set.

    It can be stopped and run again: vectors that are done are kept. Until all are done,
    texts without vectors are found by their words.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from mcp_memory.agent.memories import Memories, load_model
    from mcp_memory.owner.client import exclusive

    settings = load_settings()
    embedder = load_model(settings)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with exclusive(settings, "reembed"):
        memories = Memories.open_database(settings, check_model=False)
        try:
            with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
                task = progress.add_task("embedding", total=None)
                done = memories.reembed(
                    embedder,
                    lambda texts: progress.update(task, total=texts),
                    lambda texts: progress.advance(task, texts),
                )
        finally:
            memories.close()
    echo(f"{done} texts embedded with {settings.embedding_model}")
