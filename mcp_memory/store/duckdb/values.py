"""Small tables: single values, access tokens, and the cost of the endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Final

from mcp_memory.store.duckdb.database import Database, Row
from mcp_memory.store.duckdb.transaction import transaction_of
from mcp_memory.store.ports import Spent, UnitOfWork
from mcp_memory.values.access import Scope, Token
from mcp_memory.values.records import SHARED

_ACCESS_COLUMNS: Final = (
    "agent, id, name, scope, hash, created_at, expires_at, revoked_at, last_used_at"
)


class DuckDBKeyValues:
    """The table of settings that belong to the database."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def get(self, key: str) -> str | None:
        """Return a value, None if it is not set."""
        rows = self._db.read("SELECT value FROM settings WHERE key = $1", key)
        return str(rows[0][0]) if rows else None

    def put(self, unit: UnitOfWork, key: str, value: str) -> None:
        """Set a value, in place of an earlier one."""
        transaction_of(unit).run(
            "INSERT INTO settings (key, value) VALUES ($1, $2)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            key,
            value,
        )


class DuckDBAccessTokens:
    """The table of access tokens."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def insert(self, unit: UnitOfWork, token: Token, digest: bytes) -> None:
        """Write a new token."""
        tx = transaction_of(unit)
        seq = tx.note(SHARED, "tokens", [(token, digest)])
        tx.insert(
            "tokens",
            f"{_ACCESS_COLUMNS}, seq",
            [
                (
                    token.agent,
                    token.id,
                    token.name,
                    token.scope.value,
                    digest.hex(),
                    token.created_at,
                    token.expires_at,
                    token.revoked_at,
                    token.last_used_at,
                    seq,
                )
            ],
        )

    def revoke(self, unit: UnitOfWork, token: Token, digest: bytes) -> None:
        """Write that a token was revoked, at its `revoked_at`."""
        tx = transaction_of(unit)
        seq = tx.note(SHARED, "tokens", [(token, digest)])
        tx.run(
            "UPDATE tokens SET revoked_at = $3, seq = $4 WHERE agent = $1 AND id = $2",
            token.agent,
            token.id,
            token.revoked_at,
            seq,
        )

    def note_uses(self, unit: UnitOfWork, used: Mapping[str, tuple[str, datetime]]) -> None:
        """Write when tokens were last used: the agent and the moment, by id.

        No cache follows these times, so this takes no change number.
        """
        for token_id, (agent, moment) in used.items():
            transaction_of(unit).run(
                "UPDATE tokens SET last_used_at = $3 WHERE agent = $1 AND id = $2",
                agent,
                token_id,
                moment,
            )

    def all(self) -> list[tuple[Token, bytes]]:
        """Return every token, revoked ones included, each with its hash."""
        return [_token(row) for row in self._db.read(f"SELECT {_ACCESS_COLUMNS} FROM tokens")]

    def changed(self, agent: str, after: int) -> list[tuple[int, tuple[Token, bytes]]]:
        """Return the tokens above a change number of `SHARED`, each with its own number."""
        if agent != SHARED:
            return []
        rows = self._db.read(
            f"SELECT seq, {_ACCESS_COLUMNS} FROM tokens WHERE seq > $1 ORDER BY seq, id", after
        )
        return [(row[0], _token(row[1:])) for row in rows]


class DuckDBEndpointUsage:
    """The table of the endpoint's cost, one row for each agent and day."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, unit: UnitOfWork, agent: str, day: date, spent: Spent) -> None:
        """Add to the numbers of a day; negative ones correct them."""
        transaction_of(unit).run(
            "INSERT INTO endpoint_usage (agent, day, requests, input_tokens, output_tokens)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (agent, day) DO UPDATE SET"
            " requests = endpoint_usage.requests + excluded.requests,"
            " input_tokens = endpoint_usage.input_tokens + excluded.input_tokens,"
            " output_tokens = endpoint_usage.output_tokens + excluded.output_tokens",
            agent,
            day,
            spent.requests,
            spent.input_tokens,
            spent.output_tokens,
        )

    def on(self, day: date) -> Spent:
        """Return what was spent on a day, over all agents."""
        row = self._db.read(
            "SELECT coalesce(sum(requests), 0), coalesce(sum(input_tokens), 0),"
            " coalesce(sum(output_tokens), 0) FROM endpoint_usage WHERE day = $1",
            day,
        )[0]
        return Spent(requests=int(row[0]), input_tokens=int(row[1]), output_tokens=int(row[2]))


def _token(row: Row) -> tuple[Token, bytes]:
    agent, key, name, scope, digest, created_at, expires_at, revoked_at, used_at = row
    token = Token(
        id=key,
        name=name,
        agent=agent,
        scope=Scope(scope),
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
        last_used_at=used_at,
    )
    return token, bytes.fromhex(digest)
