"""Counts the tokens of stored texts again for another tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from mcp_memory.store.duckdb.database import Database
from mcp_memory.store.duckdb.values import DuckDBKeyValues
from mcp_memory.values.render import counted_turn

logger = logging.getLogger(__name__)

FIRST_TOKENIZER: Final = "o200k_base"
"""The tokenizer of databases that don't name one."""

_KEY: Final = "tokenizer"
_ROWS_AT_ONCE: Final = 1_024
"""Rows a transaction; by judgement."""

_TABLES: Final[dict[str, tuple[str, Callable[..., str]]]] = {
    "blocks": ("value", str),
    "messages": ("role, name, content", counted_turn),
    "summaries": ("content", str),
    "memories": ("content", str),
}
"""By table, the columns that are counted, and how the counted text is built from them."""


def recount(database: Database, count: Callable[[str], int], tokenizer: str) -> int:
    """Count every text again if another tokenizer has counted them; return their number.

    While this runs, the database names no tokenizer: if it is interrupted, the next start
    counts everything again, with the tokenizer of that moment.

    Raises:
        StorageFault: The database can't be read or written.
    """
    values = DuckDBKeyValues(database)
    if (values.get(_KEY) or FIRST_TOKENIZER) == tokenizer and values.get(_KEY) != "":
        return 0
    logger.warning("counting tokens again with %s, which may take a while", tokenizer)
    with database.transaction() as tx:
        values.put(tx, _KEY, "")
    done = sum(_recount(database, count, table) for table in _TABLES)
    with database.transaction() as tx:
        values.put(tx, _KEY, tokenizer)
    if done:
        logger.warning("counted the tokens of %d texts again", done)
    return done


def _recount(database: Database, count: Callable[[str], int], table: str) -> int:
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
            counts = [count(text_of(*parts)) for _, *parts in rows]
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
