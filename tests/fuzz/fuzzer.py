"""Sends arbitrary input by every door and checks what always holds.

No traceback in the log, no answer that speaks of an unexpected error, nothing changed by
what was refused, no reply over the limit, and no call that takes long.

`python tests/fuzz/fuzzer.py --seconds 3600` runs it by hand, with a seed of its own.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import string
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psutil

SUPPORT: Final = Path(__file__).parents[1] / "support"
if __name__ == "__main__":
    sys.path.insert(0, str(SUPPORT))

from processes import RawServer, listening_url, raw_server  # noqa: E402  # needs the path above

from mcp_memory.models.tokenizer import Tokenizer  # noqa: E402  # the same
from mcp_memory.server.prompts import PROMPTS  # noqa: E402  # the same
from mcp_memory.server.resources import RESOURCES, TEMPLATES  # noqa: E402  # the same
from mcp_memory.server.tools import TOOLS  # noqa: E402  # the same

CALL_SECONDS: Final = 3.0
"""Of the processor, which unlike the clock knows nothing of other processes."""

MAX_REPLY_TOKENS: Final = 2_000
UNEXPECTED: Final = "unexpected error"
WORDS: Final = (
    *("", " ", "main", "human", "persona", "working", "user", "default", "fact", "any", "all"),
    *("null", "undefined", "None", "nan", "Infinity", "-1", "0", "1e309", "9" * 400, "true"),
    *("2026-03-09", "2026-02-30T25:61", "yesterday", "0000-00-00", "9999-12-31T23:59:59Z"),
    *("a\u0301", " \u0301 ", "tea \u0301 yesterday", "\u202eevil", "\x1b[2J", "\x00", "\ufeff"),
    *("\ud83d\ude00" * 3, "茶を飲む", "שלום", "ǅ", "ﬁ", "ß" * 40, "\u2028", "\r\n", "İ"),
    *("../../etc/passwd", "%00", "%zz", "memory://core", "{label}", "<block>", "</block>", "'; --"),
    *('["a"]', '{"a": 1}', "[", "(" * 60, "[" * 500, "\\", '"', "`", "$(id)", "a" * 5_000),
)
NUMBERS: Final = (0, 1, -1, 5, 50, 51, 10**6, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0)
HOST_ARGUMENTS: Final = ("toolCallId", "sessionId", "action", "random_string", "tag", "limit")


class Broken(AssertionError):
    """The server did what it must never do; the message has the input."""


class Inputs:
    """Arbitrary values from one seed, many of them nearly valid."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def text(self) -> str:
        """Return a word that is known to be difficult, several of them, or arbitrary characters."""
        pick = self.random.random()
        if pick < 0.5:
            return self.random.choice(WORDS)
        if pick < 0.7:
            return " ".join(self.random.choices(WORDS, k=self.random.randint(1, 5)))
        if pick < 0.85:
            return "".join(self.random.choices(string.printable, k=self.random.randint(0, 60)))
        points = (self.random.randrange(0x110000) for _ in range(self.random.randint(0, 30)))
        return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)

    def value(self, depth: int = 0) -> Any:
        """Return any JSON value."""
        pick = self.random.random()
        if pick < 0.45:
            return self.text()
        if pick < 0.6:
            return self.random.choice(NUMBERS)
        if pick < 0.75 or depth > 3:
            return self.random.choice((None, True, False))
        if pick < 0.9:
            return [self.value(depth + 1) for _ in range(self.random.randint(0, 4))]
        return {self.text(): self.value(depth + 1) for _ in range(self.random.randint(0, 4))}

    def like(self, schema: dict[str, Any]) -> Any:
        """Return a value that a schema allows, or, now and then, anything."""
        if self.random.random() < 0.15:
            return self.value()
        if "enum" in schema:
            return self.random.choice(schema["enum"])
        kind = schema.get("type")
        if kind == "integer":
            return self.random.choice(NUMBERS)
        if kind == "array":
            return [self.like(schema["items"]) for _ in range(self.random.randint(0, 3))]
        if kind == "object":
            return self.arguments(schema)
        return self.text()

    def arguments(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return arguments: the required ones nearly always, the others sometimes."""
        required = schema.get("required", ())
        given = {
            name: self.like(part)
            for name, part in schema["properties"].items()
            if self.random.random() < (0.95 if name in required else 0.4)
        }
        if self.random.random() < 0.1:
            given[self.random.choice(HOST_ARGUMENTS)] = self.value()
        return given

    def uri(self) -> str:
        """Return the URI of a resource, damaged in most cases."""
        uris = [str(resource.uri) for resource in RESOURCES]
        uris += [template.uri_template for template in TEMPLATES]
        uri = re.sub(r"\{\w+\}", lambda _: self.text(), self.random.choice(uris))
        if self.random.random() < 0.3:
            uri += (
                self.random.choice(("?", "?from=", "?before=", "#", "/", "?cursor=")) + self.text()
            )
        return uri if self.random.random() < 0.8 else self.text()

    def damaged(self, line: bytes) -> bytes:
        """Return a line with some bytes changed, lost, doubled or added; without line breaks."""
        data = bytearray(line)
        for _ in range(self.random.randint(1, 4)):
            at, pick = self.random.randrange(len(data) + 1), self.random.random()
            if pick < 0.3:
                data[at : at + 1] = bytes([self.random.randrange(256)])
            elif pick < 0.5:
                del data[at : at + self.random.randint(1, 20)]
            elif pick < 0.7:
                data[at:at] = data[at : at + self.random.randint(1, 40)]
            else:
                pieces = (b"[" * 2_000, b"\xff\xfe", b'"\\ud800"', b"{", b"1e999", b"NaN", b"\0")
                data[at:at] = self.random.choice(pieces)
        return bytes(data).replace(b"\n", b" ").replace(b"\r", b" ")


class Target:
    """A server over HTTP, and a client of the same memory over stdio."""

    def __init__(
        self, server: RawServer, client: RawServer, url: str, token: str | None, cache_dir: Path
    ) -> None:
        self.server = server
        self.client = client
        self._url = urlsplit(url)
        self._token = token
        self._number = 1_000
        self._process = psutil.Process(server.process.pid)
        self._seen_errors = 0
        self._count = Tokenizer(cache_dir=cache_dir).count

    def number(self) -> int:
        """Return the next id."""
        self._number += 1
        return self._number

    def processor_seconds(self) -> float:
        """Return how much processor time the server has used."""
        times = self._process.cpu_times()
        return times.user + times.system

    def ask(self, method: str, params: Any) -> dict[str, Any]:
        """Send a request over stdio and return the message that answers it."""
        number = self.number()
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        self.client.send(json.dumps(request).encode())
        return self.client.answer(number)

    def pass_line(self, line: bytes) -> None:
        """Send a line that may be no message at all; the next request must be answered."""
        self.client.send(line)
        self.ask("ping", {})

    def post(self, method: str, path: str, headers: dict[str, str], body: bytes) -> int:
        """Send an HTTP request and return the status; 0 if the connection was closed."""
        connection = http.client.HTTPConnection(
            str(self._url.hostname), self._url.port or 80, timeout=60
        )
        if self._token is not None:
            headers = {"Authorization": f"Bearer {self._token}", **headers}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            if "event-stream" not in answer.getheader("Content-Type", ""):
                answer.read()
        except (http.client.HTTPException, OSError):
            return 0
        finally:
            connection.close()
        return answer.status

    def state(self) -> str:
        """Return what a refused call must not change."""
        shown = [
            self.ask("tools/call", {"name": name, "arguments": {}})["result"]["structuredContent"]
            for name in ("core_memory_view", "archival_memory_search", "conversation_search")
        ]
        blocks = [{**block, "editor": None} for block in shown[0].get("blocks", [])]
        return json.dumps([blocks, *(part.get("total") for part in shown)])

    def check_log(self, what: str) -> None:
        """Check that the server has logged no traceback.

        Raises:
            Broken: It has.
        """
        news = "".join([*self.server.errors, *self.client.errors][self._seen_errors :])
        if "Traceback" in news:
            raise Broken(f"{what} caused\n{news[-3_000:]}")

    def check_reply(self, what: str, message: dict[str, Any]) -> bool:
        """Check one answer, and return whether the request was refused.

        Raises:
            Broken: It is too long, or speaks of an unexpected error.
        """
        result = message.get("result")
        if result is None:
            error = message["error"]
            if UNEXPECTED in error["message"].lower():
                raise Broken(f"{what} was answered with {error}")
            return True
        for form in (
            "\n".join(part.get("text", "") for part in result.get("content", [])),
            json.dumps(result.get("structuredContent"), ensure_ascii=False, separators=(",", ":")),
        ):
            if UNEXPECTED in form:
                raise Broken(f"{what} was answered with {form[:500]}")
            if self._count(form) > MAX_REPLY_TOKENS:
                raise Broken(f"{what} was answered with {self._count(form)} tokens")
        return bool(result.get("isError"))


class Fuzzer:
    """Takes one door after the other; `tried` counts the inputs of each."""

    def __init__(self, target: Target, seed: int) -> None:
        self.target = target
        self.inputs = Inputs(seed)
        self.tried: dict[str, int] = {}
        self.refused = 0
        self._doors: tuple[Callable[[], None], ...] = (
            *(self._tool,) * 6,
            self._resource,
            self._prompt,
            self._completion,
            self._line,
            self._http,
        )

    def run(self, seconds: float) -> None:
        """Try inputs until the time is over.

        Raises:
            Broken: The server did what it must never do.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            door = self.inputs.random.choice(self._doors)
            door()
            self.tried[door.__name__] = self.tried.get(door.__name__, 0) + 1

    def _tool(self) -> None:
        name = self.inputs.random.choice(list(TOOLS))
        arguments = self.inputs.arguments(TOOLS[name].definition().input_schema)
        before = self.target.state()
        if self._asked("tools/call", {"name": name, "arguments": arguments}):
            after = self.target.state()
            if after != before:
                raise Broken(f"{name} {arguments!r} was refused and changed {before} to {after}")

    def _resource(self) -> None:
        self._asked("resources/read", {"uri": self.inputs.uri()})

    def _prompt(self) -> None:
        name = self.inputs.random.choice([*PROMPTS, self.inputs.text()])
        given = {
            key: self.inputs.text()
            for key in ("conversation", self.inputs.text())
            if self.inputs.random.random() < 0.5
        }
        self._asked("prompts/get", {"name": name, "arguments": given})

    def _completion(self) -> None:
        prompt = {"type": "ref/prompt", "name": self.inputs.random.choice(list(PROMPTS))}
        template = self.inputs.random.choice(TEMPLATES).uri_template
        resource = {"type": "ref/resource", "uri": template}
        argument = {
            "name": self.inputs.random.choice(("label", "conversation", "id", self.inputs.text())),
            "value": self.inputs.text(),
        }
        reference = self.inputs.random.choice((prompt, resource))
        self._asked("completion/complete", {"ref": reference, "argument": argument})

    def _line(self) -> None:
        number = self.target.number()
        params = {"name": "core_memory_view", "arguments": self.inputs.value()}
        request = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        line = self.inputs.damaged(json.dumps(request).encode())
        self._watched(f"the line {line!r}", lambda: self.target.pass_line(line))

    def _http(self) -> None:
        choose = self.inputs.random.choice
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": self.inputs.value()}
        body = choose((self.inputs.damaged(json.dumps(request).encode()), b"", b"[]", b"[" * 9_000))
        path = choose(("/mcp", "/mcp/", "/", "/sse", "/healthz", "/metrics", "/%00", "//mcp"))
        names = ("Accept", "Content-Type", "Mcp-Session-Id", "MCP-Protocol-Version", "Origin")
        visible = (re.sub(r"[^!-~ ]", "?", self.inputs.text())[:200] for _ in names)
        headers = {"Accept": "application/json, text/event-stream"} | {
            name: text for name, text in zip(names, visible, strict=True) if choose((True, False))
        }
        method = choose(("POST", "POST", "POST", "PUT", "DELETE", "OPTIONS"))

        def send() -> None:
            status = self.target.post(method, path, headers, body)
            if status >= 500 and status != 503:
                raise Broken(f"{method} {path} {headers} {body[:300]!r} was answered with {status}")

        self._watched(f"{method} {path} {headers} {body[:300]!r}", send)

    def _asked(self, method: str, params: dict[str, Any]) -> bool:
        """Ask, check the answer, and return whether it is a refusal."""
        what = f"{method} {params!r}"
        refused = False

        def ask() -> None:
            nonlocal refused
            refused = self.target.check_reply(what, self.target.ask(method, params))

        self._watched(what, ask)
        self.refused += refused
        return refused

    def _watched(self, what: str, action: Callable[[], None]) -> None:
        before = self.target.processor_seconds()
        try:
            action()
        except AssertionError as error:
            raise Broken(f"{what}: {error}") from error
        taken = self.target.processor_seconds() - before
        self.target.check_log(what)
        if taken > CALL_SECONDS:
            raise Broken(f"{what} took {taken:.1f} s of processor time")


@contextmanager
def target(home: Path) -> Iterator[Target]:
    """Start the server, and connect a client."""
    arguments = ("serve", "--transport", "http", "--port", "0")
    with raw_server(home, *arguments, owner="auto") as server:
        url = listening_url(server)
        with raw_server(home, owner="auto") as client:
            client.initialize()
            yield Target(server, client, url, None, home / "cache")


def main() -> int:
    """Run it by hand; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as home, target(Path(home)) as opened:
        fuzzer = Fuzzer(opened, options.seed)
        try:
            fuzzer.run(options.seconds)
        except Broken as broken:
            print(broken)
            return 1
        finally:
            print(f"tried {fuzzer.tried}, {fuzzer.refused} refused", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
