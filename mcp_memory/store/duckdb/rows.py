"""Helpers for all tables: filters as SQL, and reading many rows in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from mcp_memory.store.duckdb.database import Database, Row
from mcp_memory.values.dates import EPOCH
from mcp_memory.values.requests import Where

LIVE: Final = "seq <= $2 AND (retired_seq IS NULL OR retired_seq > $2)"
"""The versions that were current at change number $2."""

READ_ROWS: Final = 50_000
"""About how many texts are in memory at once while an index is loaded; by judgement."""

_LISTS: Final = frozenset({"tags"})
"""The columns with lists: one of the wanted values is enough."""


def conditions(where: Where, happened: str, values: list[object]) -> str:
    """Return a filter as SQL that begins with AND, and add its values.

    Args:
        happened: The column with the time that `start` and `end` are about.
        values: The statement's values; extended in place.
    """
    sql = ""
    for column, wanted in where.groups:
        values.append(list(wanted))
        operator = "&&" if column in _LISTS else "= ANY"
        sql += f" AND {column} {operator} (CAST(${len(values)} AS text[]))"
    for column, operator, moment in (
        (happened, ">=", where.start),
        (happened, "<", where.end),
        ("recorded_at", "<=", where.as_of),
    ):
        if moment is not None:
            values.append(moment)
            sql += f" AND {column} {operator} ${len(values)}"
    return sql


def from_microseconds(microseconds: int) -> datetime:
    """Return the moment a number of microseconds after 1970, in UTC."""
    return EPOCH + timedelta(microseconds=microseconds)


def read_in_order(
    database: Database,
    columns: str,
    source: str,
    values: Sequence[object],
    *,
    order: str,
) -> Iterator[Row]:
    """Yield rows in the order of `seq`, `recorded_at` and `order`, read in blocks.

    A block ends between two moments of recording, so that no row is read twice or left out.

    Args:
        columns: What is read.
        source: The table and its condition, after FROM.
        values: The values of the condition.
        order: More columns, for rows of one moment.
    """
    keys = database.read_columns(
        f"SELECT seq, epoch_us(recorded_at) AS recorded FROM {source} ORDER BY seq, recorded",
        *values,
    )
    total = len(keys["seq"])
    ends = [*range(READ_ROWS - 1, total, READ_ROWS), *([total - 1] if total else [])]
    bounds = dict.fromkeys((int(keys["seq"][at]), int(keys["recorded"][at])) for at in ends)
    after = (-1, 0)
    first = len(values) + 1
    for bound in bounds:
        block = database.read_columns(
            f"SELECT {columns} FROM {source}"
            f" AND (seq, epoch_us(recorded_at)) > (${first}, ${first + 1})"
            f" AND (seq, epoch_us(recorded_at)) <= (${first + 2}, ${first + 3})"
            f" ORDER BY seq, recorded_at, {order}",
            *values,
            *after,
            *bound,
        )
        yield from zip(*(column.tolist() for column in block.values()), strict=True)
        after = bound
