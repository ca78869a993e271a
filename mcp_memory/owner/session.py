"""What a shim remembers of its client's conversation, to go on with another owner.

The handshake, what was subscribed, and which requests have no answer yet. The
shim holds its lock around every call.
"""

from __future__ import annotations

import json
import re
import time

from mcp_memory.owner.lines import parsed

Id = str | int

HANDSHAKE = "initialize"
_ENDLESS = "subscriptions/listen"
_NEVER_REPEATED = frozenset({"tools/call"})
"""Everything else asks and changes nothing; of the tools the owner tells which can be repeated."""

_ANSWER = re.compile(rb'\{"jsonrpc":"2\.0","id":("(?:[^"\\]|\\.)*"|-?\d+),"(?:result|error)":')


class Request:
    """A request of the client that has no answer yet."""

    def __init__(self, line: bytes, method: str, tool: str | None) -> None:
        self.line = line
        self.method = method
        self.tool = tool
        self.since = time.monotonic()
        self.sent = False


class Session:
    """The state of one client's conversation."""

    def __init__(self) -> None:
        self.pending: dict[Id, Request] = {}
        self.initialized: bytes | None = None
        self.repeatable: frozenset[str] = frozenset()
        """The tools that can be called twice for once."""
        self._handshake: bytes | None = None
        self._level: bytes | None = None
        self._subscribed: dict[str, bytes] = {}

    def note(self, line: bytes) -> Request | None:
        """Remember what another owner would have to be told of a line of the client."""
        message = parsed(line)
        method, number = message.get("method"), message.get("id")
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        if not isinstance(method, str):
            return None
        if isinstance(number, (str, int)):
            if method == HANDSHAKE:
                self._handshake = line
            elif method == "logging/setLevel":
                self._level = line
            elif method == "resources/subscribe":
                self._subscribed[str(params.get("uri"))] = line
            elif method == "resources/unsubscribe":
                self._subscribed.pop(str(params.get("uri")), None)
            tool = params.get("name") if method == "tools/call" else None
            request = Request(line, method, tool if isinstance(tool, str) else None)
            self.pending[number] = request
            return request
        if method == "notifications/initialized":
            self.initialized = line
        elif method == "notifications/cancelled":
            cancelled = params.get("requestId")
            if isinstance(cancelled, (str, int)):
                self.pending.pop(cancelled, None)
        return None

    def answered(self, number: Id) -> None:
        """Forget a request."""
        self.pending.pop(number, None)

    def waits_since(self) -> float | None:
        """Return since when the oldest request waits, None if there is none; monotonic time."""
        since = [item.since for item in self.pending.values() if item.method != _ENDLESS]
        return min(since, default=None)

    def take_lost(self) -> list[Id]:
        """Forget the requests that may have been done and can't be repeated; return them."""
        lost = [
            number
            for number, request in self.pending.items()
            if request.sent
            and request.method in _NEVER_REPEATED
            and request.tool not in self.repeatable
        ]
        for number in lost:
            del self.pending[number]
        return lost

    def take_all(self) -> list[Id]:
        """Forget all requests; return them."""
        numbers = list(self.pending)
        self.pending.clear()
        return numbers

    def repeated(self) -> list[bytes]:
        """Return the handshake and subscriptions that were answered, in their order."""
        waiting = {id(request.line) for request in self.pending.values()}
        lines = (self._handshake, self._level, *self._subscribed.values())
        return [line for line in lines if line is not None and id(line) not in waiting]


def answered_id(line: bytes) -> Id | None:
    """Return which request a line of the owner answers, None if it is no answer."""
    found = _ANSWER.match(line)
    if found is not None:
        number: object = json.loads(found[1])
    elif b'"method"' in line[:200]:
        return None
    else:
        number = parsed(line).get("id")
    return number if isinstance(number, (str, int)) else None
