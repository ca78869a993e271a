"""What the endpoint of a model has cost: tokens by agent and day, kept over restarts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Final

from mcp_memory.store.duckdb import Database
from mcp_memory.values.dates import now

_ADD: Final = (
    "INSERT INTO endpoint_usage VALUES ($1, $2, 1, $3, $4)"
    " ON CONFLICT (agent, day) DO UPDATE SET requests = endpoint_usage.requests + 1,"
    " input_tokens = endpoint_usage.input_tokens + excluded.input_tokens,"
    " output_tokens = endpoint_usage.output_tokens + excluded.output_tokens"
)

_CORRECT: Final = _ADD.replace("$2, 1,", "$2, 0,").replace(".requests + 1", ".requests + 0")


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens of one day, in UTC, of all agents."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Of both directions."""
        return self.input_tokens + self.output_tokens


class EndpointUsage:
    """The table of what was spent; called with the engine's lock held."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, agent: str, input_tokens: int, output_tokens: int) -> date:
        """Note one request of today; return the day."""
        day = now().date()
        with self._db.transaction() as tx:
            tx.run(_ADD, agent, day, input_tokens, output_tokens)
        return day

    def correct(self, agent: str, day: date, input_tokens: int, output_tokens: int) -> None:
        """Add to a request of `day` what its answer says it cost beyond what was noted."""
        with self._db.transaction() as tx:
            tx.run(_CORRECT, agent, day, input_tokens, output_tokens)

    def today(self) -> Spent:
        """Return what was spent today."""
        row = self._db.read(
            "SELECT coalesce(sum(requests), 0), coalesce(sum(input_tokens), 0),"
            " coalesce(sum(output_tokens), 0) FROM endpoint_usage WHERE day = $1",
            now().date(),
        )[0]
        return Spent(int(row[0]), int(row[1]), int(row[2]))
