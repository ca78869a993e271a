"""JSON Web Tokens of the issuer that is set: this server as an OAuth resource server.

Only asymmetric signatures are taken. Keys come from the issuer's JWKS, are kept
for five minutes, and are fetched again when a token names one that is not known.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jwt
from jwt import PyJWKClient
from jwt.exceptions import PyJWKClientConnectionError, PyJWKClientError, PyJWTError

from mcp_memory.http.options import HttpOptions
from mcp_memory.tiers.access import Scope
from mcp_memory.values.errors import AccessDenied, InvalidInput
from mcp_memory.values.text import check_name

logger = logging.getLogger(__name__)

# Never a symmetric one: with those, whoever knows the public key could sign.
ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)
_CLOCK_SKEW_SECONDS: Final = 10
_KEYS_KEPT_SECONDS: Final = 300
_FETCH_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Bearer:
    """What a valid token says."""

    subject: str
    client: str
    agent: str
    scope: Scope | None
    """The widest of ours that it has; None if it has none."""
    expires_at: datetime


class JwtVerifier:
    """Checks the tokens of one issuer; blocks while it fetches keys.

    Args:
        issuer: What `iss` must be, to the letter.
        audience: What `aud` must be or contain.
    """

    def __init__(self, options: HttpOptions, *, issuer: str, audience: str) -> None:
        self._options = options
        self._issuer = issuer
        self._audience = audience
        self._finding = threading.Lock()
        self._found: PyJWKClient | None = None

    def verify(self, text: str) -> Bearer:
        """Return what a token says.

        Raises:
            AccessDenied: It is not signed by the issuer, not meant for this server, expired,
                or names no agent.
            ConnectionError: The keys can't be had.
        """
        try:
            algorithm = jwt.get_unverified_header(text).get("alg")
            if algorithm not in ALGORITHMS:
                raise AccessDenied("signed in a way that is not taken")
            key = self._keys().get_signing_key_from_jwt(text)
            claims = jwt.decode(
                text,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._audience,
                issuer=self._issuer,
                leeway=_CLOCK_SKEW_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except PyJWKClientConnectionError as error:
            logger.warning("the keys of the issuer can't be had: %s", error)
            raise ConnectionError("the keys of the issuer can't be had") from error
        except jwt.ExpiredSignatureError as error:
            raise AccessDenied("expired") from error
        except (PyJWTError, PyJWKClientError, ValueError, TypeError) as error:
            logger.info("a token is refused: %s", type(error).__name__)
            raise AccessDenied("not valid here") from error
        return self._read(claims)

    def _read(self, claims: dict[str, Any]) -> Bearer:
        agent = claims.get(self._options.agent_claim)
        if not isinstance(agent, str):
            raise AccessDenied(f"without a text in {self._options.agent_claim!r}")
        try:
            agent = check_name(agent, "agent")
            expires_at = datetime.fromtimestamp(claims["exp"] + _CLOCK_SKEW_SECONDS, UTC)
        except (InvalidInput, ValueError, OverflowError, OSError) as error:
            raise AccessDenied("naming what is no agent or no time") from error
        return Bearer(
            subject=str(claims["sub"]),
            client=str(claims.get("client_id") or claims.get("azp") or ""),
            agent=agent,
            scope=self._scope(claims),
            expires_at=expires_at,
        )

    def _scope(self, claims: dict[str, Any]) -> Scope | None:
        """Return the widest scope; `scope` is text (RFC 9068), `scp` text or a list."""
        given: set[str] = set()
        for claim in ("scope", "scp"):
            value = claims.get(claim)
            if isinstance(value, str):
                given.update(value.split())
            elif isinstance(value, list):
                given.update(item for item in value if isinstance(item, str))
        held = [scope for scope in Scope if self._options.scope_prefix + scope.value in given]
        return held[-1] if held else None

    def _keys(self) -> PyJWKClient:
        with self._finding:
            if self._found is None:
                self._found = PyJWKClient(
                    self._options.jwks_url or self._discover(),
                    lifespan=_KEYS_KEPT_SECONDS,
                    timeout=_FETCH_SECONDS,
                    cooldown_duration=self._options.jwks_refetch_seconds,
                )
            return self._found

    def _discover(self) -> str:
        """Ask the issuer where its keys are.

        Source: RFC 8414, section 3.1; OpenID Connect Discovery 1.0, section 4.
        """
        issuer = self._issuer.removesuffix("/")
        parts = urlsplit(issuer)
        root = f"{parts.scheme}://{parts.netloc}"
        for url in (
            f"{root}/.well-known/oauth-authorization-server{parts.path}",
            f"{issuer}/.well-known/openid-configuration",
        ):
            try:
                answer = httpx.get(url, timeout=_FETCH_SECONDS)
                document = answer.json() if answer.status_code == httpx.codes.OK else None
            except (httpx.HTTPError, ValueError) as error:
                logger.info("nothing at %s: %s", url, type(error).__name__)
                continue
            if isinstance(document, dict) and document.get("issuer") == self._issuer:
                where = document.get("jwks_uri")
                if isinstance(where, str) and where.startswith(("https://", "http://")):
                    return where
        logger.warning("the issuer %s does not say where its keys are", self._issuer)
        raise ConnectionError("the issuer does not say where its keys are")
