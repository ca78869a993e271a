"""`mcp-memory serve`: the server itself."""

from __future__ import annotations

import logging
import os
import sys

import click

from mcp_memory.settings import load_settings

SETTINGS_HELP = """\b
Settings (environment variables, all optional):
  MCP_MEMORY_DB                the database file; default: the platform's data folder
  MCP_MEMORY_AGENT             whose memory this is; default: default
  MCP_MEMORY_CONTEXT_WINDOW    the model's window in tokens; default: 128000
  MCP_MEMORY_TOKENIZER         o200k_base or cl100k_base
  MCP_MEMORY_EMBEDDING_MODEL   any fastembed model; see `mcp-memory models list`
  MCP_MEMORY_TIMEZONE          zone of dates without one; default: UTC
  MCP_MEMORY_MAX_REPLY_TOKENS  longest reply of a tool; default: 2000
  MCP_MEMORY_WARN_AT           warn when so much of the window is used; default: 0.70
  MCP_MEMORY_FLUSH_AT          evict the oldest messages then; default: 1.0
  MCP_MEMORY_KEEP_AFTER_FLUSH  keep so much of the window; default: 0.5
  MCP_MEMORY_RETHINK_EVERY     remind of core memory after so many user turns; default: 5
  MCP_MEMORY_OFFLINE           1: never touch the network
  MCP_MEMORY_CACHE_DIR         where model files are; default: the platform's cache folder
  MCP_MEMORY_THREADS           batches embedded at once; default: one a processor, up to 4
  MCP_MEMORY_LOG_LEVEL         debug, info, warning or error; logs go to stderr
"""


@click.command(epilog=SETTINGS_HELP)
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http", "sse"]),
    default="stdio",
    show_default=True,
    help="http is streamable HTTP at /mcp, sse the older transport at /sse.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback addresses only.")
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535))
def serve(transport: str = "stdio", host: str = "127.0.0.1", port: int = 8765) -> None:
    """Serve the memory of one agent to MCP clients."""
    settings = load_settings()
    logging.basicConfig(
        stream=sys.stderr,
        level=settings.log_level.upper(),
        format="mcp-memory %(levelname)s %(name)s: %(message)s",
    )
    # Whatever this process makes, the write-ahead log too, is for this user alone.
    os.umask(0o077)

    import anyio

    from mcp_memory.server.servers import Servers
    from mcp_memory.transports import serve_http, serve_stdio

    servers = Servers(settings)
    if transport != "stdio":
        try:
            anyio.run(serve_http, servers.server(), transport, host, port)
        finally:
            servers.close()
        return
    if sys.stdin.isatty():
        click.echo(
            "mcp-memory waits for an MCP client on stdin; clients start it by themselves."
            " `mcp-memory --help` shows what else it does, Ctrl-C ends it.",
            err=True,
        )
    status = 1
    try:
        anyio.run(serve_stdio, servers)
        status = 0
    except KeyboardInterrupt:
        status = 130
    except Exception:
        logging.getLogger(__name__).exception("the server has failed")
    servers.close()
    sys.stderr.flush()
    # A thread that still waits for a line of stdin would hold the process up.
    os._exit(status)
