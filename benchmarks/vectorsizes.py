"""How many vectors a database holds of what, read from its file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb

FLOAT_BYTES = 4


def stored_vectors(db: Path) -> Mapping[str, tuple[int, int]]:
    """Return by what they are of (`message`, `window`, ...) the vectors and their bytes.

    No server may have the database open. Without any vector there is nothing.
    """
    with duckdb.connect(str(db), read_only=True) as connection:
        found = connection.execute(
            "SELECT 1 FROM duckdb_tables() WHERE table_name = 'vectors'"
        ).fetchone()
        if found is None:
            return {}
        rows = connection.execute(
            "SELECT source, count(*), sum(len(embedding)) FROM vectors GROUP BY source"
        ).fetchall()
    return {
        str(source): (int(count), int(numbers) * FLOAT_BYTES) for source, count, numbers in rows
    }
