"""`mcp-memory serve`: the server itself."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

import click

from mcp_memory.cli.reference import settings_help
from mcp_memory.settings import load_settings

if TYPE_CHECKING:
    from mcp_memory.settings import Settings

_HTTP_SETTINGS: Final = {
    "public_url": "http_public_url",
    "allowed_host": "http_allowed_hosts",
    "allowed_origin": "http_allowed_origins",
    "issuer": "http_issuer",
    "audience": "http_audience",
    "jwks_url": "http_jwks_url",
}


@click.command(epilog=settings_help())
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
