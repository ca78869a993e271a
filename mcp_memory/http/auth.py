"""Who sends a request: the holder of an access token or of a JWT, or anybody on loopback.

This server is an OAuth resource server: it checks the JWTs of one issuer and issues
none. Only asymmetric signatures are accepted. Signing keys come from the issuer's
JWKS; they are cached for five minutes, and fetched again when a token names a key
that is not among them.
"""

from __future__ import annotations

import hmac
import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpx
import jwt
from jwt import PyJWKClient
from jwt.exceptions import PyJWKClientConnectionError, PyJWKClientError, PyJWTError

from mcp_memory.agent.access_tokens import PREFIX, AccessScope, AccessTokens
from mcp_memory.http.options import HttpOptions
from mcp_memory.http.requests import Refused
from mcp_memory.values.dates import now
from mcp_memory.values.errors import AccessDenied, InvalidInput
from mcp_memory.values.text import check_agent

logger = logging.getLogger(__name__)

# No symmetric algorithm: there, everyone who knows the public key could sign.
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
"""By judgement: machines with NTP differ by less."""

_KEY_CACHE_SECONDS: Final = 300
"""By judgement: a key that the issuer withdraws is accepted no longer than this."""

_FETCH_SECONDS: Final = 5.0
"""How long the issuer may take for its keys, by judgement: a client is waiting."""

_VERIFYING: Final = 4
"""How many JWTs are checked at once: each may wait for the issuer; by judgement."""

