"""The command line; each command is a file of its own, imported when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final

import click

from mcp_memory import __version__
from mcp_memory.cli.output import echo, end_quietly, lenient
from mcp_memory.values.errors import MemoryFault, SettingsFault, report

_COMMANDS: Final = {
    "serve": "Serve memory over stdio, streamable HTTP or SSE. The default.",
    "demo": "Show what an assistant with a memory still knows, with a real server.",
    "search": "Search messages and memories, as the models do.",
    "explain": "Show why a search ranks its hits as it does.",
    "status": "Show the owner of the database, its clients, and what it holds.",
    "doctor": "Check the installation, the database and the clients, and say what to do.",
    "load": "Load many memories and messages from files; can be resumed.",
    "models": "Fetch and list embedding models.",
    "reembed": "Recompute all vectors with the model that is set.",
    "compact": "Rewrite the database file without the space of deleted rows.",
    "token": "Create, list and revoke access tokens for HTTP.",
    "block": "List the blocks of core memory, set one, or show its history.",
    "summarize": "Show the summary of a conversation, or rewrite it.",
    "schemas": "Write or check the JSON Schemas and the tables made from them.",
}


class _Lazy(click.Group):
    """Commands by name; a command's module is imported when it is called."""

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

    Without a command, it serves one client over stdio: this is how MCP clients start it.
    Settings are environment variables; `mcp-memory serve --help` lists them.
    """
    if ctx.invoked_subcommand is None:
        from mcp_memory.cli.serve import serve

        ctx.invoke(serve)


def main() -> None:
    """Run a command; a fault is one line on stderr, and the exit status is 1 or 2."""
    # A matrix times a vector is done before a second thread has started, which then waits for
    # a busy core: measured 9 ms instead of 0.6 for 10,000 vectors.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    lenient()
    try:
        status = cli.main(prog_name="mcp-memory", standalone_mode=False)
    except SettingsFault as fault:
        status = report(str(fault), 2)
    except MemoryFault as fault:
        status = report(str(fault), 1)
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            echo(f"{error.ctx.get_usage()}\nTry `{error.ctx.command_path} --help`.\n", err=True)
        echo(f"Error: {error.format_message()}", err=True)
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        status = report("stopped", 130)
    end_quietly()
    sys.exit(status if isinstance(status, int) else 0)
