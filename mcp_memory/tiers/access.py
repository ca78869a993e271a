"""Access tokens: whose memory a caller over the network reaches, and what it may do there.

A token is shown once, when it is made; what is kept is its hash. Every check is
made against what is committed, so a revocation holds from the moment it is
acknowledged.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal
from zoneinfo import ZoneInfo

from mcp_memory.store.duckdb import Database
from mcp_memory.values.dates import now, parse_range
from mcp_memory.values.errors import AccessDenied, InvalidInput, NotFound
from mcp_memory.values.ids import LENGTH, new_id, read_id
from mcp_memory.values.text import check_name

PREFIX: Final = "mcpm_"
"""How every token begins, so that one that leaks can be found by scanners."""

_SECRET_BYTES: Final = 32
_USE_NOTED_EVERY: Final = timedelta(minutes=10)
_DURATION: Final = re.compile(r"(\d{1,6})\s*(m|h|d|w)")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_NO_HASH: Final = bytes(32)


class Scope(StrEnum):
    """What a caller may do; each includes those before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def covers(self, needed: Scope) -> bool:
        """Return whether this is enough where `needed` is asked for."""
        order = list(Scope)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Token:
    """One token, without its secret. Times are aware, in UTC."""

    id: str
    name: str
    agent: str
    scope: Scope
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    """Coarse: noted once in ten minutes at most."""

    def state(self, at: datetime) -> Literal["active", "expired", "revoked"]:
        """Return whether it is taken at a moment."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= at:
            return "expired"
        return "active"


class AccessTokens:
    """The tokens of every agent. Safe to use from several threads; a check never blocks."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._writing = threading.RLock()
        # Replaced as a whole, never changed: whoever checks needs no lock.
        self._rows: dict[str, tuple[Token, bytes]] | None = None
        self._used: dict[str, datetime] = {}
        self._listeners: list[Callable[[], None]] = []

    def create(
        self, agent: str, scope: Scope, *, name: str = "", expires_at: datetime | None = None
    ) -> tuple[Token, str]:
        """Make a token; the second value is the secret text, which can't be had again.

        Raises:
            InvalidInput: The agent or the name can't be taken, or it has expired already.
        """
        agent = check_name(agent, "agent")
        name = check_name(name, "name") if name else ""
        made_at = now()
        if expires_at is not None and expires_at <= made_at:
            raise InvalidInput(
                f"the token would have expired already, at {expires_at.isoformat()}",
                field="expires",
                hint="Give a time to come, such as 30d",
            )
        token = Token(new_id(), name, agent, scope, made_at, expires_at, None, None)
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        digest = _digest(secret)
        with self._writing:
            rows = self._load()
            with self._db.transaction() as tx:
                tx.run(
                    "INSERT INTO tokens VALUES ($1, $2, $3, $4, $5, $6, $7, NULL, NULL)",
                    agent,
                    token.id,
                    name,
                    scope.value,
                    digest.hex(),
                    made_at,
                    expires_at,
                )
            self._rows = {**rows, token.id: (token, digest)}
        self._tell()
        return token, f"{PREFIX}{token.id}_{secret}"

    def revoke(self, key: str) -> Token:
        """End a token by its id, at once and for ever; ending it again does nothing.

        Raises:
            NotFound: There is no token with this id.
        """
        with self._writing:
            rows = self._load()
            held = rows.get(read_id(key) or "")
            if held is None:
                raise NotFound(
                    f"there is no token {key[:40]!r}",
                    key=key,
                    hint="`mcp-memory token list` shows all",
                )
            token, digest = held
            if token.revoked_at is None:
                token = replace(token, revoked_at=now())
                with self._db.transaction() as tx:
                    tx.run(
                        "UPDATE tokens SET revoked_at = $3 WHERE agent = $1 AND id = $2",
                        token.agent,
                        token.id,
                        token.revoked_at,
                    )
                self._rows = {**rows, token.id: (token, digest)}
        self._tell()
        return token

    def all(self) -> tuple[Token, ...]:
        """Return every token ever made, oldest first."""
        tokens = (token for token, _ in self._load().values())
        return tuple(sorted(tokens, key=lambda token: (token.created_at, token.id)))

    def get(self, key: str) -> Token | None:
        """Return a token by its id."""
        held = self._load().get(key)
        return None if held is None else held[0]

    def exist(self) -> bool:
        """Return whether a token was ever made.

        A revoked one counts: to end the last token must not open the door.
        """
        return bool(self._load())

    def check(self, text: str, *, at: datetime | None = None, note_use: bool = True) -> Token:
        """Return the token whose secret text this is.

        The secret is compared in constant time; its id is no secret.

        Args:
            text: The secret text.
            at: The moment to check it for; now if it is None.
            note_use: Whether `save_uses` stores that the token was used.

        Raises:
            AccessDenied: It is unknown, expired or revoked.
        """
        at = at or now()
        key, _, secret = text.removeprefix(PREFIX).partition("_")
        held = self._load().get(key) if text.startswith(PREFIX) else None
        token, digest = held or (None, _NO_HASH)
        same = hmac.compare_digest(_digest(secret), digest)
        if token is None or not same or len(key) != LENGTH:
            raise AccessDenied("unknown")
        state = token.state(at)
        if state != "active":
            raise AccessDenied(state)
        if note_use and (token.last_used_at is None or at - token.last_used_at >= _USE_NOTED_EVERY):
            self._used[token.id] = at
        return token

    def save_uses(self) -> None:
        """Write down when tokens were last used; does nothing if there is no news.

        Raises:
            StorageFault: It could not be written; it is tried again with the next call.
        """
        with self._writing:
            used = dict(self._used)
            if not used:
                return
            rows = dict(self._load())
            with self._db.transaction() as tx:
                for key, at in used.items():
                    token, digest = rows[key]
                    tx.run(
                        "UPDATE tokens SET last_used_at = $3 WHERE agent = $1 AND id = $2",
                        token.agent,
                        key,
                        at,
                    )
                    rows[key] = (replace(token, last_used_at=at), digest)
            self._rows = rows
            for key, at in used.items():
                if self._used.get(key) == at:
                    del self._used[key]

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after a token was made or revoked, from the thread that did it."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        """Stop calling a listener."""
        self._listeners.remove(listener)

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()

    def _load(self) -> dict[str, tuple[Token, bytes]]:
        rows = self._rows
        if rows is None:
            with self._writing:
                rows = self._rows
                if rows is None:
                    rows = self._rows = self._read()
        return rows

    def _read(self) -> dict[str, tuple[Token, bytes]]:
        rows = self._db.read(
            "SELECT agent, id, name, scope, hash, created_at, expires_at, revoked_at,"
            " last_used_at FROM tokens"
        )
        return {
            key: (Token(key, name, agent, Scope(scope), *times), bytes.fromhex(digest))
            for agent, key, name, scope, digest, *times in rows
        }


def read_scope(text: str) -> Scope:
    """Return the scope that is named.

    Raises:
        InvalidInput: There is no such scope.
    """
    try:
        return Scope(text.strip().lower())
    except ValueError as error:
        raise InvalidInput(
            f"{text[:40]!r} is no scope", field="scope", hint=f"There are {', '.join(Scope)}"
        ) from error


def read_expiry(text: str, *, zone: ZoneInfo) -> datetime:
    """Return the end of a duration from now (90m, 12h, 30d, 8w), or of a date or time.

    A date without a time is valid through that whole day.

    Raises:
        InvalidInput: It is neither.
    """
    span = _DURATION.fullmatch(text.strip().lower())
    try:
        if span:
            return now() + timedelta(**{_UNITS[span[2]]: int(span[1])})
        end = parse_range(None, text, zone=zone)[1]
    except (InvalidInput, OverflowError) as error:
        raise InvalidInput(
            f"expires: {text[:40]!r} is neither a duration nor a date",
            field="expires",
            hint="Write it as 30d, 12h or 2026-12-31",
        ) from error
    if end is None:  # pragma: no cover - a given end gives an end
        raise InvalidInput("expires is empty", field="expires", hint="Write it as 30d")
    return end


def _digest(secret: str) -> bytes:
    # The secret has 256 random bits: nothing is gained by a slow hash.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
