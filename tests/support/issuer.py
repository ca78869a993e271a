"""A local OAuth issuer: keys, discovery document and signed tokens."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "https://memory.example.org/mcp"


class Issuer(ThreadingHTTPServer):
    """Publishes the keys in `published`; it may sign with a key that is not among them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/realm"
        self.keys: dict[str, Any] = {}
        self.published: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.down = False
        self.rotate("one")

    def rotate(self, kid: str, algorithm: str = "RS256") -> None:
        """Replace the signing key, and publish only the new one."""
        if algorithm == "ES256":
            key: Any = ec.generate_private_key(ec.SECP256R1())
            public = json.loads(ECAlgorithm.to_jwk(key.public_key()))
        else:
            key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
            public = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
        self.keys = {"kid": kid, "key": key, "alg": algorithm}
        self.published = [{**public, "kid": kid, "use": "sig", "alg": algorithm}]

    def token(self, **changes: Any) -> str:
        """Return a valid token with these claims changed; None removes a claim."""
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ana",
            "client_id": "desk",
            "scope": "openid write",
            "exp": int(time.time()) + 600,
            **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        kid, algorithm = self.keys["kid"], self.keys["alg"]
        return jwt.encode(claims, self.keys["key"], algorithm=algorithm, headers={"kid": kid})


class _Handler(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        issuer = self.server
        issuer.asked.append(self.path)
        documents: dict[str, Any] = {
            "/keys": {"keys": issuer.published},
            "/realm/.well-known/openid-configuration": {
                "issuer": issuer.url,
                "jwks_uri": issuer.url.removesuffix("/realm") + "/keys",
            },
        }
        if issuer.down or self.path not in documents:
            self.send_error(503 if issuer.down else 404)
            return
        body = json.dumps(documents[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def running_issuer() -> Iterator[Issuer]:
    """Run an issuer during a `with` block."""
    issuer = Issuer()
    thread = threading.Thread(target=issuer.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield issuer
    finally:
        issuer.shutdown()
        thread.join()
        issuer.server_close()
