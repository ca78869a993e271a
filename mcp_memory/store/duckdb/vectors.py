"""The vectors of messages and memories, and which of them are still to be computed.

The table is made when a model is first used, because its dimension is the
model's. A text whose vectors are not there yet is listed as pending, in the
same transaction that stores the text.

Vectors follow from the text, so that a reply need not wait until they are
written: with `behind` they are held for a moment and written together. After a
crash in this moment `lost` finds the texts that have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from mcp_memory.store.duckdb.database import Database, Transaction
from mcp_memory.store.duckdb.stored import StoredVectors, read_blocks
from mcp_memory.values.errors import ModelMismatch

Source = Literal["message", "memory", "window"]
"""What a vector is of; a window is a message with those before it."""
Range = tuple[int, int]
Vectors = NDArray[np.float32]

_MODEL: Final = "embedding_model"
_FINGERPRINT: Final = "embedding_sha256"
_DIMENSION: Final = "embedding_dimension"


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """Which model made the vectors; `fingerprint` is the sha256 of its file."""

    name: str
    fingerprint: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A text whose vectors are to be computed."""

    agent: str
    source: Source
    id: str
    version: int


class VectorStore:
    """The tables of vectors and of pending texts."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self.behind: Callable[[], None] | None = None
        """Called when vectors were held: whoever sets it has to call `write_held` soon."""
        self._held: dict[tuple[str, Source, str], tuple[int, Sequence[Range], Vectors]] = {}

    def model(self) -> ModelRecord | None:
        """Return the model that this database is made with, None before the first one."""
        rows: dict[str, str] = dict(
            self._db.read("SELECT key, value FROM settings WHERE key LIKE 'embedding_%'")
        )
        if _MODEL not in rows:
            return None
        return ModelRecord(rows[_MODEL], rows[_FINGERPRINT], int(rows[_DIMENSION]))

    def check_name(self, name: str) -> None:
        """Check by name alone, before its files are there, that a model fits this database.

        Raises:
            ModelMismatch: The vectors were made by another model.
        """
        stored = self.model()
        if stored is not None and stored.name != name:
            raise ModelMismatch(stored=stored.name, wanted=name)

    def adopt(self, model: ModelRecord) -> None:
        """Make this the model of the database, if it has none yet.

        Raises:
            ModelMismatch: The vectors were made by another model, or another file of it.
        """
        stored = self.model()
        if stored is None:
            with self._db.transaction() as tx:
                _record(tx, model)
        elif stored != model:
            raise ModelMismatch(stored=_describe(stored), wanted=_describe(model))

    def replace_model(self, model: ModelRecord) -> None:
        """Drop every vector, take another model, and list every current text as pending."""
        self.drop_held()
        with self._db.transaction() as tx:
            tx.run("DROP TABLE IF EXISTS vectors")
            _record(tx, model)
            tx.run("DELETE FROM pending_vectors")
            tx.run(
                "INSERT INTO pending_vectors"
                " SELECT agent, 'memory', id, version FROM memories WHERE retired_at IS NULL"
                " UNION ALL SELECT agent, 'message', id, 1 FROM messages WHERE searchable"
            )

    def keep(self, texts: Sequence[tuple[Pending, Sequence[Range], Vectors]]) -> None:
        """Keep the vectors (n, dim) of texts that are stored already, each with its ranges."""
        if self.behind is None:
            with self._db.transaction() as tx:
                self.write_all(tx, texts)
        elif texts:
            for text in texts:
                self.hold(*text)
            self.behind()

    def hold(self, item: Pending, ranges: Sequence[Range], vectors: Vectors) -> None:
        """Keep vectors of a text that is stored already until `write_held`."""
        self._held[item.agent, item.source, item.id] = (item.version, ranges, vectors)

    def write(
        self,
        tx: Transaction,
        item: Pending,
        ranges: Sequence[Range],
        vectors: Vectors,
        first: int = 0,
    ) -> None:
        """Write vectors `first` and up of a text."""
        tx.insert(
            "INSERT INTO vectors VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            *(
                (item.agent, item.source, item.id, item.version, number, start, end, vector)
                for number, ((start, end), vector) in enumerate(
                    zip(ranges, vectors, strict=True), first
                )
            ),
        )

    def write_all(
        self, tx: Transaction, texts: Sequence[tuple[Pending, Sequence[Range], Vectors]]
    ) -> None:
        """Write all vectors of several texts."""
        rows = [
            (item.agent, item.source, item.id, item.version, number, start, end, vector)
            for item, ranges, vectors in texts
            # As lists: the driver reads an array number by number.
            for number, ((start, end), vector) in enumerate(
                zip(ranges, vectors.tolist(), strict=True)
            )
        ]
        if rows:
            dimension = texts[0][2].shape[1]
            tx.insert_many("vectors", rows, {8: f"float[{int(dimension)}][]"})

    @property
    def holds(self) -> bool:
        """Whether vectors are held that have to be written."""
        return bool(self._held)

    def write_held(self) -> int:
        """Write the vectors that were held, and return of how many texts."""
        held = tuple(self._held.items())
        if held:
            with self._db.transaction() as tx:
                self.write_all(
                    tx,
                    [
                        (Pending(*key, version), ranges, vectors)
                        for key, (version, ranges, vectors) in held
                    ],
                )
            for key, item in held:
                if self._held.get(key) is item:
                    del self._held[key]
        return len(held)

    def lost(self) -> list[Pending]:
        """Return the texts that have no vectors and are not listed as pending.

        Those whose vectors are held are among them.
        """
        if self.model() is None:
            return []
        return [
            Pending(*row)
            for row in self._db.read(
                "SELECT * FROM"
                " (SELECT agent, 'memory' AS source, id, version FROM memories"
                "  WHERE retired_at IS NULL"
                "  UNION ALL SELECT agent, 'message', id, 1 FROM messages WHERE searchable) AS t"
                " WHERE NOT EXISTS (SELECT 1 FROM vectors AS v WHERE v.agent = t.agent"
                "  AND v.source = t.source AND v.id = t.id AND v.version = t.version)"
                " AND NOT EXISTS (SELECT 1 FROM pending_vectors AS p WHERE p.agent = t.agent"
                "  AND p.source = t.source AND p.id = t.id AND p.version = t.version)"
            )
        ]

    def without_window(self) -> list[tuple[str, str, int]]:
        """Return the messages without a window, newest first: agent, conversation, position."""
        if self.model() is None:
            return []
        rows = self._db.read(
            "SELECT agent, conversation, position, id FROM messages AS m WHERE searchable"
            " AND NOT EXISTS (SELECT 1 FROM vectors AS v WHERE v.agent = m.agent"
            "  AND v.source = 'window' AND v.id = m.id) ORDER BY recorded_at DESC"
        )
        return [tuple(row[:3]) for row in rows if (row[0], "window", row[3]) not in self._held]

    def list_lost(self, items: Sequence[Pending]) -> int:
        """List those texts as pending that still have no vectors, and return how many."""
        missing = [
            item
            for item in items
            if (item.agent, item.source, item.id) not in self._held and not self.saved_count(item)
        ]
        if missing:
            with self._db.transaction() as tx:
                self.defer(tx, missing)
        return len(missing)

    def drop_held(self) -> None:
        """Forget what was held, for a database that has been opened anew."""
        self._held.clear()

    def saved_count(self, item: Pending) -> int:
        """Return how many vectors of a pending text are there from a run that was cut short."""
        return int(
            self._db.read(
                "SELECT count(*) FROM vectors"
                " WHERE agent = $1 AND source = $2 AND id = $3 AND version = $4",
                item.agent,
                item.source,
                item.id,
                item.version,
            )[0][0]
        )

    def save_part(
        self,
        item: Pending,
        first: int,
        ranges: Sequence[Range],
        vectors: Vectors,
        *,
        last: bool,
    ) -> None:
        """Keep vectors `first` and up of a pending text; with the last ones it is done."""
        with self._db.transaction() as tx:
            self.write(tx, item, ranges, vectors, first)
            if last:
                self.settle(tx, [item])

    def defer(self, tx: Transaction, items: Sequence[Pending]) -> None:
        """List texts as pending."""
        tx.insert_many("pending_vectors", [_columns(item) for item in items])

    def settle(self, tx: Transaction, items: Sequence[Pending]) -> None:
        """Take texts off the pending list, these versions alone."""
        self._delete(tx, "pending_vectors", items)

    def drop_parts(self, tx: Transaction, items: Sequence[Pending]) -> None:
        """Drop what a run that was cut short has left of these versions of texts."""
        self._delete(tx, "vectors", items)

    def _delete(self, tx: Transaction, table: str, items: Sequence[Pending]) -> None:
        if items:
            columns = zip(*map(_columns, items), strict=True)
            tx.run(
                f"DELETE FROM {table} AS t USING (SELECT unnest($1) AS agent,"  # noqa: S608  ours
                " unnest($2) AS source, unnest($3) AS id, unnest($4) AS version) AS k"
                " WHERE t.agent = k.agent AND t.source = k.source AND t.id = k.id"
                " AND t.version = k.version",
                *map(list, columns),
            )

    def forget(self, tx: Transaction, agent: str, source: Source, text_id: str) -> None:
        """Drop the vectors of every version of a text, and take it off the pending list."""

        def drop() -> None:
            self._held.pop((agent, source, text_id), None)

        tx.on_commit(drop)
        if self.model() is not None:
            tx.run(
                "DELETE FROM vectors WHERE agent = $1 AND source = $2 AND id = $3",
                agent,
                source,
                text_id,
            )
        tx.run(
            "DELETE FROM pending_vectors WHERE agent = $1 AND source = $2 AND id = $3",
            agent,
            source,
            text_id,
        )

    def is_pending(self, agent: str, source: Source, text_id: str) -> bool:
        """Return whether a text has no vectors yet."""
        return bool(
            self._db.read(
                "SELECT 1 FROM pending_vectors WHERE agent = $1 AND source = $2 AND id = $3",
                agent,
                source,
                text_id,
            )
        )

    def pending_count(self, agent: str | None = None) -> int:
        """Return how many texts have no vectors yet, of one agent or of all."""
        return int(
            self._db.read(
                "SELECT count(*) FROM pending_vectors WHERE CAST($1 AS text) IS NULL OR agent = $1",
                agent,
            )[0][0]
        )

    def pending(self, limit: int) -> list[Pending]:
        """Return some texts that have no vectors yet."""
        return [
            Pending(*row)
            for row in self._db.read(
                "SELECT agent, source, id, version FROM pending_vectors LIMIT $1", limit
            )
        ]

    def blocks(self, agent: str, source: Source) -> Iterator[StoredVectors]:
        """Give all vectors of an agent's texts, block by block; see `read_blocks`.

        Those that are not yet written come first, all at once.
        """
        held = [
            (text_id, number, span, vector)
            for (owner, kind, text_id), (_, ranges, vectors) in self._held.items()
            if (owner, kind) == (agent, source)
            for number, (span, vector) in enumerate(zip(ranges, vectors, strict=True))
        ]
        if held:
            ids, numbers, ranges, vectors = zip(*held, strict=True)
            spans = np.asarray(ranges, dtype=np.int32)
            yield StoredVectors(
                list(ids),
                np.asarray(numbers, dtype=np.int32),
                spans[:, 0],
                spans[:, 1],
                np.stack(vectors),
            )
        if self.model() is not None:
            yield from read_blocks(self._db, agent, source)


def _columns(item: Pending) -> tuple[str, str, str, int]:
    return item.agent, item.source, item.id, item.version


def _record(tx: Transaction, model: ModelRecord) -> None:
    tx.run(
        "CREATE TABLE vectors ("
        " agent text NOT NULL, source text NOT NULL, id text NOT NULL, version integer NOT NULL,"
        " number integer NOT NULL, first_char integer NOT NULL, last_char integer NOT NULL,"
        f" embedding float[{int(model.dimension)}] NOT NULL)"
    )
    for key, value in (
        (_MODEL, model.name),
        (_FINGERPRINT, model.fingerprint),
        (_DIMENSION, str(model.dimension)),
    ):
        tx.run(
            "INSERT INTO settings VALUES ($1, $2)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            key,
            value,
        )


def _describe(model: ModelRecord) -> str:
    return f"{model.name} ({model.dimension} dimensions, file {model.fingerprint[:12]})"


__all__ = ["ModelRecord", "Pending", "Source", "StoredVectors", "VectorStore"]
