"""One JSON document in place of a stream of events, for clients that take no streams."""

from __future__ import annotations

from typing import Final

from starlette.types import Message, Send

from mcp_memory.server.parsing import envelope

_EVENT_END: Final = b"\r\n\r\n"
_DATA: Final = b"data: "


class OneDocument:
    """Sends what comes as a stream of events as the one message among them that is the answer.

    Notifications before it are left out: there is no place for them in the document.

    Args:
        send: Where the answer goes.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._rest = b""
        self._answer: bytes | None = None

    async def send(self, message: Message) -> None:
        """Send a part of an answer; one that is no stream is sent as it is."""
        if message["type"] == "http.response.start" and _is_stream(message):
            self._start = message
        elif self._start is None:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._read(message.get("body", b""))
            if not message.get("more_body", False):
                await self._finish(self._start)

    def _read(self, data: bytes) -> None:
        *events, self._rest = (self._rest + data).split(_EVENT_END)
        for event in events:
            found = b"".join(
                line.removeprefix(_DATA) for line in event.split(b"\r\n") if line.startswith(_DATA)
            )
            if found and envelope(found)[0] is None:
                self._answer = found

    async def _finish(self, start: Message) -> None:
        headers = [
            (name, value)
            for name, value in start["headers"]
            if name.lower() not in {b"content-type", b"content-length"}
        ]
        answer = self._answer
        if answer is None:  # The session has ended, and nothing is known of the call.
            start = {**start, "status": 503}
            answer = b'{"error":"ended","error_description":"the session ended before the answer"}'
        headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", str(len(answer)).encode()))
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer, "more_body": False})


def _is_stream(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream")
        for name, value in start["headers"]
    )
