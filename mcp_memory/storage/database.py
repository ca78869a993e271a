"""One DuckDB file: many readers, one writer, errors in our words.

Nothing else opens the file: a plain `open()` of it in this process would drop
the lock that keeps other processes out.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from mcp_memory.errors import DatabaseCorrupt, StorageFault
from mcp_memory.storage.faults import translate
from mcp_memory.storage.migrations import migrate

Row = tuple[Any, ...]

CONFIG: Final[dict[str, str | bool | int | float | list[str]]] = {
    # No extension is ever fetched: only the package registries can be relied on.
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # A statement of one row is done before a second thread has heard of it.
    "threads": 1,
    "memory_limit": "1GB",
}
"""With what the driver opens a database, whoever does it."""

_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


class Transaction:
    """Statements that are kept together or not at all."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, parsed: dict[str, duckdb.Statement]
    ) -> None:
        self._connection = connection
        self._parsed = parsed
        self._afterwards: list[Callable[[], None]] = []

    def on_commit(self, call: Callable[[], None]) -> None:
        """Do something once this is committed, and never if it isn't."""
        self._afterwards.append(call)

    def committed(self) -> None:
        """Do what was put off until the commit."""
        for call in self._afterwards:
            call()

    def run(self, sql: str, *values: object) -> list[Row]:
        """Execute one statement and return its rows, if it has any."""
        self._connection.execute("PRAGMA enable_optimizer")
        rows = self._connection.execute(sql, values).fetchall()
        self._connection.execute("PRAGMA disable_optimizer")
        return rows

    def insert(self, sql: str, *rows: Sequence[object]) -> None:
        """Execute an `INSERT … VALUES` for each row of values.

        There is nothing to optimize in it, and the optimizer takes half of its time.
        """
        statement = self._parsed.get(sql)
        if statement is None:
            statement = self._parsed[sql] = self._connection.extract_statements(sql)[0]
        if len(rows) > 1:
            self._connection.executemany(statement, rows)
        elif rows:
            self._connection.execute(statement, rows[0])


