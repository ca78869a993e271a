"""Which client a request comes from, and what the handshake showed it.

A connection of the older protocol era, or an HTTP session, is one client. Requests of
2026-07-28 have no session: there a client is its name and version. Each access token
has a server of its own, so names are compared only within one token.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcp.server.context import HandlerResult, ServerRequestContext
from mcp.server.session import ServerSession
from mcp_types import CLIENT_INFO_META_KEY, InitializeRequestParams

Context = ServerRequestContext[Any, Any]

_MAX_NOTED: Final = 256
"""The newest clients whose handshake is remembered: as many as sessions a token."""


class _Handshake:
    """One connection's handshake, compared by identity: two clients may send equal ones."""

    def __init__(self, params: InitializeRequestParams) -> None:
        self._params = params

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Handshake) and self._params is other._params

    def __hash__(self) -> int:
        return id(self._params)


@dataclass(frozen=True, slots=True)
class Caller:
    """The client of a request; `shown` is what its handshake showed it, until `known`."""

    key: Hashable
    shown: str | None


class Callers:
    """The clients of one server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: OrderedDict[Hashable, str] = OrderedDict()
        self._greeted: deque[tuple[ServerSession, str]] = deque(maxlen=_MAX_NOTED)

    def observe(self, ctx: Context, result: HandlerResult) -> None:
        """Note the instructions in the answer to `initialize` or `server/discover`."""
        if ctx.method == "notifications/initialized":
            self.caller(ctx)
        text = result.get("instructions") if isinstance(result, dict) else None
        if not isinstance(text, str):
            return
        if ctx.method == "initialize":
            # The session has the handshake's parameters only after this answer.
            self._greeted.append((ctx.session, text))
        elif ctx.method == "server/discover":
            self._note(_key(ctx), text)

    def caller(self, ctx: Context) -> Caller:
        """Return the client of a request."""
        key = _key(ctx)
        for greeting in tuple(self._greeted):
            if ctx.session.client_params is greeting[0].client_params is not None:
                self._greeted.remove(greeting)
                self._note(key, greeting[1])
        with self._lock:
            return Caller(key, self._shown.get(key))

    def known(self, caller: Caller) -> None:
        """Forget what a client was shown: the memory knows it now."""
        with self._lock:
            if caller.shown is not None and self._shown.get(caller.key) is caller.shown:
                del self._shown[caller.key]

    def _note(self, key: Hashable, text: str) -> None:
        with self._lock:
            self._shown[key] = text
            self._shown.move_to_end(key)
            if len(self._shown) > _MAX_NOTED:
                self._shown.popitem(last=False)


def _key(ctx: Context) -> Hashable:
    meta: Mapping[str, Any] = ctx.meta or {}
    info = meta.get(CLIENT_INFO_META_KEY)
    params = ctx.session.client_params
    if info is None and params is not None:
        return _Handshake(params)
    if not isinstance(info, Mapping):
        return ("", "")
    return (str(info.get("name")), str(info.get("version")))
