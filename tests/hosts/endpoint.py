"""A model endpoint on this machine that plays a script, and the only thing a host can reach.

It is also the proxy that the hosts are told to use: every connection that they try to the
outside is refused and remembered.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from .dialects import (
    AnthropicMessages,
    Dialect,
    Event,
    GeminiContents,
    OpenAIChat,
    OpenAIResponses,
    Turn,
)

_DIALECTS: Final[tuple[Dialect, ...]] = (
    AnthropicMessages(),
    OpenAIResponses(),
    GeminiContents(),
    OpenAIChat(),
)
# Claude Code offers MCP tools only once its own tool has found them.
_TOOL_SEARCH: Final = "ToolSearch"
_MAX_TOOL_SEARCHES: Final = 3


@dataclass(frozen=True)
class Call:
    """A step of a script: the model calls one of our tools.

    `before` runs when the host has asked for this step, and the reply waits for it.
    """

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)
    before: Callable[[], object] = lambda: None


class ScriptedModel(ThreadingHTTPServer):
    """Calls the tools of a script one after the other, then repeats the last result and ends.

    Where it stands it reads from each request, so that a request that is repeated, or one that
    is about something else, a title for instance, moves nothing.
    """

    daemon_threads = True

    def __init__(self, script: Sequence[Call], at_the_end: Callable[[], object]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.script = script
        self.at_the_end = at_the_end
        self.results: list[str] = []
        """The results of the script's calls, as the host passed them to the model."""
        self.first: str = ""
        """The body of the first request that plays the script."""
        self.requests: list[str] = []
        """Every request's method and path, for the message of a test that fails."""
        self.outside: list[str] = []
        """Hosts that were asked for through the proxy."""

    def reply(self, dialect: Dialect, turn: Turn) -> list[Event]:
        """Return the next turn of the script."""
        names = [call.tool for call in self.script]
        results = [text for name, text in turn.answers if name.endswith(tuple(names))]
        if len(results) > len(self.results):
            self.results = results
        if len(results) == len(self.script):
            self.at_the_end()
            return dialect.say(f"Done. The last result: {results[-1]}")
        call = self.script[len(results)]
        for tool in turn.tools:
            if tool.name.endswith(call.tool):
                call.before()
                return dialect.call(tool, call.arguments)
        searches = [name for name, _ in turn.answers if name == _TOOL_SEARCH]
        for tool in turn.tools:
            if tool.name == _TOOL_SEARCH and len(searches) < _MAX_TOOL_SEARCHES:
                return dialect.call(tool, {"query": call.tool.replace("_", " "), "max_results": 5})
        return dialect.say(f"There is no tool {call.tool}.")


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedModel

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        path = urlsplit(self.path).path
        self._note()
        for dialect in _DIALECTS:
            if dialect.speaks(path):
                turn = dialect.turn(json.loads(body))
                if turn.tools and not self.server.first:
                    self.server.first = body.decode()
                events = self.server.reply(dialect, turn)
                self._stream(events, whole=path.endswith(":generateContent"))
                return
        self._refuse()

    def do_GET(self) -> None:
        self._note()
        self._refuse()

    def do_CONNECT(self) -> None:
        self.server.outside.append(self.path)
        self._refuse()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing: a test that fails shows `requests`."""

    def _note(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        # A request through a proxy names the host that is meant.
        if asked := urlsplit(self.path).netloc:
            self.server.outside.append(asked)

    def _stream(self, events: list[Event], *, whole: bool) -> None:
        if whole:
            content = json.dumps(events[0][1]).encode()
        else:
            content = b"".join(_encoded(event) for event in events)
        self.send_response(200)
        self.send_header("Content-Type", "application/json" if whole else "text/event-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self) -> None:
        content = json.dumps({"error": {"message": "not in the script"}}).encode()
        self.send_response(404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content)


def _encoded(event: Event) -> bytes:
    name, data = event
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


@contextlib.contextmanager
def scripted_model(
    *script: Call, at_the_end: Callable[[], object] = lambda: None
) -> Iterator[ScriptedModel]:
    """Give an endpoint that plays the script; gone at the end, with all its connections."""
    model = ScriptedModel(script, at_the_end)
    thread = threading.Thread(target=model.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield model
    finally:
        model.shutdown()
        thread.join()
        model.server_close()
