"""The command line. Each group of commands is a file of its own, imported when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final

import click

from mcp_memory import __version__
from mcp_memory.values.errors import MemoryFault, SettingsFault, report

_COMMANDS: Final = {
    "serve": "Serve memory over stdio, streamable HTTP or SSE. The default.",
    "demo": "Show what paging is, with a real server, in under a minute.",
    "search": "Search all that was said and kept, as the models do.",
    "explain": "Why a search finds what it finds: signals, weights, ranks by each half.",
    "status": "The owner of the database, its clients, and what it holds.",
    "doctor": "Check the installation, the database and the clients; says what to do.",
    "load": "Load memories and messages from files, thousands at a time; resumable.",
    "models": "The embedding model: fetch its files ahead, list what can be set.",
    "reembed": "Compute all vectors anew with the model that is set.",
    "compact": "Make the database file as small as what is in it.",
    "token": "Access tokens for the memory over HTTP: make, list, revoke.",
    "block": "The blocks of core memory: list them, set one, also a read-only one.",
    "summarize": "The summary of a conversation: show it, or write it anew from recall.",
    "schemas": "Write the JSON Schemas and the tables made from them, or check them.",
}


class _Lazy(click.Group):
    """Commands by name; the module of one is imported only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"mcp_memory.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Lazy, invoke_without_command=True)
@click.version_option(__version__, prog_name="mcp-memory")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Persistent memory for AI agents over the Model Context Protocol.

    Without a command it serves one client over stdio, as MCP hosts start it.
    Settings are environment variables: see `mcp-memory serve --help`.
    """
    if ctx.invoked_subcommand is None:
        from mcp_memory.cli.serve import serve

        ctx.invoke(serve)


def main() -> None:
    """Run a command; a fault is one line on stderr, and the exit status is 1 or 2."""
    # A product of one matrix and one vector is done before a second thread has begun, and
    # with another process on that core it waits: 9 ms instead of 0.6 for 10,000 vectors.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        status = cli.main(prog_name="mcp-memory", standalone_mode=False)
    except SettingsFault as fault:
        status = report(str(fault), 2)
    except MemoryFault as fault:
        status = report(str(fault), 1)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        status = report("stopped", 130)
    sys.exit(status if isinstance(status, int) else 0)
