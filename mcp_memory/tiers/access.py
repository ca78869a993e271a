"""Access tokens: which agent's memory a network caller may use, and what it may do.

A token is shown once, when it is created; only its hash is stored. Every check uses
the committed rows, so a revocation is effective as soon as it is acknowledged.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from mcp_memory.store.ports import Change, Store
from mcp_memory.tiers.feed import ChangeFeed
from mcp_memory.values.access import Scope, Token
from mcp_memory.values.dates import Clock, now, parse_range
from mcp_memory.values.errors import AccessDenied, InvalidInput, NotFound
from mcp_memory.values.ids import LENGTH, new_id, read_id
from mcp_memory.values.records import SHARED
from mcp_memory.values.text import check_agent, check_name

PREFIX: Final = "mcpm_"
"""The beginning of every token, by which scanners can find a leaked one."""

_SECRET_BYTES: Final = 32
"""Random bytes of a secret, by judgement: 256 bits can't be guessed."""

_USE_NOTED_EVERY: Final = timedelta(minutes=10)
"""The time of a token's last use is updated this often, by judgement: each is a write."""

_DURATION: Final = re.compile(r"(\d{1,6})\s*(m|h|d|w)")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_NO_HASH: Final = bytes(32)


class AccessTokens:
    """The tokens of every agent; follows the change feed.

    Safe to use from several threads; a check waits only where there is something new to read.

    Args:
        store: Where the rows are.
        feed: Reports their changes.
        clock: Gives the time at which tokens are created, revoked and used.
    """

    def __init__(self, store: Store, feed: ChangeFeed, clock: Clock) -> None:
        self._tokens = store.tokens
        self._feed = feed
        self._clock = clock
        # Replaced as a whole, never changed: a check needs no lock.
        self._rows: dict[str, tuple[Token, bytes]] | None = None
        self._used: dict[str, datetime] = {}
        self._listeners: list[Callable[[], None]] = []
        feed.follow(self)

    def apply(self, change: Change) -> None:
        """Apply tokens that were created or revoked; see `feed.Follower`."""
        if change.tokens and self._rows is not None:
            self._rows = {**self._rows, **{item[0].id: item for item in change.tokens}}

    def forget(self) -> None:
        """Drop everything in memory."""
        self._rows = None

    def create(
        self, agent: str, scope: Scope, *, name: str = "", expires_at: datetime | None = None
    ) -> tuple[Token, str]:
        """Create a token; the second value is its secret text, which is never shown again.

        Raises:
            InvalidInput: The agent or the name is not valid, or the token has already expired.
        """
        agent = check_agent(agent)
        name = check_name(name, "name") if name else ""
        made_at = self._clock()
        if expires_at is not None and expires_at <= made_at:
            raise InvalidInput(
                f"the token would already have expired, at {expires_at.isoformat()}",
                field="expires",
                hint="Give a time in the future, such as 30d",
            )
        token = Token(
            id=new_id(),
            name=name,
            agent=agent,
            scope=scope,
            created_at=made_at,
            expires_at=expires_at,
            revoked_at=None,
            last_used_at=None,
        )
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        digest = _digest(secret)
        with self._feed.transaction() as unit:
            self._tokens.insert(unit, token, digest)
        self._tell()
        return token, f"{PREFIX}{token.id}_{secret}"

    def revoke(self, key: str) -> Token:
        """Revoke a token by its id, at once and finally; revoking it again does nothing.

        Raises:
            NotFound: There is no token with this id.
        """
        with self._feed.view(SHARED):
            found = self._load().get(read_id(key) or "")
            if found is None:
                raise NotFound(
                    f"there is no token {key[:40]!r}",
                    key=key,
                    hint="`mcp-memory token list` shows all",
                )
            token, digest = found
            if token.revoked_at is None:
                token = replace(token, revoked_at=self._clock())
                with self._feed.transaction() as unit:
                    self._tokens.revoke(unit, token, digest)
        self._tell()
        return token

    def all(self) -> tuple[Token, ...]:
        """Return every token ever created, oldest first."""
        tokens = (token for token, _ in self._load().values())
        return tuple(sorted(tokens, key=lambda token: (token.created_at, token.id)))

    def get(self, key: str) -> Token | None:
        """Return a token by its id."""
        found = self._load().get(key)
        return None if found is None else found[0]

    def exist(self) -> bool:
        """Return whether a token was ever created.

        Revoked ones count: revoking the last token must not allow access without one.
        """
        return bool(self._load())

    def check(self, text: str, *, at: datetime | None = None, note_use: bool = True) -> Token:
        """Return the token that has this secret text.

        The secret is compared in constant time; its id is no secret.

        Args:
            text: The secret text.
            at: The moment at which it must be valid; None for now.
            note_use: Whether `save_uses` stores that the token was used.

        Raises:
            AccessDenied: The token is unknown, expired or revoked.
        """
        at = at or self._clock()
        key, _, secret = text.removeprefix(PREFIX).partition("_")
        found = self._load().get(key) if text.startswith(PREFIX) else None
        token, digest = found or (None, _NO_HASH)
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
        """Store when tokens were last used; does nothing if none was used.

        Raises:
            StorageFault: It could not be written; the next call tries again.
        """
        with self._feed.view(SHARED):
            used, rows = dict(self._used), self._load()
            if not used:
                return
            with self._feed.transaction() as unit:
                self._tokens.note_uses(
                    unit, {key: (rows[key][0].agent, at) for key, at in used.items()}
                )
            noted = {
                key: (replace(rows[key][0], last_used_at=at), rows[key][1])
                for key, at in used.items()
            }
            self._rows = {**rows, **noted}
            for key, at in used.items():
                if self._used.get(key) == at:
                    del self._used[key]

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after a token is created or revoked, in the thread that did it."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        """Stop calling a listener."""
        self._listeners.remove(listener)

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()

    def _load(self) -> dict[str, tuple[Token, bytes]]:
        rows = self._rows
        if rows is None or not self._feed.is_current(SHARED):
            with self._feed.view(SHARED):
                rows = self._rows
                if rows is None:
                    # Later changes are taken in from here, be they among these rows or not.
                    self._feed.seq(SHARED)
                    rows = self._rows = {item[0].id: item for item in self._tokens.all()}
        return rows


def read_scope(text: str) -> Scope:
    """Parse the name of a scope.

    Raises:
        InvalidInput: No scope has this name.
    """
    try:
        return Scope(text.strip().lower())
    except ValueError as error:
        raise InvalidInput(
            f"{text[:40]!r} is not a scope", field="scope", hint=f"Use one of {', '.join(Scope)}"
        ) from error


def read_expiry(text: str, *, zone: ZoneInfo) -> datetime:
    """Return when a token expires: after a duration (90m, 12h, 30d, 8w), or at a date or time.

    A date without a time is valid through that whole day.

    Raises:
        InvalidInput: The text is neither.
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
    if end is None:  # pragma: no cover - a given end has a moment
        raise InvalidInput("expires is empty", field="expires", hint="Write it as 30d")
    return end


def _digest(secret: str) -> bytes:
    # The secret has 256 random bits: a slow hash would add no protection.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
