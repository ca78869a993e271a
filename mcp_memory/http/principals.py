"""Who a request comes from: an access token, a JWT of the set issuer, or anybody on loopback."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import anyio.to_thread

from mcp_memory.http.jwts import Bearer, JwtVerifier
from mcp_memory.tiers.access import PREFIX, AccessTokens, Scope
from mcp_memory.values.dates import now
from mcp_memory.values.errors import AccessDenied

_OPEN: Final = "open"
_TOKEN: Final = "token"  # noqa: S105 - the name of a kind, not a secret
_JWT: Final = "jwt"


class Refused(Exception):
    """A request that is not let in.

    Args:
        status: The HTTP status: 401, 403, 413, 429 or 503.
        error: A code of RFC 6750, empty where no credentials came.
        description: Why, for whoever reads the answer.
        scope: The scope that would do.
        retry_after_seconds: When to come again.
    """

    def __init__(
        self,
        status: int,
        error: str,
        description: str,
        *,
        scope: Scope | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(description)
        self.status = status
        self.error = error
        self.description = description
        self.scope = scope
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what they may do. Two requests share sessions only if `key` is the same."""

    key: tuple[str, ...]
    agent: str
    scope: Scope

    @property
    def is_open(self) -> bool:
        """Whether no authentication was asked for."""
        return self.key[0] == _OPEN


class Authenticator:
    """Tells who a request comes from.

    Args:
        access: The tokens of the database.
        jwts: Checks the tokens of the issuer, if one is set.
        agent: Whose memory it is while no authentication is asked for.
    """

    def __init__(self, access: AccessTokens, jwts: JwtVerifier | None, agent: str) -> None:
        self._access = access
        self._jwts = jwts
        self._agent = agent
        self._ends: dict[tuple[str, ...], datetime] = {}

    @property
    def required(self) -> bool:
        """Whether requests need a token: as soon as one was made, or an issuer is set."""
        return self._jwts is not None or self._access.exist()

    async def identify(self, authorization: str | None) -> Principal:
        """Return who sends the header `Authorization`.

        Raises:
            Refused: 401 without a valid token, 403 with one that has no scope of ours,
                503 while the keys of the issuer can't be had.
        """
        if not self.required:
            return Principal((_OPEN,), self._agent, Scope.ADMIN)
        scheme, _, text = (authorization or "").partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not text:
            raise Refused(401, "", "an access token is needed", scope=Scope.READ)
        if self._jwts is None or text.startswith(PREFIX):
            return self._token(text)
        bearer = await self._bearer(self._jwts, text)
        if bearer.scope is None:
            raise Refused(
                403, "insufficient_scope", "the token has no scope for this", scope=Scope.READ
            )
        key = (_JWT, bearer.subject, bearer.client, bearer.agent, bearer.scope.value)
        self._ends[key] = max(bearer.expires_at, self._ends.get(key, bearer.expires_at))
        return Principal(key, bearer.agent, bearer.scope)

    def still_holds(self, principal: Principal, at: datetime | None = None) -> bool:
        """Return whether what let a principal in would let it in now."""
        at = at or now()
        match principal.key:
            case (kind, *_) if kind == _OPEN:
                return not self.required
            case (kind, key) if kind == _TOKEN:
                token = self._access.get(key)
                return token is not None and token.state(at) == "active"
            case key:
                return at < self._ends.get(key, at)

    def forget(self, principal: Principal) -> None:
        """Drop what is remembered of a principal that has left."""
        self._ends.pop(principal.key, None)

    def _token(self, text: str) -> Principal:
        try:
            token = self._access.check(text)
        except AccessDenied as fault:
            raise Refused(401, "invalid_token", fault.message, scope=Scope.READ) from fault
        return Principal((_TOKEN, token.id), token.agent, token.scope)

    async def _bearer(self, jwts: JwtVerifier, text: str) -> Bearer:
        try:
            return await anyio.to_thread.run_sync(jwts.verify, text)
        except AccessDenied as fault:
            raise Refused(401, "invalid_token", fault.message, scope=Scope.READ) from fault
        except ConnectionError as error:
            raise Refused(
                503,
                "temporarily_unavailable",
                "the keys of the issuer can't be had now",
                retry_after_seconds=5,
            ) from error
