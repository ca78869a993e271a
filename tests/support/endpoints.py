"""A small OpenAI-compatible endpoint on loopback that does as a test tells it."""

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
"""What is answered to a request; None to let it hang until the endpoint is closed."""


def says(text: object, *, finish: str = "stop", tokens: tuple[int, int] = (100, 10)) -> Script:
    """Answer as a model that says `text`."""

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
    """Answer with an error."""
    return lambda request: (status, "application/json", body)


def sends(body: bytes, content_type: str = "application/json") -> Script:
    """Answer 200 with anything."""
    return lambda request: (200, content_type, body)


def hangs(request: dict[str, Any]) -> Reply | None:
    """Never answer."""
    return None


class StubEndpoint:
    """Answers requests in the order of its script; the last step goes on for ever."""

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
                # Without this the client waits half a second before it tries again.
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(content)

            def log_request(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def play(self, *steps: Script) -> None:
        """Set what is answered from now on."""
        self.script = deque(steps)


@contextmanager
def stub_endpoint() -> Iterator[StubEndpoint]:
    """Run an endpoint for the time of a test."""
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