class Database:
    """A database file of the present schema, open for this process alone.

    Safe to use from several threads: each reads through a cursor of its own,
    and writers take turns.
    """

    def __init__(self, path: Path | None) -> None:
        """Open `path`, make it if it is missing, and bring it to the present schema.

        Args:
            path: The file; None for a database in memory.

        Raises:
            StorageFault: It is locked, corrupt, of a newer version or can't be written.
        """
        self.path = ":memory:" if path is None else str(path)
        self.generation = 0
        """Counts up whenever the file had to be opened again; caches of before are void."""
        self.on_reopened: Callable[[], None] | None = None
        """Called after that: the file may be another one, such as a backup that was restored."""
        self._write = threading.RLock()
        self._local = threading.local()
        self._cursors: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
        self._broken = False
        self._closed = False
        self._parsed: dict[str, duckdb.Statement] = {}
        self._opened: tuple[int, int] | None = None
        """Which file was opened; by the path it may be another one later."""
        if path is not None:
            _prepare(path)
        self._connection = self._connect()

    def read(self, sql: str, *values: object) -> list[Row]:
        """Return the rows of a query, of the state that was last committed.

        Raises:
            StorageFault: The driver could not read it.
        """
        try:
            return self._cursor().execute(sql, values).fetchall()
        except duckdb.Error as error:
            raise self._fault(error) from error

    def read_columns(self, sql: str, *values: object) -> dict[str, NDArray[Any]]:
        """Return the columns of a query by name, for results of many rows.

        Raises:
            StorageFault: The driver could not read it.
        """
        try:
            columns: dict[str, NDArray[Any]] = self._cursor().execute(sql, values).fetchnumpy()
        except duckdb.Error as error:
            raise self._fault(error) from error
        return {name: np.asarray(column) for name, column in columns.items()}

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Hold the writer's place; commit at the end, or roll back on any exception.

        What is left without an exception is durable.

        Raises:
            StorageFault: The driver could not write; nothing of it was kept.
        """
        with self._write:
            if self._revive():
                # What the caller has prepared was read from the old one.
                raise StorageFault(
                    f"the database {self.path} was replaced while it was open: nothing was stored",
                    hint="Repeat the call; from now on the new one is used",
                )
            connection = self._connection
            try:
                connection.begin()
                transaction = Transaction(connection, self._parsed)
                yield transaction
                connection.commit()
                self._keep_private()
                transaction.committed()
            except duckdb.Error as error:
                self._roll_back(connection)
                raise self._fault(error) from error
            except BaseException:
                self._roll_back(connection)
                raise

    def checkpoint(self) -> None:
        """Move everything from the write-ahead log into the database file."""
        with self._write:
            self._revive()
            try:
                self._connection.execute("CHECKPOINT")
            except duckdb.Error as error:
                raise self._fault(error) from error

    def close(self) -> None:
        """Close the file; what was committed is in it. Closing again does nothing."""
        with self._write:
            if not self._closed:
                self._closed = True
                self._connection.close()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        try:
            connection = duckdb.connect(self.path, config=CONFIG)
        except duckdb.Error as error:
            raise translate(error, self.path) from error
        try:
            connection.execute("SET TimeZone = 'UTC'")
            if migrate(connection, self.path):
                connection.execute("CHECKPOINT")
        except duckdb.Error as error:
            connection.close()
            raise translate(error, self.path) from error
        except BaseException:
            connection.close()
            raise
        # Only writes go through it; see Transaction.
        connection.execute("PRAGMA disable_optimizer")
        self._parsed = {}
        self._keep_private()
        self._opened = self._identity()
        return connection

    def _keep_private(self) -> None:
        """Let no other user read the file, or the log beside it, which a commit may have made."""
        if self.path == ":memory:" or os.name != "posix":
            return
        for path in (self.path, f"{self.path}.wal"):
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_mode & 0o077:
                    os.chmod(path, _FILE_MODE)

    def _identity(self) -> tuple[int, int] | None:
        # Only the metadata is read: opening the file would drop the driver's lock.
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        if self._broken:
            with self._write:
                self._revive()
        held: tuple[int, duckdb.DuckDBPyConnection] | None = getattr(self._local, "held", None)
        if held is None or held[0] != self.generation:
            if self._closed:
                raise StorageFault("the database is closed", hint="Start the server again")
            with self._write:
                held = (self.generation, self._connection.cursor())
                self._cursors.add(held[1])
            self._local.held = held
        return held[1]

    def _roll_back(self, connection: duckdb.DuckDBPyConnection) -> None:
        try:
            connection.rollback()
        except duckdb.TransactionException:
            pass  # The driver has rolled back by itself.
        except duckdb.Error:
            self._broken = True

    def _fault(self, error: duckdb.Error) -> StorageFault:
        fault = translate(error, self.path)
        # After a fatal error every statement fails until the file is opened again;
        # all that was acknowledged is there then. A damaged file may have been replaced.
        fatal = isinstance(error, duckdb.FatalException | duckdb.InternalException)
        if fatal or isinstance(fault, DatabaseCorrupt):
            self._broken = True
        return fault if isinstance(fault, StorageFault) else StorageFault(str(fault))

    def _revive(self) -> bool:
        """Open the file again if it has to be; return whether it is another one now."""
        if self._closed:
            raise StorageFault("the database is closed", hint="Start the server again")
        if self.path == ":memory:":
            return False
        present = self._identity()
        replaced = present != self._opened
        if self._broken or replaced:
            self._broken = True
            if present is None:
                # A new one in its place would be in the way of whoever is restoring a backup.
                raise StorageFault(
                    f"the database {self.path} was moved away or deleted while it was open:"
                    " nothing was stored",
                    hint="Put it back, or close all clients to begin with an empty one",
                )
            with contextlib.suppress(duckdb.Error):
                # The log holds what was acknowledged; by now it may be another file's.
                self._connection.execute("PRAGMA disable_checkpoint_on_shutdown")
            # While one cursor is left, the driver keeps the file as it was open, and its lock.
            for connection in (*self._cursors, self._connection):
                with contextlib.suppress(duckdb.Error):
                    connection.close()
            self._connection = self._connect()
            self._broken = False
            self.generation += 1
            if self.on_reopened is not None:
                self.on_reopened()
        return replaced


def _prepare(path: Path) -> None:
    """Make the folder of the database, private, if it is missing."""
    try:
        path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        if path.is_dir():
            raise StorageFault(
                f"{path} is a folder, not a database",
                hint="Set MCP_MEMORY_DB to the path of a file",
            )
    except OSError as error:
        raise StorageFault(
            f"the folder {path.parent} can't be made: {error.strerror}",
            hint="Set MCP_MEMORY_DB to a file in a folder that you can write to",
        ) from error
