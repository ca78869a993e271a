"""Token counts that are kept with their texts, brought in line with the tokenizer that is set."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.store.duckdb import Database
from mcp_memory.values.render import render_turn

logger = logging.getLogger(__name__)

FIRST_TOKENIZER: Final = "o200k_base"
"""What databases were counted with, if they don't say."""

_KEY: Final = "tokenizer"
_ROWS_AT_ONCE: Final = 1_024

_TABLES: Final[dict[str, tuple[str, Callable[..., str]]]] = {
    "blocks": ("value", str),
    "messages": ("role, name, content", render_turn),
    "summaries": ("content", str),
    "memories": ("content", str),
}
"""By table the columns that are counted, and what makes of them the text that is."""


def recount(database: Database, tokenizer: Tokenizer) -> int:
    """Count every text anew if another tokenizer has counted them; return how many.

    While it goes on no tokenizer is named: what is cut short begins anew at the next start,
    whichever is set then.

    Raises:
        StorageFault: The database can't be read or written.
    """
    rows = database.read("SELECT value FROM settings WHERE key = $1", _KEY)
    if (rows[0][0] if rows else FIRST_TOKENIZER) == tokenizer.name:
        return 0
    logger.warning("tokens are counted anew with %s, which may take a while", tokenizer.name)
    _name(database, "")
    done = sum(_recount(database, tokenizer, table) for table in _TABLES)
    _name(database, tokenizer.name)
    if done:
        logger.warning("the tokens of %d texts were counted anew", done)
    return done


def _name(database: Database, tokenizer: str) -> None:
    with database.transaction() as tx:
        tx.run(
            "INSERT INTO settings VALUES ($1, $2)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            _KEY,
            tokenizer,
        )


def _recount(database: Database, tokenizer: Tokenizer, table: str) -> int:
    columns, text_of = _TABLES[table]
    (end,) = database.read(f"SELECT coalesce(max(rowid) + 1, 0) FROM {table}")[0]
    done = 0
    for first in range(0, end, _ROWS_AT_ONCE):
        rows = database.read(
            f"SELECT rowid, {columns} FROM {table} WHERE rowid >= $1 AND rowid < $2",
            first,
            first + _ROWS_AT_ONCE,
        )
        if rows:
            counts = [tokenizer.count(text_of(*parts)) for _, *parts in rows]
            with database.transaction() as tx:
                tx.run(
                    f"UPDATE {table} AS t SET tokens = k.tokens"
                    " FROM (SELECT unnest($1) AS row, unnest($2) AS tokens) AS k"
                    " WHERE t.rowid = k.row",
                    [row for row, *_ in rows],
                    counts,
                )
        done += len(rows)
    return done
