"""`mcp-memory serve`: the server itself."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

import click

from mcp_memory.cli.output import echo
from mcp_memory.cli.reference import settings_help
from mcp_memory.settings import load_settings

if TYPE_CHECKING:
    from mcp_memory.settings import Settings

_HTTP_SETTINGS: Final = {
    "public_url": "http_public_url",
    "allowed_host": "http_allowed_hosts",
    "allowed_origin": "http_allowed_origins",
    "no_auth": "http_no_auth",
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
    help="http: streamable HTTP at /mcp; sse: the older transport at /sse.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Other than loopback needs a token."
)
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535))
@click.option("--public-url", help="The URL that clients use, if behind a proxy.")
@click.option("--allowed-host", multiple=True, help="Another name of this host; repeatable.")
@click.option("--allowed-origin", multiple=True, help="A web origin that may call; repeatable.")
@click.option("--no-auth", is_flag=True, help="Let anybody on this machine call without a token.")
@click.option("--issuer", help="OAuth: accept JWTs of this issuer.")
@click.option("--audience", help="The `aud` that JWTs must have.")
@click.option("--jwks-url", help="The URL of the issuer's keys.")
def serve(
    transport: Literal["stdio", "http", "sse"] = "stdio",
    host: str = "127.0.0.1",
    port: int = 8765,
    **http: Any,
) -> None:
    """Serve memory to MCP clients.

    Over stdio it is the memory of one agent; over HTTP each token has its agent.
    """
    given = {_HTTP_SETTINGS[name]: value for name, value in http.items() if value}
    settings = load_settings(**given)
    # Files of this process, such as the write-ahead log, are private to this user.
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
    """Be the owner of the database and serve over HTTP too, until SIGTERM or SIGINT.

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

    from mcp_memory.owner.alone import serve_alone
    from mcp_memory.server.logs import set_up
    from mcp_memory.server.servers import Servers

    set_up(settings.log_level, "mcp-memory %(levelname)s %(name)s: %(message)s")
    servers = Servers(settings)
    if sys.stdin.isatty():
        echo(
            "mcp-memory waits for an MCP client on stdin; MCP clients start it themselves."
            " `mcp-memory --help` lists other commands. Press Ctrl-C to end.",
            err=True,
        )
    status = 1
    try:
        anyio.run(serve_alone, servers)
        status = 0
    except KeyboardInterrupt:
        status = 130
    except Exception:
        logging.getLogger(__name__).exception("the server has failed")
    servers.close()
    sys.stderr.flush()
    # A thread that still reads stdin would keep the process alive.
    os._exit(status)
