"""The configuration of the HTTP listener, and the check that it is safe."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from mcp_memory.http.requests import Names, read_host, read_origin
from mcp_memory.values.errors import SettingsFault

if TYPE_CHECKING:
    from mcp_memory.settings import Settings

Transport = Literal["http", "sse"]

MAX_BODY_BYTES: Final = 72 * 1024 * 1024
"""Enough for the largest text that can be stored, escaped as JSON."""

_LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")
_ANY_HOST: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """What can be configured; the names are those of the settings."""

    transport: Transport = "http"
    host: str = "127.0.0.1"
    port: int = 8765
    public_url: str | None = None
    """The URL that clients use, without a slash at the end; behind a proxy, the proxy's."""
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    no_auth: bool = False
    """Whether requests need no token on this machine, until the first one is created."""
    issuer: str | None = None
    audience: str | None = None
    jwks_url: str | None = None
    scope_prefix: str = ""
    agent_claim: str = "sub"
    max_body_bytes: int = MAX_BODY_BYTES
    requests_per_minute: int = 3_000
    sessions_per_token: int = 256
    session_idle_seconds: float = 30 * 60
    jwks_refetch_seconds: float = 10
    """How often a token with an unknown key causes the keys to be fetched again, at most."""

    @classmethod
    def of(cls, settings: Settings, *, transport: Transport, host: str, port: int) -> HttpOptions:
        """Return the options of the settings."""
        return cls(
            transport=transport,
            host=host,
            port=port,
            public_url=settings.http_public_url,
            allowed_hosts=settings.http_allowed_hosts,
            allowed_origins=settings.http_allowed_origins,
            no_auth=settings.http_no_auth,
            issuer=settings.http_issuer,
            audience=settings.http_audience,
            jwks_url=settings.http_jwks_url,
            scope_prefix=settings.http_scope_prefix,
            agent_claim=settings.http_agent_claim,
            max_body_bytes=settings.http_max_body_bytes,
            requests_per_minute=settings.http_requests_per_minute,
            sessions_per_token=settings.http_sessions_per_token,
            session_idle_seconds=settings.http_session_idle_seconds,
        )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host) and all(map(is_loopback, self._names()))

    @property
    def path(self) -> str:
        """Where MCP is served, below the public URL."""
        return "/mcp" if self.transport == "http" else "/sse"

    @property
    def resource(self) -> str | None:
        """The URL of the MCP endpoint, which OAuth calls the resource; None if it is not set."""
        return None if self.public_url is None else self.public_url + self.path

    def names(self) -> Names:
        """Return which Host and Origin headers are accepted."""
        hosts = [*_LOOPBACK_NAMES, *self._names()]
        if not is_wildcard(self.host):
            hosts.append(f"[{self.host}]" if ":" in self.host else self.host)
        origins = [
            f"{scheme}://{name}:*" for scheme in ("http", "https") for name in _LOOPBACK_NAMES
        ]
        origins += self.allowed_origins
        if self.public_url is not None:
            parts = urlsplit(self.public_url)
            origins.append(f"{parts.scheme}://{parts.netloc}")
        return Names(hosts, origins, any_host=_ANY_HOST in self.allowed_hosts)

    def check(self, *, tokens: bool) -> None:
        """Refuse a configuration that would give everybody access.

        Args:
            tokens: Whether there are access tokens in the database.

        Raises:
            SettingsFault: It is refused; the hint says what is missing.
        """
        if self.issuer is not None and self.audience is None and self.public_url is None:
            raise SettingsFault(
                "MCP_MEMORY_HTTP_ISSUER",
                "an issuer is set without the audience of its tokens",
                hint="Set MCP_MEMORY_HTTP_PUBLIC_URL or MCP_MEMORY_HTTP_AUDIENCE",
            )
        for setting, names, read, example in (
            ("HOSTS", self.allowed_hosts, read_host, "memory.example.org"),
            ("ORIGINS", self.allowed_origins, read_origin, "https://app.example.org"),
        ):
            wrong = [
                name
                for name in names
                if name != _ANY_HOST and read(name.removesuffix(":*")) is None
            ]
            if wrong:
                raise SettingsFault(
                    f"MCP_MEMORY_HTTP_ALLOWED_{setting}",
                    f"{wrong[0]!r} is none",
                    hint=f"Write it like {example}",
                )
        if self.is_local and not (self.no_auth and self.issuer is not None):
            return
        bound_wide = not is_loopback(self.host)
        if not tokens and self.issuer is None:
            what = (
                f"{self.host!r} is not a loopback address"
                if bound_wide
                else "other machines can reach the server"
            )
            raise SettingsFault(
                "--host" if bound_wide else "MCP_MEMORY_HTTP_PUBLIC_URL",
                f"{what}, and no access token was created yet",
                hint="Create one first: mcp-memory token create --agent NAME --scope write",
            )
        if self.no_auth:
            raise SettingsFault(
                "MCP_MEMORY_HTTP_NO_AUTH",
                "it is for this machine alone, without an issuer, and others can reach the server",
                hint="Leave it out",
            )
        if is_wildcard(self.host) and not self._names():
            raise SettingsFault(
                "--host",
                f"{self.host!r} listens on every address, and no name of the server is set",
                hint="Name the server as clients do: --public-url https://memory.example.org,"
                " or --allowed-host NAME",
            )

    def _names(self) -> list[str]:
        """Return the host names that clients use, besides those of loopback."""
        names = list(self.allowed_hosts)
        if self.public_url is not None:
            names.append(urlsplit(self.public_url).netloc)
        return names


def is_loopback(host: str) -> bool:
    """Return whether a host name, with or without a port, is this machine's own."""
    bare = host.count(":") > 1 and "[" not in host
    found = read_host(f"[{host}]" if bare else host)
    if found is None:
        return False
    name = found[0].strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    """Return whether an address means all addresses of the machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host
