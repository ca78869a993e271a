"""The vectors of messages and memories, and the list of texts that still need theirs.

The table is created when a model is first used, because it has the model's dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.store.duckdb.database import Database
from mcp_memory.store.duckdb.transaction import Transaction, transaction_of
from mcp_memory.store.ports import (
    ModelRecord,
    Pending,
    Source,
    TextVectors,
    UnitOfWork,
    VectorBlock,
)

BLOCK_ROWS: Final = 16_384
"""Vectors read at once, by judgement: a million would not fit in memory."""

_MODEL: Final = "embedding_model"
_FINGERPRINT: Final = "embedding_sha256"
_DIMENSION: Final = "embedding_dimension"

_COLUMNS: Final = "agent, source, id, version, number, first_char, last_char, embedding, seq"
_EMBEDDING: Final = 8
"""The place of the vector among `_COLUMNS`."""

_BLOCK_COLUMNS: Final = "id, number, first_char, last_char, embedding"
SEARCHABLE: Final = (
    "SELECT agent, 'memory' AS source, id, version FROM memories WHERE retired_at IS NULL"
    " UNION ALL SELECT agent, 'message', id, 1 FROM messages WHERE searchable"
)
"""The current version of each text that can be found."""


class DuckDBVectors:
    """The tables of vectors and of pending texts."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def model(self) -> ModelRecord | None:
        """Return the model that computed the vectors, None before the first one."""
        rows: dict[str, str] = dict(
            self._db.read("SELECT key, value FROM settings WHERE key LIKE 'embedding_%'")
        )
        if _MODEL not in rows:
            return None
        return ModelRecord(rows[_MODEL], rows[_FINGERPRINT], int(rows[_DIMENSION]))

    def set_model(self, unit: UnitOfWork, model: ModelRecord) -> None:
        """Make room for vectors of this model; the vectors of another are dropped."""
        tx = transaction_of(unit)
        if self.model() is not None:
            # Their change numbers are deleted too; see `agents` in migrations.py.
            tx.run(
                "INSERT INTO agents (agent, seq) SELECT agent, max(seq) FROM vectors GROUP BY agent"
                " ON CONFLICT (agent) DO UPDATE SET seq = greatest(agents.seq, excluded.seq)"
            )
        tx.run("DROP TABLE IF EXISTS vectors")
        tx.run(
            "CREATE TABLE vectors (agent text NOT NULL, source text NOT NULL, id text NOT NULL,"
            " version integer NOT NULL, number integer NOT NULL, first_char integer NOT NULL,"
            " last_char integer NOT NULL,"
            f" embedding float[{int(model.dimension)}] NOT NULL, seq bigint)"
        )
        for key, value in (
            (_MODEL, model.name),
            (_FINGERPRINT, model.fingerprint),
            (_DIMENSION, str(model.dimension)),
        ):
            tx.run(
                "INSERT INTO settings (key, value) VALUES ($1, $2)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                key,
                value,
            )

    def insert(
        self, unit: UnitOfWork, texts: Sequence[TextVectors], *, known: bool = False
    ) -> None:
        """Write vectors."""
        if not texts:
            return
        tx = transaction_of(unit)
        rows: list[tuple[object, ...]] = []
        for text in texts:
            item = text.item
            seq = tx.note(item.agent, "vectors", [] if known else [text])
            # As lists: the driver reads an array number by number.
            pairs = zip(text.ranges, text.vectors.tolist(), strict=True)
            for number, ((start, end), vector) in enumerate(pairs, text.first):
                about = (item.agent, item.source, item.id, item.version)
                rows.append((*about, number, start, end, vector, seq))
        dimension = int(texts[0].vectors.shape[1])
        tx.insert("vectors", _COLUMNS, rows, {_EMBEDDING: f"float[{dimension}][]"})

    def count(self, item: Pending) -> int:
        """Return the number of stored vectors of this version of a text."""
        rows = self._db.read(
            "SELECT count(*) FROM vectors"
            " WHERE agent = $1 AND source = $2 AND id = $3 AND version = $4",
            *_key(item),
        )
        return int(rows[0][0])

    def delete(self, unit: UnitOfWork, items: Sequence[Pending]) -> None:
        """Delete the vectors of these versions of texts."""
        _delete(transaction_of(unit), "vectors", items)

    def delete_text(self, unit: UnitOfWork, agent: str, source: Source, text_id: str) -> None:
        """Delete the vectors of every version of a text, and its pending entries."""
        tx = transaction_of(unit)
        tables = ("pending_vectors",) if self.model() is None else ("pending_vectors", "vectors")
        for table in tables:
            tx.run(
                f"DELETE FROM {table} WHERE agent = $1 AND source = $2 AND id = $3",
                agent,
                source,
                text_id,
            )

    def blocks(self, agent: str, source: Source, upto: int) -> Iterator[VectorBlock]:
        """Yield all vectors of an agent's texts up to a change number, block by block.

        The driver moves rows when others are deleted: rows moved meanwhile are read at
        the end.
        """
        if self.model() is None:
            return
        last = self._db.read("SELECT max(rowid) FROM vectors")[0][0]
        read: set[str] = set()
        for first in range(0, -1 if last is None else int(last) + 1, BLOCK_ROWS):
            columns = self._db.read_columns(
                f"SELECT {_BLOCK_COLUMNS} FROM vectors WHERE agent = $1 AND source = $2"
                " AND seq <= $3 AND rowid >= $4 AND rowid < $5",
                agent,
                source,
                upto,
                first,
                first + BLOCK_ROWS,
            )
            if len(columns["id"]):
                block = _block(columns)
                read.update(block.ids)
                yield block
        ids = self._db.read_columns(
            "SELECT DISTINCT id FROM vectors WHERE agent = $1 AND source = $2 AND seq <= $3",
            agent,
            source,
            upto,
        )["id"].tolist()
        missing = [text_id for text_id in ids if text_id not in read]
        for first in range(0, len(missing), BLOCK_ROWS):
            columns = self._db.read_columns(
                f"SELECT {_BLOCK_COLUMNS} FROM vectors"
                " JOIN (SELECT unnest(CAST($4 AS text[])) AS k) AS keys ON id = k"
                " WHERE agent = $1 AND source = $2 AND seq <= $3 ORDER BY id, number",
                agent,
                source,
                upto,
                missing[first : first + BLOCK_ROWS],
            )
            if len(columns["id"]):
                yield _block(columns)

    def defer(self, unit: UnitOfWork, items: Sequence[Pending]) -> None:
        """List texts as pending."""
        transaction_of(unit).insert(
            "pending_vectors", "agent, source, id, version", [_key(item) for item in items]
        )

    def settle(self, unit: UnitOfWork, items: Sequence[Pending]) -> None:
        """Remove these versions of texts from the pending list."""
        _delete(transaction_of(unit), "pending_vectors", items)

    def defer_all(self, unit: UnitOfWork) -> None:
        """List every searchable text as pending, and nothing else."""
        tx = transaction_of(unit)
        tx.run("DELETE FROM pending_vectors")
        tx.run(f"INSERT INTO pending_vectors (agent, source, id, version) {SEARCHABLE}")

    def pending(self, limit: int) -> list[Pending]:
        """Return some pending texts."""
        rows = self._db.read(
            "SELECT agent, source, id, version FROM pending_vectors LIMIT $1", limit
        )
        return [Pending(*row) for row in rows]

    def is_pending(self, agent: str, source: Source, text_id: str) -> bool:
        """Return whether a text is pending."""
        return bool(
            self._db.read(
                "SELECT 1 FROM pending_vectors WHERE agent = $1 AND source = $2 AND id = $3",
                agent,
                source,
                text_id,
            )
        )

    def pending_count(self, agent: str | None = None) -> int:
        """Return the number of pending texts, of one agent or of all."""
        rows = self._db.read(
            "SELECT count(*) FROM pending_vectors WHERE CAST($1 AS text) IS NULL OR agent = $1",
            agent,
        )
        return int(rows[0][0])

    def lost(self) -> list[Pending]:
        """Return the texts that have no vectors and are not listed as pending."""
        if self.model() is None:
            return []
        rows = self._db.read(
            f"SELECT agent, source, id, version FROM ({SEARCHABLE}) AS t"
            " WHERE NOT EXISTS (SELECT 1 FROM vectors AS v WHERE v.agent = t.agent"
            "  AND v.source = t.source AND v.id = t.id AND v.version = t.version)"
            " AND NOT EXISTS (SELECT 1 FROM pending_vectors AS p WHERE p.agent = t.agent"
            "  AND p.source = t.source AND p.id = t.id AND p.version = t.version)"
        )
        return [Pending(*row) for row in rows]

    def without_window(self) -> list[tuple[str, str, int, str]]:
        """Return the messages without window vectors, newest first."""
        if self.model() is None:
            return []
        rows = self._db.read(
            "SELECT agent, conversation, position, id FROM messages AS m WHERE searchable"
            " AND NOT EXISTS (SELECT 1 FROM vectors AS v WHERE v.agent = m.agent"
            "  AND v.source = 'window' AND v.id = m.id) ORDER BY recorded_at DESC"
        )
        return [(row[0], row[1], row[2], row[3]) for row in rows]

    def changed(self, agent: str, after: int) -> list[tuple[int, TextVectors]]:
        """Return the vectors above a change number, each text's part with its own number."""
        if self.model() is None:
            return []
        columns = self._db.read_columns(
            f"SELECT source, version, seq, {_BLOCK_COLUMNS} FROM vectors"
            " WHERE agent = $1 AND seq > $2 ORDER BY seq, source, id, version, number",
            agent,
            after,
        )
        if not len(columns["id"]):
            return []
        block = _block(columns)
        sources, versions = columns["source"].tolist(), columns["version"].tolist()
        keys = list(zip(columns["seq"].tolist(), sources, block.ids, versions, strict=True))
        found: list[tuple[int, TextVectors]] = []
        first = 0
        for end in range(1, len(keys) + 1):
            if end < len(keys) and keys[end] == keys[first]:
                continue
            seq, source, text_id, version = keys[first]
            spans = zip(
                block.starts[first:end].tolist(), block.ends[first:end].tolist(), strict=True
            )
            found.append(
                (
                    seq,
                    TextVectors(
                        Pending(agent, source, text_id, version),
                        list(spans),
                        block.vectors[first:end],
                        int(block.numbers[first]),
                    ),
                )
            )
            first = end
        return found


def _key(item: Pending) -> tuple[str, str, str, int]:
    return item.agent, item.source, item.id, item.version


def _delete(tx: Transaction, table: str, items: Sequence[Pending]) -> None:
    if items:
        columns = zip(*map(_key, items), strict=True)
        tx.run(
            f"DELETE FROM {table} AS t USING (SELECT unnest($1) AS agent,"
            " unnest($2) AS source, unnest($3) AS id, unnest($4) AS version) AS k"
            " WHERE t.agent = k.agent AND t.source = k.source AND t.id = k.id"
            " AND t.version = k.version",
            *map(list, columns),
        )


def _block(columns: Mapping[str, NDArray[Any]]) -> VectorBlock:
    """Return the rows of a query of `_BLOCK_COLUMNS`, at least one."""
    return VectorBlock(
        ids=columns["id"].tolist(),
        numbers=columns["number"].astype(np.int32),
        starts=columns["first_char"].astype(np.int32),
        ends=columns["last_char"].astype(np.int32),
        vectors=np.stack(list(columns["embedding"])).astype(np.float32, copy=False),
    )
