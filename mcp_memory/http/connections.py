"""The connections of a listener: how many there are, and how long each may keep it waiting.

Without a token a client can make the server wait: for the first byte, the rest of a header, the
next request. One that waits can be replaced: when all places are taken, the connection that has
said nothing for the longest time is closed in favour of the new one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
from collections import defaultdict
from typing import Any, Final

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS: Final = 20.0
"""How long the head of a request may take: the default of Apache's mod_reqtimeout."""

KEEP_ALIVE_SECONDS: Final = 75
"""How long a connection may stay without a request: nginx's default."""

READ_SECONDS: Final = 30.0
"""How long a client may take to read what was sent, besides the time for its size; by judgement."""

MIN_BYTES_PER_SECOND: Final = 16_000
"""How fast it has to read after that; by judgement, as for bodies."""

_MAX_HEAD_BYTES: Final = 32_768
"""By judgement: twice the default of h11, for long tokens."""

# A body of parts of one byte costs 20 µs of the event loop for each.
_FREE_PARTS: Final = 10_000
_MIN_PART_BYTES: Final = 64
"""By judgement: less than any client sends at once, on average."""

REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 5\r\n"
    b"Connection: close\r\n\r\n"
)
_TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Connections:
    """All connections of a listener.

    Args:
        most: How many there may be; one address has at most half of them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_of_peer = max(most // 2, 1)
        self._open: dict[HttpConnection, str] = {}
        self._of_peer: dict[str, int] = defaultdict(int)
        # Those without a request, the one that waits for the longest time first.
        self._waiting: dict[HttpConnection, None] = {}
        self._waiting_of_peer: dict[str, dict[HttpConnection, None]] = defaultdict(dict)

    def admit(self, connection: HttpConnection, address: str) -> bool:
        """Count a new connection if there is a place, or one can be freed."""
        peer = _peer(address)
        waiting = None
        if self._of_peer[peer] >= self._most_of_peer:
            waiting = self._waiting_of_peer[peer]
        elif len(self._open) >= self._most:
            waiting = self._waiting
        if waiting is not None:
            longest = next(iter(waiting), None)
            if longest is None:
                return False
            self.remove(longest)
            longest.transport.abort()
        self._open[connection] = peer
        self._of_peer[peer] += 1
        self.waits(connection)
        return True

    def waits(self, connection: HttpConnection) -> None:
        """Note that a connection has no request."""
        peer = self._open.get(connection)
        if peer is not None:
            self._waiting[connection] = self._waiting_of_peer[peer][connection] = None

    def works(self, connection: HttpConnection) -> None:
        """Note that a connection has a request that is being answered."""
        peer = self._open.get(connection)
        if peer is not None:
            self._waiting.pop(connection, None)
            self._waiting_of_peer[peer].pop(connection, None)

    def remove(self, connection: HttpConnection) -> None:
        """Count a connection no more."""
        self.works(connection)
        peer = self._open.pop(connection, None)
        if peer is not None:
            self._of_peer[peer] -= 1
            if not self._of_peer[peer]:
                del self._of_peer[peer], self._waiting_of_peer[peer]

    def sweep(self, now: float) -> None:
        """Close the connections whose client takes too long; call it once a second."""
        for connection in list(self._open):
            connection.close_if_late(now)


class HttpConnection(H11Protocol):
    """One connection, with a deadline for everything that its client has to do."""

    def __init__(self, connections: Connections, **given: Any) -> None:
        super().__init__(**given)
        self.conn = _Parser(h11.SERVER, _MAX_HEAD_BYTES)
        self._connections = connections
        self._head_begun = False
        self._deadline = math.inf
        self._read_deadline = math.inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a listener gives no other
        """Begin, if there is a place."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.conn)
        address = "" if self.client is None else self.client[0]
        if self._connections.admit(self, address):
            self._deadline = self.loop.time() + HEAD_SECONDS
        else:
            transport.write(REFUSAL)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if not self._head_begun:
            self._head_begun = True
            self._deadline = self.loop.time() + HEAD_SECONDS
        super().data_received(data)
        if self._is_answering():
            self._deadline = math.inf
            self._connections.works(self)
        elif self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            # That was the rest of a body that nobody reads.
            self._wait()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of a body that nobody reads."""
        self._wait()
        if self.conn.their_state is h11.SEND_BODY:
            self._head_begun = True
            self._deadline = self.loop.time() + HEAD_SECONDS
        self._connections.waits(self)
        super().on_response_complete()
        self.flow.resume_reading()  # Only now is it known whether a further request is complete.
        if self._is_answering():  # The next request was here already.
            self._deadline = math.inf
            self._connections.works(self)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, if nothing else is being sent."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            super().send_400_response(msg)
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        """Give the client time to read what was sent."""
        super().pause_writing()
        size = self.transport.get_write_buffer_size()
        self._read_deadline = self.loop.time() + READ_SECONDS + size / MIN_BYTES_PER_SECOND

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self._read_deadline = math.inf

    def shutdown(self) -> None:
        """End after the answer that is being sent, or now if there is none."""
        if self._is_answering():
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def close_if_late(self, now: float) -> None:
        """Close the connection if its client takes too long."""
        if self.transport.is_closing():
            # What is left to send may never be read.
            self._read_deadline = min(self._read_deadline, now + READ_SECONDS)
        if now > self._read_deadline:
            self.transport.abort()
        elif now > self._deadline:
            if self._head_begun and self.conn.our_state is h11.IDLE:
                self.transport.write(_TOO_SLOW)
            self.transport.close()
            self._deadline = math.inf

    def _wait(self) -> None:
        self._head_begun = False
        self._deadline = self.loop.time() + KEEP_ALIVE_SECONDS

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete


class _Flow(FlowControl):
    """Reads nothing more while a further request waits for the answer to the one before it.

    uvicorn stops there too, but whatever reads a body lets it go on, and all is kept in memory.
    """

    def __init__(self, transport: asyncio.Transport, conn: h11.Connection) -> None:
        super().__init__(transport)
        self._conn = conn

    def resume_reading(self) -> None:
        further = self._conn.their_state is h11.DONE and self._conn.trailing_data[0]
        if not further:
            super().resume_reading()


class _Parser(h11.Connection):
    """Refuses a body that comes in parts so small that reading them takes all the time."""

    _parts = 0
    _part_bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._parts += 1
            self._part_bytes += len(event.data)
            if self._parts > _FREE_PARTS + self._part_bytes / _MIN_PART_BYTES:
                raise h11.RemoteProtocolError("the parts of the body are too small")
        elif isinstance(event, h11.Request):
            self._parts = self._part_bytes = 0
        return event


def _peer(address: str) -> str:
    """Return what counts as one peer: an address, or the /64 network that a host has in IPv6."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
