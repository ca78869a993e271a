"""A request that is being answered, and how to end it before its time."""

from __future__ import annotations

from typing import Final

import anyio
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

_LEAVE_SECONDS: Final = 1.0


class OpenRequest:
    """One request, from its first byte to the last of its answer.

    Args:
        send: Where the answer goes.
        receive: For a stream, where it learns that its client has left.
    """

    def __init__(self, send: Send, receive: Receive | None) -> None:
        self.cancelling = anyio.CancelScope()
        """Entered around the work on the request."""
        self.ended_early = False
        self._send = send
        self._receive = receive
        self._gone = anyio.Event()
        self._began = False
        self._complete = False

    def end(self) -> None:
        """End the request: a stream as if its client had left, anything else by cancelling it."""
        self.ended_early = True
        if self._receive is None:
            self.cancelling.cancel()
            return
        # The SDK tidies up after a client that leaves, but not after a cancellation.
        self._gone.set()
        self.cancelling.deadline = anyio.current_time() + _LEAVE_SECONDS

    async def receive(self) -> Message:
        """Give the next message of a stream's client, which has left once the stream is ended."""
        if self._receive is None:
            raise RuntimeError("only a stream is told that its client has left")
        message: Message = {"type": "http.disconnect"}
        async with anyio.create_task_group() as group:

            async def leave() -> None:
                await self._gone.wait()
                group.cancel_scope.cancel()

            group.start_soon(leave)
            message = await self._receive()
            group.cancel_scope.cancel()
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self._began = True
        elif message["type"] == "http.response.body":
            self._complete = not message.get("more_body", False)
        await self._send(message)

    async def say_so(self, scope: Scope, receive: Receive) -> None:
        """Complete the answer, or give one that says it can't be had."""
        if not self._began:
            refusal = Response("the request was ended by the server", 503)
            await refusal(scope, receive, self._send)
        elif not self._complete:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
