"""What a shim and the owner say to each other before the client's own lines pass.

The shim sends one line, the owner answers with one. After that the connection
carries the client's JSON-RPC messages, a line each, in both directions.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress

from mcp_memory import __version__
from mcp_memory.owner.places import Address

PROTOCOL = 1
MAX_HELLO_BYTES = 1_000_000
"""By judgement: the settings of a client take 2 kB."""

MAX_LINE_BYTES = 72 * 1024 * 1024
"""Room for the longest text, 32 MB, with each character escaped as two, and what is around it."""

RETRY_CODE = -32_000
"""Of the error that answers a call if the owner ended before it did; JSON-RPC 2.0 leaves -32000 to
-32099 to servers."""

Message = dict[str, object]


class Gone(Exception):
    """There is no owner, or it left before it answered."""


class Silent(Exception):
    """There is an owner, and it does not answer."""


def dial(address: Address, timeout: float) -> socket.socket:
    """Connect to an owner.

    Raises:
        Gone: Nobody listens there.
        Silent: It doesn't accept the connection in time.
    """
    path, tcp = address.get("unix"), address.get("tcp")
    try:
        if isinstance(path, str):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            target: str | tuple[str, int] = path
        elif isinstance(tcp, int):
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            target = ("127.0.0.1", tcp)
        else:
            raise Gone
        try:
            connection.settimeout(timeout)
            _connect(connection, target, time.monotonic() + timeout)
        except BaseException:
            connection.close()
            raise
    except (TimeoutError, BlockingIOError):
        raise Silent from None
    except (OSError, ValueError, OverflowError):  # The last two: the file contains no address.
        raise Gone from None
    return connection


def _connect(connection: socket.socket, target: str | tuple[str, int], deadline: float) -> None:
    while True:
        try:
            connection.connect(target)
        except BlockingIOError:
            # Others are waiting there to be accepted, as many as may: the owner is busy, not dead.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def greet(connection: socket.socket, address: Address, hello: Message) -> Message:
    """Send the first line and return the owner's answer.

    Raises:
        Gone: The owner has left.
        Silent: It doesn't answer in time.
    """
    said = {"mcp_memory": PROTOCOL, "version": __version__, "secret": address.get("secret")}
    try:
        # It may have refused this client already, and closed.
        with suppress(BrokenPipeError):
            connection.sendall(json.dumps({**said, **hello}).encode() + b"\n")
        answer = _read_line(connection)
    except TimeoutError:
        raise Silent from None
    except OSError:
        raise Gone from None
    try:
        found = json.loads(answer)
    except ValueError:
        raise Gone from None
    if not isinstance(found, dict):
        raise Gone
    return found


def alive(address: Address, timeout: float) -> bool:
    """Return whether an owner answers."""
    try:
        connection = dial(address, timeout)
        with connection:
            greet(connection, address, {"op": "ping"})
    except (Gone, Silent):
        return False
    return True


def _read_line(connection: socket.socket) -> bytes:
    # What comes after this line would belong to the client. The owner sends nothing there yet,
    # because the client has asked nothing.
    line = bytearray()
    timeout = connection.gettimeout()
    deadline = None if timeout is None else time.monotonic() + timeout
    while not line.endswith(b"\n"):
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError
        piece = connection.recv(65_536)
        if not piece:
            raise Gone
        line += piece
        if len(line) > MAX_HELLO_BYTES:
            raise Gone
    return bytes(line)
