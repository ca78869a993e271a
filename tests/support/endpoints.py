"""A small OpenAI-compatible endpoint on loopback that follows a script."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, str, bytes]
"""Status, content type, body."""

Script = Callable[[dict[str, Any]], Reply | None]
"""Makes the reply to a request; None leaves the request open until the endpoint closes."""


def says(text: object, *, finish: str = "stop", tokens: tuple[int, int] = (100, 10)) -> Script:
    """Reply with `text`, as a model would."""

    def reply(request: dict[str, Any]) -> Reply:
        body = {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": request["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": finish,
                    "message": {"role": "assistant", "content": text},
                }
            ],
            "usage": {
                "prompt_tokens": tokens[0],
                "completion_tokens": tokens[1],
                "total_tokens": sum(tokens),
            },
        }
        return 200, "application/json", json.dumps(body).encode()

    return reply


def fails(status: int, body: bytes = b'{"error": {"message": "no"}}') -> Script:
    """Reply with an HTTP error."""
    return lambda request: (status, "application/json", body)


def sends(body: bytes, content_type: str = "application/json") -> Script:
    """Reply with status 200 and any body."""
    return lambda request: (200, content_type, body)


def hangs(request: dict[str, Any]) -> Reply | None:
    """Never reply."""
    return None


class StubEndpoint:
    """Replies to requests in the order of its script; the last entry is repeated."""

    def __init__(self) -> None:
        self.script: deque[Script] = deque([says("A summary.")])
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.closing = threading.Event()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                request = json.loads(body)
                stub.keys.append(self.headers.get("authorization"))
                stub.requests.append({**request, "path": self.path})
                step = stub.script.popleft() if len(stub.script) > 1 else stub.script[0]
                reply = step(request)
                if reply is None:
                    stub.closing.wait(30)
                    self.close_connection = True
                    return
                status, content_type, content = reply
                self.send_response(status)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(content)))
                # Without this header the client waits half a second before it retries.
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(content)

            def log_request(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def play(self, *steps: Script) -> None:
        """Replace the script."""
        self.script = deque(steps)


@contextmanager
def stub_endpoint() -> Iterator[StubEndpoint]:
    """Run an endpoint during a `with` block."""
    stub = StubEndpoint()
    thread = threading.Thread(target=stub.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.closing.set()
        stub.server.shutdown()
        stub.server.server_close()
        thread.join()
