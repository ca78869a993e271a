"""Writes tests/fixtures/schema-1.duckdb: a small database with schema 1.

Run it only to rebuild the file: `python tests/support/make_fixture.py`. The rows
stand here, so that the test can look for each of them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import duckdb
from fakes import HashEmbedder

from mcp_memory.store.duckdb.migrations import migrate
from mcp_memory.values.text import content_hash

FIXTURE: Final = Path(__file__).parents[1] / "fixtures" / "schema-1.duckdb"
_SMALLEST_BLOCK_BYTES: Final = 16_384
_NINE: Final = datetime(2026, 1, 5, 9, tzinfo=UTC)
_TEN: Final = datetime(2026, 1, 5, 10, tzinfo=UTC)

BLOCK_COLUMNS: Final = (
    "agent, conversation, label, version, value, tokens, limit_tokens, description, read_only,"
    " changed_at"
)
BLOCKS: Final = (
    ("default", "", "human", 1, "Name: Ana", 4, 2_000, "The person.", False, _NINE),
    ("default", "", "human", 2, "Name: Ana\nLives in Porto", 9, 2_000, "The person.", False, _TEN),
    ("default", "", "rules", 1, "Answer in Portuguese.", 4, 500, "House rules.", True, _NINE),
    ("default", "main", "working", 1, "Plan the trip.", 4, 2_000, "The task.", False, _NINE),
    ("other", "", "human", 1, "Name: Ben", 4, 2_000, "The person.", False, _NINE),
)
MESSAGE_COLUMNS: Final = (
    "agent, conversation, position, id, role, name, content, tokens, searchable, created_at"
)
MESSAGES: Final = (
    ("default", "main", 0, "0000000001", "user", None, "My flight is TP-532.", 9, True, _NINE),
    ("default", "main", 1, "0000000002", "assistant", None, "Noted, a good trip!", 8, True, _NINE),
    ("default", "main", 2, "0000000003", "tool", "conversation_search", "TP-532", 7, False, _TEN),
    ("default", "main", 3, "0000000004", "user", "Ana", "我昨天在上海喝咖啡", 12, True, _TEN),
    ("default", "work", 0, "0000000005", "system", None, "Be short.", 5, True, _TEN),
    ("other", "main", 0, "0000000006", "user", None, "Ben's own words", 6, True, _NINE),
)
SUMMARY_COLUMNS: Final = (
    "agent, conversation, id, parent, first_position, last_position, content, tokens, author,"
    " created_at"
)
SUMMARIES: Final = (
    ("default", "main", "000000000s", None, 0, 1, "Ana flies TP-532.", 7, "client", _TEN),
)
MEMORY_COLUMNS: Final = "agent, id, version, content, kind, tags, tokens, happened_at, retired_at"
MEMORIES: Final[tuple[tuple[Any, ...], ...]] = (
    ("default", "00000000m1", 1, "Ana drinks coffee.", "preference", ["food"], 4, _NINE, _TEN),
    ("default", "00000000m1", 2, "Ana drinks green tea.", "preference", ["food"], 5, _NINE, None),
    (
        "default",
        "00000000m2",
        1,
        "Node db-01 fails with ERR_CONN_4031.",
        "technical",
        ["infra", "db"],
        12,
        _TEN,
        None,
    ),
    ("default", "00000000m3", 1, "What was deleted.", "fact", [], 4, _NINE, _TEN),
    ("other", "00000000m4", 1, "Ben likes chess.", "preference", [], 4, _NINE, None),
)
PENDING_COLUMNS: Final = "agent, source, id, version"
PENDING: Final = (("default", "message", "0000000004", 1),)


def main() -> None:
    """Write the file."""
    FIXTURE.parent.mkdir(exist_ok=True)
    FIXTURE.unlink(missing_ok=True)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"ATTACH '{FIXTURE}' AS made (BLOCK_SIZE {_SMALLEST_BLOCK_BYTES})")
    connection.execute("USE made")
    migrate(connection, str(FIXTURE), upto=1)
    _fill(connection)
    connection.execute("CHECKPOINT made")
    connection.execute("USE memory")
    connection.execute("DETACH made")
    connection.close()


def _fill(connection: duckdb.DuckDBPyConnection) -> None:
    for block in BLOCKS:
        connection.execute(_insert("blocks", BLOCK_COLUMNS), block)
    for message in MESSAGES:
        connection.execute(
            _insert("messages", f"{MESSAGE_COLUMNS}, recorded_at"), (*message, message[-1])
        )
    for summary in SUMMARIES:
        connection.execute(_insert("summaries", SUMMARY_COLUMNS), summary)
    for agent, key, version, content, kind, tags, tokens, moment, retired_at in MEMORIES:
        connection.execute(
            _insert(
                "memories",
                "agent, id, version, content, content_hash, kind, tags, tokens, happened_at,"
                " recorded_at, retired_at",
            ),
            (
                agent,
                key,
                version,
                content,
                content_hash(content),
                kind,
                tags,
                tokens,
                moment,
                moment,
                retired_at,
            ),
        )
    for pending in PENDING:
        connection.execute(_insert("pending_vectors", PENDING_COLUMNS), pending)
    _embed(connection)


def _embed(connection: duckdb.DuckDBPyConnection) -> None:
    embedder = HashEmbedder()
    connection.execute(
        "CREATE TABLE vectors ("
        " agent text NOT NULL, source text NOT NULL, id text NOT NULL, version integer NOT NULL,"
        " number integer NOT NULL, first_char integer NOT NULL, last_char integer NOT NULL,"
        f" embedding float[{embedder.dimension}] NOT NULL)"
    )
    for setting in (
        ("embedding_model", embedder.name),
        ("embedding_sha256", embedder.fingerprint),
        ("embedding_dimension", str(embedder.dimension)),
    ):
        connection.execute(_insert("settings", "key, value"), setting)
    pending = {text_id for _, _, text_id, _ in PENDING}
    texts = [
        *((m[0], "message", m[3], 1, m[6]) for m in MESSAGES if m[8] and m[3] not in pending),
        *((m[0], "memory", m[1], m[2], m[3]) for m in MEMORIES if m[8] is None),
    ]
    for agent, source, text_id, version, text in texts:
        vector = embedder.embed_passages([text])[0]
        connection.execute(
            _insert(
                "vectors",
                "agent, source, id, version, number, first_char, last_char, embedding",
            ),
            (agent, source, text_id, version, 0, 0, len(text), vector),
        )


def _insert(table: str, columns: str) -> str:
    places = ", ".join(f"${number}" for number in range(1, columns.count(",") + 2))
    return f"INSERT INTO {table} ({columns}) VALUES ({places})"


if __name__ == "__main__":
    main()
