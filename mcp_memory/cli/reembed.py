"""`mcp-memory reembed`: all vectors anew with the model that is set."""

from __future__ import annotations

import click

from mcp_memory.settings import load_settings


@click.command()
def reembed() -> None:
    """Compute all vectors anew with the model that is set.

    It can be stopped and run again: what is done is kept. Meanwhile, and after a
    stop, search goes by words where the vectors are still missing.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from mcp_memory.models.embedding import FastEmbedder
    from mcp_memory.models.fetching import fetch_model
    from mcp_memory.owner.client import exclusive
    from mcp_memory.tiers.engine import Engine

    settings = load_settings()
    console = Console(stderr=True)
    files = fetch_model(settings.embedding_model, settings.cache_dir, offline=settings.offline)
    embedder = FastEmbedder.load(files, threads=settings.threads)
    with exclusive(settings, "reembed"):
        engine = Engine(settings, check_model=False)
        try:
            pending = engine.reembed(embedder)
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
                task = progress.add_task("embedding", total=pending)
                done = engine.fill_pending(lambda count: progress.advance(task, count))
        finally:
            engine.close()
    click.echo(f"{done} texts embedded with {settings.embedding_model}")
