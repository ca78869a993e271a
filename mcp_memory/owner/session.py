"""What a shim remembers of its client's conversation, to go on with another owner.

The handshake, what was subscribed, and which requests have no answer yet.
"""

from __future__ import annotations

import time

from mcp_memory.server.parsing import Id, Message, envelope, parsed

HANDSHAKE = "initialize"
_ENDLESS = "subscriptions/listen"
_CALL = "tools/call"
"""Every other request changes nothing; the owner says which tools can be called again."""


class InFlight:
    """A request of the client that has no answer yet."""

    def __init__(self, line: bytes, method: str) -> None:
        self.line = line
        self.method = method
        self.since = time.monotonic()
        self.sent = False

    def tool(self) -> str | None:
        """Return which tool is called; this parses the whole line."""
        name = _params(parsed(self.line)).get("name")
        return name if isinstance(name, str) else None


class Session:
    """The state of one client's conversation."""

    def __init__(self) -> None:
        self.pending: dict[Id, InFlight] = {}
        self.initialized: bytes | None = None
        self.repeatable: frozenset[str] = frozenset()
        """The tools that may be called again with the same effect."""
        self._handshake: bytes | None = None
        self._level: bytes | None = None
        self._subscribed: dict[str, bytes] = {}

    def note(self, line: bytes) -> InFlight | None:
        """Remember what another owner would have to know of a line of the client.

        Returns:
            The request, if it is one.
        """
        method, number = envelope(line)
        if method is None:
            return None
        if number is not None:
            if method == HANDSHAKE:
                self._handshake = line
            elif method == "logging/setLevel":
                self._level = line
            elif method == "resources/subscribe":
                self._subscribed[str(_params(parsed(line)).get("uri"))] = line
            elif method == "resources/unsubscribe":
                self._subscribed.pop(str(_params(parsed(line)).get("uri")), None)
            request = InFlight(line, method)
            self.pending[number] = request
            return request
        if method == "notifications/initialized":
            self.initialized = line
        elif method == "notifications/cancelled":
            cancelled = _params(parsed(line)).get("requestId")
            if isinstance(cancelled, (str, int)):
                self.pending.pop(cancelled, None)
        return None

    def answered(self, line: bytes) -> None:
        """Remove the request that a line of the owner answers, if it answers one."""
        method, number = envelope(line)
        if method is None and number is not None:
            self.pending.pop(number, None)

    def waits_since(self) -> float | None:
        """Return the monotonic time of the oldest request without an answer; None without one."""
        since = [item.since for item in self.pending.values() if item.method != _ENDLESS]
        return min(since, default=None)

    def take_lost(self) -> list[Id]:
        """Remove the requests that may have been done and can't be repeated; return their ids."""
        lost = [
            number
            for number, request in self.pending.items()
            if request.sent and request.method == _CALL and request.tool() not in self.repeatable
        ]
        for number in lost:
            del self.pending[number]
        return lost

    def take_all(self) -> list[Id]:
        """Remove all requests; return their ids."""
        numbers = list(self.pending)
        self.pending.clear()
        return numbers

    def repeated(self) -> list[bytes]:
        """Return the handshake and subscriptions that were answered, in their order."""
        waiting = {id(request.line) for request in self.pending.values()}
        lines = (self._handshake, self._level, *self._subscribed.values())
        return [line for line in lines if line is not None and id(line) not in waiting]


def _params(message: Message) -> Message:
    params = message.get("params")
    return params if isinstance(params, dict) else {}
