"""`mcp-memory serve`: the server itself."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

import click

from mcp_memory.settings import load_settings

if TYPE_CHECKING:
    from mcp_memory.settings import Settings

SETTINGS_HELP = """\b
Settings (environment variables, all optional):
  MCP_MEMORY_DB                the database file; default: the platform's data folder
  MCP_MEMORY_AGENT             whose memory this is; default: default
  MCP_MEMORY_CONTEXT_WINDOW    the model's window in tokens, or its name (gpt-5.1, gemini-3-pro,
                               claude-opus-4.5, ...); default: 128000
  MCP_MEMORY_TOKENIZER         o200k_base or cl100k_base
  MCP_MEMORY_EMBEDDING_MODEL   any fastembed model; see `mcp-memory models list`
  MCP_MEMORY_TIMEZONE          zone of dates without one; default: UTC
  MCP_MEMORY_MAX_REPLY_TOKENS  longest reply of a tool; default: 2000
  MCP_MEMORY_WARN_AT           warn when so much of the window is used; default: 0.70
  MCP_MEMORY_FLUSH_AT          evict the oldest messages then; default: 1.0
  MCP_MEMORY_KEEP_AFTER_FLUSH  keep so much of the window; default: 0.5
  MCP_MEMORY_RETHINK_EVERY     remind of core memory after so many user turns; default: 5
  MCP_MEMORY_SUMMARIZER        extractive, or the URL of an OpenAI-compatible endpoint; beside it
                               _SUMMARIZER_MODEL, _SUMMARIZER_API_KEY, _SUMMARIZER_WINDOW,
                               _SUMMARIZER_TIMEOUT_SECONDS, _SUMMARIZER_TOKENS_PER_DAY, and
                               _SUMMARIZER_INPUT_PRICE, _OUTPUT_PRICE in dollars a million tokens
  MCP_MEMORY_SAMPLING          auto: the client's own model writes summaries, if it may be asked;
                               default: off
  MCP_MEMORY_SHARED_BLOCKS     labels of blocks shared with other agents, separated by commas
  MCP_MEMORY_KINDS             a TOML file: how memories of each kind are kept (docs/kinds.md)
  MCP_MEMORY_OWNER             auto: all clients share one process; off: this one alone
  MCP_MEMORY_OWNER_IDLE_SECONDS  that process ends so long after the last client; default: 300
  MCP_MEMORY_HEARTBEAT_SECONDS  so long after a change it tidies up; 0: never; default: 300
  MCP_MEMORY_OFFLINE           1: never touch the network
  MCP_MEMORY_CACHE_DIR         where model files are; default: the platform's cache folder
  MCP_MEMORY_CACHE_MB          megabytes for the indexes of the search; default: 512
  MCP_MEMORY_WINDOW_VECTORS    off: embed no message with its neighbours; default: on
  MCP_MEMORY_THREADS           batches embedded at once; default: one a processor, up to 4
  MCP_MEMORY_LOG_LEVEL         debug, info, warning or error; logs go to stderr

\b
For --transport http and sse (docs/team.md):
  MCP_MEMORY_HTTP_PUBLIC_URL           where clients find the server, behind a proxy
  MCP_MEMORY_HTTP_ALLOWED_HOSTS        more names that clients come by, with commas
  MCP_MEMORY_HTTP_ALLOWED_ORIGINS      web pages that may call, with commas
  MCP_MEMORY_HTTP_ISSUER               OAuth: whose JWTs are taken
  MCP_MEMORY_HTTP_AUDIENCE             their `aud`; default: public URL with /mcp or /sse
  MCP_MEMORY_HTTP_JWKS_URL             the issuer's keys; default: what it says itself
  MCP_MEMORY_HTTP_SCOPE_PREFIX         what stands before read, write and admin in scopes
  MCP_MEMORY_HTTP_AGENT_CLAIM          the claim that names the agent; default: sub
  MCP_MEMORY_HTTP_MAX_BODY_BYTES       largest request; default: 75497472
  MCP_MEMORY_HTTP_REQUESTS_PER_MINUTE  of one token; default: 3000
  MCP_MEMORY_HTTP_SESSIONS_PER_TOKEN   open at once; default: 256
  MCP_MEMORY_HTTP_SESSION_IDLE_SECONDS a session ends then; default: 1800
"""


_HTTP_SETTINGS: Final = {
    "public_url": "http_public_url",
    "allowed_host": "http_allowed_hosts",
    "allowed_origin": "http_allowed_origins",
    "issuer": "http_issuer",
    "audience": "http_audience",
    "jwks_url": "http_jwks_url",
}


@click.command(epilog=SETTINGS_HELP)
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http", "sse"]),
    default="stdio",
    show_default=True,
    help="http is streamable HTTP at /mcp, sse the older transport at /sse.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Others than loopback need a token."
)
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535))
@click.option("--public-url", help="Where clients find the server, behind a proxy.")
@click.option("--allowed-host", multiple=True, help="A name that clients come by; again for more.")
@click.option("--allowed-origin", multiple=True, help="A web page that may call; again for more.")
@click.option("--issuer", help="OAuth: take the JWTs of this issuer.")
@click.option("--audience", help="What their `aud` must be.")
@click.option("--jwks-url", help="Where the issuer's keys are.")
def serve(
    transport: Literal["stdio", "http", "sse"] = "stdio",
    host: str = "127.0.0.1",
    port: int = 8765,
    **http: Any,
) -> None:
    """Serve memory to MCP clients: of one agent over stdio, of each token's agent over HTTP."""
    given = {_HTTP_SETTINGS[name]: value for name, value in http.items() if value}
    settings = load_settings(**given)
    # Whatever this process makes, the write-ahead log too, is for this user alone.
    os.umask(0o077)
    if transport != "stdio":
        _serve_http(settings, transport=transport, host=host, port=port)
    if settings.owner == "auto":
        from mcp_memory.owner.shim import serve_client

        sys.exit(serve_client(os.environ))
    _serve_alone(settings)


def _serve_http(
    settings: Settings, *, transport: Literal["http", "sse"], host: str, port: int
) -> NoReturn:
    """Own the database and serve over HTTP too, until SIGTERM or SIGINT; leaves with status 0.

    Raises:
        OwnerFault: Another server has the database.
    """
    from mcp_memory.http.listen import listen
    from mcp_memory.http.options import HttpOptions
    from mcp_memory.owner.client import take_seat
    from mcp_memory.owner.process import own

    options = HttpOptions.of(settings, transport=transport, host=host, port=port)
    own(take_seat(settings), settings, partial(listen, options=options))


def _serve_alone(settings: Settings) -> NoReturn:
    """Serve the client on stdin and stdout in this one process."""
    import anyio

    from mcp_memory.server.servers import Servers
    from mcp_memory.server.stdio import serve_stdio

    logging.basicConfig(
        stream=sys.stderr,
        level=settings.log_level.upper(),
        format="mcp-memory %(levelname)s %(name)s: %(message)s",
    )
    servers = Servers(settings)
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
