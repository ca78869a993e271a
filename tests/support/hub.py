"""A local model hub that can misbehave on request, and a model of about a megabyte."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from mcp_memory.models import files as modelfiles
from mcp_memory.models.files import ModelSpec
from mcp_memory.settings import DEFAULT_MODEL

NAME = DEFAULT_MODEL
MODEL_FILE = "onnx/model_int8.onnx"
CONTENTS = {"tokenizer.json": b'{\n "a": 1\n}\n', MODEL_FILE: bytes(range(256)) * 4096}


def sha256(content: bytes) -> str:
    """Return the SHA-256 digest in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class Hub(ThreadingHTTPServer):
    """Serves `files` under any repository and commit, and records the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.files = dict(CONTENTS)
        self.listing: object = None
        self.ranges: list[tuple[str, str | None]] = []
        self.cut_at: int | None = None
        """Cut the next response that is longer than this number of bytes, once."""
        self.hang_at: int | None = None
        """Send this number of bytes of a response, then nothing until the test ends."""
        self.hanging = threading.Event()
        self.redirect = False
        """Send files from another address, as the hub does with large ones."""
        self.ended = threading.Event()

    @property
    def paths(self) -> list[str]:
        """What was asked with GET."""
        return [path for path, _ in self.ranges]


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        content = self._content()
        if content is None:
            self.send_error(404)
            return
        if self._is_redirected():
            self.send_header("X-Linked-Etag", f'"{sha256(content)}"')
            self.send_header("X-Linked-Size", str(len(content)))
        else:
            self.send_response(200)
            self.send_header("ETag", f'"{sha256(content)}"')
            self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", self.path.split("/")[4])
        self.end_headers()

    def do_GET(self) -> None:
        hub = self.server
        if self._is_redirected():
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        hub.ranges.append((self.path, self.headers["Range"]))
        content = self._content()
        if content is None:
            self.send_error(404)
            return
        start = 0
        if self.headers["Range"]:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if hub.cut_at is not None and len(body) > hub.cut_at:
            body, hub.cut_at = body[: hub.cut_at], None
            self.close_connection = True
        if hub.hang_at is not None and len(body) > hub.hang_at:
            self.wfile.write(body[: hub.hang_at])
            self.wfile.flush()
            hub.hanging.set()
            hub.ended.wait()
            return
        self.wfile.write(body)

    def _is_redirected(self) -> bool:
        if not self.server.redirect or "/resolve/" not in self.path:
            return False
        self.send_response(302)
        self.send_header("Location", self.server.url + self.path.replace("/resolve/", "/cdn/"))
        return True

    def _content(self) -> bytes | None:
        if self.path.startswith("/api/"):
            return json.dumps(self.server.listing).encode()
        for name, content in self.server.files.items():
            if self.path.endswith(f"/{name}"):
                return content
        return None

    def log_message(self, *_: object) -> None: ...


def small_model() -> ModelSpec:
    """Return the default model with the small files of `CONTENTS`, which no package contains."""
    hashes = {name: sha256(content) for name, content in CONTENTS.items()}
    return replace(modelfiles.ARCTIC, files=dict(hashes), wheel=None)


@contextlib.contextmanager
def running_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run a hub, and make it the one that this process uses."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("NO_PROXY", "*")
    # It is imported already, and no longer reads what `mcp_memory.models.fetching` sets.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    try:
        yield hub
    finally:
        hub.ended.set()
        hub.shutdown()
        thread.join()
        hub.server_close()