_OPEN: Final = "open"
_TOKEN: Final = "token"  # noqa: S105 - the name of a kind, not a secret
_STARTUP: Final = "startup"
_JWT: Final = "jwt"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what they may do. Two requests share sessions only if `key` is the same."""

    key: tuple[str, ...]
    agent: str
    scope: AccessScope

    @property
    def is_open(self) -> bool:
        """Whether no authentication was asked for."""
        return self.key[0] == _OPEN


@dataclass(frozen=True, slots=True)
class JwtClaims:
    """What a valid JWT says."""

    subject: str
    client: str
    agent: str
    scope: AccessScope | None
    """The widest of our scopes that it has; None if it has none."""
    expires_at: datetime


class JwtVerifier:
    """Checks the tokens of one issuer; blocks while it fetches keys.

    Args:
        options: Where the keys are, and which claims name the agent and the scopes.
        issuer: The exact value of `iss`.
        audience: What `aud` must be or contain.
    """

    def __init__(self, options: HttpOptions, *, issuer: str, audience: str) -> None:
        self._options = options
        self._issuer = issuer
        self._audience = audience
        self._lock = threading.Lock()
        self._client: PyJWKClient | None = None

    def verify(self, text: str) -> JwtClaims:
        """Return what a token says.

        Raises:
            AccessDenied: It is not signed by the issuer, not meant for this server, expired,
                or names no agent.
            ConnectionError: The keys can't be fetched.
        """
        try:
            algorithm = jwt.get_unverified_header(text).get("alg")
            if algorithm not in ALGORITHMS:
                raise AccessDenied("signed with an algorithm that is not accepted")
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
            logger.warning("the keys of the issuer can't be fetched: %s", error)
            raise ConnectionError("the keys of the issuer can't be fetched") from error
        except jwt.ExpiredSignatureError as error:
            raise AccessDenied("expired") from error
        except (PyJWTError, PyJWKClientError, ValueError, TypeError) as error:
            logger.info("a token is refused: %s", type(error).__name__)
            raise AccessDenied("not valid here") from error
        return self._read(claims)

    def _read(self, claims: dict[str, Any]) -> JwtClaims:
        agent = claims.get(self._options.agent_claim)
        if not isinstance(agent, str):
            raise AccessDenied(f"without a text in {self._options.agent_claim!r}")
        try:
            check_agent(agent)
            expires_at = datetime.fromtimestamp(claims["exp"] + _CLOCK_SKEW_SECONDS, UTC)
        except (InvalidInput, ValueError, OverflowError, OSError) as error:
            raise AccessDenied("naming what is no agent or no time") from error
        return JwtClaims(
            subject=str(claims["sub"]),
            client=str(claims.get("client_id") or claims.get("azp") or ""),
            agent=agent,
            scope=self._scope(claims),
            expires_at=expires_at,
        )

    def _scope(self, claims: dict[str, Any]) -> AccessScope | None:
        """Return the widest scope; `scope` is text (RFC 9068), `scp` text or a list."""
        given: set[str] = set()
        for claim in ("scope", "scp"):
            value = claims.get(claim)
            if isinstance(value, str):
                given.update(value.split())
            elif isinstance(value, list):
                given.update(item for item in value if isinstance(item, str))
        ours = [scope for scope in AccessScope if self._options.scope_prefix + scope in given]
        return ours[-1] if ours else None

    def _keys(self) -> PyJWKClient:
        with self._lock:
            if self._client is None:
                self._client = PyJWKClient(
                    self._options.jwks_url or self._discover(),
                    lifespan=_KEY_CACHE_SECONDS,
                    timeout=_FETCH_SECONDS,
                    cooldown_duration=self._options.jwks_refetch_seconds,
                )
            return self._client

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


class Authenticator:
    """Finds out who sends a request.

    Args:
        tokens: The access tokens of the database.
        jwts: Checks the tokens of the issuer, if one is set.
        agent: Whose memory it is for the user who has started the server.
        startup: That user's token, if there is one.
        no_auth: Whether nobody needs a token until the first one is created.
    """

    def __init__(
        self,
        tokens: AccessTokens,
        jwts: JwtVerifier | None,
        agent: str,
        *,
        startup: str | None = None,
        no_auth: bool = False,
    ) -> None:
        self._tokens = tokens
        self._jwts = jwts
        self._agent = agent
        self._startup = startup
        self._no_auth = no_auth
        self._verifying = anyio.CapacityLimiter(_VERIFYING)
        self._expirations: dict[tuple[str, ...], datetime] = {}

    @property
    def required(self) -> bool:
        """Whether requests need a token."""
        return not self._no_auth or self._jwts is not None or self._tokens.exist()

    async def identify(self, authorization: str | None, *, note_use: bool = True) -> Principal:
        """Return who sends the header `Authorization`.

        Args:
            authorization: The header's value; None without the header.
            note_use: Whether the use of an access token is stored with it.

        Raises:
            Refused: 401 without a valid token, 403 with one that has no scope of ours,
                503 while the keys of the issuer can't be fetched.
        """
        if not self.required:
            return Principal((_OPEN,), self._agent, AccessScope.ADMIN)
        scheme, _, text = (authorization or "").partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not text:
            raise Refused(
                401,
                "",
                "an access token is needed: send it as `Authorization: Bearer TOKEN`",
                scope=AccessScope.READ,
            )
        if self._startup is not None and hmac.compare_digest(
            text.encode("utf-8", "replace"), self._startup.encode()
        ):
            return Principal((_STARTUP,), self._agent, AccessScope.ADMIN)
        if self._jwts is None or text.startswith(PREFIX):
            return self._token(text, note_use=note_use)
        claims = await self._claims(self._jwts, text)
        if claims.scope is None:
            raise Refused(
                403, "insufficient_scope", "the token has no scope for this", scope=AccessScope.READ
            )
        key = (_JWT, claims.subject, claims.client, claims.agent, claims.scope.value)
        self._expirations[key] = max(
            claims.expires_at, self._expirations.get(key, claims.expires_at)
        )
        return Principal(key, claims.agent, claims.scope)

    def is_valid(self, principal: Principal, at: datetime | None = None) -> bool:
        """Return whether the credentials that let a principal in are still valid."""
        at = at or now()
        match principal.key:
            case (kind, *_) if kind == _OPEN:
                return not self.required
            case (kind,) if kind == _STARTUP:
                return True
            case (kind, key) if kind == _TOKEN:
                token = self._tokens.get(key)
                return token is not None and token.state(at) == "active"
            case key:
                return at < self._expirations.get(key, at)

    def forget(self, principal: Principal) -> None:
        """Drop what is remembered of a principal that has left."""
        self._expirations.pop(principal.key, None)

    def _token(self, text: str, *, note_use: bool) -> Principal:
        try:
            token = self._tokens.check(text, note_use=note_use)
        except AccessDenied as fault:
            raise Refused(401, "invalid_token", fault.message, scope=AccessScope.READ) from fault
        return Principal((_TOKEN, token.id), token.agent, token.scope)

    async def _claims(self, jwts: JwtVerifier, text: str) -> JwtClaims:
        try:
            return await anyio.to_thread.run_sync(jwts.verify, text, limiter=self._verifying)
        except AccessDenied as fault:
            raise Refused(401, "invalid_token", fault.message, scope=AccessScope.READ) from fault
        except ConnectionError as error:
            raise Refused(
                503,
                "temporarily_unavailable",
                "the keys of the issuer can't be fetched now",
                retry_after_seconds=5,
            ) from error
