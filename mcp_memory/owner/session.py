"""What a shim remembers of its client's conversation, to go on with another owner.

The handshake, what was subscribed, what was listed, and which requests have no answer yet.
"""

from __future__ import annotations

import json
import time

from mcp_memory.owner.answers import HANDSHAKES, LISTS
from mcp_memory.server.parsing import Id, Message, envelope, parsed

HANDSHAKE = HANDSHAKES[0]
_ENDLESS = "subscriptions/listen"
_CALL = "tools/call"
"""Every other request changes nothing; the owner says which tools can be called again."""

_MAX_ENDS = 2
"""How many owners may end during a request; by judgement, the next would end during it as well."""


class InFlight:
    """A request of the client that has no answer yet."""

    def __init__(self, line: bytes, method: str) -> None:
        self.line = line
        self.method = method
        self.since = time.monotonic()
        self.sent = False
        self.ends = 0

    def tool(self) -> str | None:
        """Return which tool is called; this parses the whole line."""
        name = params_of(self.line).get("name")
        return name if isinstance(name, str) else None


class Listed:
    """What the client was last told by a list: its request, and a digest of the result."""

    def __init__(self, line: bytes, result: object) -> None:
        self.line = line
        self._digest = _digest(result)

    def is_same(self, result: object) -> bool:
        """Return whether a result is the one that the client has."""
        return _digest(result) == self._digest


class Stream:
    """A `subscriptions/listen` request: which lists it asks for, and whether it has begun."""

    def __init__(self, line: bytes) -> None:
        asked = params_of(line).get("notifications")
        self.asked: Message = asked if isinstance(asked, dict) else {}
        self.begun = False


class Session:
    """The state of one client's conversation."""

    def __init__(self) -> None:
        self.pending: dict[Id, InFlight] = {}
        self.listed: dict[str, Listed] = {}
        """By method."""
        self.streams: dict[Id, Stream] = {}
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
            self._remember(method, number, line)
            request = InFlight(line, method)
            self.pending[number] = request
            return request
        if method == "notifications/initialized":
            self.initialized = line
        elif method == "notifications/cancelled":
            cancelled = params_of(line).get("requestId")
            if isinstance(cancelled, (str, int)):
                self._take(cancelled)
        return None

    def _remember(self, method: str, number: Id, line: bytes) -> None:
        if method == HANDSHAKE:
            self._handshake = line
        elif method == "logging/setLevel":
            self._level = line
        elif method == "resources/subscribe":
            self._subscribed[str(params_of(line).get("uri"))] = line
        elif method == "resources/unsubscribe":
            self._subscribed.pop(str(params_of(line).get("uri")), None)
        elif method == _ENDLESS:
            self.streams[number] = Stream(line)

    def answered(self, line: bytes) -> None:
        """Remove the request that a line of the owner answers, if it answers one."""
        method, number = envelope(line)
        if method is None and number is not None:
            request = self._take(number)
            if request is not None and request.method in LISTS:
                self.listed[request.method] = Listed(request.line, parsed(line).get("result"))

    def _take(self, number: Id) -> InFlight | None:
        self.streams.pop(number, None)
        return self.pending.pop(number, None)

    def waits_since(self) -> float | None:
        """Return the monotonic time of the oldest request without an answer; None without one."""
        since = [item.since for item in self.pending.values() if item.method != _ENDLESS]
        return min(since, default=None)

    def take_lost(self) -> list[Id]:
        """Note that the owner has ended, and remove what can't be asked once more; return the ids.

        These are the calls that may have been done and can't be repeated, and the requests
        during which one owner has ended before.
        """
        lost: list[Id] = []
        for number, request in self.pending.items():
            if not request.sent:
                continue
            request.sent = False
            if request.method == _ENDLESS:
                continue
            request.ends += 1
            if request.ends == _MAX_ENDS or (
                request.method == _CALL and request.tool() not in self.repeatable
            ):
                lost.append(number)
        for number in lost:
            del self.pending[number]
        return lost

    def take_all(self) -> dict[Id, InFlight]:
        """Remove all requests and return them."""
        requests = dict(self.pending)
        self.pending.clear()
        self.streams.clear()
        return requests

    def handshake(self) -> bytes | None:
        """Return the handshake if it was answered."""
        return next((line for line in self._answered() if line is self._handshake), None)

    def subscribed(self) -> list[bytes]:
        """Return the level of the log and the subscriptions that were answered, in their order."""
        return [line for line in self._answered() if line is not self._handshake]

    def _answered(self) -> list[bytes]:
        waiting = {id(request.line) for request in self.pending.values()}
        lines = (self._handshake, self._level, *self._subscribed.values())
        return [line for line in lines if line is not None and id(line) not in waiting]


def params_of(line: bytes) -> Message:
    """Return the parameters of a request; empty if there are none."""
    params = parsed(line).get("params")
    return params if isinstance(params, dict) else {}


def _digest(result: object) -> int:
    return hash(json.dumps(result, sort_keys=True))
