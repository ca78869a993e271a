"""A request in its one canonical form, so that everything after it compares letter by letter.

Clients write the same thing in several ways: `/mcp/`, `APPLICATION/JSON`, `Host: LOCALHOST`,
no `Accept`. These are made equal here. What can be read in two ways is refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

from mcp_memory.agent import AccessScope

JSON: Final = b"application/json"
STREAM: Final = b"text/event-stream"

Host = tuple[str, str]
"""The name in lower case, and the port; no port is an empty text."""

_SLASHES: Final = re.compile(r"/{2,}")
_ABSOLUTE: Final = re.compile(r"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+?)\.?(?::([0-9]{0,5}))?")
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://(.+)")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}

# What other names clients give to JSON. No web page can send them without being asked first.
_JSON_TYPES: Final = frozenset({"", "application/json", "text/json", "application/json-rpc"})

_SINGLE: Final = frozenset(
    {b"host", b"authorization", b"origin", b"content-type", b"content-encoding"}
)
"""With two of them, a proxy and this server could each take another one; so too with MCP's own."""


class Refused(Exception):
    """A request that is not let in.

    Args:
        status: The HTTP status.
        error: A code, of RFC 6750 where it has one; empty where no credentials came.
        description: The reason and the next step, for the reader of the answer.
        scope: The scope that would be enough.
        retry_after_seconds: When to try again.
        allow: The methods that are allowed.
    """

    def __init__(
        self,
        status: int,
        error: str,
        description: str,
        *,
        scope: AccessScope | None = None,
        retry_after_seconds: int | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(description)
        self.status = status
        self.error = error
        self.description = description
        self.scope = scope
        self.retry_after_seconds = retry_after_seconds
        self.allow = allow


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client can read as an answer."""

    stream: bool
    """Whether it takes a stream of events at all."""
    json: bool
    """Whether it gets one JSON document where that is possible: it has not named streams."""


def normalized(scope: Scope) -> tuple[Scope, Wanted]:
    """Return a request in its canonical form, and what its client can read.

    Raises:
        Refused: A header is there twice, or the body is encoded in a way that is not read.
    """
    path: str = scope["path"]
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in found:
            if name in _SINGLE or name.startswith(b"mcp-"):
                raise Refused(400, "invalid_request", f"the header {name.decode()!r} came twice")
            value = found[name] + b", " + value
        found[name] = value
    absolute = _ABSOLUTE.fullmatch(path)
    if absolute is not None:
        # RFC 9112, section 3.2.2: it counts, and the header `Host` does not.
        found[b"host"], path = absolute[1].encode(), absolute[2]
    if "//" in path:
        path = _SLASHES.sub("/", path)
    path = path.rstrip("/") or "/"
    if b"origin" in found:
        origin = read_origin(found[b"origin"].decode("latin-1"))
        if origin is not None:
            found[b"origin"] = origin.encode()
    wanted = _wanted(found.get(b"accept"))
    if scope["method"] == "POST":
        _check_body(found)
        found[b"content-type"] = JSON
        # The answer is made as the client wants it afterwards.
        found[b"accept"] = JSON + b", " + STREAM
    elif wanted.stream:
        found[b"accept"] = STREAM
    headers = list(found.items())
    return {**scope, "path": path, "raw_path": path.encode(), "headers": headers}, wanted


def read_host(text: str) -> Host | None:
    """Return the name and the port of a `Host` header; None if it is not valid.

    Source: RFC 9110, section 7.2. A user name, as in `localhost:1@evil.example`, is no part of it.
    """
    found = _HOST.fullmatch(text.strip().lower())
    if found is None:
        return None
    name, port = found[1], found[2] or ""
    if name.startswith("["):
        try:
            name = f"[{ipaddress.IPv6Address(name[1:-1]).compressed}]"
        except ValueError:
            return None
    return name, port


def read_origin(text: str) -> str | None:
    """Return an origin as a browser would write it; None if it is not one.

    Source: RFC 6454, section 6.1.
    """
    found = _ORIGIN.fullmatch(text.strip().lower())
    host = None if found is None else read_host(found[2])
    if found is None or host is None:
        return None
    name, port = host
    shown = "" if port in {"", _DEFAULT_PORTS.get(found[1])} else f":{port}"
    return f"{found[1]}://{name}{shown}"


class Names:
    """Which hosts and origins requests may name, against web pages that rebind a name.

    Args:
        hosts: Names of this server; one without a port is accepted with every port.
        origins: Origins of web pages that may call; `:*` at the end stands for every port.
        any_host: Whether every host is accepted.
    """

    def __init__(
        self, hosts: Iterable[str], origins: Iterable[str], *, any_host: bool = False
    ) -> None:
        self._hosts = frozenset(host for host in map(read_host, hosts) if host is not None)
        origins = list(origins)
        self._origins = frozenset(map(read_origin, origins))
        wild = (origin.removesuffix(":*") for origin in origins if origin.endswith(":*"))
        self._any_port = frozenset(map(read_origin, wild))
        self._any_host = any_host

    def check(self, scope: Scope) -> None:
        """Check the host and the origin of a request in its canonical form.

        Raises:
            Refused: 421 for another host, 403 for another origin.
        """
        headers = dict(scope["headers"])
        host = read_host(headers.get(b"host", b"").decode("latin-1"))
        known = host is not None and (host in self._hosts or (host[0], "") in self._hosts)
        if not (known or self._any_host):
            raise Refused(
                421,
                "unknown_host",
                "this server has another name than the request's Host; --allowed-host adds one",
            )
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin:
            return  # No web page, or one of this server's own.
        base = re.sub(r":\d+\Z", "", origin)
        if read_origin(origin) is None or not (origin in self._origins or base in self._any_port):
            raise Refused(
                403,
                "unknown_origin",
                "web pages of this origin may not call; --allowed-origin adds one",
            )


def _wanted(accept: bytes | None) -> Wanted:
    """Read `Accept`; a client that says nothing takes everything (RFC 9110, section 12.5.1)."""
    ranges = set()
    for part in (accept or b"*/*").decode("latin-1").lower().split(","):
        kind, *parameters = (item.strip() for item in part.split(";"))
        if not any(re.fullmatch(r"q=0(\.0*)?", item) for item in parameters):
            ranges.add(kind)
    named = not ranges.isdisjoint({"text/event-stream", "text/*"})
    return Wanted(stream=named or "*/*" in ranges, json=not named)


def _check_body(headers: dict[bytes, bytes]) -> None:
    kind = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if kind not in _JSON_TYPES and not kind.endswith("+json"):
        raise Refused(
            415,
            "unsupported_media_type",
            "the body is not declared as JSON; send Content-Type: application/json",
        )
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding not in {b"", b"identity"}:
        raise Refused(
            415, "unsupported_encoding", "the body is compressed; send it without Content-Encoding"
        )
